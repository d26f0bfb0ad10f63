//! What went wrong, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hardened_vfs::{Refusal, RegisterError};
use rusqlite::ffi;

/// One failure in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detail {
    /// The database.
    pub path: PathBuf,
    /// The extended SQLite result code (<https://www.sqlite.org/rescode.html>).
    pub code: i32,
    /// What was seen.
    pub cause: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the database is on a filesystem that is not local, as far as is known.
    pub not_local: bool,
    pub(crate) number: u64,
    /// What rusqlite said.
    pub(crate) source: Option<Source>,
}

/// An error of rusqlite's, which has no order and cannot be cloned. Two are the same if they say the same.
#[derive(Clone, Debug)]
pub(crate) struct Source(Arc<rusqlite::Error>);

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Source {}

impl Detail {
    /// A failure of now, with the hint that goes with its code.
    pub(crate) fn of(path: &Path, code: i32, mut cause: String) -> Detail {
        let hint = match code & 0xff {
            ffi::SQLITE_NOTADB => "check the name; if it was a database, restore a backup; the file was not changed",
            ffi::SQLITE_CORRUPT => "stop writing to it, copy it aside with its -wal and -journal, then recover a copy",
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => "close it elsewhere, or wait longer with a busy timeout",
            // The file itself was opened, or the VFS would have said more.
            ffi::SQLITE_CANTOPEN => {
                "see whether the -wal, -shm and -journal beside it are files that this user may open, and whether new ones \
                 may be created there"
            }
            ffi::SQLITE_IOERR if code == ffi::SQLITE_IOERR_SHMSIZE => {
                cause.push_str(": there is no room for the -shm beside it");
                "make room and try again"
            }
            ffi::SQLITE_IOERR => {
                "see the system's log for errors of the disk or network, and whether the -wal, -shm and -journal beside it \
                 are files"
            }
            ffi::SQLITE_FULL => "make room and try again",
            _ => "",
        };
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let number = hardened_vfs::next_failure_number();
        Detail { path: path.to_owned(), code, cause, hint, not_local: false, number, source: None }
    }

    /// A statement that failed.
    pub(crate) fn of_statement(path: &Path, error: &rusqlite::Error) -> Detail {
        match error {
            rusqlite::Error::SqliteFailure(failure, message) => {
                Detail::of(path, failure.extended_code, message.clone().unwrap_or_else(|| failure.to_string()))
            }
            other => Detail::of(path, ffi::SQLITE_ERROR, other.to_string()),
        }
    }

    pub(crate) fn caused_by(mut self, error: rusqlite::Error) -> Detail {
        self.source = Some(Source(Arc::new(error)));
        self
    }

    /// Adds the path that the user named, if the failure is about another one that links led to.
    pub(crate) fn reached_through(mut self, named: &Path) -> Detail {
        if std::path::absolute(named).is_ok_and(|named| named != self.path) {
            self.cause.push_str(&format!(" (reached through {})", named.display()));
        }
        self
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return f.write_str(&self.cause);
        }
        write!(f, "{}: {}", self.path.display(), self.cause)
    }
}

/// Everything that can go wrong in this crate. What a running statement meets stays a [`rusqlite::Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    CannotOpen(Detail),
    /// The file is not a SQLite database.
    NotADatabase(Detail),
    /// The database is damaged.
    Corrupt(Detail),
    /// Others hold locks on it.
    Busy(Detail),
    /// There is no room for what was to be written; nothing of it has taken the place of anything.
    NoSpace(Detail),
    /// It was told to stop.
    Cancelled(Detail),
    /// The file of this name is not the one that is open any more.
    Moved(Detail),
    /// The database is open in this process with other options.
    OtherOptions(Detail),
    /// A file could not be read or written, outside SQLite.
    Io(Detail),
    /// Any other failure of SQLite.
    Sqlite(Detail),
    /// The VFS could not be registered.
    Register(RegisterError),
    /// The connection was not opened with the VFS `hardened`.
    NotHardened,
}

impl Error {
    /// A file that could not be read or written; `doing` says what was tried.
    pub(crate) fn of_file(path: &Path, doing: &str, error: &std::io::Error) -> Error {
        let cause = format!("{doing}: {error}");
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error::NoSpace(Detail::of(path, ffi::SQLITE_FULL, cause))
            }
            _ => Error::Io(Detail::of(path, ffi::SQLITE_IOERR, cause)),
        }
    }

    fn detail(&self) -> Option<&Detail> {
        match self {
            Error::CannotOpen(detail)
            | Error::NotADatabase(detail)
            | Error::Corrupt(detail)
            | Error::Busy(detail)
            | Error::NoSpace(detail)
            | Error::Cancelled(detail)
            | Error::Moved(detail)
            | Error::OtherOptions(detail)
            | Error::Io(detail)
            | Error::Sqlite(detail) => Some(detail),
            Error::Register(_) | Error::NotHardened => None,
        }
    }

    /// The database.
    pub fn path(&self) -> Option<&Path> {
        self.detail().map(|detail| detail.path.as_path())
    }

    /// The extended SQLite result code.
    pub fn code(&self) -> Option<i32> {
        self.detail().map(|detail| detail.code)
    }

    /// The error of rusqlite's that this one began with, if there is one.
    ///
    /// ```
    /// use hardened_sqlite::rusqlite::Error::QueryReturnedNoRows;
    /// let db = hardened_sqlite::open(":memory:")?;
    /// let error = db.read(|c| c.query_row("SELECT 1 WHERE 0", [], |_| Ok(()))).unwrap_err();
    /// assert_eq!(error.rusqlite(), Some(&QueryReturnedNoRows));
    /// # Ok::<(), hardened_sqlite::Error>(())
    /// ```
    pub fn rusqlite(&self) -> Option<&rusqlite::Error> {
        self.detail()?.source.as_ref().map(|source| &*source.0)
    }

    /// What was seen.
    pub fn cause(&self) -> String {
        match self.detail() {
            Some(detail) => detail.cause.clone(),
            None => self.to_string(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::NotHardened => Some("open it with hardened_sqlite, or with vfs=hardened in its URI"),
            _ => self.detail()?.hint.as_deref(),
        }
    }

    /// The failure as a few lines for a user, after `prefix`: what, where, what to do, and a word about the filesystem if
    /// it is not a local one.
    ///
    /// ```
    /// let error = hardened_sqlite::open_connection("/nowhere/app.db").unwrap_err();
    /// let message = error.user_message("The notes could not be loaded");
    /// assert!(message.starts_with("The notes could not be loaded: /nowhere/app.db: the directory /nowhere does not exist"));
    /// ```
    pub fn user_message(&self, prefix: &str) -> String {
        let mut message = format!("{prefix}: {self}");
        if let Some(hint) = self.hint() {
            message.push_str(&format!("\nWhat to do: {hint}."));
        }
        if self.detail().is_some_and(|detail| detail.not_local) {
            message.push_str(
                "\nThe database is not on a local disk. Databases are safest there; on network and shared drives they depend \
                 on a server that is reachable and keeps its locks.",
            );
        }
        message
    }

    fn number(&self) -> u64 {
        self.detail().map_or(0, |detail| detail.number)
    }
}

/// The variant goes by the result code.
impl From<Detail> for Error {
    fn from(detail: Detail) -> Self {
        match detail.code & 0xff {
            ffi::SQLITE_CANTOPEN => Error::CannotOpen(detail),
            ffi::SQLITE_NOTADB => Error::NotADatabase(detail),
            ffi::SQLITE_CORRUPT => Error::Corrupt(detail),
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Error::Busy(detail),
            ffi::SQLITE_FULL => Error::NoSpace(detail),
            ffi::SQLITE_INTERRUPT => Error::Cancelled(detail),
            ffi::SQLITE_READONLY if detail.code == ffi::SQLITE_READONLY_DBMOVED => Error::Moved(detail),
            _ => Error::Sqlite(detail),
        }
    }
}

impl From<Refusal> for Detail {
    fn from(refusal: Refusal) -> Self {
        let Refusal { path, code, reason, hint, not_local, number, .. } = refusal;
        Detail { path, code, cause: reason, hint, not_local, number, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Register(error) => error.fmt(f),
            Error::NotHardened => f.write_str("the connection was not opened with the VFS `hardened`"),
            _ => self.detail().map_or(Ok(()), |detail| detail.fmt(f)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.rusqlite().map(|error| error as _)
    }
}

/// A statement that failed outside this crate's own calls: it has no path.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Detail::of_statement(Path::new(""), &error).caused_by(error).into()
    }
}

static LAST: Mutex<Option<Error>> = Mutex::new(None);

pub(crate) fn keep(error: &Error) {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have failed later and been faster here.
    if last.as_ref().is_none_or(|last| last.number() <= error.number()) {
        *last = Some(error.clone());
    }
}

/// The last open that failed in this process, by this crate or by any SQLite call with `vfs=hardened`. A later success, on
/// this thread or another, does not erase it.
///
/// ```
/// let _ = hardened_sqlite::open_connection("/nowhere/app.db");
/// assert!(hardened_sqlite::last_open_error().is_some());
/// ```
pub fn last_open_error() -> Option<Error> {
    let kept = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let refused = hardened_vfs::last_refusal().map(|refusal| Error::from(Detail::from(refusal)));
    match (kept, refused) {
        (Some(kept), Some(refused)) if refused.number() > kept.number() => Some(refused),
        (kept, refused) => kept.or(refused),
    }
}
