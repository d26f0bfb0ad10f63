//! A store of sessions and their events: what it has acknowledged is there after any crash.
//!
//! `cargo run --example session_store -- DIRECTORY` appends events for ever and prints the number of each that is safe. Kill it,
//! start it again: it goes on after the last number that was printed.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use hardened_sqlite::{Database, Options};

/// The sessions of one user.
pub(crate) struct Sessions(Database);

impl Sessions {
    /// Opens the store, wherever the user's home is: in WAL on a local disk, with a rollback journal on a share.
    pub(crate) fn open(options: &Options, directory: &Path) -> Result<Sessions, hardened_sqlite::Error> {
        let db = options.open(directory.join("sessions.db"))?;
        db.write(|tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS sessions(id INTEGER PRIMARY KEY, title TEXT NOT NULL);
                 CREATE TABLE IF NOT EXISTS events(
                     session INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
                     number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (session, number))",
            )
        })?;
        Ok(Sessions(db))
    }

    /// Begins a session, or goes on with it.
    pub(crate) fn begin(&self, id: i64, title: &str) -> Result<i64, hardened_sqlite::Error> {
        self.0.write(|tx| {
            tx.execute("INSERT INTO sessions VALUES (?1, ?2) ON CONFLICT DO NOTHING", (id, title))?;
            tx.query_row("SELECT count(*) FROM events WHERE session = ?1", [id], |row| row.get(0))
        })
    }

    /// Appends an event. When this returns, it is there.
    pub(crate) fn append(&self, session: i64, number: i64, body: &str) -> Result<(), hardened_sqlite::Error> {
        self.0.write(|tx| {
            let mut insert = tx.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3)")?;
            insert.execute((session, number, body)).map(drop)
        })
    }

    /// The database, for its report and checks.
    pub(crate) fn database(&self) -> &Database {
        &self.0
    }
}

/// Appends events for ever.
pub(crate) fn run(options: &Options, directory: &Path) -> Result<(), Box<dyn Error>> {
    let sessions = Sessions::open(options, directory)?;
    eprintln!("{}", sessions.database().report());
    let first = sessions.begin(1, "the only one")?;
    for number in first.. {
        sessions.append(1, number, &format!("event {number} {}", "x".repeat(number as usize % 5000)))?;
        writeln!(std::io::stdout(), "safe {number}")?;
    }
    Ok(())
}

#[allow(dead_code, reason = "the tests use the rest")]
fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("which directory?")?;
    run(&Options::new(), directory.as_ref())
}
