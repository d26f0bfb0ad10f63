//! Is the database sound?
//!
//! Invariant: what is no proof of damage is an error of the check and never a finding: locks, interrupts, reads that failed,
//! a log that is being written. What was found counts only if a second look, with an empty cache and in a transaction of its
//! own, finds something too.

mod ahead;
mod cells;
mod finding;
mod message;
pub(crate) mod pace;
mod pages;
mod reindex;
pub(crate) mod shape;
mod transaction;
mod watched;

use std::fmt;
use std::path::Path;
use std::time::Instant;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};
use serde::{Deserialize, Serialize};

use crate::error::{Detail, Error};
use crate::progress::Watch;
use message::Trees;
use pace::Pace;

pub(crate) use ahead::expect_in_order;
pub use finding::{Finding, Health, Kind};
pub use reindex::reindex;
pub(crate) use transaction::{ReadTransaction, path_of};

/// At most so many findings are listed.
const MOST: usize = 1000;

/// How thoroughly a database is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// `PRAGMA quick_check`: every page and row, but not whether indexes agree with their tables.
    Quick,
    /// `PRAGMA integrity_check`: everything.
    Full,
    /// Every page is read once and compared with its checksum, if the database has those
    /// ([`ChecksumChoice`](crate::ChecksumChoice)); else only with what a page can be. It takes as long as the disk does.
    Pages,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Quick => "quick check",
            Check::Full => "full check",
            Check::Pages => "check of pages",
        })
    }
}

/// Checks the main database of a connection: the one in use, within a read transaction, or within the one that it is in. In
/// rollback mode writers wait as long as it takes.
///
/// ```
/// use hardened_sqlite::Check;
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let connection = hardened_sqlite::open_connection(&path)?;
/// connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")?;
/// let health = hardened_sqlite::check(&connection, Check::Quick)?;
/// assert!(health.is_ok(), "{health}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Whatever kept it from coming to an end: [`Error::Busy`], [`Error::Cancelled`] by an interrupt, a file that could not be
/// read. Damage is no error but in [`Health::findings`]. [`Check::Pages`] is for files that are SQLite's own and open through
/// the VFS `hardened`: [`Error::NotHardened`] for others; the rest works on any connection.
pub fn check(connection: &Connection, check: Check) -> Result<Health, Error> {
    examine(connection, check, &mut Pace::new(None))
}

/// [`check()`], with progress, and a way to stop it: then it is [`Error::Cancelled`]. The watch is called on another thread while
/// SQLite is at work. A stop interrupts every statement that is running on the connection.
///
/// ```
/// use std::ops::ControlFlow;
/// use hardened_sqlite::{Check, Progress};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # let connection = hardened_sqlite::open_connection(&path)?;
/// let mut bar = |progress: Progress| {
///     println!("{:?} {} of {}", progress.stage, progress.done, progress.total);
///     ControlFlow::Continue(())
/// };
/// assert!(hardened_sqlite::check_with(&connection, Check::Full, &mut bar)?.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`check()`].
pub fn check_with(connection: &Connection, check: Check, watch: &mut Watch<'_>) -> Result<Health, Error> {
    examine(connection, check, &mut Pace::new(Some(watch)))
}

/// What one look has seen.
#[derive(Default)]
struct Seen {
    pages: u64,
    checksums: bool,
    findings: Vec<Finding>,
    more: bool,
}

pub(crate) fn examine(connection: &Connection, check: Check, pace: &mut Pace<'_, '_>) -> Result<Health, Error> {
    let began = Instant::now();
    let path = path_of(connection)?;
    let mut transaction = ReadTransaction::begin(connection, &path)?;
    let (mut seen, mut notes) = (look(connection, &path, check, pace)?, Vec::new());
    if !seen.findings.is_empty() {
        let first = seen.findings;
        transaction.renew()?;
        // Without pages that were read before.
        connection.execute_batch("PRAGMA shrink_memory").map_err(|error| Detail::of_statement(&path, &error))?;
        seen = look(connection, &path, check, pace)?;
        if seen.findings.is_empty() {
            let gone = first.iter().map(|finding| format!("seen once, and gone at a second look: {finding}"));
            notes.extend(gone.take(10));
        }
    }
    drop(transaction);
    let Seen { pages, checksums, findings, more } = seen;
    Ok(Health { path, check, pages, checksums, findings, more, notes, took: began.elapsed() })
}

/// [`examine`] for a file that nobody else has and that does not change: the first look is enough.
pub(crate) fn examine_still(connection: &Connection, check: Check, pace: &mut Pace<'_, '_>) -> Result<Health, Error> {
    let (began, path) = (Instant::now(), path_of(connection)?);
    let Seen { pages, checksums, findings, more } = look(connection, &path, check, pace)?;
    Ok(Health { path, check, pages, checksums, findings, more, notes: Vec::new(), took: began.elapsed() })
}

fn look(connection: &Connection, path: &Path, check: Check, pace: &mut Pace<'_, '_>) -> Result<Seen, Error> {
    let pragma = match check {
        Check::Quick => "quick_check",
        Check::Full => "integrity_check",
        Check::Pages => return pages::look(connection, path, pace),
    };
    let (size, pages) = match (number(connection, path, "page_size")?, number(connection, path, "page_count")) {
        (size, Ok(pages)) => (size, pages),
        (_, Err(error)) => return damage(connection, path, pace, error),
    };
    if is_cached(connection, path) && ahead::read(path, size, pace).is_break() {
        return Err(pace::cancelled(path));
    }
    let sql = format!("PRAGMA main.{pragma}({MOST})");
    let cells = cells::Unchecked::on(connection);
    // Each page is read for its tree, and those of tables once more for their rows.
    let rows = watched::run(connection, pace, size * pages * 2, size, || rows(connection, &sql));
    drop(cells);
    let rows = match rows {
        None => return Err(pace::cancelled(path)),
        Some(Ok(rows)) => rows,
        Some(Err(error)) => {
            let error = Error::from(Detail::of_statement(path, &error));
            return damage(connection, path, pace, error);
        }
    };
    if let Some(code) = rows.iter().find_map(|row| message::unreadable(row)) {
        if code & 0xff != ffi::SQLITE_CORRUPT {
            let error = Error::from(Detail::of(path, code, format!("a page could not be read (result code {code})")));
            return damage(connection, path, pace, error);
        }
    }
    // A schema that cannot be read has no names to give.
    let trees = trees(connection).unwrap_or_default();
    let findings = rows.iter().flat_map(|row| message::findings(row, &trees)).collect();
    let checksums = has_checksums(connection);
    Ok(Seen { pages, checksums, findings, more: rows.len() >= MOST })
}

/// A check that failed: because of damage, or else for a reason that says nothing about the database.
fn damage(connection: &Connection, path: &Path, pace: &mut Pace<'_, '_>, error: Error) -> Result<Seen, Error> {
    let code = error.code().unwrap_or(ffi::SQLITE_ERROR);
    let kind = match code & 0xff {
        ffi::SQLITE_NOTADB => Kind::NotADatabase,
        ffi::SQLITE_CORRUPT => Kind::Schema,
        _ if code == IOERR_DATA => {
            // Which they are says a look at all of them.
            let seen = pages::look(connection, path, pace)?;
            return if seen.findings.is_empty() { Err(error) } else { Ok(seen) };
        }
        _ => return Err(error),
    };
    Ok(Seen { findings: vec![Finding::new(kind, error.cause())], ..Seen::default() })
}

/// A page with a wrong checksum (SQLITE_IOERR_DATA, newer than the oldest bindings).
const IOERR_DATA: i32 = ffi::SQLITE_IOERR | (32 << 8);

/// The value of a pragma of the main database that is a number.
fn number(connection: &Connection, path: &Path, pragma: &str) -> Result<u64, Error> {
    let number: i64 = connection
        .query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get(0))
        .map_err(|error| Detail::of_statement(path, &error))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// The first column of all rows. What is not UTF-8 is replaced.
fn rows(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        if let ValueRef::Text(text) = row.get_ref(0)? {
            all.push(String::from_utf8_lossy(text).into_owned());
        }
    }
    Ok(all)
}

fn trees(connection: &Connection) -> rusqlite::Result<Trees> {
    let mut statement = connection.prepare("SELECT rootpage, name, type = 'index' FROM main.sqlite_master")?;
    let found = statement.query_map([], |row| {
        let name = match row.get_ref(1)? {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        Ok((row.get::<_, Option<i64>>(0)?.and_then(|root| u32::try_from(root).ok()).unwrap_or(0), name, row.get(2)?))
    })?;
    let mut trees = Trees::default();
    for tree in found {
        trees.0.push(tree?);
    }
    trees.0.retain(|(root, ..)| *root != 0);
    Ok(trees)
}

/// Whether what is read of its file stays in memory, as far as is known: on a network it may be read twice for nothing.
fn is_cached(connection: &Connection, path: &Path) -> bool {
    !path.as_os_str().is_empty() && crate::report(connection).map_or(true, |report| report.verdict.class == "local")
}

/// Whether wrong checksums are errors on this connection.
fn has_checksums(connection: &Connection) -> bool {
    let on = connection.query_row("PRAGMA main.checksum_verification", [], |row| row.get::<_, String>(0));
    on.is_ok_and(|on| on == "1")
}
