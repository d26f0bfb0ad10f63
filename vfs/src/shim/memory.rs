//! The io_methods of shared memory and of mapped pages.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::edge::guarded;
use super::file::{PASS, State, base_of, flushed, state};
use super::{inherited, protect};
use crate::checksum::pages::Pages;
use crate::generation::{Which, Work};
use crate::shm::Index;

pub(crate) unsafe extern "C" fn shm_map(
    f: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    region: *mut *mut c_void,
) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_SHMMAP);
    // SAFETY: an open file; SQLite's pointer, as below.
    unsafe {
        let state = state(f);
        let map = || map(state, base, page, size, extend, region);
        let mut code = map();
        let Some((main, _)) = state.protected() else { return code };
        if code & 0xff == ffi::SQLITE_CANTOPEN && main.shared.as_ref().is_some_and(|shared| shared.spare_descriptors())
        {
            code = map();
        }
        if matches!(code, ffi::SQLITE_OK | ffi::SQLITE_READONLY) {
            main.indexed.store(!(*region).is_null(), Ordering::Relaxed);
        }
        if code == ffi::SQLITE_OK && main.native && main.generation.identity(Which::SharedMemory).is_none() {
            match state.index() {
                Some(index) if index.path() == Which::SharedMemory.path(&main.path) => {
                    main.generation.is(Which::SharedMemory, index.identity());
                }
                // A name of SQLite's 8.3 kind, which nobody watches.
                Some(_) => {}
                None => main.generation.opened(Which::SharedMemory, &main.path),
            }
        }
        code
    }
}

/// # Safety
/// `region` must point to a pointer.
unsafe fn map(
    state: &State,
    base: &BaseFile,
    page: c_int,
    size: c_int,
    extend: c_int,
    region: *mut *mut c_void,
) -> c_int {
    if let Some(index) = state.index() {
        if let Some(code) = state.lost() {
            return code;
        }
        let code = guarded(ffi::SQLITE_IOERR_SHMMAP, || {
            let (code, address) = index.map(page, size, extend != 0);
            // SAFETY: see above.
            unsafe { *region = address };
            code
        });
        if index.is_ours() {
            return code;
        }
        if let Some(main) = state.main() {
            let reason = "its filesystem has no locks of an open file description";
            main.warn("index-locks", format!("the locks of its WAL-index are those of the process: {reason}"));
        }
    }
    // SAFETY: see above.
    unsafe { base.shm_map(page, size, extend, region) }
}

pub(crate) unsafe extern "C" fn shm_lock(f: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    let base =
        base_of!(f, if flags & ffi::SQLITE_SHM_UNLOCK != 0 { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHMLOCK });
    // SAFETY: an open file.
    let state = unsafe { state(f) };
    if flags & ffi::SQLITE_SHM_EXCLUSIVE == 0 {
        // A reader's.
        return change(state, base, offset, n, flags, false);
    }
    exclusive(state, base, offset, n, flags)
}

/// xShmLock for a lock that is exclusive, or was.
fn exclusive(state: &State, base: &BaseFile, offset: c_int, n: c_int, flags: c_int) -> c_int {
    /// The lock of whoever checkpoints (https://www.sqlite.org/walformat.html).
    const CHECKPOINT: c_int = 1;
    /// The lock of whoever writes to the log.
    const WRITE: c_int = 0;
    let takes = |lock: c_int| (offset..offset.saturating_add(n)).contains(&lock);
    let alone = state.main().is_some_and(|main| main.level.load(Ordering::Relaxed) >= ffi::SQLITE_LOCK_EXCLUSIVE);
    let change = || change(state, base, offset, n, flags, alone);
    let protected = if offset > CHECKPOINT { None } else { state.protected() };
    let Some((main, _)) = protected else { return change() };
    // Whoever is about to write to the log reads already, and a checkpoint that empties the log has its lock and may have waited for
    // this one. Without either the index is looked at, and perhaps made anew, which writes only to shared memory.
    let looks = offset == WRITE && state.index().is_some_and(|index| !index.reads_or_checkpoints());
    if flags & ffi::SQLITE_SHM_LOCK != 0 && n == 1 && !looks {
        // Recovery takes more than one.
        // SAFETY: SQLite calls.
        let dead = guarded(ffi::SQLITE_IOERR_SHMLOCK, || unsafe { protect::before_writing(main) }.unwrap_or(PASS));
        if dead != PASS {
            return dead;
        }
        main.generation.looked(if takes(CHECKPOINT) { Work::Checkpoint } else { Work::Transaction });
    }
    if !takes(CHECKPOINT) {
        let code = change();
        if code == ffi::SQLITE_OK && flags & ffi::SQLITE_SHM_LOCK != 0 && takes(WRITE) {
            protect::log_transaction_begins(main);
        }
        return code;
    }
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        // SAFETY: SQLite calls. What comes of it stops the next write.
        guarded(ffi::SQLITE_IOERR_SHMLOCK, || unsafe { protect::checkpoint_done(main) });
        return change();
    }
    let code = change();
    if code == ffi::SQLITE_OK {
        protect::checkpoint_begins(main);
    }
    code
}

/// Takes or releases locks of the index.
#[inline]
fn change(state: &State, base: &BaseFile, offset: c_int, n: c_int, flags: c_int, alone: bool) -> c_int {
    let Some(index) = &state.index else { return base.shm_lock(offset, n, flags) };
    match index.lock(offset, n, flags, alone) {
        Some(code) if code & 0xff == ffi::SQLITE_IOERR => tell(state, index, code),
        Some(code) => code,
        None => base.shm_lock(offset, n, flags),
    }
}

/// Says why the index or its locks are gone, if they are.
#[cold]
fn tell(state: &State, index: &Index, code: c_int) -> c_int {
    guarded(code, || {
        if let Some(code) = state.lost() {
            return code;
        }
        if let (Some(main), Some(error)) = (state.main(), index.handle_lost()) {
            main.warn("lock", format!("a lock on the -shm file could not be taken: {error}"));
        }
        code
    })
}

pub(crate) unsafe extern "C" fn shm_barrier(f: *mut ffi::sqlite3_file) {
    // SAFETY: an open file.
    match unsafe { state(f) } {
        state if state.is_inherited() => {}
        state => match (&state.index, &state.base) {
            (Some(index), _) if index.barrier() => {}
            (_, Some(base)) => base.shm_barrier(),
            (_, None) => {}
        },
    }
}

pub(crate) unsafe extern "C" fn shm_unmap(f: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: an open file.
    let state = unsafe { state(f) };
    let Some(base) = &state.base else { return state.refusal() };
    if state.is_inherited() {
        return inherited::unmap(state, base);
    }
    if let Some((main, _)) = state.protected() {
        main.indexed.store(false, Ordering::Relaxed);
        main.generation.closed(Which::SharedMemory);
    }
    match state.index() {
        Some(index) => guarded(ffi::SQLITE_IOERR_SHMMAP, || index.unmap(delete != 0)),
        None => base.shm_unmap(delete),
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
        if let Some(code) = state(f).lost() {
            return code;
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
