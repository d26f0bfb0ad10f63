//! What is known about a main database once its file is open, and before the policy is settled.

use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::base::{BaseFile, exists};
use super::register;
use super::vfs::path_of;
use crate::explain;
use crate::format::wal;
use crate::fs::{self, Class, NoAnswer, Problem, Source, Verdict};
use crate::options::Options;
use crate::refusal::Refusal;

/// The verdict once the file is open. The path must still name the file that is open: between the two looks it may have
/// been replaced, or something mounted over it.
pub(crate) fn opened(path: &Path, options: &Options, base: &BaseFile) -> Result<Arc<Verdict>, Refusal> {
    let place = match fs::place(path, options.fs_timeout) {
        Ok(place) => place,
        Err(Problem::NoAnswer(no)) => return Err(no_answer(path, &no)),
        // Of the filesystem this says nothing; a WAL database must not be converted for want of a descriptor.
        Err(Problem::Io { error, .. }) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            return Err(explain::failed_open(path, ffi::SQLITE_CANTOPEN, error.raw_os_error().unwrap_or(0), false));
        }
        Err(Problem::Io { error, .. }) => {
            let verdict = Verdict::unknown(format!("its path cannot be followed: {error}"));
            return Ok(Arc::new(verdict));
        }
    };
    unmoved(path, base)?;
    Ok(place.verdict)
}

/// Refuses a file that its path no longer names.
pub(crate) fn unmoved(path: &Path, base: &BaseFile) -> Result<(), Refusal> {
    let mut moved: c_int = 0;
    // SAFETY: SQLITE_FCNTL_HAS_MOVED writes an integer.
    let code = unsafe { base.file_control(ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast()) };
    if code == ffi::SQLITE_OK && moved != 0 {
        return Err(Refusal::new(path, ffi::SQLITE_CANTOPEN, "the file was replaced while it was being opened")
            .hint("try again; if it happens again, find the program that replaces it"));
    }
    Ok(())
}

/// Whether the open database is a WAL database, or has a -wal that SQLite would read.
///
/// # Safety
/// `vfs` must be registered.
pub(crate) unsafe fn wal_database(base: &BaseFile, vfs: *mut ffi::sqlite3_vfs, name: &CStr) -> bool {
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
pub(crate) fn of_base(vfs: *mut ffi::sqlite3_vfs) -> Verdict {
    let name = register::name_of(vfs);
    let mut verdict =
        Verdict::unknown(format!("the base VFS `{name}` does the I/O, and where its bytes go is not known"));
    verdict.filesystem = format!("vfs:{name}");
    verdict.from = Source::BaseVfs;
    verdict
}

/// Refuses a -wal with commits whose database is missing or empty, by its size if that is known: SQLite takes it for a leftover and
/// deletes it.
///
/// # Safety
/// `vfs` must be registered.
pub(crate) unsafe fn orphaned_wal(
    base: &BaseFile,
    size: Option<u64>,
    vfs: *mut ffi::sqlite3_vfs,
    name: &CStr,
) -> Result<(), Refusal> {
    // It may have been created since the size was seen.
    if size.is_some_and(|size| size > 0) || base.size() != Ok(0) {
        return Ok(());
    }
    let Ok(wal_name) = CString::new([name.to_bytes(), b"-wal"].concat()) else { return Ok(()) };
    // SAFETY: see above; C strings.
    let (there, path, log) =
        unsafe { (exists(vfs, wal_name.as_ptr()), path_of(name.as_ptr()), path_of(wal_name.as_ptr())) };
    if !there {
        return Ok(());
    }
    // A pipe would wait for a writer; a link or a second name may lead to a file that has locks.
    if !std::fs::symlink_metadata(&log).is_ok_and(|found| found.is_file() && found.nlink() == 1) {
        return Ok(());
    }
    // Nobody locks a -wal, so closing it again drops nothing.
    let commits = File::open(log).and_then(|log| wal::scan(BufReader::new(log))).map_or(0, |scan| scan.commits);
    if commits == 0 {
        return Ok(());
    }
    let reason = format!(
        "the database is missing or empty, but the -wal beside it holds {commits} commits, which an open would delete"
    );
    Err(Refusal::new(path, ffi::SQLITE_CANTOPEN_DIRTYWAL, reason)
        .hint("put the database back that the -wal belongs to, or move the -wal away"))
}
