//! The io_methods tables: one for each version and set of optional methods a base may offer.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::{file, locking, memory};

/// SQLITE_IOCAP_SUBPAGE_READ, which older bindings do not name.
pub(crate) const SUBPAGE_READ: c_int = 0x8000;

/// Never more than the base offers, and no xShmMap where shared memory is hidden.
const fn table(version: c_int, shm: bool, fetch: bool) -> ffi::sqlite3_io_methods {
    let mut table = ffi::sqlite3_io_methods {
        iVersion: version,
        xClose: Some(file::close),
        xRead: Some(file::read),
        xWrite: Some(file::write),
        xTruncate: Some(file::truncate),
        xSync: Some(file::sync),
        xFileSize: Some(file::file_size),
        xLock: Some(locking::lock),
        xUnlock: Some(locking::unlock),
        xCheckReservedLock: Some(locking::check_reserved_lock),
        xFileControl: Some(file::file_control),
        xSectorSize: Some(file::sector_size),
        xDeviceCharacteristics: Some(file::device_characteristics),
        xShmMap: None,
        xShmLock: None,
        xShmBarrier: None,
        xShmUnmap: None,
        xFetch: None,
        xUnfetch: None,
    };
    if version >= 2 && shm {
        table.xShmMap = Some(memory::shm_map);
        table.xShmLock = Some(memory::shm_lock);
        table.xShmBarrier = Some(memory::shm_barrier);
        table.xShmUnmap = Some(memory::shm_unmap);
    }
    if version >= 3 && fetch {
        table.xFetch = Some(memory::fetch);
        table.xUnfetch = Some(memory::unfetch);
    }
    table
}

/// By version 1 to 3, shared memory, fetch.
static TABLES: [[[ffi::sqlite3_io_methods; 2]; 2]; 3] = [
    [[table(1, false, false), table(1, false, false)], [table(1, false, false), table(1, false, false)]],
    [[table(2, false, false), table(2, false, false)], [table(2, true, false), table(2, true, false)]],
    [[table(3, false, false), table(3, false, true)], [table(3, true, false), table(3, true, true)]],
];

static REFUSED: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    xRead: Some(file::refused_read),
    xUnlock: Some(file::refused_unlock),
    xSectorSize: Some(file::refused_number),
    xDeviceCharacteristics: Some(file::refused_number),
    ..table(1, false, false)
};

/// The table for a base file.
pub(crate) fn for_base(base: &ffi::sqlite3_io_methods, hide_shm: bool) -> &'static ffi::sqlite3_io_methods {
    let version = base.iVersion.clamp(1, 3);
    let shm = offers_shared_memory(base) && !hide_shm;
    let fetch = version >= 3 && base.xFetch.is_some() && base.xUnfetch.is_some();
    &TABLES[(version - 1) as usize][usize::from(shm)][usize::from(fetch)]
}

/// The table for an open that was refused.
pub(crate) fn refused() -> &'static ffi::sqlite3_io_methods {
    &REFUSED
}

pub(crate) fn offers_shared_memory(base: &ffi::sqlite3_io_methods) -> bool {
    base.iVersion >= 2
        && base.xShmMap.is_some()
        && base.xShmLock.is_some()
        && base.xShmBarrier.is_some()
        && base.xShmUnmap.is_some()
}
