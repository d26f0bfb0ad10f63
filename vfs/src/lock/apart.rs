//! The steps of [`Upgrade::Apart`], beside those of the others.
//!
//! SMB knows a lock by the handle on the server and the range, and a Linux client may let one such handle stand for several
//! opens, and may lose track of a lock that it was given and then refuses. Invariant: no lock of two connections overlaps, also
//! not of two readers, and what is given back is what was taken. PENDING is held by a reader for the moment in which it
//! takes its byte, so two that begin at once are in each other's way; a few more tries are cheaper than SQLITE_BUSY.

use std::hash::{BuildHasher, RandomState};
use std::io;

use libsqlite3_sys as ffi;

use super::{ALL, BOTH, Bytes, Locks, PENDING, RESERVED, Range, SHARED, Upgrade};

/// How often a lock is tried that a reader may have for a moment, or for a byte that another reader may have chosen.
const FEW: usize = 4;

/// Tries a few times.
pub(super) fn few(mut attempt: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 1..FEW {
        if attempt()? {
            return Ok(true);
        }
    }
    attempt()
}

/// Whether nobody has a lock there. On SMB that question is a lock for a moment in any case.
pub(super) fn is_free(bytes: &impl Bytes, range: Range) -> io::Result<bool> {
    let free = bytes.take_apart(range)?;
    if free {
        bytes.release(range)?;
    }
    Ok(free)
}

/// One of the SHARED bytes.
fn any() -> Range {
    let number = RandomState::new().hash_one(()) % SHARED.length as u64;
    Range { start: SHARED.start + number as i64, length: 1 }
}

impl<B: Bytes> Locks<B> {
    /// A reader passes PENDING, and takes a byte of its own.
    pub(super) fn share_apart(&self) -> io::Result<bool> {
        if let Some(bell) = &self.bell {
            if !bell.pass(&self.bytes)? {
                return Ok(false);
            }
        }
        if !few(|| self.bytes.take_apart(PENDING))? {
            return Ok(false);
        }
        let shared = few(|| {
            self.reads.set(any());
            self.bytes.take_apart(self.reads.get())
        });
        if let Err(error) = self.bytes.release(PENDING) {
            // The level stays NONE, so nothing may be held.
            if matches!(shared, Ok(true)) {
                let _ = self.bytes.release(self.reads.get());
            }
            return Err(error);
        }
        shared
    }

    /// The lock of a reader, where it was before.
    pub(super) fn share_again(&self) -> io::Result<bool> {
        match self.upgrade {
            Upgrade::Apart => self.bytes.take_apart(self.reads.get()),
            Upgrade::Atomic | Upgrade::Stepwise => self.bytes.take(SHARED, false),
        }
    }

    /// An exclusive lock on bytes on which this one has none.
    pub(super) fn take_exclusive(&self, range: Range) -> io::Result<bool> {
        match self.upgrade {
            Upgrade::Apart if self.bytes.takes_no_exclusive_locks() => Err(io::Error::from_raw_os_error(libc::EBADF)),
            // Who waits for RESERVED has it for a moment.
            Upgrade::Apart if range.start == RESERVED.start => few(|| self.bytes.take_apart(range)),
            Upgrade::Apart => self.bytes.take_apart(range),
            Upgrade::Atomic | Upgrade::Stepwise => self.bytes.take(range, true),
        }
    }

    /// Gives everything back.
    pub(super) fn release_all(&self, level: i32) -> io::Result<()> {
        if self.upgrade != Upgrade::Apart {
            return self.bytes.release(ALL);
        }
        // Where a step has failed it is not known what the server did of it.
        let all = level == ffi::SQLITE_LOCK_EXCLUSIVE || self.bare.get();
        let shared = self.bytes.release(if all { SHARED } else { self.reads.get() });
        let both = self.release_both(level);
        shared.and(both)
    }

    /// Gives PENDING and RESERVED back.
    pub(super) fn release_both(&self, level: i32) -> io::Result<()> {
        if self.upgrade != Upgrade::Apart {
            return self.bytes.release(BOTH);
        }
        // RESERVED first, as both go at once elsewhere: with PENDING gone somebody else may become a writer.
        let reserved = if self.reserves.replace(false) { self.bytes.release(RESERVED) } else { Ok(()) };
        let pending = if level >= ffi::SQLITE_LOCK_PENDING { self.bytes.release(PENDING) } else { Ok(()) };
        reserved.and(pending)
    }

    /// Whether somebody else holds RESERVED.
    pub(super) fn somebody_reserves(&self) -> io::Result<bool> {
        match self.upgrade {
            // To ask is to have it for a moment: somebody else who asks would take that for a writer, and the journal of a dead one
            // for no hot one. Nothing depends on it: who undoes a journal needs EXCLUSIVE, and the SHARED byte of a living writer
            // keeps that from him.
            Upgrade::Apart => Ok(false),
            Upgrade::Atomic | Upgrade::Stepwise => self.bytes.taken(RESERVED),
        }
    }
}
