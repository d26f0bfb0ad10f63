//! What is set on every connection that this crate opens, beside what the VFS sets: settings that belong to the connection
//! and not to the file.

use std::fmt::Write;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// The settings of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) foreign_keys: bool,
    pub(crate) trusted_schema: bool,
    pub(crate) defensive: bool,
    pub(crate) cell_size_check: bool,
    /// Bytes that a log or journal may keep when it is begun anew; negative for no limit.
    pub(crate) journal_size_limit: i64,
    /// Bytes that may be mapped; none: as the VFS leaves it, which is SQLite's own default on a local disk, nothing elsewhere.
    pub(crate) mmap_size: Option<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            foreign_keys: true,
            trusted_schema: false,
            defensive: true,
            cell_size_check: true,
            journal_size_limit: 64 << 20,
            mmap_size: None,
        }
    }
}

impl Settings {
    pub(crate) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        for (config, on) in [
            (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, self.foreign_keys),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, self.trusted_schema),
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, self.defensive),
        ] {
            connection.set_db_config(config, on)?;
        }
        connection.pragma_update(None, "cell_size_check", self.cell_size_check)?;
        set(connection, "journal_size_limit", self.journal_size_limit)?;
        match self.mmap_size {
            Some(bytes) => set(connection, "mmap_size", bytes),
            None => Ok(()),
        }
    }
}

/// A pragma that answers with a row.
fn set(connection: &Connection, pragma: &str, value: i64) -> rusqlite::Result<()> {
    // In memory it is none.
    match connection.pragma_update_and_check(None, pragma, value, |_| Ok(())) {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(()),
        other => other,
    }
}

/// What is in force, in words, for the report.
pub(crate) fn in_force(connection: &Connection) -> String {
    let mut words = String::new();
    for (name, config) in [
        ("foreign_keys", DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY),
        ("trusted_schema", DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA),
        ("defensive", DbConfig::SQLITE_DBCONFIG_DEFENSIVE),
    ] {
        if let Ok(on) = connection.db_config(config) {
            let _ = write!(words, "{name} {}, ", if on { "on" } else { "off" });
        }
    }
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).ok();
    if let Some(on) = number("cell_size_check") {
        let _ = write!(words, "cell_size_check {}, ", if on != 0 { "on" } else { "off" });
    }
    for pragma in ["journal_size_limit", "mmap_size"] {
        if let Some(bytes) = number(pragma) {
            let _ = write!(words, "{pragma} {bytes}, ");
        }
    }
    words.truncate(words.trim_end_matches(", ").len());
    words
}
