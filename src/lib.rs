//! Open SQLite databases so that the filesystem they live on cannot take them away.
//!
//! A thin layer on [`rusqlite`] over the `hardened` VFS ([`hardened_vfs`]): on a local disk a database gets WAL and
//! synchronous NORMAL, on network, FUSE and unknown filesystems a rollback journal and synchronous FULL, decided before
//! anything is written.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("app.db");
//! let connection = hardened_sqlite::open_connection(&path)?;
//! connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")?;
//! println!("{}", hardened_sqlite::report(&connection)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The connection is a plain [`rusqlite::Connection`]; everything rusqlite offers works on it. A program that opens its
//! connections itself calls [`hardened_vfs::register`] once and names the VFS: `file:app.db?vfs=hardened`.

#[cfg(feature = "tokio")]
mod asynchronous;
pub mod backup;
mod beside;
mod database;
mod error;
pub mod health;
mod open;
mod options;
pub mod page_map;
mod progress;
pub mod recover;
mod salvage;
mod settings;
mod uri;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncDatabase;
pub use backup::{Backup, BackupReport, backup, restore};
pub use database::{Closed, Database, open};
pub use error::{Detail, Error, last_open_error};
pub use hardened_vfs::{
    ChecksumChoice, CombineChoice, FsChoice, GuardChoice, LocksChoice, OptionError, PolicyChoice, RegisterError,
    Report, RollbackJournal, VerdictReport, format, fs,
};
pub use health::{Check, Finding, Health, check, check_with};
pub use open::{open_connection, report};
pub use options::Options;
pub use progress::{Progress, Stage, Watch};
pub use recover::{Outcome, Recover, Recovery, recover};
pub use salvage::{LostObject, Salvage, Salvaged, SavedTable};
pub use uri::uri;

pub use {hardened_vfs, rusqlite};

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
