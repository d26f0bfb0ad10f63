//! The WAL-index of a file: memory that all its connections share, and the eight locks on it.
//!
//! Invariant: a region stays where it is while any handle has it mapped, and is gone after the last one, as after a power
//! cut.

use libsqlite3_sys as ffi;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

/// What one handle holds.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    shared: u16,
    exclusive: u16,
}

#[derive(Debug, Default)]
struct Index {
    regions: Vec<Box<[u64]>>,
    handles: BTreeMap<usize, Held>,
}

/// By file.
#[derive(Debug, Default)]
pub(super) struct Shm(BTreeMap<usize, Index>);

impl Shm {
    /// xShmMap; null if the region is not there and shall not be made.
    pub(super) fn map(&mut self, file: usize, handle: usize, region: usize, size: usize, extend: bool) -> *mut c_void {
        let index = self.0.entry(file).or_default();
        index.handles.entry(handle).or_default();
        while extend && index.regions.len() <= region {
            index.regions.push(vec![0; size.div_ceil(8)].into_boxed_slice());
        }
        index.regions.get_mut(region).map_or(std::ptr::null_mut(), |region| region.as_mut_ptr().cast())
    }

    /// xShmLock.
    pub(super) fn lock(&mut self, file: usize, handle: usize, first: c_int, n: c_int, flags: c_int) -> c_int {
        let Some(index) = self.0.get_mut(&file) else { return ffi::SQLITE_IOERR_SHMLOCK };
        let mask = ((1_u32 << (first + n)) - (1 << first)) as u16;
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        if flags & ffi::SQLITE_SHM_LOCK != 0 {
            let taken = index.handles.iter().filter(|(other, _)| **other != handle).any(|(_, held)| {
                let against = if exclusive { held.shared | held.exclusive } else { held.exclusive };
                against & mask != 0
            });
            if taken {
                return ffi::SQLITE_BUSY;
            }
        }
        let held = index.handles.entry(handle).or_default();
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            held.shared &= !mask;
            held.exclusive &= !mask;
        } else if exclusive {
            held.exclusive |= mask;
        } else {
            held.shared |= mask;
        }
        ffi::SQLITE_OK
    }

    /// xShmUnmap, and what closing does.
    pub(super) fn unmap(&mut self, file: usize, handle: usize) {
        if let Some(index) = self.0.get_mut(&file) {
            index.handles.remove(&handle);
            if index.handles.is_empty() {
                self.0.remove(&file);
            }
        }
    }

    pub(super) fn renumber(&mut self, place_of: impl Fn(usize) -> usize) {
        self.0 = std::mem::take(&mut self.0).into_iter().map(|(file, index)| (place_of(file), index)).collect();
    }
}
