//! The table of SQLite functions that the VFS calls.
//!
//! One table per SQLite library: filled from the symbols this crate is linked with, or, in a loadable extension, from
//! those fields of the host's `sqlite3_api_routines` that exist in every host from SQLite 3.32.0 on. Nothing in this crate
//! calls SQLite except through such a table, so an extension has no undefined symbol and tests can hand in their own.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};

use libsqlite3_sys as ffi;

/// The first that was tried; `sqlite3_filename_journal` is older.
#[cfg(feature = "loadable")]
pub(crate) const OLDEST: c_int = 3_032_000;

/// The entry point of an automatic extension.
pub(crate) type AutoEntry =
    unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> c_int;

macro_rules! table {
    ($($(#[$doc:meta])* $field:ident / $symbol:ident : fn($($argument:ty),*) $(-> $result:ty)?;)+) => {
        /// The functions, named as in `sqlite3_api_routines`.
        #[derive(Clone, Copy)]
        pub(crate) struct Api {
            $($(#[$doc])* pub(crate) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)+
            /// Variadic, so it does not fit the macro.
            log: unsafe extern "C" fn(c_int, *const c_char, ...),
            /// Its argument is declared differently in the two sets of bindings.
            auto_extension: unsafe extern "C" fn(AutoEntry) -> c_int,
        }

        #[cfg(not(feature = "loadable"))]
        static LINKED: Api = Api {
            $($field: ffi::$symbol,)+
            log: ffi::sqlite3_log,
            auto_extension: linked_auto_extension,
        };

        #[cfg(feature = "loadable")]
        impl Api {
            /// The table of the library that loads us, or what is missing in it.
            ///
            /// # Safety
            /// `routines` must be the pointer SQLite hands to an extension's entry point.
            pub(crate) unsafe fn of_host(routines: *const ffi::sqlite3_api_routines) -> Result<Api, &'static str> {
                if routines.is_null() {
                    return Err("the host handed over no table of functions");
                }
                // SAFETY: fields are only ever added at the end of sqlite3_api_routines
                // (https://www.sqlite.org/loadext.html), and libversion_number is older than any host that could load us.
                // Only the fields named here are read, all of them older than `OLDEST`, and only after the version is known.
                unsafe {
                    let version = (*routines).libversion_number.ok_or("libversion_number")?;
                    if version() < OLDEST {
                        return Err("the host's SQLite is older than 3.32.0");
                    }
                    Ok(Api {
                        $($field: (*routines).$field.ok_or(stringify!($symbol))?,)+
                        log: (*routines).log.ok_or("sqlite3_log")?,
                        auto_extension: std::mem::transmute::<
                            unsafe extern "C" fn(Option<unsafe extern "C" fn()>) -> c_int,
                            unsafe extern "C" fn(AutoEntry) -> c_int,
                        >((*routines).auto_extension.ok_or("sqlite3_auto_extension")?),
                    })
                }
            }
        }

        #[cfg(feature = "loadable")]
        impl Api {
            /// A copy of `text` in the host's memory, even if the host is too old for a whole table.
            ///
            /// # Safety
            /// As [`Api::of_host`].
            pub(crate) unsafe fn copy_for_host(
                routines: *const ffi::sqlite3_api_routines,
                text: &str,
            ) -> Result<*mut c_char, &'static str> {
                if routines.is_null() {
                    return Err("no table of functions");
                }
                // SAFETY: malloc is as old as loadable extensions.
                let malloc = unsafe { (*routines).malloc }.ok_or("sqlite3_malloc")?;
                // SAFETY: sqlite3_malloc.
                Ok(unsafe { copy_with(malloc, text) })
            }
        }
    };
}

/// # Safety
/// `malloc` must be sqlite3_malloc.
unsafe fn copy_with(malloc: unsafe extern "C" fn(c_int) -> *mut c_void, text: &str) -> *mut c_char {
    // What SQLite reads as a C string ends at the first zero byte.
    let bytes = text.as_bytes().split(|byte| *byte == 0).next().unwrap_or_default();
    let Ok(size) = c_int::try_from(bytes.len() + 1) else { return std::ptr::null_mut() };
    // SAFETY: the block holds `size` bytes, written in full before it is handed on.
    unsafe {
        let block = malloc(size).cast::<u8>();
        if !block.is_null() {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), block, bytes.len());
            *block.add(bytes.len()) = 0;
        }
        block.cast()
    }
}

table! {
    vfs_find / sqlite3_vfs_find: fn(*const c_char) -> *mut ffi::sqlite3_vfs;
    vfs_register / sqlite3_vfs_register: fn(*mut ffi::sqlite3_vfs, c_int) -> c_int;
    file_control / sqlite3_file_control: fn(*mut ffi::sqlite3, *const c_char, c_int, *mut c_void) -> c_int;
    malloc / sqlite3_malloc: fn(c_int) -> *mut c_void;
    uri_parameter / sqlite3_uri_parameter: fn(*const c_char, *const c_char) -> *const c_char;
    uri_boolean / sqlite3_uri_boolean: fn(*const c_char, *const c_char, c_int) -> c_int;
    filename_journal / sqlite3_filename_journal: fn(*const c_char) -> *const c_char;
    filename_wal / sqlite3_filename_wal: fn(*const c_char) -> *const c_char;
    libversion / sqlite3_libversion: fn() -> *const c_char;
    open_v2 / sqlite3_open_v2: fn(*const c_char, *mut *mut ffi::sqlite3, c_int, *const c_char) -> c_int;
    close / sqlite3_close: fn(*mut ffi::sqlite3) -> c_int;
    prepare_v2 / sqlite3_prepare_v2:
        fn(*mut ffi::sqlite3, *const c_char, c_int, *mut *mut ffi::sqlite3_stmt, *mut *const c_char) -> c_int;
    step / sqlite3_step: fn(*mut ffi::sqlite3_stmt) -> c_int;
    finalize / sqlite3_finalize: fn(*mut ffi::sqlite3_stmt) -> c_int;
    column_text / sqlite3_column_text: fn(*mut ffi::sqlite3_stmt, c_int) -> *const c_uchar;
    column_bytes / sqlite3_column_bytes: fn(*mut ffi::sqlite3_stmt, c_int) -> c_int;
    errmsg / sqlite3_errmsg: fn(*mut ffi::sqlite3) -> *const c_char;
    extended_errcode / sqlite3_extended_errcode: fn(*mut ffi::sqlite3) -> c_int;
    busy_timeout / sqlite3_busy_timeout: fn(*mut ffi::sqlite3, c_int) -> c_int;
    db_readonly / sqlite3_db_readonly: fn(*mut ffi::sqlite3, *const c_char) -> c_int;
}

#[cfg(not(feature = "loadable"))]
unsafe extern "C" fn linked_auto_extension(entry: AutoEntry) -> c_int {
    // SAFETY: sqlite3_auto_extension keeps the pointer; a function lives for ever.
    unsafe { ffi::sqlite3_auto_extension(Some(entry)) }
}

impl Api {
    /// The library this crate is linked with.
    #[cfg(not(feature = "loadable"))]
    pub(crate) fn linked() -> Api {
        LINKED
    }

    /// Writes to SQLite's error log.
    pub(crate) fn log(&self, code: c_int, message: &CStr) {
        // SAFETY: a constant format with one string, which sqlite3_log copies.
        unsafe { (self.log)(code, c"%s".as_ptr(), message.as_ptr()) }
    }

    /// Has `entry` called for each connection opened from now on; naming it twice changes nothing.
    pub(crate) fn auto_extend(&self, entry: AutoEntry) -> c_int {
        // SAFETY: `entry` has the signature that https://www.sqlite.org/c3ref/auto_extension.html asks for.
        unsafe { (self.auto_extension)(entry) }
    }

    /// A copy of `text` in SQLite's own memory, or null when there is none: for results that SQLite frees.
    pub(crate) fn copy_out(&self, text: &str) -> *mut c_char {
        // SAFETY: sqlite3_malloc.
        unsafe { copy_with(self.malloc, text) }
    }

    /// The version of the library.
    pub(crate) fn version(&self) -> String {
        // SAFETY: sqlite3_libversion answers a constant string.
        unsafe { CStr::from_ptr((self.libversion)()) }.to_string_lossy().into_owned()
    }
}
