//! The io_methods of shared memory and of mapped pages.

use std::ffi::{c_int, c_void};

use libsqlite3_sys as ffi;

use super::edge::guarded;
use super::file::{State, base_of, flushed, state};
use super::{inherited, protect};
use crate::checksum::pages::Pages;

pub(crate) unsafe extern "C" fn shm_map(
    f: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    region: *mut *mut c_void,
) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_SHMMAP);
    // SAFETY: SQLite's pointer; an open file.
    unsafe {
        let code = base.shm_map(page, size, extend, region);
        match state(f).protected() {
            Some((main, _)) if code & 0xff == ffi::SQLITE_CANTOPEN => match &main.shared {
                Some(shared) if shared.spare_descriptors() => base.shm_map(page, size, extend, region),
                _ => code,
            },
            _ => code,
        }
    }
}

pub(crate) unsafe extern "C" fn shm_lock(f: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    /// The lock of whoever checkpoints (https://www.sqlite.org/walformat.html).
    const CHECKPOINT: c_int = 1;
    let base =
        base_of!(f, if flags & ffi::SQLITE_SHM_UNLOCK != 0 { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHMLOCK });
    let checkpoint = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 && (offset..offset + n).contains(&CHECKPOINT);
    // SAFETY: an open file.
    let protected = unsafe { state(f) }.protected().filter(|_| checkpoint);
    let Some((main, _)) = protected else { return base.shm_lock(offset, n, flags) };
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        // SAFETY: SQLite calls. What comes of it stops the next write.
        guarded(ffi::SQLITE_IOERR_SHMLOCK, || unsafe { protect::checkpoint_done(main) });
        return base.shm_lock(offset, n, flags);
    }
    let code = base.shm_lock(offset, n, flags);
    if code == ffi::SQLITE_OK {
        protect::checkpoint_begins(main);
    }
    code
}

pub(crate) unsafe extern "C" fn shm_barrier(f: *mut ffi::sqlite3_file) {
    // SAFETY: an open file.
    match unsafe { state(f) } {
        state if state.is_inherited() => {}
        State { base: Some(base), .. } => base.shm_barrier(),
        State { base: None, .. } => {}
    }
}

pub(crate) unsafe extern "C" fn shm_unmap(f: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: an open file.
    let state = unsafe { state(f) };
    match &state.base {
        Some(base) if state.is_inherited() => inherited::unmap(state, base),
        Some(base) => base.shm_unmap(delete),
        None => state.refusal(),
    }
}

pub(crate) unsafe extern "C" fn fetch(f: *mut ffi::sqlite3_file, at: i64, n: c_int, page: *mut *mut c_void) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_READ);
    // SAFETY: an open file; SQLite's pointer.
    unsafe {
        if state(f).pages.as_ref().is_some_and(Pages::sealed) {
            // What is mapped is never read through us.
            *page = std::ptr::null_mut();
            return ffi::SQLITE_OK;
        }
        match flushed(f) {
            ffi::SQLITE_OK => base.fetch(at, n, page),
            code => code,
        }
    }
}

pub(crate) unsafe extern "C" fn unfetch(f: *mut ffi::sqlite3_file, at: i64, page: *mut c_void) -> c_int {
    // In a child as well: it is the mapping of this process.
    // SAFETY: an open file.
    let Some(base) = (unsafe { &state(f).base }) else { return ffi::SQLITE_OK };
    // SAFETY: a page that xFetch of this file gave out.
    unsafe { base.unfetch(at, page) }
}
