//! Indexes made anew from the rows.
//!
//! Invariant: either everything is sound afterwards, or the database is as it was.

use std::path::Path;

use rusqlite::{Connection, ffi};

use super::{Check, Health, Kind, examine, pace::Pace, path_of};
use crate::error::{Detail, Error};

/// Makes the indexes anew that `health` found wrong, and checks everything before it commits: [`Check::Full`], in the same
/// transaction. The result is what that found, which is nothing that damages data.
///
/// ```
/// use hardened_sqlite::{Check, health};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # let connection = hardened_sqlite::open_connection(&path)?;
/// let health = hardened_sqlite::check(&connection, Check::Full)?;
/// if health.is_index_only() {
///     health::reindex(&connection, &health)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Corrupt`] if more than indexes is damaged, or they cannot be made anew: rows that a unique index should have kept
/// apart have both come in. [`Error::Busy`] if somebody else is writing, or the connection is within a transaction. The
/// database is then as it was.
pub fn reindex(connection: &Connection, health: &Health) -> Result<Health, Error> {
    let path = path_of(connection)?;
    if !health.is_ok() && !health.is_index_only() {
        let cause = "more than indexes is damaged".to_owned();
        return Err(Detail::of(&path, ffi::SQLITE_CORRUPT, cause).into());
    }
    if !connection.is_autocommit() {
        let cause = "the connection is within a transaction".to_owned();
        let hint = Some("commit it or roll it back first".to_owned());
        return Err(Detail { hint, ..Detail::of(&path, ffi::SQLITE_BUSY, cause) }.into());
    }
    let failed = |error: &rusqlite::Error| Error::from(Detail::of_statement(&path, error));
    connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| failed(&error))?;
    let made = make(connection, &path, health);
    let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.execute_batch(end).map_err(|error| failed(&error));
    if ended.is_err() && !connection.is_autocommit() {
        // A commit that failed and is still open.
        let _ = connection.execute_batch("ROLLBACK");
    }
    // What made it fail says more than a rollback that SQLite had done itself.
    made.and_then(|made| ended.map(|()| made))
}

fn make(connection: &Connection, path: &Path, health: &Health) -> Result<Health, Error> {
    for index in health.indexes() {
        let sql = format!("REINDEX main.\"{}\"", index.replace('"', "\"\""));
        connection.execute_batch(&sql).map_err(|error| match Error::from(Detail::of_statement(path, &error)) {
            Error::Sqlite(detail) if detail.code & 0xff == ffi::SQLITE_CONSTRAINT => {
                let cause = format!("index {index} cannot be made anew: {}", detail.cause);
                let hint = Some("remove the rows that it should have kept apart, then try again".to_owned());
                Error::Corrupt(Detail { hint, ..Detail::of(path, ffi::SQLITE_CORRUPT, cause) })
            }
            error => error,
        })?;
    }
    let after = examine(connection, Check::Full, &mut Pace::new(None))?;
    let wrong = after.findings.iter().find(|finding| !finding.is_harmless() || matches!(finding.kind, Kind::Unused));
    match wrong {
        // Pages that were not lost before would be lost by this.
        Some(finding) => {
            let cause = format!("making the indexes anew does not make it sound: {finding}");
            Err(Detail::of(path, ffi::SQLITE_CORRUPT, cause).into())
        }
        None => Ok(after),
    }
}
