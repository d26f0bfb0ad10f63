//! A mounted FUSE filesystem with its directories, and just enough of SQLite's C API.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::ffi::{CStr, CString, c_int};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libsqlite3_sys as ffi;
use support::fuse::{Mount, Options};
use support::require;
use tempfile::TempDir;

/// Long enough for anything that does happen; a wait that runs into it is a failure.
pub const SOON: Duration = Duration::from_secs(20);

/// Fields are dropped in order: the mount goes before its directories.
pub struct Setup {
    pub mount: Mount,
    backing: TempDir,
    _at: TempDir,
}

/// A mount with changed options, or `None` where FUSE cannot be had.
pub fn mounted(change: impl FnOnce(Options) -> Options) -> Option<Setup> {
    if !require::root_and_fuse() {
        return None;
    }
    let (backing, at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mount = Mount::new(change(Options::new(backing.path())), at.path()).unwrap();
    Some(Setup { mount, backing, _at: at })
}

pub fn plain() -> Option<Setup> {
    mounted(|options| options)
}

impl Setup {
    /// A path on the mount.
    pub fn on(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// The same path in the backing directory.
    pub fn behind(&self, name: &str) -> PathBuf {
        self.backing.path().join(name)
    }

    pub fn backing(&self) -> &Path {
        self.backing.path()
    }
}

/// The line of `/proc/self/mountinfo` whose mount point this is.
pub fn mountinfo(at: &Path) -> Option<String> {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = at.to_str().unwrap();
    all.lines().find(|line| line.split(' ').nth(4) == Some(at)).map(str::to_owned)
}

/// A database connection.
pub struct Db(*mut ffi::sqlite3);

// SAFETY: the bundled SQLite is built for serialised use.
unsafe impl Send for Db {}

impl Db {
    pub fn open(path: &Path, vfs: Option<&CStr>) -> Result<Db, c_int> {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut db = std::ptr::null_mut();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
        let vfs = vfs.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: the strings are NUL-terminated and live through the call.
        let rc = unsafe { ffi::sqlite3_open_v2(path.as_ptr(), &mut db, flags, vfs) };
        let db = Db(db);
        if rc == ffi::SQLITE_OK { Ok(db) } else { Err(rc) }
    }

    /// Runs statements; the first column of the last row as text, or the extended result code.
    pub fn run(&self, sql: &str) -> Result<String, c_int> {
        let sql = CString::new(sql).unwrap();
        let mut rest = sql.as_ptr();
        let mut last = String::new();
        // SAFETY: `rest` stays within `sql`; each statement is finalised; column text is copied
        // before the next step.
        unsafe {
            while *rest != 0 {
                let mut stmt = std::ptr::null_mut();
                let rc = ffi::sqlite3_prepare_v2(self.0, rest, -1, &mut stmt, &mut rest);
                if rc != ffi::SQLITE_OK {
                    return Err(ffi::sqlite3_extended_errcode(self.0));
                }
                while ffi::sqlite3_step(stmt) == ffi::SQLITE_ROW {
                    let text = ffi::sqlite3_column_text(stmt, 0);
                    if !text.is_null() {
                        last = CStr::from_ptr(text.cast()).to_str().unwrap().to_owned();
                    }
                }
                if ffi::sqlite3_finalize(stmt) != ffi::SQLITE_OK {
                    return Err(ffi::sqlite3_extended_errcode(self.0));
                }
            }
        }
        Ok(last)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // SAFETY: the connection is open, and no statement outlives `run`.
        unsafe { ffi::sqlite3_close(self.0) };
    }
}
