//! SQLite's file locks between the connections of one disk.
//!
//! Invariant: at most one handle of a file is at RESERVED or above, and while one is EXCLUSIVE no other holds anything.

use libsqlite3_sys as ffi;
use std::collections::BTreeMap;
use std::ffi::c_int;

/// The lock level of each handle of each file that holds one.
#[derive(Debug, Default)]
pub(super) struct Locks(BTreeMap<(usize, usize), c_int>);

impl Locks {
    pub(super) fn level(&self, file: usize, handle: usize) -> c_int {
        self.0.get(&(file, handle)).copied().unwrap_or(ffi::SQLITE_LOCK_NONE)
    }

    fn others(&self, file: usize, handle: usize) -> impl Iterator<Item = c_int> + '_ {
        self.0.iter().filter(move |((f, h), _)| *f == file && *h != handle).map(|(_, level)| *level)
    }

    /// xLock.
    pub(super) fn lock(&mut self, file: usize, handle: usize, wanted: c_int) -> c_int {
        if self.level(file, handle) >= wanted {
            return ffi::SQLITE_OK;
        }
        let strongest = self.others(file, handle).max().unwrap_or(ffi::SQLITE_LOCK_NONE);
        let mine = &mut self.0;
        match wanted {
            ffi::SQLITE_LOCK_SHARED if strongest < ffi::SQLITE_LOCK_PENDING => {}
            ffi::SQLITE_LOCK_RESERVED if strongest < ffi::SQLITE_LOCK_RESERVED => {}
            ffi::SQLITE_LOCK_EXCLUSIVE if strongest < ffi::SQLITE_LOCK_RESERVED => {
                if strongest == ffi::SQLITE_LOCK_SHARED {
                    // New readers are kept out while the old ones finish.
                    mine.insert((file, handle), ffi::SQLITE_LOCK_PENDING);
                    return ffi::SQLITE_BUSY;
                }
            }
            _ => return ffi::SQLITE_BUSY,
        }
        mine.insert((file, handle), wanted);
        ffi::SQLITE_OK
    }

    /// xUnlock.
    pub(super) fn unlock(&mut self, file: usize, handle: usize, to: c_int) {
        if to == ffi::SQLITE_LOCK_NONE {
            self.0.remove(&(file, handle));
        } else if self.level(file, handle) > to {
            self.0.insert((file, handle), to);
        }
    }

    /// xCheckReservedLock.
    pub(super) fn reserved(&self, file: usize) -> bool {
        self.0.iter().any(|((f, _), level)| *f == file && *level >= ffi::SQLITE_LOCK_RESERVED)
    }

    pub(super) fn renumber(&mut self, place_of: impl Fn(usize) -> usize) {
        self.0 = self.0.iter().map(|((file, handle), level)| ((place_of(*file), *handle), *level)).collect();
    }
}
