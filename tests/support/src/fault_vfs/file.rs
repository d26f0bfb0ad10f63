//! The methods of an open file.
//!
//! Invariant: the file of the VFS below lies directly after ours in the memory that SQLite gives us,
//! and it is open exactly as long as ours.

use super::{Call, FaultVfs};
use libsqlite3_sys as ffi;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::Ordering;

/// An open file.
#[repr(C, align(8))]
struct File {
    base: ffi::sqlite3_file,
    vfs: &'static FaultVfs,
    /// What xOpen was given: SQLite keeps it valid and unchanged until xClose.
    name: *const c_char,
}

/// How much of `szOsFile` is ours; the file below needs the alignment that SQLite gives us.
pub(super) const SIZE: c_int = size_of::<File>() as c_int;

const fn methods(version: c_int, has_shm_map: bool) -> ffi::sqlite3_io_methods {
    ffi::sqlite3_io_methods {
        iVersion: version,
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xFileSize: Some(file_size),
        xLock: Some(lock),
        xUnlock: Some(unlock),
        xCheckReservedLock: Some(check_reserved_lock),
        xFileControl: Some(file_control),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(device_characteristics),
        xShmMap: if has_shm_map { Some(shm_map) } else { None },
        xShmLock: Some(shm_lock),
        xShmBarrier: Some(shm_barrier),
        xShmUnmap: Some(shm_unmap),
        xFetch: Some(fetch),
        xUnfetch: Some(unfetch),
    }
}

/// By version, then by whether there is an xShmMap.
static METHODS: [[ffi::sqlite3_io_methods; 2]; 3] = [
    [methods(1, false), methods(1, true)],
    [methods(2, false), methods(2, true)],
    [methods(3, false), methods(3, true)],
];

/// The place of the file below.
///
/// # Safety
/// `file` has room for our `szOsFile`.
pub(super) unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the caller's contract; szOsFile counts our size first.
    unsafe { file.byte_add(size_of::<File>()) }
}

/// Makes `file` ours after the file below was opened.
///
/// # Safety
/// `file` has room for our `szOsFile`, its real file is open and `name` lives until xClose.
pub(super) unsafe fn set_up(file: *mut ffi::sqlite3_file, vfs: &'static FaultVfs, name: *const c_char) {
    // SAFETY: the real file is open, so its methods are set.
    let below = unsafe { &*(*real(file)).pMethods };
    let version = vfs.io_version.load(Ordering::SeqCst).min(below.iVersion).clamp(1, 3);
    let has_shm_map = below.iVersion >= 2 && below.xShmMap.is_some();
    let shm = has_shm_map && !vfs.hide_shm_map.load(Ordering::SeqCst);
    let base = ffi::sqlite3_file { pMethods: &METHODS[version as usize - 1][usize::from(shm)] };
    // SAFETY: the memory is ours to fill and SQLite aligns it to 8 bytes.
    unsafe { file.cast::<File>().write(File { base, vfs, name }) };
}

/// Closes a file of the VFS below that wants it.
///
/// # Safety
/// `real` was passed to xOpen of the VFS below and has not been closed.
pub(super) unsafe fn close_real(real: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: a file with methods has been opened far enough to be closed.
    unsafe {
        let Some(methods) = (*real).pMethods.as_ref() else {
            return ffi::SQLITE_OK;
        };
        methods.xClose.map_or(ffi::SQLITE_OK, |close| close(real))
    }
}

/// Counts the call and finds out whether it fails.
///
/// # Safety
/// `file` is an open file of this VFS.
unsafe fn strike(file: *mut ffi::sqlite3_file, call: Call) -> Option<c_int> {
    // SAFETY: `set_up` has written a `File` there, whose name lives until xClose.
    unsafe {
        let file = &*file.cast::<File>();
        file.vfs.strike(call, file.name)
    }
}

/// Calls the method of the file below, or returns `$missing` if it has none.
macro_rules! below {
    ($file:expr, $method:ident($($arg:expr),*), $missing:expr) => {
        // SAFETY: the file below is open while ours is; the arguments are those that SQLite passed
        // for the method of the same name.
        unsafe {
            let real = real($file);
            (*(*real).pMethods).$method.map_or($missing, |method| method(real, $($arg),*))
        }
    };
}

/// A method that a rule can fail. `$spoil` leaves the outputs of a failed call in order.
macro_rules! method {
    ($name:ident, $call:ident, $method:ident($($arg:ident: $ty:ty),*)) => {
        method!($name, $call, $method($($arg: $ty),*), |_code| ());
    };
    ($name:ident, $call:ident, $method:ident($($arg:ident: $ty:ty),*), |$code:pat_param| $spoil:expr) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($arg: $ty),*) -> c_int {
            // SAFETY: SQLite calls methods on open files only.
            if let Some(code) = unsafe { strike(file, Call::$call) } {
                let $code = code;
                // SAFETY: the outputs are valid places, by the method's contract.
                #[allow(unused_unsafe, reason = "most methods have no output")]
                unsafe { $spoil };
                return code;
            }
            below!(file, $method($($arg),*), ffi::SQLITE_IOERR)
        }
    };
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once. The file below is closed whatever a rule says, for
    // SQLite does not try again.
    unsafe {
        let code = strike(file, Call::Close);
        let rc = close_real(real(file));
        (*file).pMethods = std::ptr::null();
        code.unwrap_or(rc)
    }
}

method!(
    read,
    Read,
    xRead(buffer: *mut c_void, amount: c_int, offset: ffi::sqlite3_int64),
    |code| if code == ffi::SQLITE_IOERR_SHORT_READ {
        // Whoever reports a short read must have zeroed what it could not read.
        buffer.cast::<u8>().write_bytes(0, amount as usize);
    }
);
method!(
    write,
    Write,
    xWrite(buffer: *const c_void, amount: c_int, offset: ffi::sqlite3_int64)
);
method!(truncate, Truncate, xTruncate(size: ffi::sqlite3_int64));
method!(sync, Sync, xSync(flags: c_int));
method!(file_size, FileSize, xFileSize(size: *mut ffi::sqlite3_int64));
method!(lock, Lock, xLock(level: c_int));
method!(unlock, Unlock, xUnlock(level: c_int));
method!(
    check_reserved_lock,
    CheckReservedLock,
    xCheckReservedLock(out: *mut c_int),
    |_| *out = 0
);
method!(other_control, FileControl, xFileControl(op: c_int, argument: *mut c_void));
method!(pragma, Pragma, xFileControl(op: c_int, argument: *mut c_void));

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: the arguments are those that SQLite passed.
    unsafe {
        match op {
            ffi::SQLITE_FCNTL_PRAGMA => pragma(file, op, argument),
            _ => other_control(file, op, argument),
        }
    }
}
method!(
    shm_map,
    ShmMap,
    xShmMap(region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void),
    |_| *out = std::ptr::null_mut()
);
method!(shm_lock, ShmLock, xShmLock(first: c_int, n: c_int, flags: c_int));
method!(shm_unmap, ShmUnmap, xShmUnmap(delete: c_int));
method!(
    fetch,
    Fetch,
    xFetch(offset: ffi::sqlite3_int64, amount: c_int, out: *mut *mut c_void),
    |_| *out = std::ptr::null_mut()
);

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    below!(file, xSectorSize(), 4096)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    below!(file, xDeviceCharacteristics(), 0)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    below!(file, xShmBarrier(), ())
}

unsafe extern "C" fn unfetch(file: *mut ffi::sqlite3_file, offset: ffi::sqlite3_int64, page: *mut c_void) -> c_int {
    below!(file, xUnfetch(offset, page), ffi::SQLITE_OK)
}
