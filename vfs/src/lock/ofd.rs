//! Open file description locks (fcntl_locking(2)): they belong to our handle, and no other close() drops them.
//!
//! The handle is opened once and stays open as long as the connection; closing it is the business of [`parked`]. Its number is
//! 1000 or more where that can be had, out of reach of code that closes a number it has closed before, and it is compared with
//! the database before a transaction writes: a number that has come to mean another file, or a later handle of ours, is never
//! used again.

use std::cell::Cell;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::AtFlags;

use super::barrier::{self, Raised};
use super::handles::{self, Registered};
use super::kind::Kind;
use super::manner::Manner;
use super::number::{is_not, is_still};
use super::parked::{self, Close, Identity};
use super::{ALL, Bytes, Range, fork, names, streams};
use crate::fs::{self, Class, Found};

/// Below this are the numbers that programs use, and mix up.
const HIGH: libc::c_int = 1000;

/// The whole file.
const EVERYTHING: Range = Range { start: 0, length: 0 };

/// A handle for locks.
#[derive(Debug)]
pub(crate) struct Handle {
    /// None: the number is ours no more.
    registered: Cell<Option<Registered>>,
    identity: Identity,
    manner: Manner,
    /// How many forks there had been when it was opened: see [`fork::count`].
    forks: u32,
    /// The error number with which the filesystem has refused the first question about locks.
    refused: Option<i32>,
    /// The database, if the file is its -shm.
    database: Option<Identity>,
    /// Whose the file was when it was opened, if it is a -shm.
    owner: Option<(u32, u32)>,
    /// The kind of its filesystem, if it was asked for.
    kind: Option<Kind>,
    found: Option<Box<Found>>,
    /// The directory of its name, if it was looked at in the same open.
    directory: Option<Identity>,
    moved: bool,
    /// The byte that stands for its name.
    claim: Cell<Option<i64>>,
    /// It is one of those in use on its inode.
    counted: Cell<bool>,
}

impl Handle {
    /// Opens a handle on the database, which is open already, under a high number if it can be.
    pub(crate) fn open(path: &Path, read_only: bool) -> io::Result<Handle> {
        let mut handle = Handle::low(path, Manner::plain(read_only))?;
        handle.move_up();
        Ok(handle)
    }

    /// The same, in this manner, under whatever number the kernel gives.
    pub(crate) fn low(path: &Path, mut manner: Manner) -> io::Result<Handle> {
        if parked::anything() {
            let found = std::fs::metadata(path)?;
            parked::sweep(found.dev());
            if let Some(mut handle) = Handle::kept(&found, manner, None) {
                handle.found =
                    handle.fd().and_then(|fd| fs::look(fd, Path::new(""), AtFlags::EMPTY_PATH)).ok().map(Box::new);
                return Ok(handle);
            }
        }
        let file = streams::keep_off(manner.open(path)?);
        // Before anything that a server has to answer: a child that is forked meanwhile must not keep it.
        let registered = handles::register(file.as_raw_fd());
        let found = fs::look(file.as_fd(), Path::new(""), AtFlags::EMPTY_PATH).ok();
        let identity = match &found {
            Some(found) => Ok(found.identity),
            None => file.metadata().map(|found| (found.dev(), found.ino())),
        };
        // From here on it may not simply be closed.
        let fd = file.into_raw_fd();
        let magic = found.and_then(|found| fs::known_magic(found.seen.mount));
        let kind = magic.map(Kind::of_magic).or_else(|| Kind::of(fd));
        let identity = identity?;
        parked::joined(identity, kind, manner);
        let mut handle = Handle::of(registered, identity, manner, None);
        (handle.kind, handle.found) = (kind, found.map(Box::new));
        Ok(handle)
    }

    /// What was found when it was opened, if it was opened for this connection.
    pub(crate) fn found(&self) -> Option<&Found> {
        self.found.as_deref()
    }

    pub(super) fn is_apart(&self) -> bool {
        self.manner.apart
    }

    /// The directory in which the file was seen a moment ago.
    pub(crate) fn is_in(&mut self, directory: Identity) {
        self.directory = Some(directory);
    }

    pub(super) fn directory(&self) -> Option<Identity> {
        self.directory
    }

    /// Whether it has got a high number, so that the low one is free now, or was a moment ago.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved
    }

    /// Gives it a high number, if there is one to be had and nobody has locks on the file: closing the low number drops those of this
    /// process.
    pub(crate) fn move_up(&mut self) {
        let Some(low) = self.registered.get() else { return };
        match parked::is_free(Some(self.identity), low.fd(), self.kind) {
            Err(error) => self.refused = Some(error.raw_os_error().unwrap_or(libc::EIO)),
            Ok(true) => self.move_up_alone(),
            Ok(false) => {}
        }
    }

    /// The same where nobody had locks a moment ago.
    pub(crate) fn move_up_alone(&mut self) {
        if let Some(low) = self.registered.get().filter(|low| low.fd() < HIGH) {
            let claim = self.unclaim();
            let moved = moved_up(low, self.identity, self.kind);
            self.moved = moved.is_some();
            self.registered.set(Some(moved.unwrap_or(low)));
            if let Some(byte) = claim {
                self.claimed(byte);
            }
        }
    }

    /// Opens a handle on the -shm of `database`. Links are not followed. It is created with the permissions `create`, if
    /// those are given and it is missing.
    pub(crate) fn beside(path: &Path, read_only: bool, create: Option<u32>, database: Identity) -> io::Result<Handle> {
        if parked::anything() {
            if let Ok(found) = std::fs::symlink_metadata(path) {
                parked::sweep(found.dev());
                if let Some(handle) = Handle::kept(&found, Manner::plain(read_only), Some(database)) {
                    return Ok(handle);
                }
            }
        }
        let mut options = File::options();
        options.read(true).write(!read_only).custom_flags(libc::O_NOFOLLOW);
        if let Some(mode) = create {
            options.create(true).mode(mode);
        }
        let file = streams::keep_off(options.open(path)?);
        let registered = handles::register(file.as_raw_fd());
        let found = file.metadata();
        if let (Some(mode), Ok(found)) = (create, &found) {
            if found.len() == 0 && found.mode() & 0o777 != mode {
                // The umask does not count. Where this is not allowed the file stays as it is.
                let _ = file.set_permissions(Permissions::from_mode(mode));
            }
        }
        // From here on it may not simply be closed, nor moved up: a stock neighbour may open and lock the file at any moment.
        let _fd = file.into_raw_fd();
        let owner = found.as_ref().ok().map(|found| (found.uid(), found.gid()));
        let identity = found.map(|found| (found.dev(), found.ino()))?;
        let manner = Manner::plain(read_only);
        parked::joined(identity, None, manner);
        let mut handle = Handle::of(registered, identity, manner, None);
        (handle.database, handle.owner) = (Some(database), owner);
        Ok(handle)
    }

    /// One that was kept of this inode, if its number still means it.
    fn kept(found: &Metadata, manner: Manner, database: Option<Identity>) -> Option<Handle> {
        let identity = (found.dev(), found.ino());
        while let Some(registered) = parked::take(identity, manner) {
            if !is_not(registered, identity) {
                let mut handle = Handle::of(registered, identity, manner, None);
                handle.database = database;
                return Some(handle);
            }
            registered.forget();
            parked::left(identity, None);
        }
        None
    }

    fn of(at: Registered, identity: Identity, manner: Manner, refused: Option<i32>) -> Handle {
        let (registered, counted) = (Cell::new(Some(at)), Cell::new(true));
        Handle {
            registered,
            identity,
            manner,
            forks: fork::count(),
            refused,
            database: None,
            owner: None,
            kind: None,
            found: None,
            directory: None,
            moved: false,
            claim: Cell::new(None),
            counted,
        }
    }

    /// The error number with which the filesystem has refused the first question about locks.
    pub(crate) fn refused(&self) -> Option<i32> {
        self.refused
    }

    /// User and group of a -shm when it was opened, if that was for this handle.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Device and inode of the file behind it.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The descriptor.
    ///
    /// # Errors
    /// In a forked child, where the file is the parent's, and if the number is ours no more.
    #[inline]
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.forks != fork::count() {
            return Err(inherited());
        }
        match self.registered.get() {
            // SAFETY: open as long as the handle, as far as it is up to us.
            Some(registered) if registered.is_current() => Ok(unsafe { BorrowedFd::borrow_raw(registered.fd()) }),
            _ => Err(lost()),
        }
    }

    /// The strongest kind of lock that somebody else has on these bytes, as far as the kernel tells: `true` for exclusive.
    pub(crate) fn held(&self, range: Range) -> io::Result<Option<bool>> {
        let lock = self.call(libc::F_OFD_GETLK, libc::F_WRLCK as libc::c_short, range)?;
        let kind = libc::c_int::from(lock.l_type);
        Ok((kind != libc::F_UNLCK as libc::c_int).then_some(kind == libc::F_WRLCK as libc::c_int))
    }

    /// Whether somebody has a lock who is no process that this one can see.
    pub(crate) fn held_by_nobody_here(&self) -> bool {
        // The other kind of question tells a number also of locks of an open file, if a server keeps them.
        let lock = self.call(libc::F_GETLK, libc::F_WRLCK as libc::c_short, ALL);
        lock.is_ok_and(|lock| lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid == 0)
    }

    /// Releases its locks and closes it together with the base file of its connection, or keeps both open while closing
    /// would take away locks of others in this process. The code of the base's xClose.
    pub(crate) fn close_with(self, base: Close) -> i32 {
        self.leave(Some(base))
    }

    fn leave(&self, base: Option<Close>) -> i32 {
        self.counted.set(false);
        if self.forks != fork::count() {
            // The child has closed it before anything else.
            self.registered.set(None);
            return base.map_or(libsqlite3_sys::SQLITE_OK, |base| base());
        }
        self.unclaim();
        // Kept, the handle would keep its locks too, and so would a child that is about to call exec(2). On SMB a client may let one
        // handle on the server stand for several of ours, and would give back their locks as well.
        if !self.manner.apart {
            let _ = self.release(EVERYTHING);
        }
        match (self.registered.take(), self.database) {
            (Some(registered), _) if is_not(registered, self.identity) => {
                registered.forget();
                parked::left(self.identity, base)
            }
            (Some(registered), None) => parked::leave(self.identity, registered, self.manner, base),
            (Some(registered), Some(database)) => {
                parked::leave_index(self.identity, database, registered, self.manner.read_only);
                base.map_or(libsqlite3_sys::SQLITE_OK, |base| base())
            }
            (None, _) => parked::left(self.identity, base),
        }
    }

    /// It has claimed this byte, and nobody uses the file by another name.
    pub(super) fn claimed(&self, byte: i64) {
        if let Some(registered) = self.registered.get() {
            names::remember(self.identity, byte, registered);
            self.claim.set(Some(byte));
        }
    }

    /// The name is claimed no more; the byte stays locked until the handle is closed.
    pub(super) fn unclaim(&self) -> Option<i64> {
        let byte = self.claim.take()?;
        names::forget(self.identity, byte, self.registered.get()?);
        Some(byte)
    }

    fn call(&self, command: libc::c_int, kind: libc::c_short, range: Range) -> io::Result<libc::flock> {
        let fd = self.fd()?.as_raw_fd();
        let mut lock = flock(kind, range);
        // SAFETY: a descriptor and a structure that lives across the call.
        while unsafe { libc::fcntl(fd, command, &raw mut lock) } != 0 {
            self.failed(fd)?;
        }
        Ok(lock)
    }

    /// Takes a lock of this kind, or releases it: what nearly every call here is.
    #[inline]
    fn set(&self, kind: libc::c_int, range: Range) -> io::Result<()> {
        let fd = self.fd()?.as_raw_fd();
        let mut lock = flock(kind as libc::c_short, range);
        // SAFETY: as above.
        while unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw mut lock) } != 0 {
            self.failed(fd)?;
        }
        Ok(())
    }

    /// Why a call has failed; nothing if it is to be made again.
    #[cold]
    fn failed(&self, fd: RawFd) -> io::Result<()> {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => Ok(()),
            // A handle for reading takes no exclusive locks, and is told so in the same way.
            Some(libc::EBADF) if matches!(is_still(fd, self.identity), Ok(false)) => Err(self.lose()),
            _ => Err(error),
        }
    }

    /// The number is somebody else's now.
    fn lose(&self) -> io::Error {
        self.unclaim();
        self.registered.take().map(Registered::forget);
        lost()
    }
}

#[inline]
fn flock(kind: libc::c_short, range: Range) -> libc::flock {
    // SAFETY: flock is a plain C structure for which all zeros is a value; l_pid must be 0 for these commands.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = range.start as libc::off_t;
    lock.l_len = range.length as libc::off_t;
    lock
}

#[cold]
fn inherited() -> io::Error {
    io::Error::other("the connection belongs to the parent process")
}

#[cold]
fn lost() -> io::Error {
    io::Error::other(
        "something in this process has closed the descriptor that held its locks; close the connection, and find the code \
         that closes descriptors which are not its own",
    )
}

/// The same file under a high number, registered.
fn moved_up(low: Registered, identity: Identity, kind: Option<Kind>) -> Option<Registered> {
    // SAFETY: an open descriptor.
    let high = unsafe { libc::fcntl(low.fd(), libc::F_DUPFD_CLOEXEC, HIGH) };
    if high < 0 {
        return None;
    }
    let high = handles::register(high);
    // A server is asked often enough before anybody is told whether its locks work.
    let raised = if kind.is_some_and(Kind::is_local) { barrier::raise(high.fd()) } else { Raised::Never };
    // A table of descriptors that must grow for the number waits milliseconds for the other threads: time for a neighbour.
    let moved = raised != Raised::Held && matches!(parked::is_free(Some(identity), high.fd(), kind), Ok(true));
    if moved {
        low.close();
    }
    if raised == Raised::Yes {
        barrier::lower(high.fd());
    }
    if !moved {
        parked::keep_double(identity, high);
    }
    moved.then_some(high)
}

impl Bytes for Handle {
    #[inline]
    fn take(&self, range: Range, exclusive: bool) -> io::Result<bool> {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        match self.set(kind as libc::c_int, range) {
            Ok(()) => Ok(true),
            // EAGAIN from the kernel, EACCES from an SMB server.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn takes_no_exclusive_locks(&self) -> bool {
        self.manner.read_only
    }

    fn take_apart(&self, range: Range) -> io::Result<bool> {
        let kind = if self.manner.read_only { libc::F_RDLCK } else { libc::F_WRLCK };
        match self.set(kind as libc::c_int, range) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(false),
            // The server gave it, and then this kernel has found one that somebody here is just giving up: it stays on the server
            // unless it is given back.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => self.release(range).map(|()| false),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn release(&self, range: Range) -> io::Result<()> {
        self.set(libc::F_UNLCK as libc::c_int, range)
    }

    fn taken(&self, range: Range) -> io::Result<bool> {
        Ok(self.held(range)?.is_some())
    }

    fn exclusive(&self, range: Range) -> io::Result<Option<i64>> {
        let lock = self.call(libc::F_OFD_GETLK, libc::F_RDLCK as libc::c_short, range)?;
        Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_start))
    }

    fn descriptor(&self) -> Option<i32> {
        self.fd().ok().map(|fd| fd.as_raw_fd())
    }

    fn size(&self, class: Class) -> Option<u64> {
        use rustix::fs::StatxFlags;
        // A client of a network filesystem knows the size after its own writes, and not the times. FUSE in Linux forgets the size
        // as well, though it keeps it right; what it does not forget brings it along, as fresh as names and attributes are.
        let wanted = if class == Class::Fuse { StatxFlags::NLINK } else { StatxFlags::SIZE };
        // A client of SMB answers from what it knows for a second, also after another client has written.
        let flags = AtFlags::EMPTY_PATH | if self.manner.apart { AtFlags::STATX_FORCE_SYNC } else { AtFlags::empty() };
        let found = rustix::fs::statx(self.fd().ok()?, c"", flags, wanted).ok()?;
        (found.stx_mask & StatxFlags::SIZE.bits() != 0).then_some(found.stx_size)
    }

    #[allow(clippy::unnecessary_cast)]
    fn stat(&self) -> Option<rustix::fs::Stat> {
        let found = rustix::fs::fstat(self.fd().ok()?).ok()?;
        ((found.st_dev as u64, found.st_ino as u64) == self.identity).then_some(found)
    }

    fn verify(&self) -> io::Result<()> {
        match is_still(self.fd()?.as_raw_fd(), self.identity)? {
            true => Ok(()),
            false => Err(self.lose()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.counted.get() {
            self.leave(None);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
