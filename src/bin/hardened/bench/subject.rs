//! Who is measured: stock SQLite and hardened, each with a database of its own that is a copy of the same one.

use std::path::PathBuf;
use std::time::Duration;

use hardened_sqlite::rusqlite::{Connection, OpenFlags, ffi};
use hardened_sqlite::{Options, PolicyChoice, Report};

use super::place::Room;

/// How long both wait for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Rows of the table `large`: about 500 pages, of which a connection's cache holds all.
pub(crate) const ROWS: u64 = 6000;

const SCHEMA: &str = "\
    CREATE TABLE small(x INTEGER PRIMARY KEY, y);
    INSERT INTO small VALUES (1, 'row');
    CREATE TABLE large(x INTEGER PRIMARY KEY, y);
    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 6000)
    INSERT INTO large SELECT x, randomblob(300) FROM n;";

/// What went wrong, in words.
pub(crate) type Outcome<T> = Result<T, String>;

/// One side.
#[derive(Debug)]
pub(crate) struct Subject {
    path: PathBuf,
    opens: Opens,
}

#[derive(Debug)]
enum Opens {
    /// With what a program has to set there.
    Stock(&'static str),
    Hardened(PolicyChoice),
}

impl Subject {
    /// A new connection, as a program opens it.
    pub(crate) fn connect(&self) -> Outcome<Connection> {
        match self.opens {
            Opens::Hardened(policy) => hardened(policy).open_connection(&self.path).map_err(|error| error.to_string()),
            Opens::Stock(setup) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags_and_vfs(&self.path, flags, c"unix").map_err(words)?;
                connection.busy_timeout(BUSY_TIMEOUT).map_err(words)?;
                connection.execute_batch(setup).map_err(words)?;
                Ok(connection)
            }
        }
    }
}

fn hardened(policy: PolicyChoice) -> Options {
    Options::new().busy_timeout(BUSY_TIMEOUT).policy(policy)
}

/// An error of SQLite's, with its extended code.
pub(crate) fn words(error: hardened_sqlite::rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(ffi::Error { extended_code, .. }) => format!("{error} ({extended_code})"),
        None => error.to_string(),
    }
}

/// Makes both databases; what hardened says about its own.
pub(crate) fn both(room: &Room, policy: PolicyChoice) -> Outcome<([Subject; 2], Report)> {
    let (mine, stock) = (room.file("hardened.db"), room.file("stock.db"));
    let text = |error: hardened_sqlite::Error| error.to_string();
    // A rollback journal works everywhere, and stock could not make one on every mount.
    let made = hardened(PolicyChoice::Delete).open_connection(&mine).map_err(text)?;
    made.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT")).map_err(words)?;
    made.close().map_err(|(_, error)| words(error))?;
    std::fs::copy(&mine, &stock).map_err(|error| format!("{}: {error}", stock.display()))?;
    let opened = hardened(policy).open_connection(&mine).map_err(text)?;
    let report = hardened_sqlite::report(&opened).map_err(text)?;
    let wal = report.journal_mode.as_deref().is_some_and(|mode| mode.eq_ignore_ascii_case("wal"));
    // Otherwise the defaults of SQLite are what is wanted, and a program sets nothing.
    let setup = if wal { "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL" } else { "" };
    let stock = Subject { path: stock, opens: Opens::Stock(setup) };
    Ok(([stock, Subject { path: mine, opens: Opens::Hardened(policy) }], report))
}
