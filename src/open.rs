//! Opening a connection.

use std::path::Path;

use hardened_vfs::{Report, Setup};
use rusqlite::{Connection, ffi};

use crate::backup::{self, BeforeOpen};
use crate::error::{self, Detail, Error};
use crate::health::Health;
use crate::options::Options;
use crate::{settings, uri};

/// Opens a plain connection with the default [`Options`].
///
/// # Errors
/// As [`Options::open_connection`].
pub fn open_connection(path: impl AsRef<Path>) -> Result<Connection, Error> {
    Options::new().open_connection(path)
}

/// What the VFS decided about a connection's main database, and what is in force now.
///
/// # Errors
/// [`Error::NotHardened`] if the connection was opened with another VFS, or its main database is in memory.
pub fn report(connection: &Connection) -> Result<Report, Error> {
    let json = connection.query_row("PRAGMA hardened_report", [], |row| row.get::<_, String>(0));
    let mut report = json.ok().and_then(|json| Report::from_json(&json).ok()).ok_or(Error::NotHardened)?;
    report.settings = settings::in_force(connection);
    Ok(report)
}

pub(crate) fn open_with(options: &Options, path: &Path) -> Result<Connection, Error> {
    let result = attempt(options, path);
    if let Err(error) = &result {
        error::keep(error);
    }
    result
}

/// [`open_with`], after a backup if the options ask for one.
pub(crate) fn open_first(options: &Options, path: &Path) -> Result<Connection, Error> {
    let connection = open_with(options, path)?;
    if let Some(backup) = &options.backup {
        let checked = backup::before_open(&connection, backup);
        let refused = match checked {
            Ok(BeforeOpen::Damaged(health)) => Some(damaged(path, &health).into()),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            error::keep(&error);
            return Err(error);
        }
    }
    Ok(connection)
}

fn damaged(path: &Path, health: &Health) -> Detail {
    let hint = "recover it: hardened_sqlite::recover or `hardened recover`; no backup was made or moved";
    Detail { hint: Some(hint.to_owned()), ..Detail::of(path, ffi::SQLITE_CORRUPT, health.to_string()) }
}

fn attempt(options: &Options, path: &Path) -> Result<Connection, Error> {
    // SQLite would open the file that the part before it names.
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        let cause = "the name contains a zero byte, which no file name can".to_owned();
        let hint = Some("check where the name comes from".to_owned());
        return Err(Detail { hint, ..Detail::of(path, ffi::SQLITE_CANTOPEN, cause) }.into());
    }
    match hardened_vfs::register(hardened_vfs::Options::default()) {
        // Somebody registered it with defaults of their own; all of ours come in the URI.
        Ok(()) | Err(hardened_vfs::RegisterError::OtherOptions { .. }) => {}
        Err(error) => return Err(Error::Register(error)),
    }
    hardened_vfs::forget_refusal_here();
    let uri = uri::of_all(path, &options.vfs);
    let opened = Connection::open_with_flags_and_vfs(&uri, options.flags(), hardened_vfs::NAME);
    let connection = opened.map_err(|error| match hardened_vfs::last_refusal_here() {
        Some(refusal) => Detail::from(refusal).reached_through(path),
        None => {
            let (code, message) = code_and_message(&error);
            // rusqlite appends what it was given, which is ours and not the user's.
            let own = message.strip_suffix(&format!(": {uri}")).map(str::to_owned);
            Detail::of(path, code, own.unwrap_or(message))
        }
    })?;
    // rusqlite sets a timeout of its own after SQLite's automatic extensions have run.
    connection.busy_timeout(options.vfs.busy_timeout).map_err(|error| Detail::of_statement(path, &error))?;
    let read = match hardened_vfs::take_setup_here() {
        Setup::Done => Ok(()),
        Setup::Failed { code, message } => Err((code, message)),
        // Nothing was set, so nothing has looked at the file yet.
        _ => first_read(&connection),
    };
    // After the first read: a pragma would meet the damage and say less about it.
    match read.and_then(|()| options.settings.apply(&connection).map_err(|error| code_and_message(&error))) {
        Ok(()) => Ok(connection),
        // Others hold a lock: the connection is good, and its next statement waits again.
        Err((code, _)) if matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => {
            options.settings.apply(&connection).map_err(|error| Detail::of_statement(path, &error))?;
            Ok(connection)
        }
        Err((code, message)) => {
            let report = report(&connection);
            let _ = connection.close();
            Err(unreadable(path, code, message, report.ok()).into())
        }
    }
}

/// A database that opened but could not be read.
fn unreadable(path: &Path, code: i32, message: String, report: Option<Report>) -> Detail {
    let Some(report) = report else { return Detail::of(path, code, message) };
    let cause = match code & 0xff {
        // What the file is instead says the same and more.
        ffi::SQLITE_NOTADB if report.file.starts_with("the ") => report.file,
        ffi::SQLITE_NOTADB | ffi::SQLITE_CORRUPT => format!("{message}: {}", report.file),
        _ => message,
    };
    Detail { not_local: report.verdict.class != "local", ..Detail::of(path, code, cause) }
}

fn first_read(connection: &Connection) -> Result<(), (i32, String)> {
    // A pragma would not look at the schema.
    connection
        .query_row("SELECT count(*) FROM main.sqlite_master", [], |_| Ok(()))
        .map_err(|error| code_and_message(&error))
}

fn code_and_message(error: &rusqlite::Error) -> (i32, String) {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            (failure.extended_code, message.clone().unwrap_or_else(|| failure.to_string()))
        }
        other => (ffi::SQLITE_ERROR, other.to_string()),
    }
}
