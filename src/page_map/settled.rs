//! Whether a database has stood still while it was read without a lock.
//!
//! Invariant: a reading counts as settled only if nothing that it has read can have been written meanwhile. In rollback mode
//! that is the file as it was, with no transaction under way before or after. In WAL mode the log may grow, but no checkpoint
//! may have begun to copy what the reading does not know of, and the log not have been begun anew.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hardened_vfs::format::{journal, wal, wal_index};

use crate::beside::{Beside, identity_of, with_ending};

/// A file that changed less than this ago may change again without its time showing it.
const TICK: Duration = Duration::from_millis(50);

/// Where the index of the log says how many frames a checkpoint has begun to copy
/// (<https://www.sqlite.org/walformat.html>, section 2.1).
const ATTEMPTED: u64 = 128;

/// What changes when the database does.
pub(super) struct Stamp {
    identity: (u64, u64),
    length: u64,
    changed: SystemTime,
    /// It changed just now.
    fresh: bool,
    start: Vec<u8>,
    /// Somebody is writing, or has died while writing.
    pub(super) hot: bool,
    log: Vec<u8>,
}

/// The first bytes of a file that nobody locks; none of one that is not there.
fn start_of(path: &Path, most: u64) -> io::Result<(Option<u64>, Vec<u8>)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Vec::new())),
        Err(error) => return Err(error),
    };
    let (length, mut start) = (file.metadata()?.len(), Vec::new());
    file.take(most).read_to_end(&mut start)?;
    Ok((Some(length), start))
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Stamp> {
        let (length, first) = start_of(&with_ending(path, "-journal"), journal::HEADER_SIZE as u64)?;
        let hot = journal::State::of(length, &first).is_hot_candidate();
        let (_, log) = start_of(&with_ending(path, "-wal"), wal::HEADER_SIZE as u64)?;
        let found = std::fs::metadata(path)?;
        let changed = found.modified()?;
        let fresh = SystemTime::now().duration_since(changed).is_ok_and(|age| age < TICK);
        let mut stamp = Stamp {
            identity: identity_of(path)?,
            length: found.len(),
            changed,
            fresh,
            start: read(path, 0, 100)?.unwrap_or_default(),
            hot,
            log,
        };
        // A log of zeros, or none, is the same: nothing is read from it.
        if stamp.log.iter().all(|byte| *byte == 0) {
            stamp.log.clear();
        }
        Ok(stamp)
    }

    /// What speaks against what was read since, with so many frames of the log; `None` if nothing does.
    pub(super) fn unsettled(&self, path: &Path, frames: u64) -> io::Result<Option<&'static str>> {
        let now = Stamp::of(path)?;
        if now.identity != self.identity {
            return Ok(Some("it was replaced while it was read"));
        }
        if self.hot || now.hot {
            return Ok(Some("a transaction is under way in it, or was cut off"));
        }
        if now.log != self.log {
            return Ok(Some("its log was begun anew while it was read"));
        }
        let still = !self.fresh && (now.length, now.changed) == (self.length, self.changed) && now.start == self.start;
        Ok(if still || self.is_known(path, frames)? { None } else { Some("it was written to while it was read") })
    }
}

impl Stamp {
    /// Whether the file can have got nothing but what the log has that was read, with so many frames.
    fn is_known(&self, path: &Path, frames: u64) -> io::Result<bool> {
        let Ok(log) = wal::Header::parse(&self.log) else { return Ok(false) };
        let index = with_ending(path, "-shm");
        let attempted = read(&index, ATTEMPTED, 4)?.and_then(|bytes| bytes.first_chunk().copied());
        // Read after that number: it is set to zero when the log is begun anew, after the salts have changed.
        let header = read(&index, 0, wal_index::HEADER_SIZE)?.and_then(|bytes| wal_index::Header::parse(&bytes));
        let (Some(attempted), Some(header)) = (attempted.map(u32::from_ne_bytes), header) else { return Ok(false) };
        Ok(header.salts == log.salts && u64::from(header.frames) >= frames && u64::from(attempted) <= frames)
    }
}

/// Bytes of a file that SQLite locks; `None` if it is not there, or ends before them.
#[cfg(target_os = "linux")]
fn read(path: &Path, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match Beside::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, at)?;
    Ok((read == length).then_some(bytes))
}

/// Nothing is read beside SQLite here, but by those who have no connection.
#[cfg(not(target_os = "linux"))]
fn read(path: &Path, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
    use std::os::unix::fs::FileExt;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; length];
    Ok(file.read_exact_at(&mut bytes, at).is_ok().then_some(bytes))
}
