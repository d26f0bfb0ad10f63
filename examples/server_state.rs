//! The state of a server: checked and backed up at each start, recovered if it is damaged, and closed with an empty log.
//!
//! `cargo run --example server_state -- DIRECTORY` starts, counts the start, and stops.

use std::error::Error;
use std::path::Path;

use hardened_sqlite::{Backup, Closed, Database, Error as Failure, Options, Recovery};

/// The state of a running server.
pub(crate) struct State(Database);

/// What happened at the start, if it was out of the ordinary.
pub(crate) type Story = Option<Recovery>;

impl State {
    /// Checks the database, then backs it up as `state.db.bak` with the one before as `state.db.bak.1`. A damaged one is
    /// recovered first; what it was is kept.
    pub(crate) fn start(directory: &Path) -> Result<(State, Story), Failure> {
        let path = directory.join("state.db");
        let backup = Backup::to(directory.join("state.db.bak")).keep(2);
        let options = Options::new().backup_before_open(backup);
        let (db, story) = match options.open(&path) {
            Err(Failure::Corrupt(_) | Failure::NotADatabase(_)) => {
                let recovery = hardened_sqlite::recover(&path)?;
                (options.open(&path)?, Some(recovery))
            }
            opened => (opened?, None),
        };
        db.write(|tx| {
            tx.execute_batch("CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        })?;
        Ok((State(db), story))
    }

    /// Adds an event.
    pub(crate) fn add(&self, body: &str) -> Result<(), Failure> {
        self.0.write(|tx| tx.prepare_cached("INSERT INTO event(body) VALUES (?1)")?.execute([body]).map(drop))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> Result<i64, Failure> {
        self.0.read(|c| c.query_row("SELECT count(*) FROM event", [], |row| row.get(0)))
    }

    /// Stops; the log is in the database then.
    pub(crate) fn stop(self) -> Result<Closed, Failure> {
        self.0.close()
    }
}

#[allow(dead_code, reason = "the tests use the rest")]
fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("which directory?")?;
    let (state, story) = State::start(directory.as_ref())?;
    if let Some(recovery) = story {
        eprintln!("{recovery}");
    }
    state.add("started")?;
    println!("{} starts", state.count()?);
    if let Some(why) = state.stop()?.log_left {
        eprintln!("{why}");
    }
    Ok(())
}
