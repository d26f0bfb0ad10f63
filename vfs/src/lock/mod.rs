//! SQLite's locks on the main file, taken by us instead of the base, so that nothing else in the process takes them away.
//!
//! The bytes and their meaning are SQLite's own (<https://www.sqlite.org/lockingv3.html>): PENDING, RESERVED and the 510
//! SHARED bytes behind 1 GiB. The kernel arbitrates between connections, threads and processes alike, ours and stock ones;
//! there is no table of our own. Invariant: the locks held are those of the level, except that after a failed step towards
//! EXCLUSIVE the level is PENDING, which keeps new readers out until the next step or unlock, also where SHARED was lost on
//! the way.
//!
//! Where each request is a round trip, a `queue` shares the time among writers, and who waits keeps a `watch` on it.
//!
//! The rooms: `choose` decides whose locks a database gets, `apart` and `bell` are what SMB needs, `spell` is what a connection has had
//! of the time, `ofd` is a handle opened in some `manner`, `parked` closes it behind a `barrier`, `fork` and `handles` keep it from
//! children, `names` keeps connections by different names apart, `try_out` finds out whether locks lock, `kind` is what filesystems
//! do with them, `number` says what a descriptor means, `streams` keeps their handles from low numbers, `glance` looks into a file
//! without dropping any.

mod apart;
#[cfg(target_os = "linux")]
mod barrier;
mod bell;
pub(crate) mod choose;
pub(crate) mod fork;
#[cfg(target_os = "linux")]
mod glance;
#[cfg(target_os = "linux")]
pub(crate) mod handles;
#[cfg(target_os = "linux")]
mod kind;
#[cfg(target_os = "linux")]
pub(crate) mod manner;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod number;
#[cfg(target_os = "linux")]
pub(crate) mod ofd;
#[cfg(target_os = "linux")]
pub(crate) mod parked;
mod queue;
mod spell;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod try_out;
mod watch;

use std::cell::{Cell, RefCell};
use std::io;

use libsqlite3_sys as ffi;

use crate::fs::Class;
use bell::Bell;
use queue::Queue;

#[cfg(target_os = "linux")]
pub(crate) use glance::glance;
pub(crate) use watch::sleep;

/// Only Linux has descriptors of a thread's own; elsewhere nobody looks.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(crate) fn glance(_: &std::path::Path, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The locks of an open file.
#[cfg(target_os = "linux")]
pub(crate) type FileLocks = Locks<ofd::Handle>;
#[cfg(not(target_os = "linux"))]
pub(crate) type FileLocks = Locks<std::convert::Infallible>;

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
/// All of them.
pub(crate) const ALL: Range = Range { start: 0x4000_0000, length: 512 };

/// Byte-range locks that belong to one handle.
pub(crate) trait Bytes {
    /// Takes a lock without waiting; `false` if somebody else's is in the way.
    fn take(&self, range: Range, exclusive: bool) -> io::Result<bool>;
    /// Takes a lock that overlaps none of this handle's: exclusive, unless the handle is one for reading. Nothing is left of one
    /// that was refused.
    fn take_apart(&self, range: Range) -> io::Result<bool> {
        self.take(range, true)
    }
    /// Whether it is a handle for reading.
    fn takes_no_exclusive_locks(&self) -> bool {
        false
    }
    fn release(&self, range: Range) -> io::Result<()>;
    /// Whether somebody else's lock would be in the way of an exclusive one.
    fn taken(&self, range: Range) -> io::Result<bool>;
    /// The first byte of an exclusive lock that somebody else has there; of several locks, of any.
    fn exclusive(&self, range: Range) -> io::Result<Option<i64>> {
        Ok(self.taken(range)?.then_some(range.start))
    }
    /// The descriptor, for questions while the connection sleeps.
    fn descriptor(&self) -> Option<i32> {
        None
    }
    /// How large the file behind the handle is; `class` is that of its filesystem.
    fn size(&self, class: Class) -> Option<u64> {
        let _ = class;
        None
    }
    /// What fstat(2) says about the file behind the handle, if it is that which was opened.
    fn stat(&self) -> Option<rustix::fs::Stat> {
        None
    }
    /// Fails if the handle is not what it was when it was opened.
    fn verify(&self) -> io::Result<()> {
        Ok(())
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

/// How a shared lock becomes an exclusive one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// In one step, and back in one.
    Atomic,
    /// Not at all: on SMB the exclusive one meets our own. PENDING keeps everybody else from EXCLUSIVE and from beginning to
    /// read, so SHARED may be let go for the moment in between.
    Stepwise,
    /// The same where a client lets several handles stand for one on the server, or a server confuses two shared locks of one
    /// client, as on SMB: no two locks overlap. A reader has one of the SHARED bytes for itself, as with SQLite on the first
    /// Windows, and a writer all of them. Exactly what is held is given back, since anything more may be somebody else's.
    Apart,
}

/// The locks of one connection on one file.
#[derive(Debug)]
pub(crate) struct Locks<B> {
    /// Before the bytes, whose descriptor it watches. None: nobody stands back.
    queue: Option<Queue>,
    /// Where nobody can be asked for tickets.
    bell: Option<Bell>,
    bytes: B,
    upgrade: Upgrade,
    level: Cell<i32>,
    /// The bytes that this one holds as a reader.
    reads: Cell<Range>,
    /// It holds RESERVED.
    reserves: Cell<bool>,
    /// SHARED was let go on the way to EXCLUSIVE and could not be had back.
    bare: Cell<bool>,
    /// What the last failure was, of those that are not just somebody else's lock.
    failure: RefCell<Option<io::Error>>,
    /// Its error number, as SQLITE_FCNTL_LAST_ERRNO tells it.
    errno: Cell<i32>,
}

impl<B: Bytes> Locks<B> {
    pub(crate) fn new(bytes: B, upgrade: Upgrade) -> Self {
        Locks {
            queue: None,
            bell: None,
            bytes,
            upgrade,
            level: Cell::new(ffi::SQLITE_LOCK_NONE),
            reads: Cell::new(SHARED),
            reserves: Cell::new(false),
            bare: Cell::new(false),
            failure: RefCell::default(),
            errno: Cell::new(0),
        }
    }

    /// With turns for all who want the database, and with fewer calls for SHARED where nobody minds a question.
    pub(crate) fn in_turns(self) -> Self {
        match self.upgrade {
            Upgrade::Apart => Locks { bell: Some(Bell::new()), ..self },
            Upgrade::Atomic | Upgrade::Stepwise => Locks { queue: Some(Queue::new(&self.bytes)), ..self },
        }
    }

    /// The level, as SQLITE_FCNTL_LOCKSTATE tells it.
    pub(crate) fn level(&self) -> i32 {
        self.level.get()
    }

    /// The last failure, once.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.take()
    }

    /// The error number of the last one, 0 without.
    pub(crate) fn errno(&self) -> i32 {
        self.errno.get()
    }

    fn failed(&self, error: io::Error) {
        self.errno.set(error.raw_os_error().unwrap_or(0));
        self.failure.replace(Some(error));
    }

    /// Takes a lock of another meaning than SQLite's; `false` if somebody else's is in the way.
    pub(crate) fn take(&self, range: Range, exclusive: bool) -> io::Result<bool> {
        self.bytes.take(range, exclusive)
    }

    /// Gives it back.
    pub(crate) fn release(&self, range: Range) -> io::Result<()> {
        self.bytes.release(range)
    }

    /// Whether somebody else has a lock there.
    pub(crate) fn taken(&self, range: Range) -> io::Result<bool> {
        self.bytes.taken(range)
    }

    /// xLock: raises the level, or answers SQLITE_BUSY.
    pub(crate) fn lock(&self, wanted: i32) -> i32 {
        let code = match self.raise(wanted) {
            Ok(true) => ffi::SQLITE_OK,
            Ok(false) => ffi::SQLITE_BUSY,
            Err(error) => {
                let code = code_of(&error);
                if code != ffi::SQLITE_BUSY {
                    self.failed(error);
                }
                code
            }
        };
        if let Some(queue) = &self.queue {
            queue.tried(&self.bytes, wanted, code);
        }
        if let Some(bell) = &self.bell {
            bell.tried(&self.bytes, wanted, code);
        }
        code
    }

    /// Raises the level; `false` if somebody else's lock is in the way.
    pub(crate) fn raise(&self, wanted: i32) -> io::Result<bool> {
        let level = self.level.get();
        if level >= wanted {
            return Ok(true);
        }
        let raised = match wanted {
            ffi::SQLITE_LOCK_SHARED if self.upgrade == Upgrade::Apart => self.share_apart(),
            ffi::SQLITE_LOCK_SHARED => self.share(),
            ffi::SQLITE_LOCK_RESERVED => {
                self.bytes.verify()?;
                let taken = self.take_exclusive(RESERVED)?;
                self.reserves.set(taken);
                Ok(taken)
            }
            ffi::SQLITE_LOCK_EXCLUSIVE => match self.upgrade {
                Upgrade::Atomic => self.exclude(),
                Upgrade::Stepwise | Upgrade::Apart => self.exclude_stepwise(),
            },
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }?;
        if raised {
            self.level.set(wanted);
        }
        Ok(raised)
    }

    /// A reader passes PENDING, which a writer about to write holds. That keeps the writer from waiting for ever and nothing
    /// more, so in turns it is enough to ask.
    fn share(&self) -> io::Result<bool> {
        if let Some(queue) = &self.queue {
            return Ok(queue.pass(&self.bytes)? && self.bytes.take(SHARED, false)?);
        }
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

    /// A writer keeps new readers out first. Who comes from SHARED undoes a transaction that nobody owns, or ends the WAL; of
    /// two such each has the other in the way, and gives up.
    fn exclude(&self) -> io::Result<bool> {
        match self.level.get() {
            ffi::SQLITE_LOCK_SHARED => self.bytes.verify()?,
            ffi::SQLITE_LOCK_RESERVED => {
                if !self.bytes.take(PENDING, true)? {
                    return Ok(false);
                }
                self.level.set(ffi::SQLITE_LOCK_PENDING);
            }
            _ => {}
        }
        self.bytes.take(SHARED, true)
    }

    fn exclude_stepwise(&self) -> io::Result<bool> {
        if self.level.get() < ffi::SQLITE_LOCK_PENDING {
            // A reader that is just beginning has it for a moment.
            if !apart::few(|| self.take_exclusive(PENDING))? {
                return Ok(false);
            }
            self.level.set(ffi::SQLITE_LOCK_PENDING);
        }
        if !self.bare.replace(true) || self.upgrade == Upgrade::Stepwise {
            self.bytes.release(self.reads.get())?;
        }
        if matches!(self.take_exclusive(SHARED), Ok(true)) {
            self.bare.set(false);
            return Ok(true);
        }
        match self.share_again()? {
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
        let unlock = ffi::SQLITE_IOERR_UNLOCK;
        let result = match wanted {
            ffi::SQLITE_LOCK_SHARED => self.lower(level),
            _ => self.release_all(level).map_err(|error| (unlock, error)),
        };
        if result.is_ok() || wanted == ffi::SQLITE_LOCK_NONE {
            // The pager takes NONE for reached even if it was not: then it begins anew, with a lock for which it asks.
            self.bare.set(false);
            self.reserves.set(false);
            self.level.set(wanted);
        }
        if let (Some(queue), ffi::SQLITE_LOCK_NONE) = (&self.queue, wanted) {
            queue.left(&self.bytes);
        }
        if let (Some(bell), ffi::SQLITE_LOCK_NONE) = (&self.bell, wanted) {
            bell.left(&self.bytes);
        }
        match result {
            Ok(()) => ffi::SQLITE_OK,
            Err((code, error)) => {
                self.failed(error);
                code
            }
        }
    }

    fn lower(&self, level: i32) -> Result<(), (i32, io::Error)> {
        let unlock = |error| (ffi::SQLITE_IOERR_UNLOCK, error);
        if level == ffi::SQLITE_LOCK_EXCLUSIVE || self.bare.get() {
            let failed = match self.upgrade {
                Upgrade::Atomic => ffi::SQLITE_IOERR_RDLOCK,
                // As on the way up, one lock at a time, with PENDING still held: without SHARED it may not be given up.
                Upgrade::Stepwise | Upgrade::Apart => {
                    if self.upgrade == Upgrade::Stepwise || !self.bare.replace(true) {
                        self.bytes.release(SHARED).map_err(unlock)?;
                    }
                    ffi::SQLITE_IOERR_UNLOCK
                }
            };
            match self.share_again() {
                Ok(true) => {}
                Ok(false) => return Err((failed, io::Error::other("a shared lock could not be taken back"))),
                Err(error) => return Err((failed, error)),
            }
        }
        self.release_both(level).map_err(unlock)
    }

    /// How large the file is, if that can be told.
    pub(crate) fn size(&self, class: Class) -> Option<u64> {
        self.bytes.size(class)
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
        self.somebody_reserves().map_err(|error| {
            self.failed(error);
            ffi::SQLITE_IOERR_CHECKRESERVEDLOCK
        })
    }
}

#[cfg(target_os = "linux")]
impl FileLocks {
    /// Gives all of them back, and closes the handle and the base file, as soon as that harms nobody. The code of the
    /// base's xClose.
    pub(crate) fn close_with(self, base: parked::Close) -> i32 {
        if let Some(queue) = &self.queue {
            queue.close();
        }
        if self.upgrade == Upgrade::Apart {
            // The handle gives nothing back by itself.
            self.unlock(ffi::SQLITE_LOCK_NONE);
        }
        if let Some(bell) = &self.bell {
            bell.close(&self.bytes);
        }
        self.bytes.close_with(base)
    }

    /// Whether a descriptor was given back when its handle was opened.
    pub(crate) fn freed_a_descriptor(&self) -> bool {
        self.bytes.has_moved()
    }

    /// Whether somebody has a lock who is no process that this one can see.
    pub(crate) fn held_by_nobody_here(&self) -> bool {
        self.bytes.held_by_nobody_here()
    }
}

#[cfg(not(target_os = "linux"))]
impl FileLocks {
    pub(crate) fn close_with(self, _: Box<dyn FnOnce() -> i32 + Send>) -> i32 {
        match self.bytes {}
    }

    pub(crate) fn held_by_nobody_here(&self) -> bool {
        match self.bytes {}
    }
}

/// What stock SQLite makes of an error of a lock: some of a network filesystem mean only that it is to be tried again.
fn code_of(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN | libc::ETIMEDOUT | libc::EBUSY | libc::EINTR | libc::ENOLCK) => {
            ffi::SQLITE_BUSY
        }
        Some(libc::EPERM) => ffi::SQLITE_PERM,
        _ => ffi::SQLITE_IOERR_LOCK,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
