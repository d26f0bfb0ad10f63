//! What the number of a descriptor means.
//!
//! Any code of the process may close a number that is ours, and another file gets it. Invariant: a number is said to mean another
//! file only if the kernel has said so.

use std::io;
use std::os::fd::RawFd;

use super::handles::Registered;
use super::parked::Identity;

/// Whether the number means another file or another handle by now.
pub(super) fn is_not(registered: Registered, identity: Identity) -> bool {
    !registered.is_current() || matches!(is_still(registered.fd(), identity), Ok(false))
}

/// Whether the number still means this file. A server that does not answer proves nothing, and need not be asked: which file a
/// descriptor means is known here.
pub(super) fn is_still(fd: RawFd, identity: Identity) -> io::Result<bool> {
    // SAFETY: statx is a plain C structure that lives across the call; a number that is no descriptor is an error.
    let found = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        match libc::statx(fd, c"".as_ptr(), flags, libc::STATX_INO, &raw mut found) {
            0 => Ok(found),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match found {
        Ok(found) => {
            let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
            Ok((device, found.stx_ino) == identity)
        }
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(false),
        // An old kernel, or a sandbox that does not know the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            is_still_by_fstat(fd, identity)
        }
        Err(error) => Err(error),
    }
}

#[allow(clippy::unnecessary_cast)]
fn is_still_by_fstat(fd: RawFd, identity: Identity) -> io::Result<bool> {
    // SAFETY: as for statx.
    let found = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        match libc::fstat(fd, &raw mut found) {
            0 => Ok(found),
            _ => Err(io::Error::last_os_error()),
        }
    };
    found.map(|found| (found.st_dev as u64, found.st_ino as u64) == identity)
}
