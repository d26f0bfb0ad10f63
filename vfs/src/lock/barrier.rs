//! Keeps neighbours from beginning to lock a database while descriptors of it are closed.
//!
//! Whoever takes the first lock on a database takes PENDING shared before it. So while we have PENDING exclusively, who has no
//! lock gets none, and who has one is seen when the kernel is asked. A close() drops the POSIX locks of the process before the
//! locks of the open file that is closed (fcntl_locking(2)): a barrier goes with the descriptor that has it, and not too early.
//!
//! A process that is just being started has a copy of the descriptor until it calls exec(2), and so has the barrier.
//!
//! Others are BUSY meanwhile: a few microseconds, or as long as the list of all locks is read. A process with a single thread
//! has no neighbour that could act in between, and raises none.

use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

use super::PENDING;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raised {
    Yes,
    /// Nobody can act in between.
    Needless,
    /// Somebody else has the byte, who has a lock or is about to take one.
    Held,
    /// A descriptor for reading takes no such lock, nor do some filesystems.
    Never,
}

/// Raises one on the database of `fd`.
pub(super) fn raise(fd: RawFd) -> Raised {
    if is_single() {
        return Raised::Needless;
    }
    match set(fd, libc::F_WRLCK) {
        Ok(()) => Raised::Yes,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Raised::Held,
        Err(_) => Raised::Never,
    }
}

/// Takes down the one that was raised with `fd`.
pub(super) fn lower(fd: RawFd) {
    // It goes at the latest with the descriptor.
    let _ = set(fd, libc::F_UNLCK);
}

/// Whether this process has one thread only. Where /proc is another container's nobody knows.
fn is_single() -> bool {
    // A link for each thread, and two that every directory has.
    std::fs::metadata("/proc/self/task").is_ok_and(|tasks| tasks.nlink() == 3)
}

fn set(fd: RawFd, kind: libc::c_int) -> std::io::Result<()> {
    // SAFETY: flock is a plain C structure for which all zeros is a value, and l_pid must be 0; it lives across the call.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = PENDING.start as libc::off_t;
        lock.l_len = PENDING.length as libc::off_t;
        match libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}
