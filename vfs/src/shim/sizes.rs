//! xFileSize of a database where asking is a round trip: from what is known, or by a question about nothing but the size, which
//! a client of a network filesystem can answer by itself more often.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use crate::lock::FileLocks;
use crate::main_file::MainFile;

/// # Safety
/// `size` must point to a 64-bit integer.
pub(super) unsafe fn of_database(main: &MainFile, locks: Option<&FileLocks>, base: &BaseFile, size: *mut i64) -> c_int {
    let known = main.known_size().and_then(|known| known.size());
    let told = known
        // To SQLite's unix VFS a file of one byte is an empty one: only the base knows what it makes of it.
        .or_else(|| locks.and_then(|locks| locks.size(main.verdict.class)).filter(|size| *size != 1))
        .and_then(|size| i64::try_from(size).ok());
    let code = match told {
        Some(told) => {
            // SAFETY: the caller's.
            unsafe { *size = told };
            ffi::SQLITE_OK
        }
        // SAFETY: as above.
        None => unsafe { base.file_size(size) },
    };
    if let (ffi::SQLITE_OK, None, Some(mut knows)) = (code, known, main.known_size()) {
        // SAFETY: as above; it has been written.
        knows.told(u64::try_from(unsafe { *size }).unwrap_or(0));
    }
    code
}
