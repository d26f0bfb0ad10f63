//! Reading a database file beside SQLite.
//!
//! Invariant: opening and closing a [`DatabaseFile`] drops nobody's locks. SQLite's own belong to the process, and any
//! close() of the file drops them (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>);
//! so the handle is one like those that hold our locks, which are kept open while closing them would do harm.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;

use crate::lock::ofd::Handle;
use crate::lock::{ALL, Bytes, fork};

/// A database file that is open for reading, while SQLite may have it open too.
///
/// It takes no lock: whoever reads it needs a read transaction that holds off those who would change what is read.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # std::fs::write(&path, "SQLite format 3\0")?;
/// let file = hardened_vfs::DatabaseFile::open(&path)?;
/// let mut start = [0; 16];
/// assert_eq!(file.read_at(&mut start, 0)?, 16);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DatabaseFile(Handle);

impl DatabaseFile {
    /// Opens it; links are followed.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> io::Result<DatabaseFile> {
        fork::watch();
        Handle::open(path, true).map(DatabaseFile)
    }

    /// Opens it for writing too, and keeps everybody else out of it: as long as this is open nobody reads or writes the database
    /// who takes SQLite's locks. `None` if somebody has one now. Nothing is to be written through it all the same.
    ///
    /// # Errors
    /// Those of open(2) and fcntl(2): some filesystems know no such locks.
    pub fn alone(path: &Path) -> io::Result<Option<DatabaseFile>> {
        fork::watch();
        let handle = Handle::open(path, false)?;
        Ok(handle.take(ALL, true)?.then_some(DatabaseFile(handle)))
    }

    /// Device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.0.identity()
    }

    /// Reads what there is at `at`, as far as it goes into `buffer`: fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// Those of pread(2), and in a forked child.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(self.fd()?, rest, at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of fstat(2), and in a forked child.
    pub fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(self.fd()?)?.st_size).unwrap_or(0))
    }

    /// Whether somebody holds a lock of SQLite's on it: a connection that reads or writes, or is in WAL mode, in any process.
    ///
    /// # Errors
    /// Those of fcntl(2), and in a forked child.
    pub fn is_locked(&self) -> io::Result<bool> {
        self.0.held(ALL).map(|held| held.is_some())
    }

    /// The descriptor, to read from only.
    ///
    /// # Errors
    /// In a forked child, where the file is the parent's.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.0.fd()
    }
}
