//! From one file of a connection to the others: the database finds its journal, the journal its database.
//!
//! Invariant: an address in [`MainFile::files`] is that of the state of an open file; it is put there when the file has
//! been opened and taken away before it is closed. SQLite calls the files of one connection one at a time, under the mutex
//! of the connection or of the shared cache (<https://www.sqlite.org/threadsafe.html>), so none is closed while a call on
//! another runs.

use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::file::{Kind, State};
use crate::checksum::pages::Pages;
use crate::lock::FileLocks;
use crate::main_file::{MainFile, Role};
use crate::shm::Index;

/// Puts the address of an open file's state where the other files of its connection find it.
pub(crate) fn connect(state: &State) {
    if let Some((main, role)) = place(state) {
        main.files[role as usize].store(std::ptr::from_ref(state) as usize, Ordering::Relaxed);
    }
}

/// Takes it away again, if it is still there: SQLite opens a journal for a moment to look into it.
pub(crate) fn disconnect(state: &State) {
    if let Some((main, role)) = place(state) {
        let mine = std::ptr::from_ref(state) as usize;
        let _ = main.files[role as usize].compare_exchange(mine, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn place(state: &State) -> Option<(&MainFile, Role)> {
    match &state.kind {
        Kind::Main(main) => Some((main, Role::Database)),
        Kind::Journal(journal) => Some((journal.owner()?, Role::Journal)),
        Kind::Wal(journal) => Some((journal.owner()?, Role::Wal)),
        Kind::Other => None,
    }
}

/// The files of the connection behind `main`, for the length of one call.
pub(crate) struct Files<'a> {
    pub(crate) main: &'a MainFile,
    pub(crate) database: &'a BaseFile,
    pub(crate) journal: Option<&'a BaseFile>,
    pub(crate) wal: Option<&'a BaseFile>,
    /// Locks of our own in place of the base's.
    pub(crate) locks: Option<&'a FileLocks>,
    /// A WAL-index of our own in place of the base's.
    pub(crate) index: Option<&'a Index>,
    pub(crate) vfs: *mut ffi::sqlite3_vfs,
    /// Pages have checksums, which SQLite's copies of them need not have.
    pub(crate) sealed: bool,
}

impl<'a> Files<'a> {
    /// `None` if the database itself is not open, or nothing of it is protected.
    ///
    /// # Safety
    /// The call must come from a call of SQLite's on one of the files of this connection, or on one of their names.
    pub(crate) unsafe fn of(main: &'a MainFile) -> Option<Files<'a>> {
        main.shared.as_ref()?;
        let state = |role: Role| {
            let state = main.files[role as usize].load(Ordering::Relaxed) as *const State;
            // SAFETY: the invariant of the module; no other call on these files runs.
            unsafe { state.as_ref() }
        };
        let base = |role: Role| state(role).and_then(|state| state.base.as_ref());
        let own = state(Role::Database)?;
        let (journal, wal) = (base(Role::Journal), base(Role::Wal));
        let vfs = own.base_vfs();
        let sealed = own.pages.as_ref().is_some_and(Pages::sealed);
        let (database, locks, index) = (own.base.as_ref()?, own.locks.as_ref(), own.index());
        Some(Files { main, database, journal, wal, locks, index, vfs, sealed })
    }
}
