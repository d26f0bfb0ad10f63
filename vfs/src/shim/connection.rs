//! A database connection that SQLite lent us, or one of our own for a moment.

use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::control::{self, Who};
use super::sqlite::Api;
use crate::main_file::MainFile;
use crate::setup::{Sql, SqlError};

/// A connection that stays SQLite's.
pub(crate) struct Borrowed<'a> {
    api: &'a Api,
    db: *mut ffi::sqlite3,
}

impl<'a> Borrowed<'a> {
    /// # Safety
    /// `db` must be a connection of the library of `api`, usable by this thread for as long as the value lives.
    pub(crate) unsafe fn new(api: &'a Api, db: *mut ffi::sqlite3) -> Self {
        Borrowed { api, db }
    }

    fn error(&self) -> SqlError {
        // SAFETY: the connection is usable (see `new`); the message is copied at once.
        unsafe {
            SqlError {
                code: (self.api.extended_errcode)(self.db),
                message: CStr::from_ptr((self.api.errmsg)(self.db)).to_string_lossy().into_owned(),
            }
        }
    }

    /// All values of the first two columns.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<[Option<String>; 2]>, SqlError> {
        let text = CString::new(sql).map_err(|_| SqlError { code: ffi::SQLITE_MISUSE, message: sql.to_owned() })?;
        let mut statement = std::ptr::null_mut();
        let mut rows = Vec::new();
        // SAFETY: the connection is usable (see `new`); the statement is finalized on every way out, and column text is
        // copied before the next step.
        unsafe {
            let code = (self.api.prepare_v2)(self.db, text.as_ptr(), -1, &raw mut statement, std::ptr::null_mut());
            if code != ffi::SQLITE_OK {
                return Err(self.error());
            }
            if statement.is_null() {
                return Ok(rows);
            }
            loop {
                match (self.api.step)(statement) {
                    ffi::SQLITE_ROW => rows.push([self.column(statement, 0), self.column(statement, 1)]),
                    ffi::SQLITE_DONE => break,
                    _ => {
                        let error = self.error();
                        (self.api.finalize)(statement);
                        return Err(error);
                    }
                }
            }
            (self.api.finalize)(statement);
        }
        Ok(rows)
    }

    /// The database of ours behind a schema, if it is one.
    pub(crate) fn who(&self, schema: &str) -> Option<Arc<MainFile>> {
        self.who_and_where(schema).map(|(main, _)| main)
    }

    /// The same with our file.
    pub(crate) fn who_and_where(&self, schema: &str) -> Option<(Arc<MainFile>, *mut ffi::sqlite3_file)> {
        let schema = CString::new(schema).ok()?;
        let mut who = Who::question();
        // SAFETY: the connection is usable (see `new`); files that are not ours do not know the opcode.
        unsafe { (self.api.file_control)(self.db, schema.as_ptr(), control::WHO, (&raw mut who).cast()) };
        who.answered()
    }

    /// Sets the reserved bytes of the main database: of a new one now, of another when VACUUM rewrites it.
    pub(crate) fn reserve_bytes(&self, mut bytes: c_int) -> c_int {
        let op = ffi::SQLITE_FCNTL_RESERVE_BYTES;
        // SAFETY: the connection is usable (see `new`); the opcode reads and writes an integer.
        unsafe { (self.api.file_control)(self.db, c"main".as_ptr(), op, (&raw mut bytes).cast()) }
    }

    /// # Safety
    /// `statement` must stand on a row.
    unsafe fn column(&self, statement: *mut ffi::sqlite3_stmt, index: c_int) -> Option<String> {
        // SAFETY: the text lives until the next step; a column that is not there reads as null.
        unsafe {
            let text = (self.api.column_text)(statement, index);
            if text.is_null() {
                return None;
            }
            let length = usize::try_from((self.api.column_bytes)(statement, index)).unwrap_or(0);
            Some(String::from_utf8_lossy(std::slice::from_raw_parts(text, length)).into_owned())
        }
    }
}

impl Sql for Borrowed<'_> {
    fn value(&self, sql: &str) -> Result<Option<String>, SqlError> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|[first, _]| first))
    }

    fn busy_timeout(&self, milliseconds: i32) {
        // SAFETY: the connection is usable (see `new`).
        unsafe {
            (self.api.busy_timeout)(self.db, milliseconds);
        }
    }

    fn read_only(&self) -> bool {
        // SAFETY: the connection is usable (see `new`).
        unsafe { (self.api.db_readonly)(self.db, c"main".as_ptr()) == 1 }
    }
}

/// A connection of our own, closed when dropped.
pub(crate) struct Owned<'a>(Borrowed<'a>);

impl<'a> Owned<'a> {
    /// Opens `path` for reading and writing. A private cache: the caller may hold the mutex of the shared one.
    pub(crate) fn open(api: &'a Api, path: &CStr, vfs: &CStr) -> Result<Owned<'a>, SqlError> {
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_PRIVATECACHE;
        let mut db = std::ptr::null_mut();
        // SAFETY: C strings and a place for the handle, all living across the call.
        let code = unsafe { (api.open_v2)(path.as_ptr(), &raw mut db, flags, vfs.as_ptr()) };
        let owned = Owned(Borrowed { api, db });
        if db.is_null() {
            return Err(SqlError { code, message: "out of memory".into() });
        }
        if code != ffi::SQLITE_OK { Err(owned.0.error()) } else { Ok(owned) }
    }
}

impl<'a> std::ops::Deref for Owned<'a> {
    type Target = Borrowed<'a>;

    fn deref(&self) -> &Borrowed<'a> {
        &self.0
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and no statement outlives a call. A null handle is a harmless no-op.
        unsafe {
            (self.0.api.close)(self.0.db);
        }
    }
}
