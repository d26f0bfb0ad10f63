//! SQLite's locks on the main file, taken by us instead of the base where the base's way does not work.
//!
//! The bytes and their meaning are SQLite's own (<https://www.sqlite.org/lockingv3.html>): PENDING, RESERVED and the 510
//! SHARED bytes behind 1 GiB. The kernel arbitrates between connections, threads and processes alike; there is no table
//! of our own. Invariant: the locks held are those of the level, except that after a failed step towards EXCLUSIVE the
//! level is PENDING, which keeps new readers out until the next step or unlock, also where SHARED was lost on the way.

#[cfg(target_os = "linux")]
pub(crate) mod ofd;

use std::io;

use libsqlite3_sys as ffi;

use crate::fs::LockReach;
use crate::main_file::{Access, MainFile};

/// The locks of an open file.
#[cfg(target_os = "linux")]
pub(crate) type FileLocks = Locks<ofd::Handle>;
#[cfg(not(target_os = "linux"))]
pub(crate) type FileLocks = Locks<std::convert::Infallible>;

/// Locks of our own for a database whose base would lock in a way that cannot work: on SMB, where the POSIX locks of
/// stock SQLite end in `database is locked` for a single connection.
///
/// # Errors
/// If they are needed and no handle for them can be opened.
#[cfg(target_os = "linux")]
pub(crate) fn for_file(main: &MainFile, native: bool) -> io::Result<Option<FileLocks>> {
    let verdict = &main.verdict;
    let smb = matches!(verdict.filesystem.as_str(), "cifs" | "smb3");
    // With `nobrl` the locks stay in this kernel, where the base's way works.
    let sent = verdict.locks == LockReach::Everybody;
    let locking = matches!(main.access, Access::ReadWrite | Access::ReadOnly);
    if !(native && smb && sent && locking && main.base == "unix") {
        return Ok(None);
    }
    main.note("its locks are taken by hardened itself: SMB does not turn a shared lock into an exclusive one".into());
    let handle = ofd::Handle::open(&main.path, main.access == Access::ReadOnly)?;
    Ok(Some(Locks::new(handle)))
}

/// Reads the first bytes of a file on which others in this process may have locks, without dropping them.
///
/// # Errors
/// If there are not so many, or it is not a plain file.
#[cfg(target_os = "linux")]
pub(crate) fn glance(path: &std::path::Path, start: &mut [u8]) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    ofd::Handle::open(path, true)?.glance(start)
}

/// Without handles that may be kept open nobody looks.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(crate) fn glance(_: &std::path::Path, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Only Linux has locks of an open file description.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(crate) fn for_file(_: &MainFile, _: bool) -> io::Result<Option<FileLocks>> {
    Ok(None)
}

/// A range of lock bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: i64,
    pub(crate) length: i64,
}

pub(crate) const PENDING: Range = Range { start: 0x4000_0000, length: 1 };
pub(crate) const RESERVED: Range = Range { start: 0x4000_0001, length: 1 };
pub(crate) const SHARED: Range = Range { start: 0x4000_0002, length: 510 };
/// PENDING and RESERVED.
const BOTH: Range = Range { start: 0x4000_0000, length: 2 };
/// All that a file can have.
#[cfg(target_os = "linux")]
const ANY: Range = Range { start: 0, length: 0 };
/// All of them.
pub(crate) const ALL: Range = Range { start: 0x4000_0000, length: 512 };

/// Byte-range locks that belong to one handle.
pub(crate) trait Bytes {
    /// Takes a lock without waiting; `false` if somebody else's is in the way.
    fn take(&self, range: Range, exclusive: bool) -> io::Result<bool>;
    fn release(&self, range: Range) -> io::Result<()>;
    /// Whether somebody else's lock would be in the way of an exclusive one.
    fn taken(&self, range: Range) -> io::Result<bool>;
    /// What fstat(2) says about the file behind the handle.
    fn stat(&self) -> Option<rustix::fs::Stat> {
        None
    }
}

#[cfg(not(target_os = "linux"))]
impl Bytes for std::convert::Infallible {
    fn take(&self, _: Range, _: bool) -> io::Result<bool> {
        match *self {}
    }
    fn release(&self, _: Range) -> io::Result<()> {
        match *self {}
    }
    fn taken(&self, _: Range) -> io::Result<bool> {
        match *self {}
    }
}

/// The locks of one connection on one file.
#[derive(Debug)]
pub(crate) struct Locks<B> {
    bytes: B,
    level: std::cell::Cell<i32>,
    /// SHARED was let go on the way to EXCLUSIVE and could not be had back.
    bare: std::cell::Cell<bool>,
}

impl<B: Bytes> Locks<B> {
    pub(crate) fn new(bytes: B) -> Self {
        Locks { bytes, level: std::cell::Cell::new(ffi::SQLITE_LOCK_NONE), bare: std::cell::Cell::new(false) }
    }

    /// xLock: raises the level, or answers SQLITE_BUSY.
    pub(crate) fn lock(&self, wanted: i32) -> i32 {
        let level = self.level.get();
        if level >= wanted {
            return ffi::SQLITE_OK;
        }
        let result = match wanted {
            ffi::SQLITE_LOCK_SHARED => self.share(),
            ffi::SQLITE_LOCK_RESERVED => self.bytes.take(RESERVED, true),
            ffi::SQLITE_LOCK_EXCLUSIVE => self.exclude(),
            _ => return ffi::SQLITE_MISUSE,
        };
        match result {
            Ok(true) => {
                self.level.set(wanted);
                ffi::SQLITE_OK
            }
            Ok(false) => ffi::SQLITE_BUSY,
            Err(_) => ffi::SQLITE_IOERR_LOCK,
        }
    }

    /// A reader passes PENDING, which a writer about to write holds.
    fn share(&self) -> io::Result<bool> {
        if !self.bytes.take(PENDING, false)? {
            return Ok(false);
        }
        let shared = self.bytes.take(SHARED, false);
        if let Err(error) = self.bytes.release(PENDING) {
            // The level stays NONE, so nothing may be held.
            let _ = self.bytes.release(ALL);
            return Err(error);
        }
        shared
    }

    /// Servers of SMB do not turn a shared lock into an exclusive one: the exclusive one meets our own. PENDING keeps
    /// everybody else from EXCLUSIVE and from beginning to read, so SHARED may be let go for the moment in between.
    fn exclude(&self) -> io::Result<bool> {
        if self.level.get() < ffi::SQLITE_LOCK_PENDING {
            if !self.bytes.take(PENDING, true)? {
                return Ok(false);
            }
            self.level.set(ffi::SQLITE_LOCK_PENDING);
        }
        self.bare.set(true);
        self.bytes.release(SHARED)?;
        if matches!(self.bytes.take(SHARED, true), Ok(true)) {
            self.bare.set(false);
            return Ok(true);
        }
        match self.bytes.take(SHARED, false)? {
            true => {
                self.bare.set(false);
                Ok(false)
            }
            // Nobody may hold SHARED exclusively while PENDING is ours.
            false => Err(io::Error::other("a shared lock could not be taken back")),
        }
    }

    /// xUnlock: lowers the level to SHARED or NONE.
    pub(crate) fn unlock(&self, wanted: i32) -> i32 {
        let level = self.level.get();
        if level <= wanted {
            return ffi::SQLITE_OK;
        }
        let result = if wanted == ffi::SQLITE_LOCK_SHARED { self.lower(level) } else { self.bytes.release(ALL) };
        match result {
            Ok(()) => {
                self.bare.set(false);
                self.level.set(wanted);
                ffi::SQLITE_OK
            }
            Err(_) => ffi::SQLITE_IOERR_UNLOCK,
        }
    }

    fn lower(&self, level: i32) -> io::Result<()> {
        if level == ffi::SQLITE_LOCK_EXCLUSIVE || self.bare.get() {
            // As on the way up, one lock at a time, with PENDING still held: without SHARED it may not be given up.
            self.bytes.release(SHARED)?;
            if !self.bytes.take(SHARED, false)? {
                return Err(io::Error::other("a shared lock could not be taken back"));
            }
        }
        self.bytes.release(BOTH)
    }

    /// What fstat(2) says about the file.
    pub(crate) fn stat(&self) -> Option<rustix::fs::Stat> {
        self.bytes.stat()
    }

    /// xCheckReservedLock: whether any connection holds RESERVED or more.
    pub(crate) fn reserved(&self) -> Result<bool, i32> {
        if self.level.get() >= ffi::SQLITE_LOCK_RESERVED {
            return Ok(true);
        }
        self.bytes.taken(RESERVED).map_err(|_| ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
    }
}

#[cfg(test)]
mod tests;
