//! Locks of an open file description: they stand in the way of every other open file, in this process too.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A lock on some bytes, until it is dropped.
#[derive(Debug)]
pub struct OfdLock<'file> {
    file: &'file File,
    start: i64,
    len: i64,
}

/// Locks `len` bytes from `start` on, without waiting. The file must be open for writing.
///
/// # Panics
/// If the lock cannot be had.
pub fn lock(file: &File, start: i64, len: i64) -> OfdLock<'_> {
    set(file, libc::F_WRLCK, start, len);
    OfdLock { file, start, len }
}

/// The same with a shared lock.
///
/// # Panics
/// As [`lock`].
pub fn share(file: &File, start: i64, len: i64) -> OfdLock<'_> {
    set(file, libc::F_RDLCK, start, len);
    OfdLock { file, start, len }
}

impl Drop for OfdLock<'_> {
    fn drop(&mut self) {
        set(self.file, libc::F_UNLCK, self.start, self.len);
    }
}

fn set(file: &File, kind: i32, start: i64, len: i64) {
    // SAFETY: all zeroes is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: F_OFD_SETLK takes an open file and a flock whose l_pid is 0, and reads it only.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    assert_eq!(rc, 0, "F_OFD_SETLK: {}", std::io::Error::last_os_error());
}

/// Whether another open file has a lock on any of these bytes.
///
/// # Panics
/// If the filesystem does not tell.
pub fn is_locked(file: &File, start: i64, len: i64) -> bool {
    // SAFETY: all zeroes is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    // SAFETY: F_OFD_GETLK takes an open file and a flock whose l_pid is 0, which lives across the call.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(rc, 0, "F_OFD_GETLK: {}", std::io::Error::last_os_error());
    lock.l_type != libc::F_UNLCK as i16
}
