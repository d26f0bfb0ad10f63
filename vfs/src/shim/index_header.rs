//! What the WAL-index in use says about the log: its generation, and how many frames are committed.
//!
//! It is what every connection that has the database open goes by, so the log is sound if and only if it holds those frames.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::link::Files;
use crate::format::wal_index::{HEADER_SIZE, Header};

/// The size of a region of the WAL-index.
const REGION: c_int = 32 * 1024;

/// The header now; `None` if no shared WAL-index is in use, or it is never seen at rest.
pub(crate) fn now(files: &Files<'_>) -> Option<Header> {
    if !files.main.indexed.load(Ordering::Relaxed) {
        // EXCLUSIVE locking mode keeps the index in memory of its own, and asking for it would make a file.
        return None;
    }
    let region = first_region(files)?;
    let mut header = [0_u8; HEADER_SIZE];
    for _ in 0..1000 {
        for (at, word) in header.chunks_exact_mut(4).enumerate() {
            // SAFETY: SQLite has mapped the region, and its first 32 KiB hold the header; others may write to it meanwhile.
            let now = unsafe { region.cast::<u32>().add(at).read_volatile() };
            word.copy_from_slice(&now.to_ne_bytes());
        }
        match Header::parse(&header) {
            Some(header) => return Some(header),
            None => std::hint::spin_loop(),
        }
    }
    None
}

fn first_region(files: &Files<'_>) -> Option<*const c_void> {
    let mut region = std::ptr::null_mut();
    let code = match files.index() {
        Some(index) => {
            let (code, address) = index.map(0, REGION, false);
            region = address;
            code
        }
        // SAFETY: a pointer to a pointer; the region is there already.
        None => unsafe { files.database.shm_map(0, REGION, 0, &raw mut region) },
    };
    let mapped = matches!(code, ffi::SQLITE_OK | ffi::SQLITE_READONLY) && !region.is_null();
    mapped.then_some(region.cast_const())
}
