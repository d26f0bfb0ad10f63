//! What a workload is: how its databases are set, and what its connections do in turn.

use super::cut::Device;

/// The journal mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "SQLite's names")]
pub enum Journal {
    Delete,
    Truncate,
    Persist,
    Wal,
}

/// The synchronous level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "SQLite's names")]
pub enum Synchronous {
    Off,
    Normal,
    Full,
    Extra,
}

/// Which acknowledged commits a power cut on an honest disk must leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Each of them.
    EveryCommit,
    /// Those whose frames were in the WAL when it was last synced.
    SyncedWal,
    /// None.
    Nothing,
}

/// How the connections of a workload are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// PRAGMA journal_mode.
    pub journal: Journal,
    /// PRAGMA synchronous.
    pub synchronous: Synchronous,
    /// PRAGMA page_size.
    pub page_size: usize,
    /// PRAGMA cache_size, in pages; a small cache spills.
    pub cache: Option<u32>,
    /// PRAGMA auto_vacuum.
    pub auto_vacuum: u8,
    /// PRAGMA wal_autocheckpoint.
    pub autocheckpoint: u32,
    /// How many databases: the second one is attached as `y`.
    pub databases: usize,
    /// How many connections.
    pub connections: usize,
    /// Whether making the first database is part of the recording.
    pub from_nothing: bool,
    /// What the disk is like.
    pub device: Device,
}

/// What one connection does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A transaction that becomes part of the ledger.
    Commit {
        /// Which connection.
        by: usize,
        /// Statements between BEGIN and COMMIT.
        sql: Vec<String>,
    },
    /// Statements that leave the content as it is: a checkpoint, a VACUUM, a reader's BEGIN, a rolled-back transaction.
    Neutral {
        /// Which connection.
        by: usize,
        /// The statements.
        sql: String,
    },
    /// The connection is closed and opened again.
    Reopen {
        /// Which connection.
        by: usize,
    },
    /// The connection is closed for good.
    Close {
        /// Which connection.
        by: usize,
    },
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is about.
    pub name: String,
    /// How its connections are set.
    pub setting: Setting,
    /// What the databases hold before; the same statements for each of them, which is then called `main`.
    pub before: Vec<String>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// The file names of the databases, in the order of their schemas.
pub const FILES: [&str; 2] = ["x.db", "y.db"];

/// The names of their schemas.
pub const SCHEMAS: [&str; 2] = ["main", "y"];

impl Journal {
    /// As the pragma has it.
    pub fn word(self) -> &'static str {
        match self {
            Journal::Delete => "delete",
            Journal::Truncate => "truncate",
            Journal::Persist => "persist",
            Journal::Wal => "wal",
        }
    }
}

impl Synchronous {
    /// As the pragma has it.
    pub fn word(self) -> &'static str {
        match self {
            Synchronous::Off => "off",
            Synchronous::Normal => "normal",
            Synchronous::Full => "full",
            Synchronous::Extra => "extra",
        }
    }
}

impl Setting {
    /// One connection on one database with pages of 1024 bytes.
    pub fn new(journal: Journal, synchronous: Synchronous) -> Self {
        Self {
            journal,
            synchronous,
            page_size: 1024,
            cache: None,
            auto_vacuum: 0,
            autocheckpoint: 1000,
            databases: 1,
            connections: 1,
            from_nothing: false,
            device: Device::default(),
        }
    }

    /// The schemas in use.
    pub fn schemas(&self) -> &'static [&'static str] {
        &SCHEMAS[..self.databases]
    }

    /// What an application expects of these settings.
    pub fn promise(&self) -> Promise {
        match (self.journal, self.synchronous) {
            (_, Synchronous::Off) => Promise::Nothing,
            (Journal::Wal, Synchronous::Normal) => Promise::SyncedWal,
            _ => Promise::EveryCommit,
        }
    }

    /// The pragmas that each connection runs after it was opened and the second database attached.
    pub fn pragmas(&self) -> String {
        // Nobody else will give way while one connection waits.
        let mut sql = "PRAGMA busy_timeout=0;".to_owned();
        for schema in self.schemas() {
            sql += &format!("PRAGMA {schema}.journal_mode={};", self.journal.word());
            sql += &format!("PRAGMA {schema}.synchronous={};", self.synchronous.word());
            if let Some(pages) = self.cache {
                sql += &format!("PRAGMA {schema}.cache_size={pages};");
            }
        }
        sql + &format!("PRAGMA wal_autocheckpoint={};", self.autocheckpoint)
    }

    /// The pragmas that decide on the format of a new database.
    pub fn format(&self) -> String {
        format!("PRAGMA page_size={}; PRAGMA auto_vacuum={};", self.page_size, self.auto_vacuum)
    }
}
