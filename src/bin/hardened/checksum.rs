//! `hardened checksum`: gives a database checksums, takes them away, or reads every page and names the damaged ones.
//!
//! Invariant: a change is one transaction of SQLite's with a rollback journal. Whatever ends it early, the next open finds the
//! database as it was or as it was to become.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use hardened_sqlite::rusqlite::backup::{Backup, StepResult};
use hardened_sqlite::rusqlite::{self, Connection, ErrorCode};
use hardened_sqlite::{ChecksumChoice, Options, PolicyChoice};
use serde_json::Value;

use crate::failure::Failure;

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success; all checksums are right
  1  at least one page is damaged, or the change failed and the database is as it was
  2  the command line could not be understood
  3  the database could not be opened";

/// Gives a database checksums, takes them away, or verifies them
#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Rewrite the database with a checksum on every page
    On(Database),
    /// Rewrite the database without checksums
    Off(Database),
    /// Read every page and list those whose checksum is wrong
    Verify(Database),
}

#[derive(ClapArgs)]
struct Database {
    /// The database file
    database: PathBuf,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::Verify(Database { database }) => {
            // Not verified while it is opened, so that damage on page 1 is listed too.
            let options = Options::new().read_only(true).checksum(ChecksumChoice::Off);
            let connection = open(database, options)?;
            connection
                .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
                .map_err(|error| Failure::sql(&error, ""))?;
            tell(&scan(&connection)?, database, out)
        }
        Action::On(Database { database }) => {
            let mut connection = open(database, Options::new().create(false).checksum(ChecksumChoice::On))?;
            let found = scan(&connection)?;
            if found.size != 0 {
                line(out, &format!("{} has checksums already", database.display()))?;
                return tell(&found, database, out);
            }
            let reserved = found.reserved;
            if reserved != 0 {
                return Err(failed(
                    database,
                    &format!("it has {reserved} reserved bytes a page, and checksums need 8: something else uses them"),
                    "decrypt it, or copy its content into a new database",
                ));
            }
            room(database, 1)?;
            alone(&mut connection, database, |connection| connection.execute_batch("VACUUM"))?;
            let scan = scan(&connection)?;
            if scan.size == 0 {
                return Err(failed(database, "VACUUM did not add checksums", "the database is as it was"));
            }
            tell(&scan, database, out)
        }
        Action::Off(Database { database }) => {
            let mut connection = open(database, Options::new().create(false))?;
            if scan(&connection)?.size == 0 {
                return line(out, &format!("{} has no checksums", database.display()));
            }
            room(database, 2)?;
            let plain = Plain::beside(database)?;
            alone(&mut connection, database, |connection| {
                let into = hardened_sqlite::uri(&plain.0, &plain_options());
                connection.execute("VACUUM INTO ?1", [format!("{into}&reserve=0")])?;
                let from = Connection::open_with_flags(&into, rusqlite::OpenFlags::default())?;
                match Backup::new(&from, connection)?.step(-1)? {
                    StepResult::Done => Ok(()),
                    _ => Err(busy()),
                }
            })?;
            match scan(&connection)?.size {
                0 => line(out, &format!("{} has no checksums now", database.display())),
                _ => {
                    let what = format!("SQLite {} cannot give up reserved bytes", rusqlite::version());
                    Err(failed(database, &what, "build with a later SQLite (3.54.1 can); the database is as it was"))
                }
            }
        }
    }
}

fn plain_options() -> hardened_sqlite::hardened_vfs::Options {
    let mut options = hardened_sqlite::hardened_vfs::Options::default();
    options.policy = PolicyChoice::Off;
    options
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}

fn open(database: &Path, options: Options) -> Result<Connection, Failure> {
    let options = options.busy_timeout(Duration::ZERO);
    options.open_connection(database).map_err(|error| Failure::open(&error))
}

/// Does `change` while nobody else can use the database, in a rollback journal, and goes back to the journal mode before.
fn alone(
    connection: &mut Connection,
    database: &Path,
    change: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
) -> Result<(), Failure> {
    let why = |error: &rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            failed(database, "another connection has it open", "close it there and try again; nothing was changed")
        }
        Some(ErrorCode::DiskFull) => {
            failed(database, "the disk is full", "make room there and try again; the database is as it was")
        }
        _ => failed(database, &error.to_string(), "the database is as it was"),
    };
    let mode = text(connection, "PRAGMA journal_mode").map_err(|error| why(&error))?;
    let outcome = (|| {
        connection.busy_timeout(Duration::ZERO)?;
        if mode == "wal" {
            // Meets the lock of everybody who has the database open.
            text(connection, "PRAGMA journal_mode=DELETE")?;
        }
        text(connection, "PRAGMA locking_mode=EXCLUSIVE")?;
        connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
        change(connection)
    })();
    let back = (|| {
        text(connection, "PRAGMA locking_mode=NORMAL")?;
        text(connection, "SELECT count(*) FROM sqlite_schema")?;
        if mode == "wal" {
            text(connection, "PRAGMA journal_mode=WAL")?;
        }
        Ok(())
    })();
    outcome.and(back).map_err(|error| why(&error))
}

/// The first value, as text.
fn text(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    connection.query_row(sql, [], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            _ => String::new(),
        })
    })
}

struct Scan {
    /// The page size, 0 without checksums.
    size: i64,
    reserved: i64,
    pages: i64,
    bad: i64,
    named: Vec<i64>,
}

fn scan(connection: &Connection) -> Result<Scan, Failure> {
    let answer = text(connection, "PRAGMA hardened_checksum").map_err(|error| Failure::sql(&error, ""))?;
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let number = |name: &str| answer[name].as_i64().unwrap_or(0);
    let named = answer["bad_pages"].as_array().map(|pages| pages.iter().filter_map(Value::as_i64).collect());
    Ok(Scan {
        size: number("page_size"),
        reserved: number("reserved"),
        pages: number("pages"),
        bad: number("bad"),
        named: named.unwrap_or_default(),
    })
}

fn tell(scan: &Scan, database: &Path, out: &mut impl Write) -> Result<ExitCode, Failure> {
    if scan.size == 0 {
        return Err(failed(database, "it has no checksums to verify", "`hardened checksum on` adds them"));
    }
    for page in &scan.named {
        let at = (page - 1) * scan.size;
        writeln!(out, "page {page} at byte {at}: the checksum is wrong").map_err(Failure::Output)?;
    }
    if scan.bad > scan.named.len() as i64 {
        line(out, "and others")?;
    }
    line(out, &format!("{}: {} pages of {} bytes, {} damaged", database.display(), scan.pages, scan.size, scan.bad))?;
    Ok(ExitCode::from(u8::from(scan.bad != 0)))
}

fn line(out: &mut impl Write, text: &str) -> Result<ExitCode, Failure> {
    writeln!(out, "{}", crate::table::printable(text.as_bytes())).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn failed(database: &Path, what: &str, hint: &str) -> Failure {
    Failure::Sql { message: format!("{}: {what}", database.display()), hint: Some(hint.to_owned()) }
}

/// The journal takes as much room beside the database as the database, and so does each copy.
fn room(database: &Path, copies: u64) -> Result<(), Failure> {
    let directory = match database.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (Ok(found), Ok(free)) = (std::fs::metadata(database), fs2::available_space(directory)) else { return Ok(()) };
    let needed = found.len().saturating_mul(copies).saturating_add(found.len() / 50);
    if free >= needed {
        return Ok(());
    }
    let what = format!("{needed} bytes are needed in {} and {free} are free", directory.display());
    Err(failed(database, &what, "make room there; nothing was changed"))
}

/// The copy without checksums, removed when dropped.
struct Plain(PathBuf);

impl Plain {
    fn beside(database: &Path) -> Result<Plain, Failure> {
        let mut name = OsString::from(database);
        name.push("-without-checksums");
        let path = PathBuf::from(name);
        if path.exists() {
            let what = format!("{} exists, perhaps of a run that was stopped", path.display());
            return Err(failed(database, &what, "remove that file and try again; nothing was changed"));
        }
        Ok(Plain(path))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
