//! Copies of a database in use, and the way back.
//!
//! Invariant: a name that a backup has had always leads to a whole, verified backup, wherever a run is stopped: the copy is made
//! under a name of its own, checked, synced, and only then given its name, in one rename. Older ones move to `.1`, `.2`, …
//! before, each also in one rename, the oldest first.

mod before_open;
pub(crate) mod copy;
mod destination;
pub(crate) mod log;
mod restore;
mod rotate;
mod snapshot;
mod staged;
mod through_sqlite;
pub(crate) mod users;
pub(crate) mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::health::pace::Pace;
use crate::health::{Check, Health, path_of};
use crate::progress::Watch;
use destination::Destination;
use staged::Staged;

pub use before_open::{BeforeOpen, before_open};
pub use restore::{RestoreReport, restore, restore_with};
pub(crate) use snapshot::{is_alone, is_the_open_one};

/// The examples of the guide compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/backup.md")]
struct Guide;

/// How pages were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// The filesystem shares the blocks of both files until one of them changes.
    Reflink,
    /// By the kernel, from file to file.
    Kernel,
    /// Read and written.
    ReadWrite,
    /// Page by page by SQLite itself, where the files are not ours to read: another VFS, a filesystem that is not local.
    Sqlite,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Reflink => "reflink",
            Method::Kernel => "copied by the kernel",
            Method::ReadWrite => "read and written",
            Method::Sqlite => "copied by SQLite",
        })
    }
}

/// What a backup has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// The database.
    pub source: PathBuf,
    /// The backup, links followed.
    pub backup: PathBuf,
    /// The last backup has the same bytes; it stays, nothing was rotated, and the new one is gone.
    pub identical: bool,
    /// How the pages were copied.
    pub method: Method,
    /// The size of the backup in bytes.
    pub bytes: u64,
    /// How often it was begun anew because others had written.
    pub restarts: u32,
    /// How long copying took.
    pub copying: Duration,
    /// How long it took until it was on disk.
    pub syncing: Duration,
    /// What the check of the copy has found: nothing that damages data, or there would be no report.
    pub health: Health,
    /// Older backups that are kept, the newest first.
    pub older: Vec<PathBuf>,
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, backup) = (self.source.display(), self.backup.display());
        if self.identical {
            return write!(f, "{source} has not changed since the backup {backup}");
        }
        write!(
            f,
            "{source} is backed up as {backup}: {} bytes, {} in {:.1} s, synced in {:.1} s, {} in {:.1} s",
            self.bytes,
            self.method,
            self.copying.as_secs_f64(),
            self.syncing.as_secs_f64(),
            self.health.check,
            self.health.took.as_secs_f64()
        )
    }
}

/// A backup to be made, once or again and again.
///
/// ```
/// use hardened_sqlite::Backup;
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let connection = hardened_sqlite::open_connection(&path)?;
/// connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")?;
/// // app.db.bak, and before that app.db.bak.1 and app.db.bak.2
/// let report = Backup::to(directory.path().join("app.db.bak")).keep(3).run(&connection)?;
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Backup {
    destination: PathBuf,
    keep: u32,
    check: Check,
}

impl Backup {
    /// A backup with this file name. Nothing that stands there is overwritten unless it is a database that nobody uses.
    pub fn to(destination: impl Into<PathBuf>) -> Backup {
        Backup { destination: destination.into(), keep: 1, check: Check::Quick }
    }

    /// How many backups there are at most: the new one and the ones before it, as `.1`, `.2` and so on. 1 unless set.
    pub fn keep(mut self, count: u32) -> Backup {
        self.keep = count.clamp(1, 10_000);
        self
    }

    /// How the copy is checked before it takes its name: [`Check::Quick`] unless set.
    pub fn verify(mut self, check: Check) -> Backup {
        self.check = check;
        self
    }

    /// Where it goes.
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Backs up the main database of a connection as it is committed, while others go on writing: in WAL mode nobody waits; in
    /// rollback mode writers wait for half a second at a time at most, and if the database changes again and again, once for
    /// as long as it takes to compare it with the copy.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the database or the copy is damaged, [`Error::NoSpace`], [`Error::Busy`] if the connection is within
    /// a transaction, if the database is locked, if another backup to this name is under way or somebody uses the file there;
    /// [`Error::Io`], [`Error::CannotOpen`] for what the filesystem refuses. Then every backup is where it was, and nothing is
    /// left of the new one.
    pub fn run(&self, connection: &Connection) -> Result<BackupReport, Error> {
        self.make(connection, &mut Pace::new(None))
    }

    /// [`Backup::run`], with progress, and a way to stop it: then it is [`Error::Cancelled`].
    ///
    /// # Errors
    /// As [`Backup::run`].
    pub fn run_with(&self, connection: &Connection, watch: &mut Watch<'_>) -> Result<BackupReport, Error> {
        self.make(connection, &mut Pace::new(Some(watch)))
    }

    fn make(&self, connection: &Connection, pace: &mut Pace<'_, '_>) -> Result<BackupReport, Error> {
        let source = path_of(connection)?;
        let destination = Destination::of(&self.destination, &source, self.keep)?;
        let staged = Staged::begin(&destination)?;
        let began = Instant::now();
        let copied = snapshot::take(connection, &source, &staged, pace)?;
        let copying = began.elapsed();
        let began = Instant::now();
        staged.take_after(&source)?;
        staged.sync()?;
        let syncing = began.elapsed();
        let mut health = verify::copy(staged.path(), self.check, pace)?;
        health.path.clone_from(&destination.path);
        let bytes = staged.size()?;
        let identical = staged.is_identical(&destination.path)?;
        if identical {
            rotate::settle(&destination)?;
        } else {
            rotate::publish(staged, &destination)?;
        }
        let older = rotate::older(&destination);
        let (method, restarts) = (copied.method, copied.restarts);
        let backup = destination.path;
        Ok(BackupReport { source, backup, identical, method, bytes, restarts, copying, syncing, health, older })
    }
}

/// Backs up the main database of a connection to one file: [`Backup::to`], [`Backup::run`].
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # let connection = hardened_sqlite::open_connection(&path)?;
/// # connection.execute_batch("CREATE TABLE t(x)")?;
/// hardened_sqlite::backup(&connection, directory.path().join("app.db.bak"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Backup::run`].
pub fn backup(connection: &Connection, destination: impl Into<PathBuf>) -> Result<BackupReport, Error> {
    Backup::to(destination).run(connection)
}
