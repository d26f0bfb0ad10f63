//! The directory in which a recovery works, beside the database, and what it says about an unfinished one.
//!
//! Invariant: one recovery of a database runs at a time (a lock on the directory). Whatever is in the directory is either of no
//! use without its recovery, and removed by the next one, or named by a valid [`Intent`], and finished.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::ffi;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::report::Recovery;
use crate::beside::{directory_of, with_ending};
use crate::error::{Detail, Error};

/// The copy of the damaged database; its log and journal have this name with SQLite's endings.
const COPY: &str = "copy";
/// A second one, that SQLite may change.
const SCRATCH: &str = "scratch";
/// The new database.
const NEW: &str = "new";
/// That all is ready and only names have to change.
const INTENT: &str = "ready";

/// The directory.
#[derive(Debug)]
pub(super) struct Work {
    directory: PathBuf,
    /// Locked.
    file: File,
    /// It stays for the next recovery.
    pub(super) keep: bool,
}

/// What is about to take the place of a database. When this is on disk, so is the new database, and the damaged one is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    version: u32,
    /// The damaged database as it was seen last, with its log and its journal.
    old: Seen,
    #[serde(default)]
    log: Option<Seen>,
    #[serde(default)]
    journal: Option<Seen>,
    /// What will be reported.
    pub(super) recovery: Recovery,
}

/// A file as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Seen {
    /// The file of this name; `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Seen> {
        let found = std::fs::metadata(path).ok()?;
        let changed = (found.mtime(), found.mtime_nsec());
        Some(Seen { device: found.dev(), inode: found.ino(), size: found.size(), changed })
    }
}

impl Intent {
    pub(super) fn new(path: &Path, old: Seen, recovery: Recovery) -> Intent {
        let beside = |ending| Seen::of(&with_ending(path, ending));
        Intent { version: 1, old, log: beside("-wal"), journal: beside("-journal"), recovery }
    }

    /// Whether the damaged database is still as it was seen, but for what a recovery has removed of it: a commit since may be in
    /// a log alone.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        let beside = |ending, seen: &Option<Seen>| {
            let now = Seen::of(&with_ending(path, ending));
            now.is_none() || now == *seen
        };
        Seen::of(path).as_ref() == Some(&self.old) && beside("-wal", &self.log) && beside("-journal", &self.journal)
    }
}

pub(super) fn busy(path: &Path, cause: &str, hint: &str) -> Error {
    let detail = Detail::of(path, ffi::SQLITE_BUSY, cause.to_owned());
    Detail { hint: Some(hint.to_owned()), ..detail }.into()
}

/// Makes the names in a directory last.
pub(super) fn sync_directory(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    match synced {
        // Some filesystems sync no directories.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
        synced => synced.map_err(|error| Error::of_file(directory, "it cannot be synced", &error)),
    }
}

impl Work {
    /// Makes the directory for the database `path`, or takes over that of a recovery which was killed.
    ///
    /// # Errors
    /// [`Error::Busy`] while another recovery works in it.
    pub(super) fn begin(path: &Path) -> Result<Work, Error> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".recovering");
        let directory = directory_of(path).join(name);
        let failed = |error: io::Error| Error::of_file(path, "nothing can be created beside it", &error);
        loop {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            let file = match File::open(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            // Some filesystems lock no directories.
            if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
                return Err(busy(path, "another recovery of it is under way", "wait for it"));
            }
            // Whoever had the lock may have removed it meanwhile.
            let same = |there: std::fs::Metadata, mine: std::fs::Metadata| {
                there.is_dir() && (there.dev(), there.ino()) == (mine.dev(), mine.ino())
            };
            let mine = file.metadata().map_err(failed)?;
            if std::fs::symlink_metadata(&directory).is_ok_and(|there| same(there, mine)) {
                return Ok(Work { directory, file, keep: false });
            }
        }
    }

    pub(super) fn copy(&self) -> PathBuf {
        self.directory.join(COPY)
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.directory.join(SCRATCH)
    }

    pub(super) fn new_database(&self) -> PathBuf {
        self.directory.join(NEW)
    }

    /// Removes everything but the directory.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub(super) fn clear(&self) -> Result<(), Error> {
        let failed = |error: io::Error| Error::of_file(&self.directory, "it cannot be emptied", &error);
        // First of all what gives meaning to the rest, and for good: without the rest it would say that all is done.
        match std::fs::remove_file(self.directory.join(INTENT)) {
            Ok(()) => sync_directory(&self.directory)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        for entry in std::fs::read_dir(&self.directory).map_err(failed)?.flatten() {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
        Ok(())
    }

    /// What a recovery that was killed was about to do.
    pub(super) fn unfinished(&self) -> Option<Intent> {
        let text = std::fs::read(self.directory.join(INTENT)).ok()?;
        serde_json::from_slice::<Intent>(&text).ok().filter(|intent| intent.version == 1)
    }

    /// Has what is in the directory last, and the directory itself.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub(super) fn settle(&self) -> Result<(), Error> {
        sync_directory(&self.directory)?;
        sync_directory(directory_of(&self.directory))
    }

    /// Writes down what is about to happen, so that it lasts.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub(super) fn intend(&self, intent: &Intent) -> Result<(), Error> {
        let draft = self.directory.join("draft");
        let write = || -> io::Result<()> {
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec(intent)?)?;
            file.sync_all()?;
            std::fs::rename(&draft, self.directory.join(INTENT))
        };
        write().map_err(|error| Error::of_file(&draft, "it cannot be written", &error))?;
        self.settle()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.keep {
            // The next recovery tries again.
            let _ = self.clear();
            let _ = std::fs::remove_dir(&self.directory);
        }
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}
