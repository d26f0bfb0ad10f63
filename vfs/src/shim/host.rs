//! For the loadable extension: the SQLite library is the one that loads us.

use std::ffi::c_char;

use super::register::{NAME, RegisterError, register_in};
use super::sqlite::Api;
use crate::options::Options;

/// A connection of the host.
pub type Connection = libsqlite3_sys::sqlite3;

/// The host's table of functions.
pub type Routines = libsqlite3_sys::sqlite3_api_routines;

/// Registers the VFS in the host. Again, from another connection or another library of the process, is a success.
///
/// # Errors
/// [`RegisterError`]; also if the host is older than SQLite 3.32.0.
///
/// # Safety
/// `routines` must be the pointer that SQLite handed to an extension's entry point, and the code that calls this must never
/// be unloaded (SQLITE_OK_LOAD_PERMANENTLY).
pub unsafe fn register(routines: *const Routines, options: Options, default: bool) -> Result<(), RegisterError> {
    // SAFETY: the caller's promise.
    let api = unsafe { Api::of_host(routines) }.map_err(|missing| RegisterError::Host(missing.to_owned()))?;
    register_in(api, NAME, options, default)
}

/// Sets the error message of a failed load.
///
/// # Safety
/// Both pointers must be those SQLite handed to the extension's entry point.
pub unsafe fn set_message(routines: *const Routines, message: *mut *mut c_char, text: &str) {
    if message.is_null() {
        return;
    }
    // SAFETY: the caller's promise. SQLite frees the text.
    unsafe {
        if let Ok(copy) = Api::copy_for_host(routines, text) {
            *message = copy;
        }
    }
}
