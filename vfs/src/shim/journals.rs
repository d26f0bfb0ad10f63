//! xOpen of everything but a main database: journals and logs, which belong to one, super-journals and temporary files.

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::file::{Kind, State, install};
use super::open::last_error;
use super::register::Registration;
use super::vfs::path_of;
use super::{bases, own_journal, protect};
use crate::fresh;
use crate::fs::Class;
use crate::journal_file::{Access, JournalFile};
use crate::lock::fork;
use crate::main_file::{self, MainFile, Role};
use crate::policy::Rule;

/// How long a name may be neither there nor free on SMB, because some client has the file open that was removed, or the server has
/// not heard that it is closed: as long as Linux keeps one open, and as much again.
const REMOVAL: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(10);

/// xOpen of a journal, a WAL, a super-journal or a temporary file.
///
/// # Safety
/// The contract of xOpen.
pub(super) unsafe fn open(
    registration: &'static Registration,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the contract of xOpen.
    unsafe {
        // A journal that is only looked into, to see whether it is hot, is nobody's in particular.
        let looks = flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 && flags & ffi::SQLITE_OPEN_READONLY != 0;
        let kinds = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
        let protects = flags & kinds != 0 && !name.is_null() && !looks;
        if flags & kinds != 0 && !name.is_null() && main_file::is_inherited(name as usize, &path_of(name)) {
            return ffi::SQLITE_CANTOPEN;
        }
        let owners = if protects { main_file::by_journal(name as usize, &path_of(name)) } else { Vec::new() };
        if flags & ffi::SQLITE_OPEN_WAL != 0 {
            if let Some(main) = owners.iter().find(|main| main.forbids_wal()) {
                main.warn("wal-file", format!("a -wal file was not opened: {}", main.policy().reason));
                return ffi::SQLITE_CANTOPEN;
            }
        }
        let base = if name.is_null() { None } else { bases::of(CStr::from_ptr(name)) };
        let base = base.unwrap_or(registration.base);
        let own = match &owners[..] {
            [main] if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 && flags & ffi::SQLITE_OPEN_CREATE != 0 => {
                own_journal(main, &path_of(name))
            }
            _ => None,
        };
        let base_made = own.is_none();
        let mut opened = match own {
            Some(own) => {
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
                Ok(own)
            }
            None => BaseFile::open(base, name, flags, out_flags),
        };
        if matches!(&opened, Err(code) if code & 0xff == ffi::SQLITE_CANTOPEN)
            && matches!(last_error(base), libc::EMFILE | libc::ENFILE)
            && owners.iter().filter_map(|main| main.shared.as_ref()).any(|shared| shared.spare_descriptors())
        {
            opened = BaseFile::open(base, name, flags, out_flags);
        }
        if flags & ffi::SQLITE_OPEN_CREATE != 0 && owners.iter().any(|main| remembers_names(main)) {
            let is_being_removed = |opened: &Result<BaseFile, c_int>| {
                matches!(opened, Err(code) if code & 0xff == ffi::SQLITE_CANTOPEN) && last_error(base) == libc::ENOENT
            };
            let until = Instant::now() + REMOVAL;
            while is_being_removed(&opened) && Instant::now() < until {
                std::thread::sleep(NAP);
                opened = BaseFile::open(base, name, flags, out_flags);
            }
        }
        match opened {
            Ok(base) => {
                let wal = flags & ffi::SQLITE_OPEN_WAL != 0;
                let kind = match protects.then(|| main_file::Journal::opened(owners)) {
                    Some(journal) => {
                        if let Some(main) = journal.owner() {
                            if base_made && remembers_names(main) {
                                // Opened once more, the file is one that is closed at once.
                                let _there = fresh::is_there(&path_of(name));
                            }
                            let role = if wal { Role::Wal } else { Role::Journal };
                            protect::opened(main, role, flags & ffi::SQLITE_OPEN_CREATE != 0);
                        }
                        if wal { Kind::Wal(journal) } else { Kind::Journal(journal) }
                    }
                    None => Kind::Other,
                };
                let forks = fork::count();
                install(
                    file,
                    State {
                        registration,
                        base: Some(base),
                        kind,
                        locks: None,
                        index: None,
                        pages: None,
                        own_base: None,
                        forks,
                    },
                )
            }
            Err(code) => code,
        }
    }
}

/// Whether this is the name of the log of a database that is open, and has none: where WAL is forbidden the open has seen to
/// that, and who turns the database to WAL afterwards says so in page 1, which is read before the log would be. A log beside a
/// database that is not in WAL mode is a leftover.
///
/// # Safety
/// `name` must be a C string.
pub(super) unsafe fn is_log_of_none(name: *const c_char) -> bool {
    if !main_file::any_is_remote() {
        return false;
    }
    // SAFETY: the caller's.
    let path = unsafe { path_of(name) };
    if !path.as_os_str().as_encoded_bytes().ends_with(b"-wal") {
        return false;
    }
    let owners = main_file::by_journal(name as usize, &path);
    !owners.is_empty() && owners.iter().all(|main| main.combines && main.native && main.forbids_wal())
}

/// Whether a rollback journal is there, where a client remembers names. `None`: it does not here.
///
/// # Safety
/// `name` must be a C string.
pub(super) unsafe fn is_there(name: *const c_char) -> Option<std::io::Result<bool>> {
    if !main_file::any_is_remote() {
        return None;
    }
    // SAFETY: the caller's.
    let path = unsafe { path_of(name) };
    if !path.as_os_str().as_encoded_bytes().ends_with(b"-journal") {
        return None;
    }
    let owners = main_file::by_journal(name as usize, &path);
    owners.iter().any(|main| remembers_names(main)).then(|| fresh::is_there(&path))
}

fn remembers_names(main: &MainFile) -> bool {
    main.native && main.verdict.is_smb() && (main.policy().rule != Rule::Off || main.converting)
}

/// A journal that is made with few questions. `None`: the base makes it, or says why it cannot.
fn own_journal(main: &MainFile, name: &Path) -> Option<BaseFile> {
    if !main.native || !main.gathers || main.shared.is_none() || main.directory().is_none() {
        return None;
    }
    if !main.combines && main.base != "unix" {
        // A VFS above SQLite's own that was chosen as the base: it may want to see its journals.
        return None;
    }
    let access = match main.combines {
        true => main.generation.access()?,
        // Where a question is no round trip it is asked: somebody may have changed who may read the database.
        false => Access::of(&std::fs::metadata(&main.path).ok()?),
    };
    // An open on NFS asks the server, and to make a new file exclusively takes it two requests; here there is none to ask.
    let new = !matches!(main.verdict.class, Class::Network | Class::Local);
    let journal = JournalFile::create(name, access, new).ok()?;
    if main.verdict.is_smb() {
        journal.close_at_once();
    }
    own_journal::file_of(journal).ok()
}
