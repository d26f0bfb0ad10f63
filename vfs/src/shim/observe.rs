//! What stands beside a database when it is opened: its rollback journal and its log, read through the base.
//!
//! Nobody locks either file, so opening and closing them again drops nothing.

use std::ffi::{CString, OsStr, c_int};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libsqlite3_sys as ffi;

use super::base::{self, BaseFile};
use super::heal::Reader;
use crate::format::wal::HEADER_SIZE;
use crate::format::wal_index;
use crate::guard::beside;
use crate::guard::classify::{Journal, Wal};

/// A name as xOpen wants it: four zero bytes before it, and empty strings behind it where parameters and more names may
/// stand (<https://www.sqlite.org/c3ref/create_filename.html>).
pub(crate) fn name(database: &Path, suffix: &str) -> Vec<u8> {
    [b"\0\0\0\0", database.as_os_str().as_bytes(), suffix.as_bytes(), b"\0\0\0\0\0"].concat()
}

/// A file beside the database that we have opened.
pub(crate) struct Beside {
    file: BaseFile,
    /// The base may read parameters behind the name for as long as the file is open.
    _name: Vec<u8>,
}

impl Beside {
    /// Opens the file whose name is that of the database and `suffix`, with these flags of xOpen; `None` if there is none.
    ///
    /// # Errors
    /// The code of a base that could not open it.
    ///
    /// # Safety
    /// `vfs` must be registered.
    pub(crate) unsafe fn open(
        vfs: *mut ffi::sqlite3_vfs,
        database: &Path,
        suffix: &str,
        flags: c_int,
    ) -> Result<Option<Beside>, c_int> {
        let name = name(database, suffix);
        // SAFETY: see above; the buffer holds a C string from byte 4 on.
        match unsafe { base::exists(vfs, name[4..].as_ptr().cast()) } {
            // SAFETY: as above, and the name is kept as long as the file.
            true => unsafe { Beside::named(vfs, name, flags) }.map(Some),
            false => Ok(None),
        }
    }

    /// The same, and creates it if there is none.
    ///
    /// # Errors
    /// As [`Beside::open`].
    ///
    /// # Safety
    /// As [`Beside::open`].
    pub(crate) unsafe fn create(
        vfs: *mut ffi::sqlite3_vfs,
        database: &Path,
        suffix: &str,
        flags: c_int,
    ) -> Result<Beside, c_int> {
        // SAFETY: see above.
        unsafe { Beside::named(vfs, name(database, suffix), flags | ffi::SQLITE_OPEN_CREATE) }
    }

    unsafe fn named(vfs: *mut ffi::sqlite3_vfs, name: Vec<u8>, flags: c_int) -> Result<Beside, c_int> {
        let mut got = 0;
        // SAFETY: the callers'.
        let file = unsafe { BaseFile::open(vfs, name[4..].as_ptr().cast(), flags, &raw mut got) }?;
        Ok(Beside { file, _name: name })
    }

    pub(crate) fn file(&self) -> &BaseFile {
        &self.file
    }

    /// Its first bytes, as many as the header of a log has; zeros behind the end.
    pub(crate) fn start(&self) -> [u8; HEADER_SIZE] {
        let mut start = [0; HEADER_SIZE];
        let _shorter = self.file.read_into(&mut start, 0);
        start
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.file.close();
    }
}

/// The rollback journal beside a database.
///
/// # Safety
/// `vfs` must be registered.
pub(crate) unsafe fn journal(vfs: *mut ffi::sqlite3_vfs, database: &Path, page_size: u32) -> Journal {
    // SAFETY: see above.
    let opened =
        unsafe { Beside::open(vfs, database, "-journal", ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_MAIN_JOURNAL) };
    let journal = match opened {
        Ok(Some(journal)) => journal,
        Ok(None) => return Journal::Absent,
        Err(_) => return Journal::Unread,
    };
    let exists = |name: &[u8]| {
        // SAFETY: see above; a C string.
        CString::new(name).is_ok_and(|name| unsafe { base::exists(vfs, name.as_ptr()) })
    };
    let Ok(size) = journal.file.size() else { return Journal::Unread };
    let bytes = Reader { file: &journal.file, at: 0 };
    beside::journal(bytes, size, page_size, exists).unwrap_or(Journal::Unread)
}

/// The start of the WAL-index, zeros without one.
fn index(database: &Path, local: bool) -> [u8; wal_index::HEADER_SIZE] {
    let mut start = [0; wal_index::HEADER_SIZE];
    if local {
        let path = [database.as_os_str().as_bytes(), b"-shm"].concat();
        let _none = crate::lock::glance(Path::new(OsStr::from_bytes(&path)), &mut start);
    }
    start
}

/// The size and the first bytes of the log beside a database, if there is one that can be read.
///
/// # Safety
/// `vfs` must be registered.
pub(crate) unsafe fn log_start(vfs: *mut ffi::sqlite3_vfs, database: &Path) -> Option<(u64, [u8; HEADER_SIZE])> {
    // SAFETY: see above.
    let log = unsafe { open_log(vfs, database) }.ok()??;
    Some((log.file.size().ok()?, log.start()))
}

unsafe fn open_log(vfs: *mut ffi::sqlite3_vfs, database: &Path) -> Result<Option<Beside>, c_int> {
    // SAFETY: the callers'.
    unsafe { Beside::open(vfs, database, "-wal", ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_WAL) }
}

/// The log beside a database.
///
/// # Safety
/// `vfs` must be registered.
pub(crate) unsafe fn wal(vfs: *mut ffi::sqlite3_vfs, database: &Path, local: bool) -> Wal {
    // SAFETY: see above.
    let log = match unsafe { open_log(vfs, database) } {
        Ok(Some(log)) => log,
        Ok(None) => return Wal::Absent,
        Err(_) => return Wal::Unread,
    };
    // SQLite without the guard may begin it anew meanwhile: its header changes before any frame does.
    for _ in 0..3 {
        let (index, header) = (index(database, local), log.start());
        let Ok(size) = log.file.size() else { return Wal::Unread };
        let seen = beside::wal(Reader { file: &log.file, at: 0 }, size, &index).unwrap_or(Wal::Unread);
        if log.start() == header {
            return seen;
        }
    }
    Wal::Unread
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let size = || self.file.size().map_err(|code| io::Error::other(format!("code {code}")));
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => size()?.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
