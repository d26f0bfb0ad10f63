//! Open file description locks (fcntl_locking(2)): they belong to our handle, and no other close() drops them.
//!
//! The handle is opened once and stays open as long as the connection. Closing it would drop the POSIX locks that stock
//! connections of this process hold on the file; while anybody has locks on it, the handle is kept for the next connection
//! instead. (Whose they are the kernel tells only of the first, and on SMB of none.)

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{ALL, ANY, Bytes, Range};

/// Device and inode.
type Identity = (u64, u64);

/// Which parked handles may be used: only one opened for writing takes exclusive locks, and one that a forked child has a
/// copy of shares its locks with the parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kept {
    identity: Identity,
    read_only: bool,
    pid: u32,
}

/// Handles that could not be closed.
static PARKED: Mutex<Option<HashMap<Kept, Vec<OwnedFd>>>> = Mutex::new(None);

/// A handle for locks.
#[derive(Debug)]
pub(crate) struct Handle {
    fd: Option<OwnedFd>,
    /// A forked child has a copy of the handle; what it released would be the parent's.
    kept: Kept,
    /// The bytes on which SQLite locks this file.
    bytes: Range,
}

impl Handle {
    /// Opens a handle on the database, which is open already.
    pub(crate) fn open(path: &Path, read_only: bool) -> io::Result<Handle> {
        let metadata = std::fs::metadata(path)?;
        let kept = Kept { identity: (metadata.dev(), metadata.ino()), read_only, pid: std::process::id() };
        let parked = {
            let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
            parked.as_mut().and_then(|parked| parked.get_mut(&kept)?.pop())
        };
        let fd = match parked {
            Some(fd) => fd,
            None => {
                let file = File::options().read(true).write(!read_only).open(path)?;
                let opened = file.metadata()?;
                let opened = Kept { identity: (opened.dev(), opened.ino()), ..kept };
                if opened != kept {
                    // Closing it now could drop locks on whatever it is.
                    park(opened, file.into());
                    return Err(io::Error::other("the file was replaced while it was being opened"));
                }
                file.into()
            }
        };
        Ok(Handle { fd: Some(fd), kept, bytes: ALL })
    }

    /// Opens a handle on a file beside the database, on which `bytes` are locked. Links are not followed. It is created with
    /// the permissions `create`, if those are given and it is missing.
    pub(crate) fn beside(path: &Path, read_only: bool, create: Option<u32>, bytes: Range) -> io::Result<Handle> {
        let kept = |found: &std::fs::Metadata| Kept {
            identity: (found.dev(), found.ino()),
            read_only,
            pid: std::process::id(),
        };
        if let Ok(found) = std::fs::symlink_metadata(path) {
            let kept = kept(&found);
            let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(fd) = parked.as_mut().and_then(|parked| parked.get_mut(&kept)?.pop()) {
                return Ok(Handle { fd: Some(fd), kept, bytes });
            }
        }
        let mut options = File::options();
        options.read(true).write(!read_only).custom_flags(libc::O_NOFOLLOW);
        if let Some(mode) = create {
            options.create(true).mode(mode);
        }
        let file = options.open(path)?;
        let found = match file.metadata() {
            Ok(found) => found,
            Err(error) => {
                // Closing it could drop locks.
                std::mem::forget(file);
                return Err(error);
            }
        };
        if let Some(mode) = create.filter(|mode| found.len() == 0 && found.mode() & 0o777 != *mode) {
            // The umask does not count. Where this is not allowed the file stays as it is.
            let _ = file.set_permissions(std::fs::Permissions::from_mode(mode));
        }
        Ok(Handle { kept: kept(&found), fd: Some(file.into()), bytes })
    }

    /// Keeps it open for the next connection without asking whether anybody else has locks.
    pub(crate) fn park(mut self) {
        if let Some(fd) = self.fd.take() {
            park(self.kept, fd);
        }
    }

    /// The descriptor.
    ///
    /// # Errors
    /// In a forked child: the file is the parent's.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.fd {
            Some(fd) if self.kept.pid == std::process::id() => Ok(fd.as_fd()),
            _ => Err(io::Error::other("the connection belongs to the parent process")),
        }
    }

    /// The strongest kind of lock that somebody else has on these bytes, as far as the kernel tells: `true` for exclusive.
    pub(crate) fn held(&self, range: Range) -> io::Result<Option<bool>> {
        let lock = self.call(libc::F_OFD_GETLK, libc::F_WRLCK as libc::c_short, range)?;
        let kind = libc::c_int::from(lock.l_type);
        Ok((kind != libc::F_UNLCK as libc::c_int).then_some(kind == libc::F_WRLCK as libc::c_int))
    }

    /// Device and inode of the file behind it.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.kept.identity
    }

    /// Reads the first bytes, and closes the handle only if nobody has a lock anywhere in the file.
    pub(super) fn glance(mut self, start: &mut [u8]) -> io::Result<()> {
        let Some(fd) = self.fd.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let file = File::from(fd);
        let read = std::os::unix::fs::FileExt::read_exact_at(&file, start, 0);
        self.fd = Some(file.into());
        if self.taken(ANY).unwrap_or(true) {
            if let Some(fd) = self.fd.take() {
                park(self.kept, fd);
            }
        }
        read
    }

    fn call(&self, command: libc::c_int, kind: libc::c_short, range: Range) -> io::Result<libc::flock> {
        let fd = self.fd()?;
        // SAFETY: flock is a plain C structure for which all zeros is a value; l_pid must be 0 for these commands.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = range.start as libc::off_t;
        lock.l_len = range.length as libc::off_t;
        loop {
            // SAFETY: an open descriptor and a structure that lives across the call.
            if unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) } == 0 {
                return Ok(lock);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Bytes for Handle {
    fn take(&self, range: Range, exclusive: bool) -> io::Result<bool> {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        match self.call(libc::F_OFD_SETLK, kind as libc::c_short, range) {
            Ok(_) => Ok(true),
            // EAGAIN from the kernel, EACCES from an SMB server.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn release(&self, range: Range) -> io::Result<()> {
        self.call(libc::F_OFD_SETLK, libc::F_UNLCK as libc::c_short, range).map(drop)
    }

    fn taken(&self, range: Range) -> io::Result<bool> {
        Ok(self.held(range)?.is_some())
    }

    fn stat(&self) -> Option<rustix::fs::Stat> {
        rustix::fs::fstat(self.fd.as_ref()?).ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Kept, the handle would keep its locks too. In a forked child nothing is released: the locks are the parent's.
        let _ = self.release(self.bytes);
        let neighbour = self.taken(self.bytes).unwrap_or(false);
        if let (true, Some(fd)) = (neighbour, self.fd.take()) {
            park(self.kept, fd);
        }
    }
}

fn park(kept: Kept, fd: OwnedFd) {
    let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    parked.get_or_insert_with(HashMap::new).entry(kept).or_default().push(fd);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{RESERVED, SHARED};
    use super::*;
    use std::sync::MutexGuard;

    /// One at a time: a child forked while another test has locked [`PARKED`] would wait for ever.
    fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
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

    /// Runs `body` in a forked child and tells what it answered.
    fn in_child(body: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child runs only `body` and leaves with _exit.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(i32::from(body()));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert!(libc::WIFEXITED(status), "{status}");
            libc::WEXITSTATUS(status) == 1
        }
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
        let theirs = in_child(|| {
            Handle::open(file.path(), false).is_ok_and(|theirs| {
                let taken = theirs.take(RESERVED, true).unwrap_or(false);
                std::mem::forget(theirs);
                taken
            })
        });
        assert!(theirs, "free, so the child gets it; it ended with the child");
        let mine = Handle::open(file.path(), false).unwrap();
        assert!(mine.take(RESERVED, true).unwrap());
        let theirs = in_child(|| {
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
