//! A connection of any kind.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use support::second::{self, Library};
use support::sqlite::{self, Failure};

use crate::crew::Kind;

/// Where the loadable extension is, for [`Kind::OldHardened`].
pub(crate) const EXTENSION: &str = "HARDENED_FLEET_EXTENSION";

pub(crate) enum Connection {
    Linked(sqlite::Connection),
    Second(second::Connection),
}

/// The journal mode of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    Wal,
    Delete,
}

impl Journal {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Journal::Wal => "wal",
            Journal::Delete => "delete",
        }
    }
}

fn second(kind: Kind) -> Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    static LOADED: OnceLock<()> = OnceLock::new();
    let library = *LIBRARY.get_or_init(|| Library::load().expect("the parent has looked for it"));
    if kind == Kind::OldHardened {
        LOADED.get_or_init(|| library.load_extension(&PathBuf::from(std::env::var_os(EXTENSION).unwrap())));
    }
    library
}

/// Opens the database as `kind` does, ready for use.
pub(crate) fn open(kind: Kind, database: &Path, journal: Journal) -> Result<Connection, Failure> {
    let vfs = match (kind.hardened(), journal) {
        (false, _) => "vfs=unix",
        (true, Journal::Wal) => "vfs=hardened",
        // Without it each open would set WAL again.
        (true, Journal::Delete) => "vfs=hardened&policy=delete",
    };
    let uri = format!("file:{}?{vfs}", database.display());
    let connection = match kind {
        Kind::Stock => Connection::Linked(sqlite::Connection::open(&uri, None)?),
        Kind::Hardened => {
            hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
            Connection::Linked(sqlite::Connection::open(&uri, None)?)
        }
        Kind::Old | Kind::OldHardened => Connection::Second(second(kind).open_uri(&uri)?),
    };
    // A small page cache, so that large transactions write before they commit.
    connection.rows("PRAGMA busy_timeout = 500; PRAGMA cache_size = 16")?;
    if !kind.hardened() {
        // As hardened has it in WAL mode. No power is cut here.
        connection.rows("PRAGMA synchronous = NORMAL")?;
    }
    if kind == Kind::Old {
        connection.rows("PRAGMA wal_autocheckpoint = 0")?;
    }
    Ok(connection)
}

impl Connection {
    /// Runs statements; the first column of every row.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<String>, Failure> {
        match self {
            Connection::Linked(connection) => connection.rows(sql),
            Connection::Second(connection) => connection.rows(sql),
        }
    }

    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Connection::Linked(connection) => connection.close(),
            Connection::Second(connection) => connection.close(),
        }
    }
}

/// Whether others are in the way: what waiting and trying again is for.
pub(crate) fn busy(failure: &Failure) -> bool {
    failure.code & 0xff == rusqlite::ffi::SQLITE_BUSY
}
