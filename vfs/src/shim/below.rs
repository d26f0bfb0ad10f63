//! A database file as its checksums see it: what is held is read from memory, and what is written is protected.
//!
//! Data flows one way: SQLite, checksums, what protects the order of writes, base. So the guard takes its sums of the bytes
//! that the disk gets.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::protect;
use crate::main_file::MainFile;

/// An open main database, for the length of a call of SQLite's on it.
pub(crate) struct Below<'a> {
    base: &'a BaseFile,
    main: &'a MainFile,
}

impl<'a> Below<'a> {
    /// # Safety
    /// SQLite must be calling a method of the file behind `base`, which is that of `main`.
    pub(crate) unsafe fn new(base: &'a BaseFile, main: &'a MainFile) -> Below<'a> {
        Below { base, main }
    }

    /// xRead into `buffer`.
    #[inline]
    pub(crate) fn read_into(&self, buffer: &mut [u8], at: i64) -> c_int {
        if self.main.holds.load(Ordering::Relaxed) {
            // SAFETY: the contract of `new`.
            if let Some(code) = unsafe { protect::read_held(self.main, buffer, u64::try_from(at).unwrap_or(0)) } {
                return code;
            }
        }
        self.base.read_into(buffer, at)
    }

    /// xWrite of `bytes`.
    pub(crate) fn write(&self, bytes: &[u8], at: i64) -> c_int {
        let Ok(at) = u64::try_from(at) else { return ffi::SQLITE_IOERR_WRITE };
        // SAFETY: the contract of `new`.
        match unsafe { protect::write_database(self.main, bytes, at) } {
            Some(code) => code,
            None => self.base.write_from(bytes, at),
        }
    }

    /// The size in bytes, or the result code.
    pub(crate) fn size(&self) -> Result<i64, c_int> {
        if self.main.holds.load(Ordering::Relaxed) {
            // SAFETY: the contract of `new`.
            match unsafe { protect::flush(self.main) } {
                ffi::SQLITE_OK => {}
                code => return Err(code),
            }
        }
        self.base.size().and_then(|size| i64::try_from(size).map_err(|_| ffi::SQLITE_IOERR_FSTAT))
    }
}
