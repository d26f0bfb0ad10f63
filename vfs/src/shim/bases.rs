//! Which base VFS does the I/O for which database.
//!
//! One base belongs to the registration. A database may name another in its URI; its journals are then deleted and looked
//! for by name alone, so the names of such databases are remembered while they are open.

use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libsqlite3_sys as ffi;

use super::register::name_of;
use crate::lock::fork::PerProcess;

#[derive(Clone)]
struct Own {
    name: Vec<u8>,
    base: usize,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// A forked child still has the names that its parent's connections use: whatever is under them is on that base.
static OWN: PerProcess<Vec<Own>> = PerProcess::new(|inherited| inherited.cloned().unwrap_or_default());

/// Remembers a base of its own for a database until dropped.
pub(crate) struct Remembered {
    name: Vec<u8>,
    base: *mut ffi::sqlite3_vfs,
}

impl Remembered {
    pub(crate) fn base(&self) -> *mut ffi::sqlite3_vfs {
        self.base
    }
}

pub(crate) fn remember(name: &CStr, base: *mut ffi::sqlite3_vfs) -> Remembered {
    let mut own = OWN.lock();
    own.push(Own { name: name.to_bytes().to_vec(), base: base as usize });
    COUNT.store(own.len(), Ordering::Release);
    Remembered { name: name.to_bytes().to_vec(), base }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        let mut own = OWN.lock();
        if let Some(index) = own.iter().position(|own| own.name == self.name) {
            own.remove(index);
        }
        COUNT.store(own.len(), Ordering::Release);
    }
}

/// Whether no open database has a base of its own.
pub(crate) fn none() -> bool {
    COUNT.load(Ordering::Acquire) == 0
}

/// The base of the open database that this file belongs to: itself, its journal, its WAL or a super-journal.
pub(crate) fn of(name: &CStr) -> Option<*mut ffi::sqlite3_vfs> {
    let own = OWN.lock();
    own.iter()
        .find(|own| {
            name.to_bytes()
                .strip_prefix(own.name.as_slice())
                .is_some_and(|rest| matches!(rest, b"" | b"-journal" | b"-wal") || rest.starts_with(b"-mj"))
        })
        .map(|own| own.base as *mut ffi::sqlite3_vfs)
}

/// Whether a VFS is the operating system's with locks of the process.
pub(crate) fn is_unix(vfs: *mut ffi::sqlite3_vfs) -> bool {
    name_of(vfs) == "unix"
}

/// Whether a VFS does its I/O on the operating system's files under the names it is given.
pub(crate) fn is_native(vfs: *mut ffi::sqlite3_vfs) -> bool {
    let name = name_of(vfs);
    name == "unix" || name.starts_with("unix-")
}
