//! The hardened VFS as a loadable SQLite extension.
//!
//! `.load ./libhardened` in the sqlite3 shell, `load_extension` in Python and Node; from then on every connection of the
//! process may be opened with `file:app.db?vfs=hardened`. Two environment variables set what a host cannot say in code:
//!
//! - `HARDENED_OPTIONS`: the defaults, in the grammar of the URI options (`policy=off&busy_timeout=5000`);
//! - `HARDENED_DEFAULT=1`: make it the process's default VFS, for hosts that cannot name one.
//!
//! The library stays loaded until the process ends: SQLite keeps pointers into it.

use std::ffi::{c_char, c_int};

use hardened_vfs::{Options, RegisterError, host};

/// Loaded with a message already in SQLite's memory, or not.
const OK_LOAD_PERMANENTLY: c_int = 256;
const ERROR: c_int = 1;

/// The entry point SQLite derives from the file's name.
///
/// # Safety
/// Called by SQLite, with the arguments of an extension's entry point (<https://www.sqlite.org/loadext.html>).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_hardened_init(
    _db: *mut host::Connection,
    message: *mut *mut c_char,
    routines: *const host::Routines,
) -> c_int {
    let loaded = std::panic::catch_unwind(|| {
        let (options, default) = from_environment()?;
        // SAFETY: SQLite's own pointer; the return value keeps the library loaded for ever.
        unsafe { host::register(routines, options, default) }.map_err(|error| match error {
            RegisterError::NameTaken(name) => {
                format!("another copy of the VFS `{name}` is registered already; it is left as it is")
            }
            other => other.to_string(),
        })
    });
    let error = match loaded {
        Ok(Ok(())) => return OK_LOAD_PERMANENTLY,
        Ok(Err(error)) => error,
        Err(_) => "an internal error".to_owned(),
    };
    // SAFETY: SQLite's own pointers.
    unsafe { host::set_message(routines, message, &format!("hardened: {error}")) };
    ERROR
}

/// The entry point for hosts that look for the generic name.
///
/// # Safety
/// As [`sqlite3_hardened_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_extension_init(
    db: *mut host::Connection,
    message: *mut *mut c_char,
    routines: *const host::Routines,
) -> c_int {
    // SAFETY: passed on as they came.
    unsafe { sqlite3_hardened_init(db, message, routines) }
}

fn from_environment() -> Result<(Options, bool), String> {
    let variable = |name: &str| match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("environment variable {name}: {error}")),
    };
    let options = match variable("HARDENED_OPTIONS")? {
        Some(text) => text.parse().map_err(|error| format!("environment variable HARDENED_OPTIONS: {error}"))?,
        None => Options::default(),
    };
    let default = match variable("HARDENED_DEFAULT")?.as_deref() {
        None | Some("" | "0") => false,
        Some("1") => true,
        Some(other) => return Err(format!("environment variable HARDENED_DEFAULT={other}: expected 0 or 1")),
    };
    Ok((options, default))
}
