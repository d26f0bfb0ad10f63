//! xOpen.
//!
//! Order, for a main database: options, verdict, base open, verdict again (the path may have changed hands in between),
//! policy, conversion of a WAL database that may not stay one. Nothing is written before the policy is known.
//!
//! An open that is refused still succeeds for SQLite, with a file that only knows its refusal: that way the automatic
//! extension can hand SQLite the message, and `sqlite3_errmsg` says why.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::base::{BaseFile, exists};
use super::bases;
use super::control::Who;
use super::file::{Kind, State, install};
use super::methods;
use super::register::{self, Registration};
use super::vfs::path_of;
use super::{auto, convert};
use crate::explain;
use crate::fs::{self, Class, NoAnswer, Place, Problem, Source, Verdict};
use crate::main_file::{self, Access, MainFile};
use crate::notice;
use crate::options::{KEYS, OptionError, Options, PolicyChoice, RESERVED_KEYS};
use crate::policy::Policy;
use crate::refusal::{self, Refusal};

thread_local! {
    /// Set while this thread opens a database for a conversion of our own.
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with all opens of this thread as with policy=off.
pub(crate) fn plainly<T>(body: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            PLAIN.set(self.0);
        }
    }
    let _restore = Restore(PLAIN.replace(true));
    body()
}

/// xOpen.
///
/// # Safety
/// The contract of xOpen: `name` is null or a file name of SQLite's, `file` has room for szOsFile bytes.
pub(crate) unsafe fn open(
    registration: &'static Registration,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: see above, for all of the calls.
    unsafe {
        if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 || name.is_null() {
            return open_other(registration, name, file, flags, out_flags);
        }
        // sqlite3_shutdown has emptied the list of automatic extensions, if it was called.
        registration.api.auto_extend(auto::opened);
        match open_main(registration, name, flags, out_flags) {
            Ok(state) => {
                if let Some(main) = state.main() {
                    main_file::remember(main);
                }
                install(file, state);
                ffi::SQLITE_OK
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
                install(file, State { registration, base: None, kind: Kind::Main(Arc::new(main)), own_base: None });
                ffi::SQLITE_OK
            }
        }
    }
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

/// A journal, a WAL, a super-journal or a temporary file.
unsafe fn open_other(
    registration: &'static Registration,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the contract of xOpen.
    unsafe {
        let protects = flags & (ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL) != 0 && !name.is_null();
        let owners = if protects { owners(registration, name) } else { Vec::new() };
        if flags & ffi::SQLITE_OPEN_WAL != 0 {
            if let Some(main) = owners.iter().find(|main| main.forbids_wal()) {
                main.warn("wal-file", format!("a -wal file was not opened: {}", main.policy().reason));
                return ffi::SQLITE_CANTOPEN;
            }
        }
        let base = if name.is_null() { None } else { bases::of(CStr::from_ptr(name)) };
        let base = base.unwrap_or(registration.base);
        match BaseFile::open(base, name, flags, out_flags) {
            Ok(base) => {
                let kind = if protects { Kind::Journal(main_file::Journal::opened(owners)) } else { Kind::Other };
                install(file, State { registration, base: Some(base), kind, own_base: None });
                ffi::SQLITE_OK
            }
            Err(code) => code,
        }
    }
}

/// The databases that a journal or WAL protects: the one whose pager opens it, or, where another shim above hides that
/// from us, all of that name.
///
/// # Safety
/// `name` must be the name of a journal or WAL as a pager hands it to xOpen.
unsafe fn owners(registration: &Registration, name: *const c_char) -> Vec<Arc<MainFile>> {
    // SAFETY: https://www.sqlite.org/c3ref/database_file_object.html; the main file is open while its journal is opened.
    unsafe {
        let main = (registration.api.database_file_object)(name);
        if !main.is_null() && !(*main).pMethods.is_null() {
            if let Some(main) = Who::question().ask(main) {
                return vec![main];
            }
        }
        main_file::by_journal(&path_of(name))
    }
}

/// A main database.
unsafe fn open_main(
    registration: &'static Registration,
    name: ffi::sqlite3_filename,
    flags: c_int,
    out_flags: *mut c_int,
) -> Result<State, Failure> {
    // SAFETY: the contract of xOpen, for this block and the next.
    let (path, name_text) = unsafe { (path_of(name), CStr::from_ptr(name)) };
    let mut options = unsafe { options_of(registration, name) }
        .map_err(|error| Refusal::new(&path, ffi::SQLITE_CANTOPEN, error.to_string()))?;
    if PLAIN.get() {
        options.policy = PolicyChoice::Off;
    }
    let base_vfs = base_of(registration, &options, &path)?;
    let own_base = (!std::ptr::eq(base_vfs, registration.base)).then(|| bases::remember(name_text, base_vfs));
    let native = bases::is_native(base_vfs);
    let off = options.policy == PolicyChoice::Off;

    if native && !off && !fs::known_local(&path) {
        if let Err(Problem::NoAnswer(no)) = fs::place(&path, options.fs_timeout) {
            return Err(no_answer(&path, &no).into());
        }
    }
    // Opened for reading, a pipe would wait for a writer, and a directory would open and then fail to be read.
    if native && !off && std::fs::metadata(&path).is_ok_and(|found| found.is_dir() || found.file_type().is_fifo()) {
        return Err(explain::failed_open(&path, ffi::SQLITE_CANTOPEN, 0, got_create(flags)).into());
    }
    let mut got = flags;
    // SAFETY: a registered VFS and SQLite's own name.
    let base = match unsafe { BaseFile::open(base_vfs, name, flags, &raw mut got) } {
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
    let state = |base: BaseFile, main: MainFile| State {
        registration,
        base: Some(base),
        kind: Kind::Main(Arc::new(main)),
        own_base,
    };
    let place = if off {
        Place { verdict: Arc::new(Verdict::unknown("policy=off: nobody looked")) }
    } else if !native {
        Place { verdict: Arc::new(of_base(base_vfs)) }
    } else {
        match judged(&path, &options, &base) {
            Ok(place) => place,
            Err(refusal) => {
                base.close();
                return Err(refusal.into());
            }
        }
    };
    let policy = Policy::settle(&options, &place.verdict, methods::offers_shared_memory(base.methods()));
    // SAFETY: SQLite's own name.
    let access = unsafe { access(registration, name, got) };
    let base_name = register::name_of(base_vfs);
    let main =
        MainFile::new(path.clone(), options, place.verdict, policy, access, base_name, registration.speak.clone());
    for warning in main.verdict.warnings.clone() {
        main.warn_only("verdict", &warning);
    }

    if main.forbids_wal() || (access == Access::ReadOnly && main.policy().hides_shared_memory()) {
        // SAFETY: SQLite's own name; the base is registered.
        let found = unsafe { wal_database(&base, base_vfs, name_text) };
        if found {
            if let Err(mut refusal) = convert::to_rollback(registration, name_text, &main) {
                refusal.not_local = true;
                base.close();
                return Err(refusal.into());
            }
            main.warn(
                "converted",
                format!("a WAL database was converted to journal_mode DELETE: {}", main.policy().reason),
            );
        }
    }
    Ok(state(base, main))
}

fn got_create(flags: c_int) -> bool {
    flags & ffi::SQLITE_OPEN_CREATE != 0
}

/// The verdict once the file is open. The path must still name the file that is open: between the two looks it may have
/// been replaced, or something mounted over it.
fn judged(path: &Path, options: &Options, base: &BaseFile) -> Result<Place, Refusal> {
    let place = match fs::place(path, options.fs_timeout) {
        Ok(place) => place,
        Err(Problem::NoAnswer(no)) => return Err(no_answer(path, &no)),
        // Of the filesystem this says nothing; a WAL database must not be converted for want of a descriptor.
        Err(Problem::Io { error, .. }) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            return Err(explain::failed_open(path, ffi::SQLITE_CANTOPEN, error.raw_os_error().unwrap_or(0), false));
        }
        Err(Problem::Io { error, .. }) => {
            let verdict = Verdict::unknown(format!("its path cannot be followed: {error}"));
            return Ok(Place { verdict: Arc::new(verdict) });
        }
    };
    let mut moved: c_int = 0;
    // SAFETY: SQLITE_FCNTL_HAS_MOVED writes an integer.
    let code = unsafe { base.file_control(ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast()) };
    if code == ffi::SQLITE_OK && moved != 0 {
        return Err(Refusal::new(path, ffi::SQLITE_CANTOPEN, "the file was replaced while it was being opened")
            .hint("try again; if it happens again, find the program that replaces it"));
    }
    Ok(place)
}

/// Whether the open database is a WAL database, or has a -wal that SQLite would read.
///
/// # Safety
/// `vfs` must be registered.
unsafe fn wal_database(base: &BaseFile, vfs: *mut ffi::sqlite3_vfs, name: &CStr) -> bool {
    let mut header = [0_u8; 100];
    if base.read_into(&mut header, 0) != ffi::SQLITE_OK {
        return false;
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return false;
    }
    let wal = CString::new([name.to_bytes(), b"-wal"].concat());
    // SAFETY: see above.
    header[18] == 2 || header[19] == 2 || wal.is_ok_and(|wal| unsafe { exists(vfs, wal.as_ptr()) })
}

/// The refusal of a filesystem that does not answer.
pub(crate) fn no_answer(path: &Path, no_answer: &NoAnswer) -> Refusal {
    let verdict = &no_answer.verdict;
    let mut reason = format!(
        "{} ({}) did not answer within {} s",
        verdict.filesystem,
        verdict.class,
        no_answer.waited.as_secs_f64()
    );
    if let (Some(source), Some(point)) = (&verdict.source, &verdict.mount_point) {
        reason = format!("{reason}; it is {source} mounted at {}", point.display());
    }
    let mut refusal = Refusal::new(path, ffi::SQLITE_CANTOPEN, reason)
        .hint("nothing was touched; try again when the server answers, or give it longer with fs_timeout=MS");
    refusal.not_local = verdict.class != Class::Local;
    refusal
}

/// Another VFS than the operating system's: its name says nothing about where the bytes go.
fn of_base(vfs: *mut ffi::sqlite3_vfs) -> Verdict {
    let name = register::name_of(vfs);
    let mut verdict =
        Verdict::unknown(format!("the base VFS `{name}` does the I/O, and where its bytes go is not known"));
    verdict.filesystem = format!("vfs:{name}");
    verdict.from = Source::BaseVfs;
    verdict
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

/// The defaults of the registration, changed by the URI.
///
/// # Safety
/// `name` must be a file name of SQLite's.
unsafe fn options_of(registration: &Registration, name: *const c_char) -> Result<Options, OptionError> {
    let mut options = registration.defaults.clone();
    for key in KEYS.iter().chain(&RESERVED_KEYS) {
        let Ok(c_key) = CString::new(*key) else { continue };
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

/// # Safety
/// `name` must be a file name of SQLite's.
unsafe fn access(registration: &Registration, name: *const c_char, flags: c_int) -> Access {
    // SAFETY: see above.
    let says = |key: &CStr| unsafe { (registration.api.uri_boolean)(name, key.as_ptr(), 0) != 0 };
    if says(c"immutable") {
        Access::Immutable
    } else if flags & ffi::SQLITE_OPEN_READONLY != 0 {
        Access::ReadOnly
    } else if says(c"nolock") {
        Access::NoLock
    } else {
        Access::ReadWrite
    }
}

fn last_error(vfs: *mut ffi::sqlite3_vfs) -> i32 {
    // SAFETY: a registered VFS; without a buffer only the number is asked for.
    unsafe { (*vfs).xGetLastError.map_or(0, |last| last(vfs, 0, std::ptr::null_mut())) }
}
