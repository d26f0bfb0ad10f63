//! A connection as the simulator needs it, on SQLite's C interface because hundreds of thousands of them are opened.

use std::ffi::{CStr, CString, c_int};

use libsqlite3_sys as ffi;

use super::image::Hash;
use crate::sqlite::Failure;

/// What a database holds, in one number: its schema, and all rows of its tables in the order of their keys.
pub type Content = u128;

/// An open connection.
#[derive(Debug)]
pub struct Session(*mut ffi::sqlite3);

// SAFETY: SQLite is built threadsafe; a connection may be used by one thread after another.
unsafe impl Send for Session {}

/// A value of a row.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Null,
}

impl Session {
    /// Opens a URI for reading and writing, and creates the database.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(uri: &str) -> Result<Session, Failure> {
        let uri = CString::new(uri).unwrap();
        let flags = ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_CREATE
            | ffi::SQLITE_OPEN_URI
            | ffi::SQLITE_OPEN_NOMUTEX
            | ffi::SQLITE_OPEN_EXRESCODE;
        let mut db = std::ptr::null_mut();
        // SAFETY: a C string and a place for the handle that live across the call.
        let code = unsafe { ffi::sqlite3_open_v2(uri.as_ptr(), &raw mut db, flags, std::ptr::null()) };
        let session = Session(db);
        if code == ffi::SQLITE_OK { Ok(session) } else { Err(session.failure(code)) }
    }

    /// The handle, for what is not offered here. It is closed with the session.
    pub fn handle(&self) -> *mut ffi::sqlite3 {
        self.0
    }

    fn failure(&self, code: c_int) -> Failure {
        // SAFETY: sqlite3_errmsg accepts null and a handle whose open failed; the text is copied at once.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.0)) }.to_string_lossy().into_owned();
        Failure { code, message }
    }

    /// Runs one statement and shows each row.
    fn each(&self, sql: &str, mut row: impl FnMut(&[Value<'_>])) -> Result<(), Failure> {
        let mut statement = std::ptr::null_mut();
        // SAFETY: an open handle and a text with its length.
        let code = unsafe {
            let (text, len) = (sql.as_ptr().cast(), sql.len() as c_int);
            ffi::sqlite3_prepare_v2(self.0, text, len, &raw mut statement, std::ptr::null_mut())
        };
        if code != ffi::SQLITE_OK {
            return Err(self.failure(code));
        }
        let mut values = Vec::new();
        let result = loop {
            // SAFETY: a prepared statement; values are read before the next step.
            unsafe {
                match ffi::sqlite3_step(statement) {
                    ffi::SQLITE_ROW => {
                        let columns = ffi::sqlite3_column_count(statement);
                        values.extend((0..columns).map(|column| value(statement, column)));
                        row(&values);
                        values.clear();
                    }
                    ffi::SQLITE_DONE => break Ok(()),
                    code => break Err(self.failure(code)),
                }
            }
        };
        // SAFETY: prepared above, finalized once.
        unsafe { ffi::sqlite3_finalize(statement) };
        result
    }

    /// Runs statements, separated by semicolons.
    ///
    /// # Errors
    /// SQLite's.
    pub fn run(&self, sql: &str) -> Result<(), Failure> {
        let text = CString::new(sql).unwrap();
        let nothing = std::ptr::null_mut();
        // SAFETY: an open handle and a C string.
        let code = unsafe { ffi::sqlite3_exec(self.0, text.as_ptr(), None, nothing, std::ptr::null_mut()) };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.failure(code)) }
    }

    /// The rows of one statement, their columns joined by `|`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn rows(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let mut rows = Vec::new();
        self.each(sql, |values| {
            let columns = values.iter().map(|value| match value {
                Value::Number(number) => number.to_string(),
                Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Value::Null => "NULL".to_owned(),
            });
            rows.push(columns.collect::<Vec<_>>().join("|"));
        })?;
        Ok(rows)
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        // SAFETY: an open handle.
        unsafe { ffi::sqlite3_get_autocommit(self.0) == 0 }
    }

    /// Everything that the schemas hold, read as a program would read it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn content(&self, schemas: &[&str]) -> Result<Content, Failure> {
        let mut hash = Hash::default();
        for schema in schemas {
            let mut tables = Vec::new();
            self.each(&format!("SELECT type, name, sql FROM {schema}.sqlite_schema ORDER BY name"), |values| {
                values.iter().for_each(|value| add(&mut hash, *value));
                if let [Value::Bytes(b"table"), Value::Bytes(name), _] = values {
                    tables.push(String::from_utf8_lossy(name).into_owned());
                }
            })?;
            for table in tables {
                self.each(&format!("SELECT * FROM {schema}.\"{table}\" ORDER BY rowid"), |values| {
                    values.iter().for_each(|value| add(&mut hash, *value));
                    hash.number(values.len() as u64);
                })?;
            }
        }
        Ok(hash.finish())
    }

    /// What is wrong with the structure of all attached databases; nothing if nothing.
    ///
    /// # Errors
    /// SQLite's.
    pub fn integrity(&self) -> Result<Option<String>, Failure> {
        let found = self.rows("PRAGMA integrity_check(3)")?.join("; ");
        Ok((found != "ok").then_some(found))
    }
}

fn add(hash: &mut Hash, value: Value<'_>) {
    match value {
        Value::Number(number) => hash.number(number as u64),
        Value::Bytes(bytes) => hash.bytes(bytes),
        Value::Null => hash.number(0x6e75_6c6c),
    }
}

/// # Safety
/// The statement has a row, and the value is gone with the next step.
unsafe fn value<'a>(statement: *mut ffi::sqlite3_stmt, column: c_int) -> Value<'a> {
    // SAFETY: the caller's contract; sqlite3_column_bytes tells how long the blob is.
    unsafe {
        match ffi::sqlite3_column_type(statement, column) {
            ffi::SQLITE_INTEGER => Value::Number(ffi::sqlite3_column_int64(statement, column)),
            ffi::SQLITE_NULL => Value::Null,
            _ => {
                let start: *const u8 = ffi::sqlite3_column_blob(statement, column).cast();
                let len = ffi::sqlite3_column_bytes(statement, column) as usize;
                Value::Bytes(if start.is_null() { &[] } else { std::slice::from_raw_parts(start, len) })
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: opened once; null is a harmless no-op.
        let code = unsafe { ffi::sqlite3_close(self.0) };
        assert_eq!(code, ffi::SQLITE_OK, "a session is closed while a statement of it lives");
    }
}
