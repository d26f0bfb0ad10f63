//! Before a transaction writes in WAL mode, and before a checkpoint: are the open files still those that their names lead to?
//!
//! If not, writing stops, also the checkpoint at close, which would copy pages of the dead generation into whatever the
//! database is now. The commits in the -wal are saved beside the name of the database, since nobody else may be able to
//! reach them. In rollback mode SQLite itself asks with SQLITE_FCNTL_HAS_MOVED before it opens a journal; there the story is
//! all that is added.

use std::ffi::c_int;
use std::io::BufReader;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::heal::Reader;
use super::link::Files;
use super::observe::Beside;
use crate::format::wal;
use crate::generation::manifest::Manifest;
use crate::generation::{Moved, Which, describe};
use crate::main_file::MainFile;

/// A code if nothing may be written, because the generation is dead.
pub(crate) fn before_writing(files: &Files<'_>) -> Option<c_int> {
    if !files.main.native || files.wal.is_none() {
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
        Err(code) => format!("The commits in its -wal could not be saved (code {code}): copy them while it is open. "),
    }
}

/// Whether the database file has no name at all any more.
fn is_deleted(files: &Files<'_>) -> bool {
    files.locks.is_some_and(|locks| locks.is_deleted())
}

fn try_save(files: &Files<'_>, moved: &[Moved]) -> Result<Option<String>, c_int> {
    let Some(log) = files.wal else { return Ok(None) };
    let scan = wal::scan(BufReader::with_capacity(1 << 16, Reader { file: log, at: 0 }))
        .map_err(|_| ffi::SQLITE_IOERR_READ)?;
    let Some(header) = scan.header.filter(|_| scan.commits > 0) else { return Ok(None) };
    let end = wal::HEADER_SIZE as u64 + scan.committed_frames * header.frame_size();
    let mut sum = 0;
    log.pieces(0, end, |_, piece| {
        sum = crc32c::crc32c_append(sum, piece);
        Ok(())
    })?;
    let name = format!("-wal-stranded-{sum:08x}");
    let database = &files.main.path;
    let kind = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_READWRITE;
    let create = |suffix: &str| {
        // SAFETY: the base of an open file is registered.
        unsafe { Beside::create(files.vfs, database, suffix, kind) }
    };
    let saved = create(&name)?;
    log.pieces(0, end, |at, piece| saved.file().write_whole(piece, at))?;
    synced(saved.file())?;
    let identity = files.main.generation.identity(Which::Database);
    let manifest = Manifest::new(database, identity, &header, &scan, &leaf(database, &name), &describe(moved));
    let beside = create(&format!("{name}.json"))?;
    beside.file().write_whole(manifest.to_json().as_bytes(), 0)?;
    synced(beside.file())?;
    Ok(Some(name))
}

fn leaf(database: &std::path::Path, suffix: &str) -> String {
    let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name + suffix
}

fn synced(file: &super::base::BaseFile) -> Result<(), c_int> {
    match file.sync(ffi::SQLITE_SYNC_NORMAL) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}
