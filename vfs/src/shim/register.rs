//! Registration: one leaked [`Registration`] per name and SQLite library, for the life of the process.
//!
//! SQLite keeps a pointer to the sqlite3_vfs for ever, so a registration is never freed. Memory is Rust's own:
//! sqlite3_shutdown may take everything that came from SQLite's allocator.

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use libsqlite3_sys as ffi;

use super::auto;
use super::file::File;
use super::sqlite::Api;
use super::vfs;
use crate::lock::fork;
use crate::notice::Speak;
use crate::options::Options;

/// The name under which the VFS is registered unless another is asked for.
pub const NAME: &str = "hardened";

/// Why the VFS could not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// No VFS of the name given as `base`.
    NoBase(String),
    /// The VFS named as `base` is a hardened one.
    BaseIsHardened(String),
    /// The name is registered already with other options.
    OtherOptions {
        /// The name.
        name: String,
        /// The options it has, in the option grammar.
        registered: String,
        /// The options asked for.
        asked: String,
    },
    /// The name is taken by a VFS that is not ours.
    NameTaken(String),
    /// The SQLite library lacks something, or is too old.
    Host(String),
    /// SQLite refused, with this result code.
    Sqlite(i32),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::NoBase(base) => write!(f, "there is no VFS named `{base}` to stand on"),
            RegisterError::BaseIsHardened(base) => {
                write!(f, "`{base}` is a hardened VFS itself and cannot be the base")
            }
            RegisterError::OtherOptions { name, registered, asked } => write!(
                f,
                "the VFS `{name}` is registered already with the options \"{registered}\", not \"{asked}\"; give options \
                 for one database in its URI"
            ),
            RegisterError::NameTaken(name) => write!(f, "another VFS is registered as `{name}`"),
            RegisterError::Host(missing) => write!(f, "this SQLite library cannot be used: {missing}"),
            RegisterError::Sqlite(code) => write!(f, "sqlite3_vfs_register failed with code {code}"),
        }
    }
}

impl std::error::Error for RegisterError {}

/// One registered VFS.
pub(crate) struct Registration {
    pub(crate) api: Api,
    pub(crate) speak: Speak,
    pub(crate) defaults: Options,
    pub(crate) base: *mut ffi::sqlite3_vfs,
    name: CString,
    /// SQLite links registered VFSes through it.
    vfs: UnsafeCell<ffi::sqlite3_vfs>,
}

// SAFETY: SQLite changes `vfs` (its pNext) under its own mutex and nothing else changes after registration; a registered
// base VFS may be called from any thread (https://www.sqlite.org/c3ref/vfs.html).
unsafe impl Sync for Registration {}
// SAFETY: as above.
unsafe impl Send for Registration {}

static REGISTERED: Mutex<Vec<&'static Registration>> = Mutex::new(Vec::new());

/// The registration behind a VFS of ours.
///
/// # Safety
/// `vfs` must be one that [`register_in`] registered.
pub(crate) unsafe fn of(vfs: *mut ffi::sqlite3_vfs) -> &'static Registration {
    // SAFETY: pAppData was set to a leaked registration.
    unsafe { &*(*vfs).pAppData.cast::<Registration>() }
}

/// Whether a VFS is one of ours.
pub(crate) fn is_ours(vfs: *mut ffi::sqlite3_vfs) -> bool {
    let registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    registered.iter().any(|registration| std::ptr::eq(registration.vfs.get(), vfs))
}

impl Registration {
    /// The C name.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// The name of the base.
    pub(crate) fn base_name(&self) -> String {
        name_of(self.base)
    }
}

/// The name of a registered VFS.
pub(crate) fn name_of(vfs: *mut ffi::sqlite3_vfs) -> String {
    // SAFETY: a registered VFS has a C string as its name.
    unsafe { CStr::from_ptr((*vfs).zName) }.to_string_lossy().into_owned()
}

/// Registers the VFS in the library of `api`; again with the same options is a success.
pub(crate) fn register_in(api: Api, name: &str, options: Options, default: bool) -> Result<(), RegisterError> {
    fork::watch();
    let c_name = CString::new(name).map_err(|_| RegisterError::NameTaken(name.to_owned()))?;
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: a C string; the answer is null or a registered VFS.
    let present = unsafe { (api.vfs_find)(c_name.as_ptr()) };
    let known = registered.iter().find(|known| std::ptr::eq(known.vfs.get(), present)).copied();
    let registration = match known {
        Some(known) if known.defaults == options => known,
        Some(known) => {
            return Err(RegisterError::OtherOptions {
                name: name.to_owned(),
                registered: known.defaults.to_string(),
                asked: options.to_string(),
            });
        }
        None if !present.is_null() => return Err(RegisterError::NameTaken(name.to_owned())),
        None => {
            let base = find_base(&api, &options, &registered)?;
            let registration = leak(api, c_name, options, base);
            registered.push(registration);
            registration
        }
    };
    // Also for a known one: sqlite3_shutdown forgets automatic extensions and which VFS is the default.
    // SAFETY: the structure lives for ever.
    let code = unsafe {
        if known.is_none() || default {
            (api.vfs_register)(registration.vfs.get(), c_int::from(default))
        } else {
            ffi::SQLITE_OK
        }
    };
    match code {
        ffi::SQLITE_OK => {}
        code => return Err(RegisterError::Sqlite(code)),
    }
    match api.auto_extend(auto::opened) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(RegisterError::Sqlite(code)),
    }
}

fn find_base(
    api: &Api,
    options: &Options,
    registered: &[&'static Registration],
) -> Result<*mut ffi::sqlite3_vfs, RegisterError> {
    let found = find(api, options.base.as_deref());
    let ours = registered.iter().find(|known| std::ptr::eq(known.vfs.get(), found));
    match (ours, &options.base) {
        (Some(_), Some(name)) => Err(RegisterError::BaseIsHardened(name.clone())),
        // We are the default VFS already: stand beside ourselves, on the same base.
        (Some(known), None) => Ok(known.base),
        (None, _) if found.is_null() => {
            Err(RegisterError::NoBase(options.base.clone().unwrap_or_else(|| "(default)".into())))
        }
        (None, _) => Ok(found),
    }
}

/// The VFS of this name, the default one without a name; null if there is none.
pub(crate) fn find(api: &Api, name: Option<&str>) -> *mut ffi::sqlite3_vfs {
    let name = match name.map(CString::new) {
        Some(Err(_)) => return std::ptr::null_mut(),
        Some(Ok(name)) => Some(name),
        None => None,
    };
    // SAFETY: null or a C string that lives across the call.
    unsafe { (api.vfs_find)(name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr())) }
}

fn leak(api: Api, name: CString, defaults: Options, base: *mut ffi::sqlite3_vfs) -> &'static Registration {
    // SAFETY: `base` is registered.
    let (version, path, like) = unsafe { ((*base).iVersion.clamp(1, 3), (*base).mxPathname, &*base) };
    let vfs = ffi::sqlite3_vfs {
        iVersion: version,
        szOsFile: size_of::<File>() as c_int,
        mxPathname: path,
        pNext: std::ptr::null_mut(),
        zName: std::ptr::null(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(vfs::open),
        xDelete: Some(vfs::delete),
        xAccess: Some(vfs::access),
        xFullPathname: Some(vfs::full_pathname),
        xDlOpen: like.xDlOpen.map(|_| vfs::dl_open as _),
        xDlError: like.xDlError.map(|_| vfs::dl_error as _),
        xDlSym: like.xDlSym.map(|_| vfs::dl_sym as _),
        xDlClose: like.xDlClose.map(|_| vfs::dl_close as _),
        xRandomness: like.xRandomness.map(|_| vfs::randomness as _),
        xSleep: like.xSleep.map(|_| vfs::sleep as _),
        xCurrentTime: like.xCurrentTime.map(|_| vfs::current_time as _),
        xGetLastError: Some(vfs::get_last_error),
        // Methods that came with version 2 and 3 may only be looked at in a base that has them.
        xCurrentTimeInt64: if version >= 2 {
            like.xCurrentTimeInt64.map(|_| vfs::current_time_int64 as _)
        } else {
            None
        },
        xSetSystemCall: if version >= 3 { like.xSetSystemCall.map(|_| vfs::set_system_call as _) } else { None },
        xGetSystemCall: if version >= 3 { like.xGetSystemCall.map(|_| vfs::get_system_call as _) } else { None },
        xNextSystemCall: if version >= 3 { like.xNextSystemCall.map(|_| vfs::next_system_call as _) } else { None },
    };
    let speak: Speak = Arc::new(move |code, message: &CStr| api.log(code, message));
    let registration =
        Box::leak(Box::new(Registration { api, speak, defaults, base, name, vfs: UnsafeCell::new(vfs) }));
    let name: *const c_char = registration.name.as_ptr();
    let this: *mut Registration = registration;
    // SAFETY: nobody else knows the structure yet.
    unsafe {
        (*(*this).vfs.get()).zName = name;
        (*(*this).vfs.get()).pAppData = this.cast();
        &*this
    }
}
