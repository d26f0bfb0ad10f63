//! Numbers that several processes share, on a file: what one has stored the others load, also after it was killed.
//!
//! Invariant: the file is never shorter than the mapping, because nobody but [`Board::create`] sets its length.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// The numbers, all zero at first. They stay mapped until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Board(&'static [AtomicU64]);

impl Board {
    /// Makes the file, with `numbers` of them.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(path: &Path, numbers: usize) -> std::io::Result<Board> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len((numbers * size_of::<AtomicU64>()) as u64)?;
        Board::of(&file)
    }

    /// The board that another process has made.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path) -> std::io::Result<Board> {
        Board::of(&File::options().read(true).write(true).open(path)?)
    }

    fn of(file: &File) -> std::io::Result<Board> {
        let bytes = file.metadata()?.len() as usize;
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new mapping of an open file; the kernel chooses where.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let numbers = bytes / size_of::<AtomicU64>();
        // SAFETY: a mapping of `bytes` bytes that begins with a page, stays for ever and is touched as atomics only.
        Ok(Board(unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), numbers) }))
    }

    /// One of the numbers.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn at(&self, index: usize) -> &'static AtomicU64 {
        &self.0[index]
    }
}
