//! Is a new database good enough to take the place of the damaged one?
//!
//! Invariant: what is accepted is sound in all its tables. A virtual table whose data are not may be lost; its shadow tables stay.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::backup::verify::open_unchanging;
use crate::error::{Detail, Error};
use crate::health::pace::Pace;
use crate::health::{Check, Health, Kind, examine_still};
use crate::progress::Stage;
use crate::salvage::LostObject;

/// What a check finds in a file that nobody changes.
///
/// # Errors
/// What kept it from coming to an end.
pub(super) fn check(path: &Path, check: Check, pace: &mut Pace<'_, '_>) -> Result<Health, Error> {
    examine_still(&open_unchanging(path)?, check, pace)
}

/// Checks a new database; virtual tables that are damaged are mended or removed, and those removed are the result.
///
/// # Errors
/// [`Error::Corrupt`] if it is not sound all the same.
pub(super) fn new_database(path: &Path, pace: &mut Pace<'_, '_>) -> Result<Vec<LostObject>, Error> {
    let mut pace = pace.within(Stage::Verify);
    let health = check(path, Check::Quick, &mut pace)?;
    if health.is_sound() {
        return Ok(Vec::new());
    }
    let lost = mend_virtual_tables(path)?;
    let health = check(path, Check::Quick, &mut pace)?;
    match health.findings.iter().find(|finding| !finding.is_harmless() && finding.kind != Kind::VirtualTable) {
        None => Ok(lost),
        Some(finding) => {
            let cause = format!("the new database is not sound: {finding}");
            Err(Detail::of(path, ffi::SQLITE_CORRUPT, cause).into())
        }
    }
}

fn mend_virtual_tables(path: &Path) -> Result<Vec<LostObject>, Error> {
    let failed = |error: rusqlite::Error| Error::from(Detail::of_statement(path, &error));
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(failed)?;
    let sql = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE 'create virtual%'";
    let read = || -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    let mut lost = Vec::new();
    for (name, sql) in read().map_err(failed)? {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let Err(cause) = is_sound(&connection, &quoted) else { continue };
        // What full-text search calls it; others know no such column.
        let _ = connection.execute_batch(&format!("INSERT INTO {quoted}({quoted}) VALUES('rebuild')"));
        if is_sound(&connection, &quoted).is_ok() {
            continue;
        }
        let remove = || {
            connection.execute_batch("PRAGMA writable_schema = ON")?;
            connection.execute("DELETE FROM sqlite_master WHERE type = 'table' AND name = ?1", [&name])?;
            connection.execute_batch("PRAGMA writable_schema = RESET")
        };
        remove().map_err(failed)?;
        lost.push(LostObject { kind: "virtual table".to_owned(), name, cause, sql });
    }
    connection.close().map_err(|(_, error)| failed(error))?;
    Ok(lost)
}

/// What SQLite says about one table, if that is not that all is well. One that cannot be looked at here is left alone.
fn is_sound(connection: &Connection, quoted: &str) -> Result<(), String> {
    let answer = connection.query_row(&format!("PRAGMA quick_check({quoted})"), [], |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        })
    });
    match answer {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(answer) => Err(answer),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => Err(error.to_string()),
        Err(_) => Ok(()),
    }
}
