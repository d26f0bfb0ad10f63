//! The system's SQLite, loaded beside the one this program is linked with: two libraries in one process, which know nothing
//! of each other's locks.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, *const c_char) -> c_int;
type Exec = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_void, *mut c_void, *mut *mut c_char) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;

/// The library.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    open: Open,
    exec: Exec,
    close: Close,
}

/// A connection of its.
#[derive(Debug)]
pub struct Connection {
    library: Library,
    db: *mut c_void,
}

impl Library {
    /// Loads `libsqlite3.so.0`; `None` after a `SKIPPED` line if the system has none.
    pub fn load() -> Option<Library> {
        // SAFETY: C strings; the symbols have the types of SQLite's C interface. The library is never unloaded.
        unsafe {
            let handle = libc::dlopen(c"libsqlite3.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            let symbol = |name: &CStr| libc::dlsym(handle, name.as_ptr());
            if handle.is_null() {
                crate::require::unavailable("libsqlite3.so.0");
                return None;
            }
            let (open, exec, close) = (symbol(c"sqlite3_open_v2"), symbol(c"sqlite3_exec"), symbol(c"sqlite3_close"));
            assert!(!open.is_null() && !exec.is_null() && !close.is_null(), "it is not SQLite");
            let library = Library {
                open: std::mem::transmute::<*mut c_void, Open>(open),
                exec: std::mem::transmute::<*mut c_void, Exec>(exec),
                close: std::mem::transmute::<*mut c_void, Close>(close),
            };
            assert!(library.open as usize != libsqlite3_sys::sqlite3_open_v2 as *const () as usize);
            Some(library)
        }
    }

    /// Opens a database.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn open(self, path: &std::path::Path) -> Connection {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let mut db = std::ptr::null_mut();
        // SAFETY: C strings and a place for the handle; read, write and create.
        let code = unsafe { (self.open)(path.as_ptr(), &raw mut db, 6, std::ptr::null()) };
        assert_eq!(code, 0);
        Connection { library: self, db }
    }
}

impl Connection {
    /// Runs statements; the result code.
    ///
    /// # Panics
    /// If the SQL holds a zero byte.
    pub fn exec(&self, sql: &str) -> i32 {
        let sql = CString::new(sql).unwrap_or_else(|_| panic!("a zero byte in {sql:?}"));
        let nothing = std::ptr::null_mut();
        // SAFETY: an open handle and a C string.
        unsafe { (self.library.exec)(self.db, sql.as_ptr(), std::ptr::null(), nothing, std::ptr::null_mut()) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened once.
        unsafe { (self.library.close)(self.db) };
    }
}
