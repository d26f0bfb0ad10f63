//! Two key-value stores of one program that happen to live in one file: each opens it, neither knows of the other, and there is
//! one connection.
//!
//! `cargo run --example key_value_stores -- FILE`

use std::error::Error;
use std::path::Path;

use hardened_sqlite::rusqlite::OptionalExtension;
use hardened_sqlite::{Closed, Database};

/// Texts by name.
pub(crate) struct Store {
    db: Database,
    table: &'static str,
}

impl Store {
    /// Opens the store `table` in a file, which others may have open.
    pub(crate) fn open(path: &Path, table: &'static str) -> Result<Store, hardened_sqlite::Error> {
        let db = hardened_sqlite::open(path)?;
        db.write(|tx| {
            tx.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS \"{table}\"(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
            ))
        })?;
        Ok(Store { db, table })
    }

    /// Sets a value.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), hardened_sqlite::Error> {
        let sql = format!("INSERT INTO \"{}\" VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2", self.table);
        self.db.write(|tx| tx.prepare_cached(&sql)?.execute((name, value)).map(drop))
    }

    /// The value, if there is one.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, hardened_sqlite::Error> {
        let sql = format!("SELECT value FROM \"{}\" WHERE name = ?1", self.table);
        self.db.read(|c| c.prepare_cached(&sql)?.query_row([name], |row| row.get(0)).optional())
    }

    /// The database that it is in.
    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    /// Closes this store; the file, if no other store has it open.
    pub(crate) fn close(self) -> Result<Closed, hardened_sqlite::Error> {
        self.db.close()
    }
}

#[allow(dead_code, reason = "the tests use the rest")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("which file?")?;
    let settings = Store::open(path.as_ref(), "settings")?;
    let cache = Store::open(path.as_ref(), "cache")?;
    settings.set("theme", "dark")?;
    cache.set("theme", "rendered")?;
    println!("{:?} and {:?}", settings.get("theme")?, cache.get("theme")?);
    println!("{}", cache.database().report());
    println!("the first to close: {:?}", settings.close()?);
    println!("{:?} is still there", cache.get("theme")?);
    println!("the last to close: {:?}", cache.close()?);
    Ok(())
}
