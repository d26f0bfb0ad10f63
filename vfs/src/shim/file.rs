//! The file that SQLite sees, and its io_methods.
//!
//! Invariant: between a successful xOpen and xClose, `state` points to a [`State`] that only this file owns. SQLite calls a
//! file from one thread at a time (the connection's or the shared cache's mutex), and may call it again from within a
//! file control; therefore nothing here holds a `&mut` to the state.

use std::alloc::Layout;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::bases::Remembered;
use super::control;
use super::edge::guarded;
use super::methods;
use super::register::Registration;
use crate::lock::FileLocks;
use crate::main_file::{Journal, MainFile};

/// What SQLite allocates for each file: its own part, then ours.
#[repr(C)]
pub(crate) struct File {
    pub(crate) sqlite: ffi::sqlite3_file,
    pub(crate) state: *mut State,
}

/// What kind of file it is to the policy.
pub(crate) enum Kind {
    Main(Arc<MainFile>),
    /// A rollback journal or WAL; counted while it is open.
    Journal(#[expect(dead_code, reason = "kept for its drop")] Journal),
    /// Anything else: temporary files, super-journals, journals of databases we do not know.
    Other,
}

pub(crate) struct State {
    pub(crate) registration: &'static Registration,
    /// None for an open that was refused: then only the refusal is left to be told.
    pub(crate) base: Option<BaseFile>,
    pub(crate) kind: Kind,
    /// Locks of our own in place of the base's.
    pub(crate) locks: Option<FileLocks>,
    /// Kept while the file is open, if its URI named a base of its own.
    #[expect(dead_code, reason = "kept for its drop")]
    pub(crate) own_base: Option<Remembered>,
}

impl State {
    /// The code a refused file answers, if it is one.
    fn refusal(&self) -> c_int {
        match &self.kind {
            Kind::Main(main) => main.refusal.as_ref().map_or(ffi::SQLITE_CANTOPEN, |refusal| refusal.code),
            _ => ffi::SQLITE_CANTOPEN,
        }
    }

    pub(crate) fn main(&self) -> Option<&Arc<MainFile>> {
        match &self.kind {
            Kind::Main(main) => Some(main),
            _ => None,
        }
    }
}

/// The state behind a file of ours.
///
/// # Safety
/// `file` must be open and ours.
#[inline]
pub(crate) unsafe fn state<'a>(file: *mut ffi::sqlite3_file) -> &'a State {
    // SAFETY: the invariant of the module.
    unsafe { &*(*file.cast::<File>()).state }
}

/// Puts an open state behind `file`; SQLITE_NOMEM, with the base closed, if there is no memory for it.
///
/// # Safety
/// `file` must be the memory that SQLite gave to our xOpen.
pub(crate) unsafe fn install(file: *mut ffi::sqlite3_file, state: State) -> c_int {
    let table = match &state.base {
        None => methods::refused(),
        Some(base) => {
            let hide = state.main().is_some_and(|main| main.hides_shared_memory());
            methods::for_base(base.methods(), hide)
        }
    };
    // SAFETY: State is not of size zero; the block is what Box::from_raw in xClose expects.
    let block = unsafe { std::alloc::alloc(Layout::new::<State>()) }.cast::<State>();
    if block.is_null() {
        if let Some(base) = &state.base {
            base.close();
        }
        return ffi::SQLITE_NOMEM;
    }
    // SAFETY: the block has the layout of a State, and SQLite gave us szOsFile bytes, which is the size of File.
    unsafe {
        block.write(state);
        let file = file.cast::<File>();
        (*file).state = block;
        (*file).sqlite.pMethods = table;
    }
    ffi::SQLITE_OK
}

/// Stops offering shared memory on an open file.
///
/// # Safety
/// `file` must be open and ours, with a base file behind it, and no region mapped.
pub(crate) unsafe fn hide_shared_memory(file: *mut ffi::sqlite3_file) {
    // SAFETY: the invariant of the module; SQLite reads pMethods anew for each call.
    unsafe {
        if let Some(base) = &state(file).base {
            (*file).pMethods = methods::for_base(base.methods(), true);
        }
    }
}

pub(crate) unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    guarded(ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: xClose is the last call on a file (https://www.sqlite.org/c3ref/io_methods.html), so the state is ours
        // to free.
        let state = unsafe {
            let file = file.cast::<File>();
            (*file).sqlite.pMethods = std::ptr::null();
            Box::from_raw(std::mem::replace(&mut (*file).state, std::ptr::null_mut()))
        };
        state.base.as_ref().map_or(ffi::SQLITE_OK, BaseFile::close)
    })
}

/// The base file, or the refusal's code at once.
macro_rules! base {
    ($file:expr) => {{
        // SAFETY: SQLite calls the methods of an open file.
        let state = unsafe { state($file) };
        match &state.base {
            Some(base) => base,
            None => return state.refusal(),
        }
    }};
}

pub(crate) unsafe extern "C" fn read(f: *mut ffi::sqlite3_file, buffer: *mut c_void, n: c_int, at: i64) -> c_int {
    let base = base!(f);
    // SAFETY: SQLite's buffer has room for `n` bytes.
    unsafe { base.read(buffer, n, at) }
}

pub(crate) unsafe extern "C" fn write(f: *mut ffi::sqlite3_file, buffer: *const c_void, n: c_int, at: i64) -> c_int {
    let base = base!(f);
    // SAFETY: an open file.
    if let Kind::Main(main) = unsafe { &state(f).kind } {
        if !main.may_write_pages() {
            return guarded(ffi::SQLITE_IOERR_WRITE, || control::refuse_unjournalled_write(main));
        }
        // SAFETY: SQLite's buffer holds `n` bytes.
        if at == 0 && n >= 100 && unsafe { control::is_stamped_wal(buffer) } && main.forbids_wal() {
            return guarded(ffi::SQLITE_IOERR_WRITE, || {
                // SAFETY: as above.
                let page = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), n as usize) };
                control::write_unstamped(base, main, page)
            });
        }
    }
    // SAFETY: SQLite's buffer holds `n` bytes.
    unsafe { base.write(buffer, n, at) }
}

pub(crate) unsafe extern "C" fn truncate(f: *mut ffi::sqlite3_file, size: i64) -> c_int {
    base!(f).truncate(size)
}

pub(crate) unsafe extern "C" fn sync(f: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    base!(f).sync(flags)
}

pub(crate) unsafe extern "C" fn file_size(f: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    let base = base!(f);
    // SAFETY: SQLite's pointer.
    unsafe { base.file_size(size) }
}

pub(crate) unsafe extern "C" fn lock(f: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let base = base!(f);
    // SAFETY: an open file.
    match unsafe { &state(f).locks } {
        Some(locks) => guarded(ffi::SQLITE_IOERR_LOCK, || locks.lock(level)),
        None => base.lock(level),
    }
}

pub(crate) unsafe extern "C" fn unlock(f: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let base = base!(f);
    // SAFETY: an open file.
    match unsafe { &state(f).locks } {
        Some(locks) => guarded(ffi::SQLITE_IOERR_UNLOCK, || locks.unlock(level)),
        None => base.unlock(level),
    }
}

pub(crate) unsafe extern "C" fn check_reserved_lock(f: *mut ffi::sqlite3_file, result: *mut c_int) -> c_int {
    let base = base!(f);
    // SAFETY: an open file.
    let Some(locks) = (unsafe { &state(f).locks }) else {
        // SAFETY: SQLite's pointer.
        return unsafe { base.check_reserved_lock(result) };
    };
    guarded(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK, || match locks.reserved() {
        Ok(reserved) => {
            // SAFETY: SQLite's pointer.
            unsafe { *result = c_int::from(reserved) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    })
}

pub(crate) unsafe extern "C" fn file_control(f: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        // SAFETY: an open file, and the argument that belongs to the opcode.
        unsafe { control::file_control(f, op, argument) }
    })
}

pub(crate) unsafe extern "C" fn sector_size(f: *mut ffi::sqlite3_file) -> c_int {
    base!(f).sector_size()
}

pub(crate) unsafe extern "C" fn device_characteristics(f: *mut ffi::sqlite3_file) -> c_int {
    base!(f).device_characteristics()
}

pub(crate) unsafe extern "C" fn shm_map(
    f: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    region: *mut *mut c_void,
) -> c_int {
    let base = base!(f);
    // SAFETY: SQLite's pointer.
    unsafe { base.shm_map(page, size, extend, region) }
}

pub(crate) unsafe extern "C" fn shm_lock(f: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    base!(f).shm_lock(offset, n, flags)
}

pub(crate) unsafe extern "C" fn shm_barrier(f: *mut ffi::sqlite3_file) {
    // SAFETY: an open file.
    if let Some(base) = unsafe { &state(f).base } {
        base.shm_barrier();
    }
}

pub(crate) unsafe extern "C" fn shm_unmap(f: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    base!(f).shm_unmap(delete)
}

pub(crate) unsafe extern "C" fn fetch(f: *mut ffi::sqlite3_file, at: i64, n: c_int, page: *mut *mut c_void) -> c_int {
    let base = base!(f);
    // SAFETY: SQLite's pointer.
    unsafe { base.fetch(at, n, page) }
}

pub(crate) unsafe extern "C" fn unfetch(f: *mut ffi::sqlite3_file, at: i64, page: *mut c_void) -> c_int {
    let base = base!(f);
    // SAFETY: a page that xFetch of this file gave out.
    unsafe { base.unfetch(at, page) }
}

/// A refused file reads as an empty one, so that sqlite3_open_v2 gets as far as the automatic extension, which can say why.
pub(crate) unsafe extern "C" fn refused_read(
    _: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    n: c_int,
    _: i64,
) -> c_int {
    // SAFETY: SQLite's buffer has room for `n` bytes.
    unsafe { std::ptr::write_bytes(buffer.cast::<c_char>(), 0, usize::try_from(n).unwrap_or(0)) };
    ffi::SQLITE_IOERR_SHORT_READ
}

pub(crate) unsafe extern "C" fn refused_number(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

pub(crate) unsafe extern "C" fn refused_unlock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}
