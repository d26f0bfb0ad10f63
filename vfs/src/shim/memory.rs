//! The io_methods of shared memory and of mapped pages.

use std::ffi::{c_int, c_void};

use libsqlite3_sys as ffi;

use super::edge::guarded;
use super::file::{PASS, base_of, flushed, state};
use super::protect;
use crate::checksum::pages::Pages;
use crate::generation::Which;

pub(crate) unsafe extern "C" fn shm_map(
    f: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    region: *mut *mut c_void,
) -> c_int {
    let base = base_of!(f);
    // SAFETY: SQLite's pointer; an open file.
    unsafe {
        let mut code = base.shm_map(page, size, extend, region);
        let Some((main, _)) = state(f).protected() else { return code };
        if code & 0xff == ffi::SQLITE_CANTOPEN && main.shared.as_ref().is_some_and(|shared| shared.spare_descriptors())
        {
            code = base.shm_map(page, size, extend, region);
        }
        if code == ffi::SQLITE_OK && main.native && main.generation.identity(Which::SharedMemory).is_none() {
            main.generation.opened(Which::SharedMemory, &main.path);
        }
        code
    }
}

pub(crate) unsafe extern "C" fn shm_lock(f: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    /// The lock of whoever checkpoints (https://www.sqlite.org/walformat.html).
    const CHECKPOINT: c_int = 1;
    /// The lock of whoever writes to the log.
    const WRITE: c_int = 0;
    let base = base_of!(f);
    let takes = |lock: c_int| flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 && (offset..offset + n).contains(&lock);
    // SAFETY: an open file.
    let protected = unsafe { state(f) }.protected().filter(|_| takes(CHECKPOINT) || takes(WRITE));
    let Some((main, _)) = protected else { return base.shm_lock(offset, n, flags) };
    if flags & ffi::SQLITE_SHM_LOCK != 0 && n == 1 {
        // Recovery takes more than one, and writes only to shared memory.
        // SAFETY: SQLite calls.
        let dead = guarded(ffi::SQLITE_IOERR_SHMLOCK, || unsafe { protect::before_writing(main) }.unwrap_or(PASS));
        if dead != PASS {
            return dead;
        }
    }
    if !takes(CHECKPOINT) {
        return base.shm_lock(offset, n, flags);
    }
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
    if let Some(base) = unsafe { &state(f).base } {
        base.shm_barrier();
    }
}

pub(crate) unsafe extern "C" fn shm_unmap(f: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: an open file.
    if let Some((main, _)) = unsafe { state(f) }.protected() {
        main.generation.closed(Which::SharedMemory);
    }
    base_of!(f).shm_unmap(delete)
}

pub(crate) unsafe extern "C" fn fetch(f: *mut ffi::sqlite3_file, at: i64, n: c_int, page: *mut *mut c_void) -> c_int {
    let base = base_of!(f);
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
    let base = base_of!(f);
    // SAFETY: a page that xFetch of this file gave out.
    unsafe { base.unfetch(at, page) }
}
