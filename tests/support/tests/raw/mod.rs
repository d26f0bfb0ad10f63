//! Files of a simulated disk, by the methods of its VFS.

use std::ffi::{CString, c_int};

use libsqlite3_sys as ffi;
use support::crash::Disk;

/// An open file.
pub(crate) struct Raw {
    file: *mut ffi::sqlite3_file,
    _memory: Vec<u64>,
    _name: CString,
}

/// How a journal is opened.
pub(crate) const JOURNAL: c_int = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;

/// How a database is opened.
pub(crate) const DATABASE: c_int = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;

fn vfs(disk: &Disk) -> *mut ffi::sqlite3_vfs {
    let name = CString::new(disk.name()).unwrap();
    // SAFETY: a C string.
    unsafe { ffi::sqlite3_vfs_find(name.as_ptr()) }
}

/// xDelete.
pub(crate) fn delete(disk: &Disk, file: &str, sync_directory: bool) -> c_int {
    let (vfs, name) = (vfs(disk), CString::new(disk.path(file)).unwrap());
    // SAFETY: a registered VFS.
    unsafe { (*vfs).xDelete.unwrap()(vfs, name.as_ptr(), c_int::from(sync_directory)) }
}

macro_rules! call {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        // SAFETY: the file is open and the arguments are as the method wants them.
        unsafe { (*(*$self.file).pMethods).$method.unwrap()($self.file, $($argument),*) }
    };
}

impl Raw {
    pub(crate) fn open(disk: &Disk, file: &str, flags: c_int) -> Result<Raw, c_int> {
        let (vfs, name) = (vfs(disk), CString::new(disk.path(file)).unwrap());
        // SAFETY: a registered VFS, and szOsFile bytes that stay where they are.
        unsafe {
            let mut memory = vec![0_u64; (*vfs).szOsFile as usize / 8 + 1];
            let file: *mut ffi::sqlite3_file = memory.as_mut_ptr().cast();
            match (*vfs).xOpen.unwrap()(vfs, name.as_ptr(), file, flags, std::ptr::null_mut()) {
                ffi::SQLITE_OK => Ok(Raw { file, _memory: memory, _name: name }),
                code => Err(code),
            }
        }
    }

    pub(crate) fn write(&self, offset: i64, bytes: &[u8]) -> c_int {
        call!(self.xWrite(bytes.as_ptr().cast(), bytes.len() as c_int, offset))
    }

    pub(crate) fn truncate(&self, size: i64) -> c_int {
        call!(self.xTruncate(size))
    }

    pub(crate) fn sync(&self) -> c_int {
        call!(self.xSync(ffi::SQLITE_SYNC_NORMAL))
    }

    pub(crate) fn lock(&self, level: c_int) -> c_int {
        call!(self.xLock(level))
    }

    pub(crate) fn unlock(&self, level: c_int) -> c_int {
        call!(self.xUnlock(level))
    }

    pub(crate) fn reserved(&self) -> bool {
        let mut out = 0;
        assert_eq!(call!(self.xCheckReservedLock(&raw mut out)), ffi::SQLITE_OK);
        out != 0
    }

    pub(crate) fn shm_map(&self, region: c_int, extend: bool) -> *mut std::ffi::c_void {
        let mut out = std::ptr::null_mut();
        assert_eq!(call!(self.xShmMap(region, 32768, c_int::from(extend), &raw mut out)), ffi::SQLITE_OK);
        out
    }

    pub(crate) fn shm_lock(&self, first: c_int, n: c_int, flags: c_int) -> c_int {
        call!(self.xShmLock(first, n, flags))
    }

    pub(crate) fn read(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let code = call!(self.xRead(bytes.as_mut_ptr().cast(), len as c_int, 0));
        assert!(matches!(code, ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ), "{code}");
        bytes
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        call!(self.xClose());
    }
}
