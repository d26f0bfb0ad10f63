//! The methods of an open file.

use std::ffi::{c_int, c_void};
use std::sync::MutexGuard;

use libsqlite3_sys as ffi;

use super::disk::Registered;
use super::live::{Live, On};
use crate::fault_vfs::Call;

/// An open file, as SQLite keeps it.
#[repr(C)]
pub(super) struct File {
    base: ffi::sqlite3_file,
    disk: &'static Registered,
    handle: usize,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
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
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes `file` an open one.
///
/// # Safety
/// `file` has room for szOsFile bytes.
pub(super) unsafe fn set_up(file: *mut ffi::sqlite3_file, disk: &'static Registered, handle: usize) {
    let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
    // SAFETY: the memory is ours to fill and SQLite aligns it to 8 bytes.
    unsafe { file.cast::<File>().write(File { base, disk, handle }) };
}

/// The disk and the handle of a file.
///
/// # Safety
/// `file` is an open file of this VFS.
unsafe fn of(file: *mut ffi::sqlite3_file, call: Call) -> (MutexGuard<'static, Live>, usize) {
    // SAFETY: `set_up` has written a `File` there.
    let file = unsafe { &*file.cast::<File>() };
    let mut live = file.disk.live();
    if live.recording {
        let name = live.handle(file.handle).name.clone();
        live.count(call, &name);
    }
    (live, file.handle)
}

/// The file behind a handle, for what temporary files do not have.
fn named(live: &mut Live, handle: usize) -> Option<usize> {
    match live.handle(handle).on {
        On::Named(file) => Some(file),
        On::Temporary => None,
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once.
    let (mut live, handle) = unsafe { of(file, Call::Close) };
    live.close(handle);
    // SAFETY: the memory is the file's.
    unsafe { (*file).pMethods = std::ptr::null() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and a buffer of `amount` bytes.
    let ((mut live, handle), buffer) =
        unsafe { (of(file, Call::Read), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), amount as usize)) };
    let content = live.content(handle);
    let start = (offset as usize).min(content.len());
    let found = &content[start..(start + buffer.len()).min(content.len())];
    buffer[..found.len()].copy_from_slice(found);
    if found.len() == buffer.len() {
        return ffi::SQLITE_OK;
    }
    buffer[found.len()..].fill(0);
    ffi::SQLITE_IOERR_SHORT_READ
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and a buffer of `amount` bytes.
    let ((mut live, handle), buffer) =
        unsafe { (of(file, Call::Write), std::slice::from_raw_parts(buffer.cast::<u8>(), amount as usize)) };
    live.write(handle, offset as usize, buffer)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::Truncate) };
    live.truncate(handle, size as usize)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::Sync) };
    live.sync(handle)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    unsafe {
        let (mut live, handle) = of(file, Call::FileSize);
        *size = live.content(handle).len() as i64;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::Lock) };
    named(&mut live, handle).map_or(ffi::SQLITE_OK, |file| live.locks.lock(file, handle, level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::Unlock) };
    if let Some(file) = named(&mut live, handle) {
        live.locks.unlock(file, handle, level);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    unsafe {
        let (mut live, handle) = of(file, Call::CheckReservedLock);
        *out = c_int::from(named(&mut live, handle).is_some_and(|file| live.locks.reserved(file)));
    }
    ffi::SQLITE_OK
}

/// Asks when the file was last changed: seconds since 1970 and nanoseconds. Not SQLite's; `hardened` asks bases that are
/// not the operating system's.
const CHANGED: c_int = 0x4841_5245;

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::FileControl) };
    let answer = match op {
        ffi::SQLITE_FCNTL_LOCKSTATE => named(&mut live, handle).map_or(0, |file| live.locks.level(file, handle)),
        ffi::SQLITE_FCNTL_HAS_MOVED | ffi::SQLITE_FCNTL_LAST_ERRNO => 0,
        ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE => return ffi::SQLITE_OK,
        CHANGED => {
            let Some(at) = named(&mut live, handle).map(|file| live.model.files[file].changed) else {
                return ffi::SQLITE_NOTFOUND;
            };
            // A millisecond for each event, long ago: every change has a time of its own.
            let time = [1_000_000_000 + at as i64 / 1000, at as i64 % 1000 * 1_000_000];
            // SAFETY: the operation takes two integers of 64 bits.
            unsafe { *argument.cast::<[i64; 2]>() = time };
            return ffi::SQLITE_OK;
        }
        _ => return ffi::SQLITE_NOTFOUND,
    };
    // SAFETY: the operations that come here take a pointer to an int.
    unsafe { *argument.cast::<c_int>() = answer };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open file of this VFS.
    let file = unsafe { &*file.cast::<File>() };
    file.disk.live().device.sector_size as c_int
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open file of this VFS.
    let file = unsafe { &*file.cast::<File>() };
    if file.disk.live().device.powersafe_overwrite { ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE } else { 0 }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file, and a place for the answer.
    unsafe {
        let (mut live, handle) = of(file, Call::ShmMap);
        let Some(file) = named(&mut live, handle) else { return ffi::SQLITE_IOERR_SHMMAP };
        *out = live.shm.map(file, handle, region as usize, size as usize, extend != 0);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::ShmLock) };
    let Some(file) = named(&mut live, handle) else { return ffi::SQLITE_IOERR_SHMLOCK };
    live.shm.lock(file, handle, first, n, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // The lock of the disk is the barrier.
    // SAFETY: an open file of this VFS.
    drop(unsafe { &*file.cast::<File>() }.disk.live());
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: an open file.
    let (mut live, handle) = unsafe { of(file, Call::ShmUnmap) };
    if let Some(file) = named(&mut live, handle) {
        live.shm.unmap(file, handle);
    }
    ffi::SQLITE_OK
}
