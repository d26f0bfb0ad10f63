//! xFileSize of a database where asking is a round trip: from what is known, or by a question about nothing but the size, which
//! a client of a network filesystem can answer by itself more often.
//!
//! A Linux client of SMB believes no server that a file has become smaller, as long as somebody on this host has it open for writing.
//! There the last byte is read before a size is believed: reading goes to the server.

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
    if code != ffi::SQLITE_OK || known.is_some() {
        return code;
    }
    // SAFETY: as above; it has been written.
    let size = unsafe { &mut *size };
    let mut whole = u64::try_from(*size).unwrap_or(0);
    if main.verdict.is_smb() {
        whole = match as_read(base, whole) {
            1 => 0,
            bytes => bytes,
        };
        *size = i64::try_from(whole).unwrap_or(*size);
    }
    if let Some(mut knows) = main.known_size() {
        knows.told(whole);
    }
    code
}

fn as_read(base: &BaseFile, told: u64) -> u64 {
    last(told, |at| {
        let mut byte = [0];
        i64::try_from(at).is_ok_and(|at| base.read_into(&mut byte, at) != ffi::SQLITE_IOERR_SHORT_READ)
    })
}

/// How many bytes there are of those that were told of.
fn last(told: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    if told == 0 || is_there(told - 1) {
        return told;
    }
    let (mut some, mut none) = (0, told - 1);
    while some < none {
        let middle = some + (none - some) / 2;
        match is_there(middle) {
            true => some = middle + 1,
            false => none = middle,
        }
    }
    some
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn a_size_that_is_told_too_large_is_found_by_reading() {
        for (told, real) in
            [(0, 0), (1, 0), (1, 1), (40960, 40960), (40960, 32768), (40960, 0), (40960, 40959), (u64::MAX, 7)]
        {
            assert_eq!(last(told, |at| at < real), real, "{told}");
        }
    }
}
