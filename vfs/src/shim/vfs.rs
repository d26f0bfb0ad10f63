//! sqlite3_vfs: the methods that take a name.
//!
//! All of them go to the base, with SQLite's own arguments. A database that was opened with another base in its URI takes
//! its journals there as well.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libsqlite3_sys as ffi;

use super::edge::guarded;
use super::register::{Registration, of};
use super::{bases, journals, judge, open as opening, protect};
use crate::explain;
use crate::fs;
use crate::lock;
use crate::main_file;
use crate::options::PolicyChoice;
use crate::refusal;

type Vfs = *mut ffi::sqlite3_vfs;

/// The path in a C string of SQLite's.
///
/// # Safety
/// `name` must be a C string.
pub(crate) unsafe fn path_of(name: *const c_char) -> PathBuf {
    // SAFETY: see above.
    PathBuf::from(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

/// Calls a method of the base, or answers `missing` where it has none.
macro_rules! forward {
    ($vfs:expr, $base:expr, $method:ident ( $($argument:expr),* ), $missing:expr) => {{
        let base: Vfs = $base;
        // SAFETY: the base is registered, its methods belong to it, and the arguments are SQLite's own under the same
        // contract (https://www.sqlite.org/c3ref/vfs.html).
        unsafe {
            match (*base).$method {
                Some(method) => method(base $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

fn base(vfs: Vfs) -> Vfs {
    // SAFETY: SQLite calls these methods with the VFS they belong to.
    unsafe { of(vfs) }.base
}

/// # Safety
/// `name` must be null or a C string.
unsafe fn base_for(vfs: Vfs, name: *const c_char) -> Vfs {
    if name.is_null() || bases::none() {
        return base(vfs);
    }
    // SAFETY: see above.
    bases::of(unsafe { CStr::from_ptr(name) }).unwrap_or_else(|| base(vfs))
}

pub(crate) unsafe extern "C" fn open(
    vfs: Vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives us szOsFile bytes. No methods: nothing to close unless the open succeeds.
    unsafe { (*file).pMethods = std::ptr::null() };
    // SAFETY: the contract of xOpen.
    guarded(ffi::SQLITE_CANTOPEN, || unsafe { opening::open(of(vfs), name, file, flags, out_flags) })
}

pub(crate) unsafe extern "C" fn delete(vfs: Vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_DELETE, || {
        // SAFETY: SQLite's C string.
        let (base, path) = unsafe { (base_for(vfs, name), path_of(name)) };
        if main_file::is_inherited(name as usize, &path) {
            return ffi::SQLITE_IOERR_DELETE;
        }
        let forward =
            |sync_directory: c_int| forward!(vfs, base, xDelete(name, sync_directory), ffi::SQLITE_IOERR_DELETE);
        // SAFETY: SQLite calls, for the connection that the file belongs to.
        unsafe { protect::delete(&path, sync_directory, forward) }
    })
}

pub(crate) unsafe extern "C" fn access(vfs: Vfs, name: *const c_char, flags: c_int, result: *mut c_int) -> c_int {
    guarded(ffi::SQLITE_IOERR_ACCESS, || {
        // SAFETY: SQLite's C string.
        let base = unsafe { base_for(vfs, name) };
        // SAFETY: SQLite's C string.
        if flags == ffi::SQLITE_ACCESS_EXISTS && unsafe { journals::is_log_of_none(name) } {
            // SAFETY: as above.
            unsafe { *result = 0 };
            return ffi::SQLITE_OK;
        }
        if flags == ffi::SQLITE_ACCESS_EXISTS {
            // SAFETY: as above.
            if let Some(there) = unsafe { journals::is_there(name) } {
                // What the client remembers is no answer.
                let Ok(there) = there else { return ffi::SQLITE_IOERR_ACCESS };
                // SAFETY: a pointer to an integer.
                unsafe { *result = there.into() };
                return ffi::SQLITE_OK;
            }
        }
        forward!(vfs, base, xAccess(name, flags, result), ffi::SQLITE_IOERR_ACCESS)
    })
}

pub(crate) unsafe extern "C" fn full_pathname(vfs: Vfs, name: *const c_char, size: c_int, out: *mut c_char) -> c_int {
    guarded(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: the VFS is ours, the name SQLite's C string.
        let (registration, path) = unsafe { (of(vfs), path_of(name)) };
        if let Some(code) = does_not_answer(registration, &path) {
            return code;
        }
        let code = forward!(vfs, registration.base, xFullPathname(name, size, out), ffi::SQLITE_CANTOPEN);
        if !bases::is_native(registration.base) {
            return code;
        }
        // SAFETY: a registered VFS; on success the base has left a C string.
        let (most, length) = unsafe {
            let ok = code & 0xff == ffi::SQLITE_OK;
            ((*vfs).mxPathname, if ok { CStr::from_ptr(out).to_bytes().len() } else { 0 })
        };
        // The pager, too, says no without a word, to a path that leaves no room for the names of the journals.
        let most = usize::try_from(most).unwrap_or(0);
        let too_long = length + "-journal".len() > most;
        if code & 0xff != ffi::SQLITE_OK || too_long {
            opening::forget_look(&path);
            let code = if too_long { ffi::SQLITE_CANTOPEN } else { code };
            opening::tell(registration, &mut explain::failed_path(&path, code, most));
            return code;
        }
        code
    })
}

/// The base is about to follow the path, which never ends on a server that does not answer; so ask first, in bounded time.
fn does_not_answer(registration: &Registration, path: &Path) -> Option<c_int> {
    let defaults = &registration.defaults;
    if defaults.policy == PolicyChoice::Off || !bases::is_native(registration.base) || path.as_os_str().is_empty() {
        return None;
    }
    let known = match path.is_absolute() {
        true => fs::known_local(path),
        false => std::env::current_dir().is_ok_and(|directory| fs::known_local(&directory.join(path))),
    };
    if known {
        return None;
    }
    match fs::answers(path, defaults.fs_timeout) {
        Err(fs::Problem::NoAnswer(no_answer)) => {
            let mut refusal = judge::no_answer(path, &no_answer);
            opening::tell(registration, &mut refusal);
            Some(refusal.code)
        }
        _ => None,
    }
}

pub(crate) unsafe extern "C" fn get_last_error(vfs: Vfs, size: c_int, out: *mut c_char) -> c_int {
    let code = forward!(vfs, base(vfs), xGetLastError(size, out), 0);
    let Some(refusal) = refusal::last_refusal_here() else { return code };
    let text = refusal.to_string();
    let room = usize::try_from(size).unwrap_or(0);
    if out.is_null() || room == 0 {
        return code;
    }
    let bytes = text.as_bytes();
    let length = bytes.len().min(room - 1);
    // SAFETY: SQLite's buffer has room for `size` bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast::<u8>(), length);
        *out.add(length) = 0;
    }
    code
}

pub(crate) unsafe extern "C" fn dl_open(vfs: Vfs, name: *const c_char) -> *mut c_void {
    forward!(vfs, base(vfs), xDlOpen(name), std::ptr::null_mut())
}

pub(crate) unsafe extern "C" fn dl_error(vfs: Vfs, size: c_int, out: *mut c_char) {
    forward!(vfs, base(vfs), xDlError(size, out), ());
}

type Symbol = Option<unsafe extern "C" fn(Vfs, *mut c_void, *const c_char)>;

pub(crate) unsafe extern "C" fn dl_sym(vfs: Vfs, library: *mut c_void, name: *const c_char) -> Symbol {
    forward!(vfs, base(vfs), xDlSym(library, name), None)
}

pub(crate) unsafe extern "C" fn dl_close(vfs: Vfs, library: *mut c_void) {
    forward!(vfs, base(vfs), xDlClose(library), ());
}

pub(crate) unsafe extern "C" fn randomness(vfs: Vfs, size: c_int, out: *mut c_char) -> c_int {
    forward!(vfs, base(vfs), xRandomness(size, out), 0)
}

pub(crate) unsafe extern "C" fn sleep(vfs: Vfs, microseconds: c_int) -> c_int {
    guarded(0, || lock::sleep(microseconds, |microseconds| forward!(vfs, base(vfs), xSleep(microseconds), 0)))
}

pub(crate) unsafe extern "C" fn current_time(vfs: Vfs, time: *mut f64) -> c_int {
    forward!(vfs, base(vfs), xCurrentTime(time), ffi::SQLITE_ERROR)
}

pub(crate) unsafe extern "C" fn current_time_int64(vfs: Vfs, time: *mut i64) -> c_int {
    forward!(vfs, base(vfs), xCurrentTimeInt64(time), ffi::SQLITE_ERROR)
}

pub(crate) unsafe extern "C" fn set_system_call(
    vfs: Vfs,
    name: *const c_char,
    call: ffi::sqlite3_syscall_ptr,
) -> c_int {
    forward!(vfs, base(vfs), xSetSystemCall(name, call), ffi::SQLITE_NOTFOUND)
}

pub(crate) unsafe extern "C" fn get_system_call(vfs: Vfs, name: *const c_char) -> ffi::sqlite3_syscall_ptr {
    forward!(vfs, base(vfs), xGetSystemCall(name), None)
}

pub(crate) unsafe extern "C" fn next_system_call(vfs: Vfs, name: *const c_char) -> *const c_char {
    forward!(vfs, base(vfs), xNextSystemCall(name), std::ptr::null())
}
