//! A shim above another VFS that opens databases under names of its own, made with sqlite3_create_filename as SQLite asks
//! for, and not by a pager.

use libsqlite3_sys as ffi;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

static BELOW: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let below = BELOW.load(Ordering::Relaxed);
    // SAFETY: the contract of xOpen; the copies are leaked, so they outlive the file.
    unsafe {
        let mut name: *const c_char = name;
        if !name.is_null() {
            let beside = |suffix: &[u8]| CString::new([CStr::from_ptr(name).to_bytes(), suffix].concat()).unwrap();
            let (journal, wal) = (beside(b"-journal"), beside(b"-wal"));
            name = ffi::sqlite3_create_filename(name, journal.as_ptr(), wal.as_ptr(), 0, std::ptr::null_mut());
        }
        (*below).xOpen.unwrap()(below, name, file, flags, out_flags)
    }
}

/// Registers it as `name` over the VFS `below`. One per process.
///
/// # Panics
/// If there is no VFS `below`.
pub fn register(name: &'static CStr, below: &CStr) {
    // SAFETY: a copy of a registered VFS, leaked, with a name and an xOpen of its own.
    unsafe {
        let below = ffi::sqlite3_vfs_find(below.as_ptr());
        assert!(!below.is_null());
        BELOW.store(below, Ordering::Relaxed);
        let mut above = std::ptr::read(below);
        (above.zName, above.pNext) = (name.as_ptr(), std::ptr::null_mut());
        above.xOpen = Some(open);
        assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(above)), 0), ffi::SQLITE_OK);
    }
}
