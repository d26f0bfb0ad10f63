//! What was found, and what it means.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Check;

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Kind {
    /// An index does not agree with its table, or is damaged in itself. The rows are whole;
    /// [`reindex`](crate::health::reindex) makes the index anew from them.
    Index {
        /// The index.
        index: String,
    },
    /// The tree of a table, or one that nobody knows whose it is, is damaged: rows are lost or wrong.
    Tree {
        /// The table, as far as is known.
        table: Option<String>,
    },
    /// A page is not what was written: its checksum is wrong.
    Checksum {
        /// Its number, from 1.
        page: u32,
    },
    /// A page cannot be what SQLite writes, or is missing from the file.
    Page {
        /// Its number, from 1.
        page: u32,
    },
    /// The list of free pages is damaged.
    FreeList,
    /// A page belongs to nothing: room that is lost, no data.
    Unused,
    /// A row breaks a rule of its table (NOT NULL, CHECK, a type): wrong data, on sound pages.
    Content,
    /// A virtual table says that its own data are damaged; a full-text index can be rebuilt.
    VirtualTable,
    /// The log has damage before its last commit.
    Log,
    /// The schema cannot be read.
    Schema,
    /// The file does not start as a database does.
    NotADatabase,
    /// Anything else that SQLite says; taken for damage.
    Other,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    #[serde(flatten)]
    pub kind: Kind,
    /// What was seen, mostly in SQLite's words.
    pub message: String,
}

impl Finding {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Finding {
        Finding { kind, message: message.into() }
    }

    /// Whether pages and trees are sound as far as this goes: room is lost, or a row breaks a rule.
    pub fn is_harmless(&self) -> bool {
        matches!(self.kind, Kind::Unused | Kind::Content)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Index { index } => write!(f, "index {index}: {}", self.message),
            Kind::Tree { table: Some(table) } => write!(f, "table {table}: {}", self.message),
            Kind::Tree { table: None } => write!(f, "tree: {}", self.message),
            Kind::Checksum { .. } | Kind::Page { .. } | Kind::Other => f.write_str(&self.message),
            Kind::FreeList => write!(f, "free list: {}", self.message),
            Kind::Unused => write!(f, "lost room: {}", self.message),
            Kind::Content => write!(f, "content: {}", self.message),
            Kind::VirtualTable => write!(f, "virtual table: {}", self.message),
            Kind::Log => write!(f, "log: {}", self.message),
            Kind::Schema => write!(f, "schema: {}", self.message),
            Kind::NotADatabase => write!(f, "not a database: {}", self.message),
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// The database; empty for one in memory.
    pub path: PathBuf,
    /// What was checked.
    pub check: Check,
    /// How many pages it has.
    pub pages: u64,
    /// Whether its pages have checksums that were verified, or would have been an error where SQLite read them.
    pub checksums: bool,
    /// What is wrong; empty if nothing is.
    pub findings: Vec<Finding>,
    /// There are more findings than were listed.
    pub more: bool,
    /// What was seen and is no proof of damage.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Health {
    /// Whether nothing was found.
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether nothing was found that damages data: see [`Finding::is_harmless`].
    pub fn is_sound(&self) -> bool {
        !self.more && self.findings.iter().all(Finding::is_harmless)
    }

    /// Whether something was found, and all of it in indexes, which are made from the rows.
    pub fn is_index_only(&self) -> bool {
        !self.more && !self.is_ok() && self.findings.iter().all(|finding| matches!(finding.kind, Kind::Index { .. }))
    }

    /// The indexes that do not agree with their tables, each once.
    pub fn indexes(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for finding in &self.findings {
            if let Kind::Index { index } = &finding.kind {
                if !names.contains(&index.as_str()) {
                    names.push(index);
                }
            }
        }
        names
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&'static str> {
        if self.is_ok() {
            None
        } else if self.is_index_only() {
            Some("the rows are whole; make the indexes anew with reindex()")
        } else if self.findings.iter().all(|finding| matches!(finding.kind, Kind::Unused)) {
            Some("only room is lost; VACUUM gives it back")
        } else if self.is_sound() {
            Some("the file is sound; correct the rows that break the rules of their tables")
        } else if self.findings.iter().all(|finding| matches!(finding.kind, Kind::VirtualTable)) {
            Some("the tables are whole; rebuild the virtual table, for full text: INSERT INTO t(t) VALUES('rebuild')")
        } else {
            Some("stop writing to it, and restore the last good backup or recover a copy")
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if self.is_ok() {
            write!(f, "{path}: nothing wrong was found ({}, {} pages)", self.check, self.pages)?;
        } else {
            let more = if self.more { " and more" } else { "" };
            write!(f, "{path}: {} findings{more} ({}, {} pages)", self.findings.len(), self.check, self.pages)?;
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        match self.advice() {
            Some(advice) => write!(f, "\n{advice}"),
            None => Ok(()),
        }
    }
}
