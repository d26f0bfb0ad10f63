//! The system's SQLite, loaded beside the one this program is linked with: two libraries in one process, which know nothing
//! of each other's locks.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use crate::sqlite::{Failure, collect};

type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, *const c_char) -> c_int;
type Row = unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;
type Exec = unsafe extern "C" fn(*mut c_void, *const c_char, Option<Row>, *mut c_void, *mut *mut c_char) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;
type Message = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type Enable = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
type Load = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, *mut *mut c_char) -> c_int;

/// Read, write and create; a URI; its own mutex; extended result codes.
const FLAGS: c_int = libsqlite3_sys::SQLITE_OPEN_READWRITE
    | libsqlite3_sys::SQLITE_OPEN_CREATE
    | libsqlite3_sys::SQLITE_OPEN_URI
    | libsqlite3_sys::SQLITE_OPEN_FULLMUTEX
    | libsqlite3_sys::SQLITE_OPEN_EXRESCODE;

/// The library.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    open: Open,
    exec: Exec,
    close: Close,
    message: Message,
    enable: Enable,
    load: Load,
}

/// A connection of its.
#[derive(Debug)]
pub struct Connection {
    library: Library,
    db: *mut c_void,
}

// SAFETY: opened with SQLITE_OPEN_FULLMUTEX.
unsafe impl Send for Connection {}

impl Library {
    /// Loads `libsqlite3.so.0`; `None` after a `SKIPPED` line if the system has none.
    pub fn load() -> Option<Library> {
        // SAFETY: C strings; the symbols have the types of SQLite's C interface. The library is never unloaded.
        unsafe {
            let handle = libc::dlopen(c"libsqlite3.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            if handle.is_null() {
                crate::require::unavailable("libsqlite3.so.0");
                return None;
            }
            let symbol = |name: &CStr| {
                let symbol = libc::dlsym(handle, name.as_ptr());
                assert!(!symbol.is_null(), "it is not SQLite: no {name:?}");
                symbol
            };
            let library = Library {
                open: std::mem::transmute::<*mut c_void, Open>(symbol(c"sqlite3_open_v2")),
                exec: std::mem::transmute::<*mut c_void, Exec>(symbol(c"sqlite3_exec")),
                close: std::mem::transmute::<*mut c_void, Close>(symbol(c"sqlite3_close")),
                message: std::mem::transmute::<*mut c_void, Message>(symbol(c"sqlite3_errmsg")),
                enable: std::mem::transmute::<*mut c_void, Enable>(symbol(c"sqlite3_enable_load_extension")),
                load: std::mem::transmute::<*mut c_void, Load>(symbol(c"sqlite3_load_extension")),
            };
            assert!(library.open as usize != libsqlite3_sys::sqlite3_open_v2 as *const () as usize);
            Some(library)
        }
    }

    /// Opens a database.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn open(self, path: &Path) -> Connection {
        self.open_uri(&path.to_string_lossy()).unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// Opens a database by its name or URI.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open_uri(self, name: &str) -> Result<Connection, Failure> {
        let name = c_string(name);
        let mut db = std::ptr::null_mut();
        // SAFETY: C strings and a place for the handle.
        let code = unsafe { (self.open)(name.as_ptr(), &raw mut db, FLAGS, std::ptr::null()) };
        let connection = Connection { library: self, db };
        if code == 0 { Ok(connection) } else { Err(connection.failure(code)) }
    }

    /// Loads an extension, which stays if it says so.
    ///
    /// # Panics
    /// If it cannot be loaded.
    pub fn load_extension(self, path: &Path) {
        let host = self.open(Path::new(":memory:"));
        let path = c_string(&path.to_string_lossy());
        // SAFETY: an open handle, a C string that lives across the calls, no entry point and no message asked for.
        let codes = unsafe {
            [(self.enable)(host.db, 1), (self.load)(host.db, path.as_ptr(), std::ptr::null(), std::ptr::null_mut())]
        };
        assert_eq!(codes, [0; 2], "{}", host.failure(codes[1]).message);
    }
}

impl Connection {
    /// Runs statements; the result code.
    ///
    /// # Panics
    /// If the SQL holds a zero byte.
    pub fn exec(&self, sql: &str) -> i32 {
        self.rows(sql).map_or_else(|failure| failure.code, |_| 0)
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
        let (to, no_message) = ((&raw mut rows).cast(), std::ptr::null_mut());
        // SAFETY: an open handle, a C string, and the vector that the callback expects.
        let code = unsafe { (self.library.exec)(self.db, sql.as_ptr(), Some(collect), to, no_message) };
        if code == 0 { Ok(rows) } else { Err(self.failure(code)) }
    }

    /// Closes it.
    ///
    /// # Errors
    /// SQLite's.
    pub fn close(mut self) -> Result<(), Failure> {
        let db = std::mem::replace(&mut self.db, std::ptr::null_mut());
        // SAFETY: opened once; from here on it is null.
        match unsafe { (self.library.close)(db) } {
            0 => Ok(()),
            code => Err(Failure { code, message: "sqlite3_close".to_owned() }),
        }
    }

    fn failure(&self, code: i32) -> Failure {
        // SAFETY: sqlite3_errmsg accepts null and a handle whose open failed; the text is copied at once.
        let message = unsafe { CStr::from_ptr((self.library.message)(self.db)) }.to_string_lossy().into_owned();
        Failure { code, message }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened once; null is a harmless no-op.
        unsafe { (self.library.close)(self.db) };
    }
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| panic!("a zero byte in {text:?}"))
}
