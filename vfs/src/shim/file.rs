//! The file that SQLite sees, and its io_methods.
//!
//! Invariant: between a successful xOpen and xClose, `state` points to a [`State`] that only this file owns. SQLite calls a
//! file from one thread at a time (the connection's or the shared cache's mutex), and may call it again from within a
//! file control; therefore nothing here holds a `&mut` to the state.

use std::alloc::Layout;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::bases::Remembered;
use super::below::Below;
use super::control;
use super::edge::guarded;
use super::inherited;
use super::link;
use super::methods;
use super::protect;
use super::register::Registration;
use super::sizes;
use super::unsummed;
use crate::checksum::pages::Pages;
use crate::known_size;
use crate::lock::{FileLocks, fork};
use crate::main_file::{self, Journal, MainFile, Role};
use crate::shm::Index;

/// What SQLite allocates for each file: its own part, then ours.
#[repr(C)]
pub(crate) struct File {
    pub(crate) sqlite: ffi::sqlite3_file,
    pub(crate) state: *mut State,
}

/// What kind of file it is to the policy.
pub(crate) enum Kind {
    Main(Arc<MainFile>),
    /// A rollback journal; counted while it is open.
    Journal(Journal),
    /// A WAL; counted as well.
    Wal(Journal),
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
    /// A WAL-index of our own in place of the base's.
    pub(crate) index: Option<Index>,
    /// Sums of the pages of a main database.
    pub(crate) pages: Option<Pages>,
    /// Kept while the file is open, if its URI named a base of its own.
    pub(crate) own_base: Option<Remembered>,
    /// How many forks there had been when it was opened: see [`fork::count`].
    pub(crate) forks: u32,
}

impl State {
    /// Whether this process has the file from its parent.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.forks != fork::count()
    }

    /// The code a refused file answers, if it is one.
    pub(super) fn refusal(&self) -> c_int {
        match &self.kind {
            Kind::Main(main) => main.refusal.as_ref().map_or(ffi::SQLITE_CANTOPEN, |refusal| refusal.code),
            _ => ffi::SQLITE_CANTOPEN,
        }
    }

    /// The VFS that does its I/O.
    pub(crate) fn base_vfs(&self) -> *mut ffi::sqlite3_vfs {
        self.own_base.as_ref().map_or(self.registration.base, Remembered::base)
    }

    /// The database that this file is or protects, if anything of it is protected.
    #[inline]
    pub(super) fn protected(&self) -> Option<(&Arc<MainFile>, Role)> {
        let (main, role) = match &self.kind {
            Kind::Main(main) => (main, Role::Database),
            Kind::Journal(journal) => (journal.owner()?, Role::Journal),
            Kind::Wal(journal) => (journal.owner()?, Role::Wal),
            Kind::Other => return None,
        };
        main.shared.as_ref().map(|_| (main, role))
    }

    /// The WAL-index, if it is ours and not the base's.
    #[inline]
    pub(crate) fn index(&self) -> Option<&Index> {
        self.index.as_ref().filter(|index| index.is_ours())
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
        if let Some(shared) = state.main().and_then(|main| main.shared.as_ref()) {
            shared.leave();
        }
        return ffi::SQLITE_NOMEM;
    }
    // SAFETY: the block has the layout of a State, and SQLite gave us szOsFile bytes, which is the size of File.
    unsafe {
        block.write(state);
        let file = file.cast::<File>();
        (*file).state = block;
        (*file).sqlite.pMethods = table;
        link::connect(&*block);
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
        if state.is_inherited() {
            return inherited::close(state);
        }
        let mut state = state;
        if let Some((main, role)) = state.protected() {
            // SAFETY: SQLite closes the file, and no other call on the connection's files runs.
            unsafe { protect::before_close(main, role) };
            link::disconnect(&state);
            protect::after_close(main, role);
        }
        let code = match (state.locks.take(), state.base.take()) {
            (Some(locks), Some(base)) => locks.close_with(Box::new(move || base.close())),
            (_, Some(base)) => base.close(),
            (_, None) => ffi::SQLITE_OK,
        };
        if let Some(shared) = state.main().and_then(|main| main.shared.as_ref()) {
            shared.leave();
        }
        code
    })
}

/// The base file, or the refusal's code at once; in a forked child the other code.
macro_rules! base_of {
    ($file:expr, $inherited:expr) => {{
        // SAFETY: SQLite calls the methods of an open file.
        let state = unsafe { state($file) };
        if state.is_inherited() {
            return crate::shim::inherited::refuse(state, $inherited);
        }
        match &state.base {
            Some(base) => base,
            None => return state.refusal(),
        }
    }};
}
pub(super) use base_of;

/// No result code of SQLite's: the call goes on to the base.
pub(super) const PASS: c_int = -1;

/// The code of what `body` answers, or that of `base` where nothing is protected.
macro_rules! protected {
    ($file:expr, $failed:expr, |$main:ident, $role:ident| $body:expr, $base:expr) => {{
        // SAFETY: SQLite calls the methods of an open file.
        match unsafe { state($file) }.protected() {
            Some(($main, $role)) => match guarded($failed, || {
                // SAFETY: SQLite calls, with arguments under the contract of the method.
                unsafe { $body }.unwrap_or(PASS)
            }) {
                PASS => $base,
                code => code,
            },
            None => $base,
        }
    }};
}

pub(crate) unsafe extern "C" fn read(f: *mut ffi::sqlite3_file, buffer: *mut c_void, n: c_int, at: i64) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_READ);
    // SAFETY: an open file.
    let state = unsafe { state(f) };
    if let Some(code) = state.lost() {
        return code;
    }
    let length = usize::try_from(n).unwrap_or(0);
    let Kind::Main(main) = &state.kind else {
        if matches!(state.kind, Kind::Journal(_)) {
            return protected!(
                f,
                ffi::SQLITE_IOERR_READ,
                |main, role| {
                    let buffer = std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length);
                    debug_assert!(role == Role::Journal);
                    protect::read_journal(main, base, buffer, u64::try_from(at).unwrap_or(0))
                },
                // SAFETY: SQLite's buffer has room for `n` bytes.
                unsafe { base.read(buffer, n, at) }
            );
        }
        if unsummed::may_be(length) {
            return protected!(
                f,
                ffi::SQLITE_IOERR_READ,
                |main, role| match role {
                    Role::Wal => {
                        let buffer = std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length);
                        protect::read_log(main, base, buffer, u64::try_from(at).unwrap_or(0))
                    }
                    _ => None,
                },
                // SAFETY: SQLite's buffer has room for `n` bytes.
                unsafe { base.read(buffer, n, at) }
            );
        }
        // SAFETY: SQLite's buffer has room for `n` bytes.
        return unsafe { base.read(buffer, n, at) };
    };
    guarded(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: SQLite's buffer has room for `n` bytes, and SQLite calls.
        let (below, buffer) = unsafe {
            let buffer = std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length);
            (Below::new(base, main), buffer)
        };
        let code = below.read_into(buffer, at);
        if at == 0 && buffer.len() == control::HEADER && code == ffi::SQLITE_OK && buffer.starts_with(control::MAGIC) {
            main.plain.store(true, Ordering::Relaxed);
        }
        if main.combines && buffer.len() == known_size::HEADER && at == known_size::AT as i64 && code == ffi::SQLITE_OK
        {
            if let Some(mut size) = main.known_size() {
                size.saw(buffer);
            }
        }
        state.pages.as_ref().map_or(code, |pages| pages.read(&below, main, code, buffer, at))
    })
}

pub(crate) unsafe extern "C" fn write(f: *mut ffi::sqlite3_file, buffer: *const c_void, n: c_int, at: i64) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_WRITE);
    // SAFETY: an open file.
    if let Some(code) = unsafe { state(f) }.lost() {
        return code;
    }
    // SAFETY: an open file.
    if let Kind::Main(main) = unsafe { &state(f).kind } {
        if !main.may_write_pages() {
            return guarded(ffi::SQLITE_IOERR_WRITE, || control::refuse_unjournalled_write(main));
        }
        // SAFETY: SQLite's buffer holds `n` bytes.
        if at == 0 && n >= 100 && unsafe { control::is_stamped_wal(buffer) } && main.forbids_wal() {
            return guarded(ffi::SQLITE_IOERR_WRITE, || {
                // SAFETY: as above, and SQLite calls.
                unsafe {
                    let page = std::slice::from_raw_parts(buffer.cast::<u8>(), n as usize);
                    control::write_unstamped(&Below::new(base, main), main, page, state(f).pages.as_ref())
                }
            });
        }
    }
    // SAFETY: an open file.
    if let State { kind: Kind::Main(main), pages: Some(pages), .. } = unsafe { state(f) } {
        return guarded(ffi::SQLITE_IOERR_WRITE, || {
            // SAFETY: SQLite's buffer holds `n` bytes, and SQLite calls.
            let (below, bytes) = unsafe {
                let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), usize::try_from(n).unwrap_or(0));
                (Below::new(base, main), bytes)
            };
            pages.write(&below, bytes, at)
        });
    }
    let (length, offset) = (usize::try_from(n).unwrap_or(0), u64::try_from(at).unwrap_or(0));
    protected!(
        f,
        ffi::SQLITE_IOERR_WRITE,
        |main, role| {
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), length);
            match role {
                Role::Database => protect::write_database(main, bytes, offset),
                Role::Journal => protect::write_journal(main, base, bytes, offset),
                Role::Wal => protect::write_log(main, base, bytes, offset),
            }
        },
        // SAFETY: SQLite's buffer holds `n` bytes.
        unsafe { base.write(buffer, n, at) }
    )
}

pub(crate) unsafe extern "C" fn truncate(f: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_TRUNCATE);
    // SAFETY: an open file.
    if let Some(code) = unsafe { state(f) }.lost() {
        return code;
    }
    // SAFETY: an open file.
    if let Some(pages) = unsafe { &state(f).pages } {
        pages.cut(size);
    }
    protected!(
        f,
        ffi::SQLITE_IOERR_TRUNCATE,
        |main, role| protect::truncate(main, role, base, size),
        base.truncate(size)
    )
}

pub(crate) unsafe extern "C" fn sync(f: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_FSYNC);
    // SAFETY: an open file.
    if let Some(code) = unsafe { state(f) }.lost() {
        return code;
    }
    // SAFETY: an open file, and SQLite calls.
    let settled = guarded(ffi::SQLITE_IOERR_FSYNC, || match unsafe { state(f) } {
        State { kind: Kind::Main(main), pages: Some(pages), .. } => {
            // SAFETY: as above.
            pages.settle(&unsafe { Below::new(base, main) })
        }
        _ => ffi::SQLITE_OK,
    });
    if settled != ffi::SQLITE_OK {
        return settled;
    }
    protected!(f, ffi::SQLITE_IOERR_FSYNC, |main, role| protect::sync(main, role, flags), base.sync(flags))
}

/// Writes what is held of a database before the base is asked about it.
///
/// # Safety
/// `f` must be open and ours.
pub(super) unsafe fn flushed(f: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open file, and SQLite calls.
    unsafe {
        match &state(f).kind {
            Kind::Main(main) if main.holds.load(Ordering::Relaxed) => {
                guarded(ffi::SQLITE_IOERR_WRITE, || protect::flush(main))
            }
            _ => ffi::SQLITE_OK,
        }
    }
}

pub(crate) unsafe extern "C" fn file_size(f: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_FSTAT);
    // SAFETY: an open file; SQLite's pointer.
    unsafe {
        if let Kind::Main(main) = &state(f).kind {
            main_file::touch(main);
        }
        match flushed(f) {
            ffi::SQLITE_OK => {}
            code => return code,
        }
        if let State { kind: Kind::Main(main), locks, .. } = state(f) {
            if main.combines || main.verdict.is_smb() {
                return guarded(ffi::SQLITE_IOERR_FSTAT, || sizes::of_database(main, locks.as_ref(), base, size));
            }
        }
        let code = base.file_size(size);
        if let (ffi::SQLITE_OK, Kind::Journal(journal)) = (code, &state(f).kind) {
            return guarded(ffi::SQLITE_IOERR_FSTAT, || {
                let end = journal.owner().and_then(|main| protect::journal_end(main));
                *size = (*size).max(end.and_then(|end| i64::try_from(end).ok()).unwrap_or(0));
                ffi::SQLITE_OK
            });
        }
        code
    }
}

pub(crate) unsafe extern "C" fn file_control(f: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    guarded(ffi::SQLITE_ERROR, || {
        // SAFETY: an open file, and the argument that belongs to the opcode.
        unsafe { control::file_control(f, op, argument) }
    })
}

pub(crate) unsafe extern "C" fn sector_size(f: *mut ffi::sqlite3_file) -> c_int {
    base_of!(f, 4096).sector_size()
}

pub(crate) unsafe extern "C" fn device_characteristics(f: *mut ffi::sqlite3_file) -> c_int {
    let base = base_of!(f, 0);
    // SAFETY: an open file.
    let sealed = unsafe { &state(f).pages }.as_ref().is_some_and(Pages::sealed);
    // Whole pages only: of a part of one the sum cannot be seen.
    base.device_characteristics() & if sealed { !methods::SUBPAGE_READ } else { !0 }
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
