//! Whether a lock of one handle is in the way of another: some filesystems grant every lock and keep none.
//!
//! Tried on a byte behind SQLite's, once for each directory as long as it is on the same mount, and only where the filesystem
//! is not known to be local. Nothing is written, and no other process can tell.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use super::fork::PerProcess;
use super::ofd::Handle;
use super::{ALL, Bytes, Range};
use crate::fs::Verdict;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Works,
    /// Both handles were given the same exclusive lock.
    LocksNothing,
    /// This error.
    Refused(i32),
}

/// More directories than a process has databases in.
const MOST: usize = 256;

/// By verdict: there is one for each directory, and another after another mount.
static KNOWN: PerProcess<Vec<(Weak<Verdict>, Outcome)>> = PerProcess::new(|_| Vec::new());

/// Tries the place of this verdict, where `handle` has the file `path` open.
pub(super) fn on(verdict: &Arc<Verdict>, handle: &Handle, path: &Path, read_only: bool) -> io::Result<Outcome> {
    let this = Arc::downgrade(verdict);
    if let Some((_, known)) = KNOWN.lock().iter().find(|(known, _)| known.ptr_eq(&this)) {
        return Ok(*known);
    }
    let outcome = tried(handle, path, read_only)?;
    let mut known = KNOWN.lock();
    known.retain(|(verdict, _)| verdict.strong_count() > 0);
    known.truncate(MOST);
    known.push((this, outcome));
    Ok(outcome)
}

fn tried(handle: &Handle, path: &Path, read_only: bool) -> io::Result<Outcome> {
    const BYTE: Range = Range { start: ALL.start + ALL.length, length: 1 };
    let refused = |error: &io::Error| error.raw_os_error().map(Outcome::Refused);
    // A file that may only be read takes shared locks, and the other one cannot try more than to ask.
    let mine = match handle.take(BYTE, !read_only) {
        Ok(mine) => mine,
        Err(error) => return refused(&error).ok_or(error),
    };
    if !mine {
        // Somebody else tries, and is in our way.
        return Ok(Outcome::Works);
    }
    let other = Handle::open(path, read_only);
    let met = other.and_then(|other| {
        let asked = other.taken(BYTE)?;
        let taken = if read_only { asked } else { !other.take(BYTE, true)? };
        other.release(BYTE)?;
        Ok(taken)
    });
    let _ = handle.release(BYTE);
    match met {
        Ok(true) => Ok(Outcome::Works),
        Ok(false) => Ok(Outcome::LocksNothing),
        Err(error) => refused(&error).ok_or(error),
    }
}
