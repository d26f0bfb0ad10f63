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
    own: &'a State,
}

impl<'a> Files<'a> {
    /// `None` if the database itself is not open, or nothing of it is protected.
    ///
    /// # Safety
    /// The call must come from a call of SQLite's on one of the files of this connection, or on one of their names.
    #[inline]
    pub(crate) unsafe fn of(main: &'a MainFile) -> Option<Files<'a>> {
        main.shared.as_ref()?;
        let state = |role: Role| {
            let state = main.files[role as usize].load(Ordering::Relaxed) as *const State;
            // SAFETY: the invariant of the module; no other call on these files runs.
            unsafe { state.as_ref() }
        };
        let base = |role: Role| state(role).and_then(|state| state.base.as_ref());
        let own = state(Role::Database)?;
        let database = own.base.as_ref()?;
        Some(Files { main, database, journal: base(Role::Journal), wal: base(Role::Wal), own })
    }

    /// Locks of our own in place of the base's.
    pub(crate) fn locks(&self) -> Option<&'a FileLocks> {
        self.own.locks.as_ref()
    }

    /// A WAL-index of our own in place of the base's.
    pub(crate) fn index(&self) -> Option<&'a Index> {
        self.own.index()
    }

    pub(crate) fn vfs(&self) -> *mut ffi::sqlite3_vfs {
        self.own.base_vfs()
    }

    /// Pages have checksums, which SQLite's copies of them need not have.
    #[inline]
    pub(crate) fn sealed(&self) -> bool {
        self.own.pages.as_ref().is_some_and(Pages::sealed)
    }
}
