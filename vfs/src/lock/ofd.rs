//! Open file description locks (fcntl_locking(2)): they belong to our handle, and no other close() drops them.
//!
//! The handle is opened once and stays open as long as the connection; closing it is the business of [`parked`]. Its number is
//! 1000 or more where that can be had, out of reach of code that closes a number it has closed before, and it is compared with
//! the database before a transaction writes: a number that has come to mean another file, or a later handle of ours, is never
//! used again.

use std::cell::Cell;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::barrier::{self, Raised};
use super::handles::{self, Registered};
use super::kind::Kind;
use super::manner::Manner;
use super::number::{is_not, is_still};
use super::parked::{self, Close, DATA, Identity};
use super::{ALL, Bytes, Range, fork, streams};
use crate::fs::Class;

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
    /// It is one of those in use on its inode.
    counted: Cell<bool>,
}

impl Handle {
    /// Opens a handle on the database, which is open already.
    pub(crate) fn open(path: &Path, read_only: bool) -> io::Result<Handle> {
        Handle::open_as(path, Manner::plain(read_only))
    }

    /// The same, in this manner.
    pub(crate) fn open_as(path: &Path, mut manner: Manner) -> io::Result<Handle> {
        if parked::anything() {
            let found = std::fs::metadata(path)?;
            parked::sweep(found.dev());
            if let Some(handle) = Handle::kept(&found, manner, None) {
                return Ok(handle);
            }
        }
        streams::occupy();
        let file = manner.open(path)?;
        Handle::on(file, manner)
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
        streams::occupy();
        let file = options.open(path)?;
        let registered = handles::register(file.as_raw_fd());
        if let (Some(mode), Ok(found)) = (create, file.metadata()) {
            if found.len() == 0 && found.mode() & 0o777 != mode {
                // The umask does not count. Where this is not allowed the file stays as it is.
                let _ = file.set_permissions(Permissions::from_mode(mode));
            }
        }
        // Moved up, it would be closed once: a stock neighbour may open and lock the file at any moment.
        let refused =
            parked::first(file.as_raw_fd(), DATA).err().map(|error| error.raw_os_error().unwrap_or(libc::EIO));
        let found = file.metadata();
        // From here on it may not simply be closed.
        let _fd = file.into_raw_fd();
        let mut handle = Handle::at(found, registered, Manner::plain(read_only), (refused, None))?;
        handle.database = Some(database);
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

    fn on(file: File, manner: Manner) -> io::Result<Handle> {
        // Before anything that a server has to answer: a child that is forked meanwhile must not keep it.
        let low = handles::register(file.as_raw_fd());
        let found = file.metadata();
        let identity = found.as_ref().ok().map(|found| (found.dev(), found.ino()));
        // From here on it may not simply be closed.
        let _fd = file.into_raw_fd();
        let kind = Kind::of(low.fd());
        let (registered, refused) = move_up(low, identity, kind);
        Handle::at(found, registered, manner, (refused, kind))
    }

    fn at(
        found: io::Result<Metadata>,
        at: Registered,
        manner: Manner,
        (refused, kind): (Option<i32>, Option<Kind>),
    ) -> io::Result<Handle> {
        let found = found?;
        let identity = (found.dev(), found.ino());
        parked::joined(identity, kind, manner);
        Ok(Handle::of(at, identity, manner, refused))
    }

    fn of(at: Registered, identity: Identity, manner: Manner, refused: Option<i32>) -> Handle {
        let (registered, counted) = (Cell::new(Some(at)), Cell::new(true));
        Handle { registered, identity, manner, forks: fork::count(), refused, database: None, counted }
    }

    /// The error number with which the filesystem has refused the first question about locks.
    pub(crate) fn refused(&self) -> Option<i32> {
        self.refused
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
        // Kept, the handle would keep its locks too, and so would a child that is about to call exec(2).
        let _ = self.release(EVERYTHING);
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

/// The same file under a high number, if there is one to be had and nobody has locks on the file: closing the low number
/// drops those of this process. The number that is answered is registered.
fn move_up(low: Registered, identity: Option<Identity>, kind: Option<Kind>) -> (Registered, Option<i32>) {
    match (parked::is_free(identity, low.fd(), kind), identity) {
        (Err(error), _) => (low, Some(error.raw_os_error().unwrap_or(libc::EIO))),
        (Ok(true), Some(identity)) if low.fd() < HIGH => (moved_up(low, identity, kind).unwrap_or(low), None),
        (Ok(_), _) => (low, None),
    }
}

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
        use rustix::fs::{AtFlags, StatxFlags};
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
mod tests {
    use super::super::{RESERVED, SHARED};
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// One at a time: what is kept belongs to the process.
    fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        fork::watch();
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn two_handles_of_one_process_meet_and_no_other_close_drops_a_lock() {
        let _turn = turn();
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (Handle::open(file.path(), false).unwrap(), Handle::open(file.path(), false).unwrap());
        assert!(a.take(RESERVED, true).unwrap());
        assert!(!b.take(RESERVED, true).unwrap());
        drop(File::open(file.path()).unwrap());
        assert!(b.taken(RESERVED).unwrap());
        assert!(a.take(SHARED, false).unwrap() && b.take(SHARED, false).unwrap());
        drop(a);
        assert!(b.take(RESERVED, true).unwrap());
    }

    /// What a stock connection holds while it reads.
    fn read_lock(file: &File) {
        // SAFETY: an open descriptor and a structure that lives across the call.
        let code = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_RDLCK as libc::c_short;
            lock.l_start = SHARED.start as libc::off_t;
            lock.l_len = SHARED.length as libc::off_t;
            libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut lock)
        };
        assert_eq!(code, 0);
    }

    #[test]
    fn a_number_that_was_closed_and_is_that_of_a_later_handle_is_left_to_that_one() {
        let _turn = turn();
        let file = tempfile::NamedTempFile::new().unwrap();
        let old = Handle::open(file.path(), false).unwrap();
        assert!(old.take(SHARED, false).unwrap());
        let number = old.fd().unwrap().as_raw_fd();
        // What a program does by mistake; the number may be given to another test, unless it is taken at once.
        let double = File::options().read(true).write(true).open(file.path()).unwrap();
        // SAFETY: an open descriptor takes the place of another one.
        assert_eq!(unsafe { libc::dup3(double.as_raw_fd(), number, libc::O_CLOEXEC) }, number);
        let new = Handle::at(double.metadata(), handles::register(number), Manner::plain(false), (None, None)).unwrap();
        assert!(new.take(RESERVED, true).unwrap());
        assert!(old.release(EVERYTHING).is_err() && old.verify().is_err() && old.stat().is_none());
        drop(old);
        assert_eq!(new.fd().unwrap().as_raw_fd(), number);
        assert!(new.verify().is_ok(), "not closed");
        let observer = Handle::open(file.path(), false).unwrap();
        assert!(observer.taken(RESERVED).unwrap(), "not released");
    }

    #[test]
    fn a_handle_is_not_closed_while_neighbours_and_other_processes_have_locks() {
        let _turn = turn();
        let file = tempfile::NamedTempFile::new().unwrap();
        // The lock of another process is the first one that the kernel tells of.
        let (mut ready, mut done) = ([0; 2], [0; 2]);
        // SAFETY: arrays of two; the child reads, locks, writes, reads and leaves with _exit.
        let child = unsafe {
            assert_eq!((libc::pipe(ready.as_mut_ptr()), libc::pipe(done.as_mut_ptr())), (0, 0));
            let child = libc::fork();
            if child == 0 {
                let other = File::options().read(true).open(file.path());
                if let Ok(other) = &other {
                    read_lock(other);
                }
                let mut byte = 0_u8;
                libc::write(ready[1], (&raw const byte).cast(), 1);
                libc::read(done[0], (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
            let mut byte = 0_u8;
            assert_eq!(libc::read(ready[0], (&raw mut byte).cast(), 1), 1);
            child
        };
        let stock = File::options().read(true).write(true).open(file.path()).unwrap();
        read_lock(&stock);
        drop(Handle::open(file.path(), false).unwrap());
        // SAFETY: lets the child go and waits for it.
        unsafe {
            assert_eq!(libc::write(done[1], (&raw const child).cast(), 1), 1);
            assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child);
        }
        let observer = Handle::open(file.path(), false).unwrap();
        assert!(observer.taken(SHARED).unwrap(), "closing would have dropped the neighbour's lock");
    }

    #[test]
    fn a_handle_that_was_kept_serves_only_its_own_kind_and_process() {
        let _turn = turn();
        let file = tempfile::NamedTempFile::new().unwrap();
        let stock = File::options().read(true).write(true).open(file.path()).unwrap();
        read_lock(&stock);
        for read_only in [true, false] {
            drop(Handle::open(file.path(), read_only).unwrap());
        }
        let mine = Handle::open(file.path(), false).unwrap();
        assert!(mine.take(RESERVED, true).unwrap(), "of the two the one that can write");
        drop(mine);
        // Both would take the handle that was kept.
        let theirs = fork::in_child(|| {
            Handle::open(file.path(), false).is_ok_and(|theirs| {
                let taken = theirs.take(RESERVED, true).unwrap_or(false);
                std::mem::forget(theirs);
                taken
            })
        });
        assert!(theirs, "free, so the child gets it; it ended with the child");
        let mine = Handle::open(file.path(), false).unwrap();
        assert!(mine.take(RESERVED, true).unwrap());
        let theirs = fork::in_child(|| {
            Handle::open(file.path(), false).is_ok_and(|theirs| theirs.take(RESERVED, true).unwrap_or(false))
        });
        assert!(!theirs, "mine");
    }

    #[test]
    fn a_handle_is_not_closed_while_a_neighbour_has_posix_locks_on_the_file() {
        let _turn = turn();
        let file = tempfile::NamedTempFile::new().unwrap();
        let stock = File::options().read(true).write(true).open(file.path()).unwrap();
        read_lock(&stock);
        let observer = Handle::open(file.path(), false).unwrap();
        assert!(observer.taken(SHARED).unwrap());
        drop(Handle::open(file.path(), false).unwrap());
        assert!(observer.taken(SHARED).unwrap(), "closing would have dropped the neighbour's lock");
    }
}
