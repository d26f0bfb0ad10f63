//! A look into a file on which others in this process may have locks.
//!
//! close() drops the POSIX locks of the process on the inode, and asking first leaves a gap. They belong to a table of
//! descriptors, and are dropped only by a close in that one. Invariant: the file is opened and closed only by a thread with a
//! table of its own, on which nothing else runs. Where such a table is not to be had, as in many containers, nobody looks.
//!
//! The end of the thread closes its copies of all descriptors, which drops nothing either.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread::{Builder, scope};

/// Reads the first bytes of a file, without dropping locks on it.
///
/// # Errors
/// If there are not so many, it is not a plain file, or nobody may look.
pub(crate) fn glance(path: &Path, start: &mut [u8]) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    scope(|scope| {
        let thread = Builder::new().name("hardened-glance".into()).spawn_scoped(scope, || {
            alone()?;
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            File::options().read(true).custom_flags(flags).open(path)?.read_exact_at(start, 0)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the look has failed")))
    })
}

/// Gives this thread, on which no signal handler runs from now on, a table of its own.
fn alone() -> io::Result<()> {
    // SAFETY: sigset_t is a plain C structure for which all zeros is a value; it lives across the calls. This thread shares
    // no descriptor with another that it would have to see closed.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        match libc::unshare(libc::CLONE_FILES) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ofd::Handle;
    use super::super::{Bytes, Range};
    use super::*;
    use std::os::fd::AsRawFd;

    const FIRST: Range = Range { start: 0, length: 1 };

    #[test]
    fn a_look_drops_no_lock_and_leaves_nothing_open() {
        super::super::fork::watch();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        // Opened before the lock, and closed after the last question.
        let observer = Handle::open(file.path(), false).unwrap();
        // SAFETY: an open descriptor and a structure that lives across the call.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_len) = (libc::F_WRLCK as libc::c_short, 1);
            assert_eq!(libc::fcntl(file.as_file().as_raw_fd(), libc::F_SETLK, &raw mut lock), 0);
        }
        let mut start = [0; 2];
        match glance(file.path(), &mut start) {
            Ok(()) => assert_eq!(&start, b"ab"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        }
        assert!(glance(file.path(), &mut [0; 4]).is_err(), "longer than the file");
        assert!(observer.taken(FIRST).unwrap());
        // As every other close does.
        drop(File::open(file.path()).unwrap());
        assert!(!observer.taken(FIRST).unwrap());
    }

    #[test]
    fn only_plain_files_are_looked_at() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", home.path().join("link")).unwrap();
        for path in [home.path(), Path::new("/dev/zero"), &home.path().join("link"), &home.path().join("none")] {
            assert!(glance(path, &mut [0]).is_err());
        }
    }
}
