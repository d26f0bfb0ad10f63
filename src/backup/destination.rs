//! Where a backup may go.
//!
//! Invariant: a name is a destination only if neither it nor those it rotates to mean the source, a file beside the source, or
//! anything that is not a database.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use crate::beside::{Beside, directory_of, identity_of, with_ending};
use crate::error::{Detail, Error};

/// A name that a backup can take.
#[derive(Debug)]
pub(super) struct Destination {
    /// Links followed.
    pub(super) path: PathBuf,
    pub(super) directory: PathBuf,
    /// How many backups there are at most.
    pub(super) keep: u32,
}

/// What SQLite and this crate keep beside a database.
const BESIDE: [&str; 4] = ["-wal", "-journal", "-shm", "-guard"];

fn refused(path: &Path, cause: impl Into<String>, hint: &str) -> Error {
    let detail = Detail::of(path, ffi::SQLITE_CANTOPEN, cause.into());
    Detail { hint: Some(hint.to_owned()), ..detail }.into()
}

impl Destination {
    pub(super) fn of(named: &Path, source: &Path, keep: u32) -> Result<Destination, Error> {
        let destination = Destination { keep, ..Destination::anywhere(named)? };
        destination.is_not_the_source(source)?;
        for number in 0..keep {
            let path = destination.numbered(number);
            if number > 0 && std::fs::symlink_metadata(&path).is_err() {
                break;
            }
            is_free_or_a_backup(&path)?;
        }
        Ok(destination)
    }

    /// A name that a file can have, whatever is there.
    pub(super) fn anywhere(named: &Path) -> Result<Destination, Error> {
        if named.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(refused(named, "the name contains a zero byte, which no file name can", "choose another name"));
        }
        let Some(name) = named.file_name().map(OsString::from) else {
            return Err(refused(named, "it is not the name of a file", "name the file that the backup is to be"));
        };
        let found = match std::fs::symlink_metadata(named) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::of_file(named, "it cannot be looked at", &error)),
        };
        let path = if found.is_some_and(|found| found.is_symlink()) {
            std::fs::canonicalize(named).map_err(|error| {
                refused(named, format!("it is a link that leads nowhere: {error}"), "remove the link")
            })?
        } else {
            let parent = directory_of(named);
            let parent = std::fs::canonicalize(parent).map_err(|error| {
                refused(named, format!("there is no directory {}: {error}", parent.display()), "create it")
            })?;
            parent.join(name)
        };
        if path.is_dir() {
            return Err(refused(&path, "it is a directory", "name the file that it is to be"));
        }
        Ok(Destination { directory: directory_of(&path).to_owned(), path, keep: 1 })
    }

    /// The name of an older backup; 0 is the newest.
    pub(super) fn numbered(&self, number: u32) -> PathBuf {
        match number {
            0 => self.path.clone(),
            _ => with_ending(&self.path, &format!(".{number}")),
        }
    }

    fn is_not_the_source(&self, source: &Path) -> Result<(), Error> {
        if source.as_os_str().is_empty() {
            return Ok(());
        }
        let its_files: Vec<PathBuf> = BESIDE.iter().map(|ending| with_ending(source, ending)).collect();
        let identities: Vec<_> =
            its_files.iter().map(PathBuf::as_path).chain([source]).filter_map(|path| identity_of(path).ok()).collect();
        for number in 0..self.keep {
            let path = self.numbered(number);
            let same = identity_of(&path).is_ok_and(|found| identities.contains(&found));
            if same || its_files.contains(&path) || path == source {
                let what = if number == 0 { "it is" } else { "an older backup would become" };
                let cause = format!("{what} the database itself or a file of it ({})", source.display());
                return Err(refused(&path, cause, "choose another name"));
            }
            // What is missing ends the row: nothing is rotated beyond it.
            if number > 0 && std::fs::symlink_metadata(&path).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Whether nothing is lost if a backup takes this name.
fn is_free_or_a_backup(path: &Path) -> Result<(), Error> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return is_unused(path),
        Err(error) => return Err(Error::of_file(path, "it cannot be looked at", &error)),
    };
    if !found.is_file() {
        return Err(refused(path, "it is not a file", "choose another name"));
    }
    if found.len() > 0 && !is_database(path)? {
        return Err(refused(path, "there is a file of this name that is not a database", "choose another name"));
    }
    is_unused(path)
}

/// Whether a file begins as a database does.
pub(super) fn is_database(path: &Path) -> Result<bool, Error> {
    let mut start = [0; 16];
    let read = match Beside::open(path) {
        Ok(file) => file.read_at(&mut start, 0),
        // Nothing is open there that closing it could harm.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            use std::os::unix::fs::FileExt;
            std::fs::File::open(path).and_then(|file| file.read_at(&mut start, 0))
        }
        Err(error) => Err(error),
    };
    let read = read.map_err(|error| Error::of_file(path, "it cannot be read", &error))?;
    Ok(read == start.len() && start == *b"SQLite format 3\0")
}

/// Whether nobody has a log or journal of this name that would be taken for one of the backup's.
pub(super) fn is_unused(path: &Path) -> Result<(), Error> {
    for ending in ["-wal", "-journal"] {
        let beside = with_ending(path, ending);
        if std::fs::symlink_metadata(&beside).is_ok_and(|found| found.len() > 0) {
            let cause = format!("it is in use, or was left by a crash: there is {}", beside.display());
            let hint = Some("close it there, or open and close it once, then try again".to_owned());
            return Err(Detail { hint, ..Detail::of(path, ffi::SQLITE_BUSY, cause) }.into());
        }
    }
    Ok(())
}
