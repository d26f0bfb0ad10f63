//! A journal of our own in the place of a file of the base.
//!
//! Invariant: from [`file_of`] to its xClose `journal` points to a [`JournalFile`] that only this file owns.

use std::ffi::{c_int, c_void};
use std::io;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::edge::guarded;
use crate::journal_file::JournalFile;

/// What stands in the memory of the file.
#[repr(C)]
struct Own {
    sqlite: ffi::sqlite3_file,
    journal: *mut JournalFile,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    // Nobody locks a journal.
    xLock: Some(no_lock),
    xUnlock: Some(no_lock),
    xCheckReservedLock: Some(not_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(no_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The journal as a file of a base.
///
/// # Errors
/// SQLITE_NOMEM.
pub(super) fn file_of(journal: JournalFile) -> Result<BaseFile, c_int> {
    let sqlite = ffi::sqlite3_file { pMethods: &raw const METHODS };
    let own = Own { sqlite, journal: Box::into_raw(Box::new(journal)) };
    // SAFETY: it begins with a file whose methods are those of this module.
    unsafe { BaseFile::with(own) }
}

/// # Safety
/// `file` must be open, and one call on it run at a time.
unsafe fn journal<'a>(file: *mut ffi::sqlite3_file) -> &'a mut JournalFile {
    // SAFETY: the invariant of the module.
    unsafe { &mut *(*file.cast::<Own>()).journal }
}

fn code(result: io::Result<()>, failed: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        Err(_) => failed,
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    guarded(ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: xClose is the last call on a file.
        drop(unsafe { Box::from_raw((*file.cast::<Own>()).journal) });
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buffer: *mut c_void, amount: c_int, at: i64) -> c_int {
    guarded(ffi::SQLITE_IOERR_READ, || {
        let (Ok(length), Ok(at)) = (usize::try_from(amount), u64::try_from(at)) else { return ffi::SQLITE_IOERR_READ };
        // SAFETY: an open file, and a buffer with room for `amount` bytes (https://www.sqlite.org/c3ref/io_methods.html).
        let (journal, buffer) = unsafe { (journal(file), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)) };
        match journal.read(buffer, at) {
            Ok(have) if have == length => ffi::SQLITE_OK,
            Ok(have) => {
                buffer.iter_mut().skip(have).for_each(|byte| *byte = 0);
                ffi::SQLITE_IOERR_SHORT_READ
            }
            Err(_) => ffi::SQLITE_IOERR_READ,
        }
    })
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, buffer: *const c_void, amount: c_int, at: i64) -> c_int {
    guarded(ffi::SQLITE_IOERR_WRITE, || {
        let (Ok(length), Ok(at)) = (usize::try_from(amount), u64::try_from(at)) else { return ffi::SQLITE_IOERR_WRITE };
        // SAFETY: an open file, and a buffer of `amount` bytes.
        let (journal, bytes) = unsafe { (journal(file), std::slice::from_raw_parts(buffer.cast::<u8>(), length)) };
        code(journal.write(bytes, at), ffi::SQLITE_IOERR_WRITE)
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    guarded(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: an open file.
        let journal = unsafe { journal(file) };
        code(journal.truncate(u64::try_from(size).unwrap_or(0)), ffi::SQLITE_IOERR_TRUNCATE)
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: an open file.
        match unsafe { journal(file) }.sync() {
            Ok(()) => ffi::SQLITE_OK,
            Err(_) => ffi::SQLITE_IOERR_FSYNC,
        }
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    guarded(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: an open file, and a pointer to a 64-bit integer.
        unsafe { *size = i64::try_from(journal(file).size()).unwrap_or(i64::MAX) };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn no_lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn not_reserved(_: *mut ffi::sqlite3_file, result: *mut c_int) -> c_int {
    // SAFETY: a pointer to an integer.
    unsafe { *result = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn no_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::journal_file::Access;
    use crate::lock::fork;

    #[test]
    fn a_journal_never_stands_where_messages_of_a_program_go() {
        let home = tempfile::tempdir().unwrap();
        let journal = home.path().join("app.db-journal");
        let access = Access { mode: 0o600, ..Access::default() };
        assert!(JournalFile::create(&journal, access, false).is_ok());
        let refused = fork::in_child(|| {
            // SAFETY: this process is a copy that writes no messages.
            unsafe { libc::close(libc::STDERR_FILENO) };
            JournalFile::create(&journal, access, false).is_err()
        });
        assert!(refused, "the base knows what to do about it");
    }
}
