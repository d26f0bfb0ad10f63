//! Before a transaction writes in WAL mode, and before a checkpoint: are the open files still those that their names lead to?
//!
//! If not, writing stops, also the checkpoint at close, which would copy pages of the dead generation into whatever the
//! database is now. The commits in the -wal are saved beside the name of the database, since nobody else may be able to
//! reach them. In rollback mode SQLite itself asks with SQLITE_FCNTL_HAS_MOVED before it opens a journal; there the story is
//! all that is added.
//!
//! In EXCLUSIVE locking mode SQLite neither takes a lock for a transaction or a checkpoint nor opens its journal anew. There the
//! first write of each asks.

use std::ffi::{OsStr, c_int};
use std::fs::{File, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;
use rustix::fs::Stat;

use super::heal::Reader;
use super::link::Files;
use crate::format::wal;
use crate::generation::manifest::Manifest;
use crate::generation::{Moved, Which, Work, describe};
use crate::main_file::MainFile;

/// Before a lock is taken in WAL mode. A code if nothing may be written, because the generation is dead.
pub(crate) fn before_writing(files: &Files<'_>) -> Option<c_int> {
    files.wal.and_then(|_| dead(files))
}

/// Before a write: the same, unless it was asked already for what is being written.
pub(crate) fn before_the_first_write(files: &Files<'_>, work: Work) -> Option<c_int> {
    if files.main.generation.has_looked(work) {
        return None;
    }
    let dead = dead(files);
    if dead.is_none() {
        files.main.generation.looked(work);
    }
    dead
}

fn dead(files: &Files<'_>) -> Option<c_int> {
    if !files.main.native {
        return None;
    }
    let moved = files.main.generation.check(&files.main.path);
    if moved.is_empty() {
        return None;
    }
    if !files.main.moved.swap(true, Ordering::Relaxed) {
        let saved = save(files, &moved);
        tell(files.main, &moved, &saved);
    }
    Some(ffi::SQLITE_READONLY_DBMOVED)
}

/// What SQLITE_FCNTL_HAS_MOVED has answered for the database, in rollback mode.
pub(crate) fn has_moved(main: &MainFile) {
    if !main.moved.swap(true, Ordering::Relaxed) {
        let replaced = std::fs::symlink_metadata(&main.path).is_ok();
        tell(main, &[Moved { which: Which::Database, replaced }], "");
    }
}

fn tell(main: &MainFile, moved: &[Moved], saved: &str) {
    let story = format!(
        "{} is open, and {}. Whoever opens it now works with other files, so nothing is written any more through this \
         connection. {saved}Close it, put the files back or find out who moves them, and open it again.",
        main.path.display(),
        describe(moved)
    );
    if let Some(shared) = &main.shared {
        shared.alarm(story.clone());
    }
    main.warn_only("moved", &story);
}

/// Copies the commits of the log to a name made of their content, with a manifest beside it; a sentence about it.
fn save(files: &Files<'_>, moved: &[Moved]) -> String {
    let gone = |which: Which| moved.contains(&Moved { which, replaced: false });
    if gone(Which::Database) && gone(Which::Wal) && gone(Which::SharedMemory) && is_deleted(files) {
        // All of it was deleted: commits without their database are of no use.
        return String::new();
    }
    if !moved.iter().any(|moved| matches!(moved.which, Which::Database | Which::Wal)) {
        // They are still found by whoever opens the database.
        return String::new();
    }
    match try_save(files, moved) {
        Ok(None) => String::new(),
        Ok(Some(name)) => {
            let name = format!("{}{name}", files.main.path.display());
            format!("The commits in its -wal are saved in {name}, and {name}.json tells what they belong to. ")
        }
        Err(error) => format!("The commits in its -wal could not be saved: {error}. "),
    }
}

/// Whether the database file has no name at all any more.
fn is_deleted(files: &Files<'_>) -> bool {
    files.locks().and_then(|locks| locks.stat()).is_some_and(|found| found.st_nlink == 0)
}

fn try_save(files: &Files<'_>, moved: &[Moved]) -> io::Result<Option<String>> {
    let Some(log) = files.wal else { return Ok(None) };
    let scan = wal::scan(BufReader::with_capacity(1 << 16, Reader { file: log, at: 0 }))?;
    let Some(header) = scan.header.filter(|_| scan.commits > 0) else { return Ok(None) };
    let end = wal::HEADER_SIZE as u64 + scan.committed_frames * header.frame_size();
    let whole = |code: c_int| io::Error::other(format!("reading it failed with code {code}"));
    let mut sum = 0;
    log.pieces(0, end, |_, piece| {
        sum = crc32c::crc32c_append(sum, piece);
        Ok(())
    })
    .map_err(whole)?;
    let name = format!("-wal_stranded_{sum:08x}");
    let database = &files.main.path;
    let of_database = files.locks().and_then(|locks| locks.stat());
    let saved = create(database, &name, of_database.as_ref())?;
    let mut written = Ok(());
    log.pieces(0, end, |_, piece| {
        written = (&saved).write_all(piece);
        if written.is_ok() { Ok(()) } else { Err(ffi::SQLITE_IOERR_WRITE) }
    })
    .map_err(whole)?;
    written?;
    saved.sync_all()?;
    let identity = files.main.generation.identity(Which::Database);
    let manifest = Manifest::new(database, identity, &header, &scan, &leaf(database, &name), &describe(moved));
    let beside = create(database, &format!("{name}.json"), of_database.as_ref())?;
    (&beside).write_all(manifest.to_json().as_bytes())?;
    beside.sync_all()?;
    if let Some(directory) = files.main.directory() {
        directory.sync()?;
    }
    Ok(Some(name))
}

/// A new file beside the name of the database, for the same people as the database. The base would look for the database to
/// learn who they are, and that may not be there any more.
fn create(database: &Path, suffix: &str, of_database: Option<&Stat>) -> io::Result<File> {
    let path = [database.as_os_str().as_bytes(), suffix.as_bytes()].concat();
    let path = Path::new(OsStr::from_bytes(&path));
    // The name is made of the content: what is there is an attempt that did not come to its end, or the same.
    let _none = std::fs::remove_file(path);
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(found) = of_database {
        // Only root may give a file away; without it the file is the user's own.
        let _kept = std::os::unix::fs::fchown(&file, Some(found.st_uid), Some(found.st_gid));
        file.set_permissions(Permissions::from_mode(found.st_mode & 0o777))?;
    }
    Ok(file)
}

fn leaf(database: &Path, suffix: &str) -> String {
    let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name + suffix
}
