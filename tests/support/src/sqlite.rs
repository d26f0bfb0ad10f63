//! A connection on SQLite's C interface, for tests that look at what rusqlite hides: result codes, io_methods, the list of
//! VFSes, the error log. And what rusqlite has no safe call for.
//!
//! Invariant: every handle is closed once, and no string of SQLite's is kept beyond the call that gave it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libsqlite3_sys as ffi;

/// An open connection.
#[derive(Debug)]
pub struct Connection(*mut ffi::sqlite3);

// SAFETY: opened with SQLITE_OPEN_FULLMUTEX.
unsafe impl Send for Connection {}

/// A result code that is not success, with SQLite's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The extended result code.
    pub code: i32,
    /// The message.
    pub message: String,
}

/// What a file offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    /// iVersion.
    pub version: i32,
    /// Whether xShmMap is there.
    pub shared_memory: bool,
    /// Whether xFetch is there.
    pub fetch: bool,
    /// xDeviceCharacteristics.
    pub characteristics: i32,
    /// xSectorSize.
    pub sector_size: i32,
}

impl Connection {
    /// Opens `name` (a URI if it is one) for reading and writing, and creates it.
    ///
    /// # Errors
    /// SQLite's.
    ///
    /// # Panics
    /// If a name holds a zero byte.
    pub fn open(name: &str, vfs: Option<&str>) -> Result<Connection, Failure> {
        let (name, vfs) = (c_string(name), vfs.map(c_string));
        let flags = ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_CREATE
            | ffi::SQLITE_OPEN_URI
            | ffi::SQLITE_OPEN_FULLMUTEX
            | ffi::SQLITE_OPEN_EXRESCODE;
        let mut db = std::ptr::null_mut();
        // SAFETY: C strings and a place for the handle that live across the call.
        let code = unsafe {
            ffi::sqlite3_open_v2(
                name.as_ptr(),
                &raw mut db,
                flags,
                vfs.as_ref().map_or(std::ptr::null(), |v| v.as_ptr()),
            )
        };
        let connection = Connection(db);
        if code == ffi::SQLITE_OK { Ok(connection) } else { Err(connection.failure(code)) }
    }

    fn failure(&self, code: c_int) -> Failure {
        // SAFETY: sqlite3_errmsg accepts null and a handle whose open failed; the text is copied at once.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.0)) }.to_string_lossy().into_owned();
        Failure { code, message }
    }

    /// Runs statements; the first column of every row.
    ///
    /// # Errors
    /// SQLite's.
    ///
    /// # Panics
    /// If the SQL holds a zero byte.
    pub fn rows(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let (sql, mut rows) = (c_string(sql), Vec::<String>::new());
        // SAFETY: an open handle, a C string, and the vector that the callback expects.
        let code = unsafe {
            ffi::sqlite3_exec(self.0, sql.as_ptr(), Some(collect), (&raw mut rows).cast(), std::ptr::null_mut())
        };
        if code == ffi::SQLITE_OK { Ok(rows) } else { Err(self.failure(code)) }
    }

    /// Runs statements and calls `during` within them, every so many steps of SQLite's machine; where it answers `false`
    /// the statement is interrupted.
    ///
    /// # Errors
    /// SQLite's.
    ///
    /// # Panics
    /// If the SQL holds a zero byte, or as `during` does.
    pub fn rows_during(&self, sql: &str, every: i32, during: &mut dyn FnMut() -> bool) -> Result<Vec<String>, Failure> {
        struct During<'a>(&'a mut dyn FnMut() -> bool, std::thread::Result<()>);
        unsafe extern "C" fn progress(during: *mut c_void) -> c_int {
            // SAFETY: the value below, which lives as long as the handler is set.
            let During(call, panicked) = unsafe { &mut *during.cast::<During<'_>>() };
            let goes_on = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
                *panicked = Err(panic);
                false
            });
            c_int::from(!goes_on)
        }
        let mut during = During(during, Ok(()));
        // SAFETY: an open handle; the handler is taken away before its argument goes.
        unsafe { ffi::sqlite3_progress_handler(self.0, every, Some(progress), (&raw mut during).cast()) };
        let rows = self.rows(sql);
        // SAFETY: an open handle.
        unsafe { ffi::sqlite3_progress_handler(self.0, 0, None, std::ptr::null_mut()) };
        if let Err(panic) = during.1 {
            resume_unwind(panic);
        }
        rows
    }

    /// Closes it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn close(mut self) -> Result<(), Failure> {
        let db = std::mem::replace(&mut self.0, std::ptr::null_mut());
        // SAFETY: opened once; from here on it is null.
        match unsafe { ffi::sqlite3_close(db) } {
            ffi::SQLITE_OK => Ok(()),
            code => Err(Failure { code, message: "sqlite3_close".to_owned() }),
        }
    }

    /// What SQLITE_FCNTL_LOCKSTATE answers for a database.
    ///
    /// # Panics
    /// If there is no such database.
    pub fn lock_state(&self, schema: &str) -> i32 {
        let (schema, mut level) = (c_string(schema), -1);
        // SAFETY: an open handle, a C string, and the integer that the opcode writes.
        let code = unsafe {
            let op = ffi::SQLITE_FCNTL_LOCKSTATE;
            ffi::sqlite3_file_control(self.0, schema.as_ptr(), op, (&raw mut level).cast())
        };
        assert_eq!(code, ffi::SQLITE_OK);
        level
    }

    /// The io_methods of a database's file.
    ///
    /// # Panics
    /// If there is no such database.
    pub fn methods(&self, schema: &str) -> Methods {
        let schema = c_string(schema);
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        // SAFETY: SQLITE_FCNTL_FILE_POINTER writes a pointer to the open file.
        unsafe {
            let op = ffi::SQLITE_FCNTL_FILE_POINTER;
            let code = ffi::sqlite3_file_control(self.0, schema.as_ptr(), op, (&raw mut file).cast());
            assert!(code == ffi::SQLITE_OK && !file.is_null(), "no file behind {schema:?}");
            let methods = &*(*file).pMethods;
            Methods {
                version: methods.iVersion,
                shared_memory: methods.iVersion >= 2 && methods.xShmMap.is_some(),
                fetch: methods.iVersion >= 3 && methods.xFetch.is_some(),
                characteristics: methods.xDeviceCharacteristics.map_or(0, |call| call(file)),
                sector_size: methods.xSectorSize.map_or(0, |call| call(file)),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened once; null is a harmless no-op.
        unsafe { ffi::sqlite3_close(self.0) };
    }
}

/// The callback of sqlite3_exec that collects the first column of every row.
///
/// # Safety
/// Called by sqlite3_exec, whose fourth argument was a `Vec<String>`.
pub(crate) unsafe extern "C" fn collect(
    rows: *mut c_void,
    n: c_int,
    values: *mut *mut c_char,
    _: *mut *mut c_char,
) -> c_int {
    // SAFETY: sqlite3_exec hands over `n` columns and the vector.
    unsafe {
        let value = if n < 1 { std::ptr::null_mut() } else { *values };
        let text = if value.is_null() { "NULL".into() } else { CStr::from_ptr(value).to_string_lossy() };
        (*rows.cast::<Vec<String>>()).push(text.into_owned());
    }
    0
}

/// The names of all registered VFSes, the default one first.
pub fn vfs_names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the list of registered VFSes, which the caller does not change meanwhile.
    unsafe {
        let mut vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        while !vfs.is_null() {
            names.push(CStr::from_ptr((*vfs).zName).to_string_lossy().into_owned());
            vfs = (*vfs).pNext;
        }
    }
    names
}

/// What xGetLastError of a VFS says.
///
/// # Panics
/// If there is no such VFS.
pub fn last_error(vfs: &str, room: usize) -> String {
    let vfs = c_string(vfs);
    let mut text = vec![0x7f_u8; room];
    // SAFETY: a registered VFS, and a buffer of the size told.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(vfs.as_ptr());
        assert!(!vfs.is_null());
        if let Some(call) = (*vfs).xGetLastError {
            call(vfs, c_int::try_from(room).unwrap_or(c_int::MAX), text.as_mut_ptr().cast());
        }
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Asks for so many reserved bytes in every page of the main database, which is empty or will be vacuumed.
///
/// # Panics
/// If SQLite refuses.
pub fn reserve_bytes(connection: &rusqlite::Connection, mut bytes: i32) {
    // SAFETY: an open connection, and the integer that SQLITE_FCNTL_RESERVE_BYTES reads and writes.
    let code = unsafe {
        let op = ffi::SQLITE_FCNTL_RESERVE_BYTES;
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), op, (&raw mut bytes).cast())
    };
    assert_eq!(code, ffi::SQLITE_OK);
}

/// Loads the extension `library`, whose entry point makes a VFS of its own the default one; `unix` is made that again.
///
/// # Panics
/// If it cannot be loaded, or a name holds a zero byte.
pub fn load_vfs(library: &Path, entry: &CStr) {
    let host = Connection::open(":memory:", None).unwrap_or_else(|failure| panic!("{failure:?}"));
    let name = c_string(&library.to_string_lossy());
    // SAFETY: an open connection, C strings that live across the calls, a registered VFS. The message is SQLite's to free.
    unsafe {
        assert_eq!(ffi::sqlite3_enable_load_extension(host.0, 1), ffi::SQLITE_OK);
        let unix = ffi::sqlite3_vfs_find(c"unix".as_ptr());
        assert!(!unix.is_null());
        assert_eq!(ffi::sqlite3_vfs_register(unix, 1), ffi::SQLITE_OK);
        let mut message: *mut c_char = std::ptr::null_mut();
        let code = ffi::sqlite3_load_extension(host.0, name.as_ptr(), entry.as_ptr(), &raw mut message);
        let text =
            if message.is_null() { String::new() } else { CStr::from_ptr(message).to_string_lossy().into_owned() };
        ffi::sqlite3_free(message.cast());
        assert_eq!(code, ffi::SQLITE_OK, "{text}");
        assert_eq!(ffi::sqlite3_vfs_register(unix, 1), ffi::SQLITE_OK);
    }
}

/// sqlite3_shutdown, then sqlite3_initialize. No connection may be open in the process.
pub fn restart() {
    // SAFETY: the caller's promise; tests do this in a process of their own.
    let codes = unsafe { [ffi::sqlite3_shutdown(), ffi::sqlite3_initialize()] };
    assert_eq!(codes, [ffi::SQLITE_OK; 2]);
}

/// Limits the memory that SQLite's allocator gives out; 0 for no limit. Answers the limit before.
pub fn heap_limit(bytes: i64) -> i64 {
    // SAFETY: callable at any time.
    unsafe { ffi::sqlite3_hard_heap_limit64(bytes) }
}

static LOG: Mutex<Vec<(i32, String)>> = Mutex::new(Vec::new());

/// Collects SQLite's error log from now on. Before any other use of SQLite in the process.
pub fn collect_log() {
    unsafe extern "C" fn hear(_: *mut c_void, code: c_int, message: *const c_char) {
        // SAFETY: SQLite hands over a C string.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        LOG.lock().unwrap_or_else(PoisonError::into_inner).push((code, message));
    }
    let hear: unsafe extern "C" fn(*mut c_void, c_int, *const c_char) = hear;
    // SAFETY: SQLITE_CONFIG_LOG takes a function and a pointer for it.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOG, hear, std::ptr::null_mut::<c_void>()) };
    assert_eq!(code, ffi::SQLITE_OK, "SQLite is in use already");
}

/// What the error log heard so far.
pub fn log() -> Vec<(i32, String)> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| panic!("a zero byte in {text:?}"))
}
