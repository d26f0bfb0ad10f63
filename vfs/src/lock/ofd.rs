//! Open file description locks (fcntl_locking(2)): they belong to our handle, and no other close() drops them.
//!
//! The handle is opened once and stays open as long as the connection. Closing it would drop the POSIX locks that stock
//! connections of this process hold on the file; while there are any, the handle is kept for the next connection instead.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{ALL, Bytes, Range};

/// Device and inode.
type Identity = (u64, u64);

/// Handles that could not be closed.
static PARKED: Mutex<Option<HashMap<Identity, Vec<OwnedFd>>>> = Mutex::new(None);

/// A handle for locks.
#[derive(Debug)]
pub(crate) struct Handle {
    fd: Option<OwnedFd>,
    identity: Identity,
    /// A forked child has a copy of the handle; what it released would be the parent's.
    pid: u32,
}

impl Handle {
    /// Opens a handle on the database, which is open already.
    pub(crate) fn open(path: &Path, read_only: bool) -> io::Result<Handle> {
        let metadata = std::fs::metadata(path)?;
        let identity = (metadata.dev(), metadata.ino());
        let parked = {
            let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
            parked.as_mut().and_then(|parked| parked.get_mut(&identity)?.pop())
        };
        let fd = match parked {
            Some(fd) => fd,
            None => {
                let file = File::options().read(true).write(!read_only).open(path)?;
                let opened = file.metadata()?;
                if (opened.dev(), opened.ino()) != identity {
                    // Closing it now could drop locks on whatever it is.
                    park((opened.dev(), opened.ino()), file.into());
                    return Err(io::Error::other("the file was replaced while it was being opened"));
                }
                file.into()
            }
        };
        Ok(Handle { fd: Some(fd), identity, pid: std::process::id() })
    }

    fn call(&self, command: libc::c_int, kind: libc::c_short, range: Range) -> io::Result<libc::flock> {
        let fd = match &self.fd {
            Some(fd) if self.pid == std::process::id() => fd,
            _ => return Err(io::Error::other("the connection belongs to the parent process")),
        };
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
        let lock = self.call(libc::F_OFD_GETLK, libc::F_WRLCK as libc::c_short, range)?;
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let neighbour = match self.call(libc::F_OFD_GETLK, libc::F_WRLCK as libc::c_short, ALL) {
            Ok(lock) => {
                lock.l_type != libc::F_UNLCK as libc::c_short && u32::try_from(lock.l_pid) == Ok(std::process::id())
            }
            // In a forked child closing releases nothing: the parent's copy of the handle keeps the locks.
            Err(_) => false,
        };
        if let (true, Some(fd)) = (neighbour, self.fd.take()) {
            park(self.identity, fd);
        }
    }
}

fn park(identity: Identity, fd: OwnedFd) {
    let mut parked = PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    parked.get_or_insert_with(HashMap::new).entry(identity).or_default().push(fd);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{RESERVED, SHARED};
    use super::*;

    #[test]
    fn two_handles_of_one_process_meet_and_no_other_close_drops_a_lock() {
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

    #[test]
    fn a_handle_is_not_closed_while_a_neighbour_has_posix_locks_on_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stock = File::options().read(true).write(true).open(file.path()).unwrap();
        // SAFETY: an open descriptor and a structure that lives across the call.
        let code = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_RDLCK as libc::c_short;
            lock.l_start = SHARED.start as libc::off_t;
            lock.l_len = SHARED.length as libc::off_t;
            libc::fcntl(stock.as_raw_fd(), libc::F_SETLK, &raw mut lock)
        };
        assert_eq!(code, 0);
        let observer = Handle::open(file.path(), false).unwrap();
        assert!(observer.taken(SHARED).unwrap());
        drop(Handle::open(file.path(), false).unwrap());
        assert!(observer.taken(SHARED).unwrap(), "closing would have dropped the neighbour's lock");
    }
}
