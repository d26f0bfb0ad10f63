//! The methods of the VFS itself.

use std::ffi::{CStr, c_char, c_int};

use libsqlite3_sys as ffi;

use super::disk::Registered;
use super::file;
use crate::fault_vfs::Call;

/// The table to register for a disk.
pub(super) fn table(disk: &'static Registered) -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<file::File>() as c_int,
        mxPathname: 512,
        pNext: std::ptr::null_mut(),
        zName: disk.c_name().as_ptr(),
        pAppData: std::ptr::from_ref(disk).cast_mut().cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// The disk behind a VFS pointer that SQLite passes back.
///
/// # Safety
/// `vfs` is a table made by [`table`].
unsafe fn disk(vfs: *mut ffi::sqlite3_vfs) -> &'static Registered {
    // SAFETY: `table` has put a leaked disk there.
    unsafe { &*(*vfs).pAppData.cast::<Registered>() }
}

/// A name as SQLite passes it.
///
/// # Safety
/// NUL-terminated, and alive for as long as the answer is used.
unsafe fn text<'a>(name: *const c_char) -> &'a str {
    // SAFETY: the caller's contract.
    unsafe { CStr::from_ptr(name) }.to_str().expect("names of the simulator are ASCII")
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    to: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the contract of xOpen: our table, a name or null, room for szOsFile bytes, a place for flags or null.
    unsafe {
        let disk = disk(vfs);
        (*to).pMethods = std::ptr::null();
        let name = (!name.is_null()).then(|| text(name));
        let mut live = disk.live();
        live.count(Call::Open, name.unwrap_or_default());
        match live.open(name, flags) {
            Ok(handle) => file::set_up(to, disk, handle),
            Err(code) => return code,
        }
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: the contract of xDelete.
    let (disk, name) = unsafe { (disk(vfs), text(name)) };
    let mut live = disk.live();
    live.count(Call::Delete, name);
    live.delete(name, sync_directory & 1 != 0)
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: the contract of xAccess.
    unsafe {
        let (disk, name) = (disk(vfs), text(name));
        let mut live = disk.live();
        live.count(Call::Access, name);
        // SQLite's unix VFS says of an empty file that it does not exist.
        let there = live.size(name).is_some_and(|size| size > 0 || flags != ffi::SQLITE_ACCESS_EXISTS);
        *out = c_int::from(there);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the contract of xFullPathname: a name, and `room` bytes for the answer.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes();
        let slash: &[u8] = if name.starts_with(b"/") { b"" } else { b"/" };
        let full = [slash, name, b"\0"].concat();
        if full.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        out.cast::<u8>().copy_from_nonoverlapping(full.as_ptr(), full.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: the contract of xRandomness: `room` bytes to fill.
    let (disk, bytes) = unsafe { (disk(vfs), std::slice::from_raw_parts_mut(out.cast::<u8>(), room as usize)) };
    match &mut disk.live().rng {
        Some(rng) => rng.fill(bytes),
        None => bytes.fill(0),
    }
    room
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: our table.
    unsafe { disk(vfs) }.live().slept += i64::from(microseconds);
    microseconds
}

/// 2026-01-01, in milliseconds of the Julian day, and what was slept since.
fn now(disk: &Registered) -> i64 {
    212_634_547_200_000 + disk.live().slept / 1000
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: our table, and a place for the answer.
    unsafe { *out = now(disk(vfs)) as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: our table, and a place for the answer.
    unsafe { *out = now(disk(vfs)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn get_last_error(_: *mut ffi::sqlite3_vfs, room: c_int, out: *mut c_char) -> c_int {
    if room > 0 {
        // SAFETY: `room` bytes for the answer.
        unsafe { *out = 0 };
    }
    0
}
