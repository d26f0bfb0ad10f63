//! xOpen.
//!
//! Order, for a main database: options, verdict, base open, verdict again (the path may have changed hands in between),
//! policy, conversion of a WAL database that may not stay one. Nothing is written before the policy is known.
//!
//! An open that is refused still succeeds for SQLite, with a file that only knows its refusal: that way the automatic
//! extension can hand SQLite the message, and `sqlite3_errmsg` says why.

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::bases;
use super::early::{Before, Early, first_look};
use super::file::{Kind, State, install};
use super::methods;
use super::register::{self, Registration};
use super::sidecar::Sidecar;
use super::vfs::path_of;
use super::{auto, convert, journals, judge};
use crate::checksum::pages::Pages;
use crate::explain;
use crate::fs::{self, Problem, Verdict};
use crate::generation::Which;
use crate::guard;
use crate::guard::keeper::Keeper;
use crate::lock::{FileLocks, choose, fork};
use crate::main_file::{self, Access, MainFile};
use crate::notice;
use crate::options::{KEYS, LocksChoice, OptionError, Options, PolicyChoice};
use crate::policy::Policy;
use crate::refusal::{self, Refusal};
use crate::shared::{Identity, Shared};
use crate::shm::{self, Place};
use crate::sync::directory::Directory;

thread_local! {
    /// Set while this thread opens a database for a conversion of our own: what is known about its place, and the base
    /// that its URI named.
    static PLAIN: RefCell<Option<Plain>> = const { RefCell::new(None) };
}

type Plain = (Arc<Verdict>, Option<String>, LocksChoice);

/// Runs `body` with all opens of this thread as with policy=off, at the place and on the base of `main`.
pub(crate) fn plainly<T>(main: &MainFile, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<Plain>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PLAIN.set(self.0.take());
        }
    }
    let _restore =
        Restore(PLAIN.replace(Some((Arc::clone(&main.verdict), main.options.base.clone(), main.options.locks))));
    body()
}

/// xOpen.
///
/// # Safety
/// The contract of xOpen: `name` is null or a file name of SQLite's, `file` has room for szOsFile bytes.
pub(crate) unsafe fn open(
    registration: &'static Registration,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: see above, for all of the calls.
    unsafe {
        if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 || name.is_null() {
            return journals::open(registration, name, file, flags, out_flags);
        }
        // sqlite3_shutdown has emptied the list of automatic extensions, if it was called.
        registration.api.auto_extend(auto::opened);
        let opened = open_main(registration, name, flags, out_flags);
        if opened.is_err() {
            forget_look(&path_of(name));
        }
        match opened {
            Ok(state) => {
                if let Some(main) = state.main() {
                    main_file::remember(main, journal_names(registration, name, flags));
                }
                install(file, state)
            }
            Err(Failure::Plain(code)) => code,
            Err(Failure::Refused(mut refusal)) => {
                tell(registration, &mut refusal);
                let code = refusal.code;
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                let mut main = MainFile::new(
                    refusal.path.clone(),
                    registration.defaults.clone(),
                    Arc::new(Verdict::unknown("the open was refused")),
                    Policy::settle(&Options::default(), &Verdict::unknown("the open was refused"), false),
                    Access::ReadOnly,
                    registration.base_name(),
                    registration.speak.clone(),
                );
                main.refusal = Some(refusal);
                if code & 0xff == ffi::SQLITE_NOMEM {
                    return ffi::SQLITE_NOMEM;
                }
                let (kind, forks) = (Kind::Main(Arc::new(main)), fork::count());
                install(
                    file,
                    State {
                        registration,
                        base: None,
                        kind,
                        locks: None,
                        index: None,
                        pages: None,
                        own_base: None,
                        forks,
                    },
                )
            }
        }
    }
}

/// No open follows on a look at this path.
pub(crate) fn forget_look(path: &Path) {
    drop(first_look(path));
}

/// Records a refusal and writes it to the logs.
pub(crate) fn tell(registration: &Registration, refusal: &mut Refusal) {
    refusal::record(refusal);
    notice::say(&registration.speak, refusal.code, &refusal.to_string());
}

enum Failure {
    /// Passed on from the base as it is.
    Plain(c_int),
    Refused(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

/// Where a pager keeps the names of the journal and the WAL that belong to the database `name`; zeros where the name may be
/// a plain string of a shim above, behind which there is nothing. Then journals are found by their names.
///
/// # Safety
/// `name` must be the name of a main database as xOpen gets it, a file name of SQLite's if `flags` say that it comes from a
/// URI.
unsafe fn journal_names(registration: &Registration, name: *const c_char, flags: c_int) -> [usize; 2] {
    if flags & ffi::SQLITE_OPEN_URI == 0 {
        return [0; 2];
    }
    // SAFETY: https://www.sqlite.org/c3ref/filename_database.html; only the addresses are kept.
    unsafe { [(registration.api.filename_journal)(name) as usize, (registration.api.filename_wal)(name) as usize] }
}

/// Where the WAL-index is: beside the -wal, whose name may have been shortened to three letters (SQLITE_ENABLE_8_3_NAMES).
///
/// # Safety
/// As [`journal_names`].
unsafe fn index_place(registration: &Registration, name: *const c_char, flags: c_int) -> Place {
    // SAFETY: see above.
    let (database, wal, read_only) = unsafe {
        let [_, wal] = journal_names(registration, name, flags);
        let wal = wal as *const c_char;
        let read_only =
            flags & ffi::SQLITE_OPEN_URI != 0 && (registration.api.uri_boolean)(name, c"readonly_shm".as_ptr(), 0) != 0;
        (path_of(name), (!wal.is_null()).then(|| CStr::from_ptr(wal).to_bytes().to_vec()), read_only)
    };
    let name = database.as_os_str().as_bytes();
    let short = wal.as_deref().and_then(|wal| wal.strip_suffix(b".wal")).filter(|stem| name.starts_with(stem));
    let path = match short {
        Some(stem) => [stem, b".shm"].concat(),
        None => [name, b"-shm"].concat(),
    };
    Place { path: OsString::from_vec(path).into(), database, read_only, fresh: None }
}

/// A main database.
unsafe fn open_main(
    registration: &'static Registration,
    name: *const c_char,
    flags: c_int,
    out_flags: *mut c_int,
) -> Result<State, Failure> {
    // SAFETY: the contract of xOpen.
    let (path, name_text, options) =
        unsafe { (path_of(name), CStr::from_ptr(name), options_of(registration, name, flags)) };
    let mut options = options.map_err(|error| Refusal::new(&path, ffi::SQLITE_CANTOPEN, error.to_string()))?;
    let judged_before = PLAIN.with_borrow(Clone::clone).map(|(verdict, base, locks)| {
        options.policy = PolicyChoice::Off;
        options.base = base;
        options.locks = locks;
        verdict
    });
    let converting = judged_before.is_some();
    let base_vfs = base_of(registration, &options, &path)?;
    let own_base = (!std::ptr::eq(base_vfs, registration.base)).then(|| bases::remember(name_text, base_vfs));
    let native = bases::is_native(base_vfs);
    let off = options.policy == PolicyChoice::Off;

    if native && !off && !fs::known_local(&path) {
        if let Err(Problem::NoAnswer(no)) = fs::answers(&path, options.fs_timeout) {
            return Err(judge::no_answer(&path, &no).into());
        }
    }
    let look = first_look(&path);
    let before = if native && !off { Before::of(&path, look) } else { Before::default() };
    if before.cannot_be_one {
        return Err(explain::failed_open(&path, ffi::SQLITE_CANTOPEN, 0, got_create(flags)).into());
    }
    let mut got = flags;
    // SAFETY: a registered VFS and SQLite's own name.
    let opened = unsafe {
        match choose::may_be_ours(options.locks, &register::name_of(base_vfs), off && !converting) {
            true => BaseFile::open_for_long(base_vfs, name, flags, &raw mut got),
            false => BaseFile::open(base_vfs, name, flags, &raw mut got),
        }
    };
    let base = match opened {
        Ok(base) => base,
        Err(code) if off || !native => return Err(Failure::Plain(code)),
        Err(code) => return Err(explain::failed_open(&path, code, last_error(base_vfs), got_create(flags)).into()),
    };
    // SAFETY: null or SQLite's pointer.
    unsafe {
        if !out_flags.is_null() {
            *out_flags = got;
        }
    }
    let opened = Opened { registration, name_text, path, base_vfs, native, converting, judged_before, before };
    // SAFETY: SQLite's own name.
    let access = unsafe { access(registration, name, flags, got) };
    match settle(&opened, options, access, &base) {
        Ok((main, locks)) => {
            // SAFETY: SQLite's own name.
            let place = || unsafe { index_place(registration, name, flags) };
            let fresh = main.generation.seen();
            let index = shm::for_file(&main, off, || Place { fresh, ..place() });
            let pages = Some(Pages::new(main.options.checksum));
            let (kind, forks) = (Kind::Main(Arc::new(main)), fork::count());
            Ok(State { registration, base: Some(base), kind, locks, index, pages, own_base, forks })
        }
        Err(refusal) => {
            close_refused(&opened, base);
            Err(refusal.into())
        }
    }
}

/// A main database that is open in its base.
pub(super) struct Opened<'a> {
    registration: &'static Registration,
    name_text: &'a CStr,
    pub(super) path: PathBuf,
    pub(super) base_vfs: *mut ffi::sqlite3_vfs,
    native: bool,
    converting: bool,
    pub(super) judged_before: Option<Arc<Verdict>>,
    pub(super) before: Before,
}

/// What is done with it.
fn settle(
    opened: &Opened<'_>,
    options: Options,
    access: Access,
    base: &BaseFile,
) -> Result<(MainFile, Option<FileLocks>), Refusal> {
    let Opened { registration, name_text, path, base_vfs, native, converting, .. } = opened;
    let (registration, base_vfs, native, converting) = (*registration, *base_vfs, *native, *converting);
    let off = options.policy == PolicyChoice::Off;
    let early = if native && !off { Early::of(opened, &options, access) } else { None };
    if early.is_none() {
        // The directory may have been replaced since.
        drop(opened.before.directory.take());
    }
    let verdict = match (&opened.judged_before, &early) {
        (Some(verdict), _) => Arc::clone(verdict),
        (None, _) if off => Arc::new(Verdict::unknown("policy=off: nobody looked")),
        (None, _) if !native => Arc::new(judge::of_base(base_vfs)),
        (None, Some(early)) => {
            early.unmoved(path, base)?;
            Arc::clone(&early.verdict)
        }
        (None, None) => judge::opened(path, &options, base)?,
    };
    let policy = Policy::settle(&options, &verdict, methods::offers_shared_memory(base.methods()));
    let base_name = register::name_of(base_vfs);
    let mut main = MainFile::new(path.clone(), options, verdict, policy, access, base_name, registration.speak.clone());
    main.converting = converting;
    for warning in main.verdict.warnings.clone() {
        main.warn_only("verdict", &warning);
    }

    if !off && access == Access::ReadWrite {
        // SAFETY: SQLite's own name; the base is registered.
        unsafe { judge::orphaned_wal(base, early.as_ref().map(Early::size), base_vfs, name_text) }?;
    }
    if main.forbids_wal() || (access == Access::ReadOnly && main.policy().hides_shared_memory()) {
        // SAFETY: SQLite's own name; the base is registered.
        if unsafe { judge::wal_database(base, base_vfs, name_text) } {
            convert::to_rollback(registration, name_text, &main)?;
            let reason = main.policy().reason;
            main.warn("converted", format!("a WAL database was converted to journal_mode DELETE: {reason}"));
        }
    }
    let (handle, found) = early.map_or((None, None), Early::into_parts);
    let chosen = choose::for_file(&main, off && !converting, handle, || try_base(base, base_vfs))?;
    let locks = chosen.locks;
    main.locks = chosen.said;
    if locks.is_some() && found.is_none() {
        // The handle for the locks was opened by name.
        judge::unmoved(path, base)?;
    }
    main.native = native;
    match found {
        Some((identity, may)) => main.generation.is_database(identity, may),
        None if native && !off => main.generation.opened(Which::Database, path),
        None => {}
    }
    if !off && access == Access::ReadWrite {
        #[cfg(target_os = "linux")]
        let freed = locks.as_ref().is_some_and(FileLocks::freed_a_descriptor);
        #[cfg(not(target_os = "linux"))]
        let freed = false;
        let identity = Identity::of(path, &main.base, main.generation.identity(Which::Database));
        let begin = || {
            let keeper = Keeper::new(
                main.options.guard,
                guard::boot_id,
                Box::new(Sidecar::of(base_vfs, name_text, native, main.verdict.class)),
            );
            let directory = match opened.before.directory.take() {
                // Opened before the handle.
                Some(directory) => Some(Directory::open(directory, freed)?),
                None if native => Directory::of(path)?,
                None => None,
            };
            Ok((keeper, directory))
        };
        let shared = Shared::of(identity, begin).map_err(|error: io::Error| {
            let errno = error.raw_os_error().unwrap_or(0);
            explain::failed_open(path, ffi::SQLITE_CANTOPEN, errno, false)
        })?;
        main.shared = Some(shared);
    }
    Ok((main, locks))
}

/// Closing it may not take away the locks of a stock connection beside us either.
fn close_refused(opened: &Opened<'_>, base: BaseFile) {
    #[cfg(target_os = "linux")]
    if bases::is_unix(opened.base_vfs) {
        use std::os::unix::fs::MetadataExt;
        let identity = std::fs::metadata(&opened.path).ok().map(|found| (found.dev(), found.ino()));
        crate::lock::parked::close_alone(identity, Box::new(move || base.close()));
        return;
    }
    let _ = opened;
    base.close();
}

/// Takes and releases a lock of the base's; the error number if the filesystem knows none.
fn try_base(base: &BaseFile, vfs: *mut ffi::sqlite3_vfs) -> Result<(), i32> {
    #[cfg(target_os = "linux")]
    // SAFETY: the error number of this thread.
    unsafe {
        *libc::__errno_location() = 0;
    }
    match base.lock(ffi::SQLITE_LOCK_SHARED) {
        ffi::SQLITE_OK => {
            base.unlock(ffi::SQLITE_LOCK_NONE);
            Ok(())
        }
        // To stock SQLite a filesystem without locks is one that is always busy.
        ffi::SQLITE_BUSY if last_error(vfs) == libc::ENOLCK => Err(libc::ENOLCK),
        ffi::SQLITE_BUSY => Ok(()),
        _ => Err(last_error(vfs)),
    }
}

fn got_create(flags: c_int) -> bool {
    flags & ffi::SQLITE_OPEN_CREATE != 0
}

fn base_of(registration: &Registration, options: &Options, path: &Path) -> Result<*mut ffi::sqlite3_vfs, Refusal> {
    if options.base == registration.defaults.base {
        return Ok(registration.base);
    }
    let wanted = options.base.as_deref().unwrap_or_default();
    let found = register::find(&registration.api, Some(wanted));
    if found.is_null() {
        let reason = format!("option `base={wanted}`: there is no VFS of that name");
        return Err(Refusal::new(path, ffi::SQLITE_CANTOPEN, reason).hint("register it first, or leave the option out"));
    }
    if register::is_ours(found) {
        let reason = format!("option `base={wanted}`: a hardened VFS cannot be the base of another");
        return Err(Refusal::new(path, ffi::SQLITE_CANTOPEN, reason));
    }
    Ok(found)
}

/// The defaults of the registration, changed by the URI. Only with SQLITE_OPEN_URI may there be parameters behind the name;
/// without it a shim above may have handed us a plain string.
///
/// # Safety
/// `name` must be a file name of SQLite's if `flags` say that it comes from a URI.
unsafe fn options_of(registration: &Registration, name: *const c_char, flags: c_int) -> Result<Options, OptionError> {
    let mut options = registration.defaults.clone();
    if flags & ffi::SQLITE_OPEN_URI == 0 {
        return Ok(options);
    }
    for key in KEYS {
        let Ok(c_key) = CString::new(key) else { continue };
        // SAFETY: see above; the value lives as long as the name.
        let value = unsafe {
            let value = (registration.api.uri_parameter)(name, c_key.as_ptr());
            if value.is_null() {
                continue;
            }
            CStr::from_ptr(value)
        };
        options.set(key, &value.to_string_lossy())?;
    }
    Ok(options)
}

/// How the file was opened: `got` is what the base made of `flags`.
///
/// # Safety
/// As [`options_of`].
unsafe fn access(registration: &Registration, name: *const c_char, flags: c_int, got: c_int) -> Access {
    let uri = flags & ffi::SQLITE_OPEN_URI != 0;
    // SAFETY: see above.
    let says = |key: &CStr| uri && unsafe { (registration.api.uri_boolean)(name, key.as_ptr(), 0) != 0 };
    if says(c"immutable") {
        Access::Immutable
    } else if got & ffi::SQLITE_OPEN_READONLY != 0 {
        Access::ReadOnly
    } else if says(c"nolock") {
        Access::NoLock
    } else {
        Access::ReadWrite
    }
}

pub(super) fn last_error(vfs: *mut ffi::sqlite3_vfs) -> i32 {
    // SAFETY: a registered VFS; without a buffer only the number is asked for.
    unsafe { (*vfs).xGetLastError.map_or(0, |last| last(vfs, 0, std::ptr::null_mut())) }
}
