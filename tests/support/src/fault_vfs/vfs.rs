//! The methods of the VFS itself.

use super::{Call, FaultVfs, file};
use libsqlite3_sys as ffi;
use std::ffi::{c_char, c_int, c_void};

/// The table to register for `vfs`.
pub(super) fn table(vfs: &'static FaultVfs) -> ffi::sqlite3_vfs {
    // SAFETY: a registered VFS is valid for as long as it is registered, and `unix` and its like are
    // never unregistered.
    let below = unsafe { &*vfs.below };
    ffi::sqlite3_vfs {
        iVersion: below.iVersion.min(3),
        szOsFile: file::SIZE + below.szOsFile,
        mxPathname: below.mxPathname,
        pNext: std::ptr::null_mut(),
        zName: vfs.name.as_ptr(),
        pAppData: std::ptr::from_ref(vfs).cast_mut().cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: below.xDlOpen.and(Some(dl_open)),
        xDlError: below.xDlError.and(Some(dl_error)),
        xDlSym: below.xDlSym.and(Some(dl_sym)),
        xDlClose: below.xDlClose.and(Some(dl_close)),
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: below.xCurrentTimeInt64.and(Some(current_time_int64)),
        xSetSystemCall: below.xSetSystemCall.and(Some(set_system_call)),
        xGetSystemCall: below.xGetSystemCall.and(Some(get_system_call)),
        xNextSystemCall: below.xNextSystemCall.and(Some(next_system_call)),
    }
}

/// The object behind a VFS pointer that SQLite passes back.
///
/// # Safety
/// `vfs` is a table made by [`table`].
unsafe fn object(vfs: *mut ffi::sqlite3_vfs) -> &'static FaultVfs {
    // SAFETY: `table` has put a leaked object there.
    unsafe { &*(*vfs).pAppData.cast::<FaultVfs>() }
}

/// Calls a method of the VFS below, or returns `$missing` if it has none.
macro_rules! below {
    ($vfs:expr, $method:ident($($arg:expr),*), $missing:expr) => {{
        let below = $vfs.below;
        // SAFETY: the VFS below is registered, see `table`; the arguments are those that SQLite
        // passed for the method of the same name.
        unsafe { (*below).$method.map_or($missing, |method| method(below, $($arg),*)) }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    to: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the table that was registered.
    let vfs = unsafe { object(vfs) };
    // SAFETY: xOpen must set pMethods even if it fails; `to` has room for szOsFile bytes.
    unsafe { (*to).pMethods = std::ptr::null() };
    // SAFETY: the name is null or NUL-terminated, and SQLite keeps it until xClose.
    if let Some(code) = unsafe { vfs.strike(Call::Open, name) } {
        return code;
    }
    // SAFETY: the file below has its own szOsFile bytes after ours.
    let real = unsafe { file::real(to) };
    // SAFETY: as above.
    unsafe { (*real).pMethods = std::ptr::null() };
    let rc = below!(vfs, xOpen(name, real, flags, out_flags), ffi::SQLITE_CANTOPEN);
    // SAFETY: xOpen of the VFS below has set pMethods, to null unless the file needs an xClose.
    unsafe {
        if rc == ffi::SQLITE_OK {
            file::set_up(to, vfs, name);
        } else {
            file::close_real(real);
        }
    }
    rc
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: SQLite passes the table that was registered.
    let vfs = unsafe { object(vfs) };
    // SAFETY: xDelete takes a NUL-terminated name.
    match unsafe { vfs.strike(Call::Delete, name) } {
        Some(code) => code,
        None => below!(vfs, xDelete(name, sync_dir), ffi::SQLITE_IOERR_DELETE),
    }
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes the table that was registered.
    let vfs = unsafe { object(vfs) };
    // SAFETY: xAccess takes a NUL-terminated name.
    match unsafe { vfs.strike(Call::Access, name) } {
        Some(code) => {
            // SAFETY: xAccess takes a place for its answer.
            unsafe { *out = 0 };
            code
        }
        None => below!(vfs, xAccess(name, flags, out), ffi::SQLITE_IOERR_ACCESS),
    }
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes the table that was registered.
    let vfs = unsafe { object(vfs) };
    // SAFETY: xFullPathname takes a NUL-terminated name.
    match unsafe { vfs.strike(Call::FullPathname, name) } {
        Some(code) => code,
        None => below!(vfs, xFullPathname(name, room, out), ffi::SQLITE_CANTOPEN),
    }
}

/// A method that can only be forwarded.
macro_rules! forward {
    ($name:ident, $method:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $missing:expr) => {
        unsafe extern "C" fn $name(vfs: *mut ffi::sqlite3_vfs, $($arg: $ty),*) -> $ret {
            // SAFETY: SQLite passes the table that was registered.
            let vfs = unsafe { object(vfs) };
            below!(vfs, $method($($arg),*), $missing)
        }
    };
}

type Symbol = Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)>;

forward!(dl_open, xDlOpen(name: *const c_char) -> *mut c_void, std::ptr::null_mut());
forward!(dl_error, xDlError(room: c_int, out: *mut c_char) -> (), ());
forward!(dl_sym, xDlSym(library: *mut c_void, symbol: *const c_char) -> Symbol, None);
forward!(dl_close, xDlClose(library: *mut c_void) -> (), ());
forward!(randomness, xRandomness(room: c_int, out: *mut c_char) -> c_int, 0);
forward!(sleep, xSleep(microseconds: c_int) -> c_int, 0);
forward!(current_time, xCurrentTime(out: *mut f64) -> c_int, ffi::SQLITE_ERROR);
forward!(get_last_error, xGetLastError(room: c_int, out: *mut c_char) -> c_int, 0);
forward!(
    current_time_int64,
    xCurrentTimeInt64(out: *mut ffi::sqlite3_int64) -> c_int,
    ffi::SQLITE_ERROR
);
forward!(
    set_system_call,
    xSetSystemCall(name: *const c_char, call: ffi::sqlite3_syscall_ptr) -> c_int,
    ffi::SQLITE_NOTFOUND
);
forward!(
    get_system_call,
    xGetSystemCall(name: *const c_char) -> ffi::sqlite3_syscall_ptr,
    None
);
forward!(next_system_call, xNextSystemCall(name: *const c_char) -> *const c_char, std::ptr::null());
