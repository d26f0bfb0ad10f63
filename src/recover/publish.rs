//! The new database takes the place of the damaged one.
//!
//! A rename is atomic, and a database is up to three files. A log or hot journal of the old database beside the new one would be
//! played into it, whatever the new one is: SQLite asks no log to which database it belongs. So they go first. Between that and
//! the rename the damaged database is there without them, and a crash leaves it so. That loses nothing:
//!
//! 1. The damaged database is kept, complete, under its own name (`evidence`), on disk.
//! 2. The new database is complete, checked and on disk, in the directory of the work.
//! 3. The intent says so, on disk. From here on the next recovery finishes what this one has begun, unless somebody has written to
//!    the damaged database since.
//! 4. The log, the journal, the WAL-index and the guard's record of the damaged database are removed, and the directory synced.
//! 5. The new database is renamed to the name, and the directory synced.
//! 6. The intent and the directory of the work are removed.
//!
//! Invariant: at every moment the name leads to the damaged database or to the whole new one, and until 4 nothing of the
//! damaged one is missing. Backups are not touched.

use std::io::ErrorKind;
use std::path::Path;

use super::report::Recovery;
use super::work::{Intent, Seen, Work, sync_directory};
use crate::beside::{directory_of, with_ending};
use crate::error::Error;

/// What would be taken for the new database's.
const BELONGING: [&str; 4] = ["-wal", "-journal", "-shm", "-guard"];

/// Steps 3 to 6. Nobody else may have the database open.
///
/// # Errors
/// Those of the filesystem. From step 4 on the next recovery goes on.
pub(super) fn publish(work: &mut Work, path: &Path, recovery: Recovery) -> Result<Recovery, Error> {
    let failed = |error: std::io::Error| Error::of_file(path, "it cannot be replaced", &error);
    let Some(old) = Seen::of(path) else { return Err(failed(ErrorKind::NotFound.into())) };
    let intent = Intent::new(path, old, recovery);
    work.intend(&intent)?;
    work.keep = true;
    finish(work, path)?;
    Ok(intent.recovery)
}

/// Steps 4 to 6.
///
/// # Errors
/// As [`publish`].
pub(super) fn finish(work: &mut Work, path: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::of_file(path, "it cannot be replaced", &error);
    let directory = directory_of(path);
    for ending in BELONGING {
        match std::fs::remove_file(with_ending(path, ending)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    sync_directory(directory)?;
    match std::fs::rename(work.new_database(), path) {
        // Done before.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        renamed => renamed.map_err(failed)?,
    }
    sync_directory(directory)?;
    work.keep = false;
    Ok(())
}

/// What a recovery that was killed has left.
pub(super) enum Left {
    /// Nothing that counts.
    Nothing,
    /// Everything was done but for telling.
    Done(Recovery),
    /// It has been finished now.
    Finished(Recovery),
}

/// Finishes what a recovery that was killed has begun, if it can still be done.
///
/// # Errors
/// As [`publish`].
pub(super) fn resume(work: &mut Work, path: &Path) -> Result<Left, Error> {
    let Some(intent) = work.unfinished() else { return Ok(Left::Nothing) };
    // It may have been killed before that, whatever it has renamed.
    work.settle()?;
    if !work.new_database().exists() {
        return Ok(Left::Done(intent.recovery));
    }
    // Somebody has written to it since, or put another one there: that counts.
    if !intent.is_current(path) {
        return Ok(Left::Nothing);
    }
    work.keep = true;
    finish(work, path)?;
    Ok(Left::Finished(intent.recovery))
}
