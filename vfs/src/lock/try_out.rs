//! Whether a lock of one handle is in the way of another: some filesystems grant every lock and keep none.
//!
//! Tried on a byte behind SQLite's, once per mount, and only where the filesystem is not known to be local. Nothing is
//! written, and no other process can tell.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::fork::PerProcess;
use super::ofd::Handle;
use super::{ALL, Bytes, Range};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Works,
    /// Both handles were given the same exclusive lock.
    LocksNothing,
    /// This error.
    Refused(i32),
}

/// What a mount is known by: the device, the filesystem and what is mounted.
pub(super) type Mount = (u64, String, Option<String>);

/// More mounts than a process has databases on.
const MOST: usize = 256;

static KNOWN: PerProcess<HashMap<Mount, Outcome>> = PerProcess::new(|_| HashMap::new());

/// Tries the mount on which `handle` has the file `path` open.
pub(super) fn on(mount: Mount, handle: &Handle, path: &Path, read_only: bool) -> io::Result<Outcome> {
    if let Some(known) = KNOWN.lock().get(&mount) {
        return Ok(*known);
    }
    let outcome = tried(handle, path, read_only)?;
    let mut known = KNOWN.lock();
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(mount, outcome);
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
