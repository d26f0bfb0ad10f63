//! One database, shared by everybody in the process who opens it.
//!
//! Rooms: `cache` knows which databases are open, `turns` hands out connections in order, `writer` and `readers` run
//! closures on them, `closing` is the end.

mod cache;
mod closing;
mod readers;
mod turns;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hardened_vfs::Report;
use rusqlite::{Connection, Transaction, ffi};

use crate::backup::{Backup, BackupReport};
use crate::error::{Detail, Error};
use crate::health::{self, Check, Health};
use crate::options::Options;
use crate::progress::Watch;
use cache::Identity;
pub use closing::Closed;
use turns::{Refused, Turns};

/// Opens a database with the default [`Options`], shared with everybody in this process who has it open.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let db = hardened_sqlite::open(&path)?;
/// db.write(|tx| tx.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)"))?;
/// let n: i64 = db.read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))?;
/// assert_eq!(n, 1);
/// println!("{}", db.report());
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Options::open`].
pub fn open(path: impl AsRef<Path>) -> Result<Database, Error> {
    Options::new().open(path)
}

/// A database that is open in this process: a handle, of which there may be any number.
///
/// The same file opened again, through whatever spelling of its path, a link or a bind mount, gives another handle of the same
/// database: it goes by device and inode. It is closed when the last handle is dropped or [closed](Database::close). A file
/// that has taken the place of the open one is another database. `:memory:` and temporary databases (an empty path) are never
/// shared, except by [cloning](Clone) the handle.
///
/// There is one connection that writes, for which threads wait in line, and in WAL mode several that read. In a rollback
/// journal mode readers would keep the writer from its commit, so they wait in the same line. Handles may be used from any
/// thread. A handle that a forked child has inherited answers with errors and does no harm.
#[derive(Debug)]
pub struct Database {
    shared: Arc<Shared>,
    /// There is nothing left to do for the drop.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: Options,
    /// None for a database in memory.
    identity: Option<Identity>,
    /// How many forks there had been when it was opened.
    forks: u32,
    /// Counted under the lock of the cache.
    handles: std::sync::atomic::AtomicUsize,
    writer: Turns<Connection>,
    /// In WAL mode.
    readers: Option<Turns<Connection>>,
    /// As it was last seen.
    report: Mutex<Report>,
}

impl Shared {
    fn detail(&self, code: i32, cause: impl Into<String>) -> Detail {
        Detail::of(&self.path, code, cause.into())
    }

    fn statement_failed(&self, error: rusqlite::Error) -> Error {
        Detail::of_statement(&self.path, &error).caused_by(error).into()
    }

    fn refused(&self, refused: Refused) -> Error {
        let (cause, hint) = match refused {
            Refused::Held => (
                "this thread is in a read or write of the same database already, and would wait for itself",
                "use the connection or transaction that the outer closure was given",
            ),
            Refused::Closed => ("the database is closed", "open it again"),
        };
        Error::Sqlite(Detail { hint: Some(hint.into()), ..self.detail(ffi::SQLITE_MISUSE, cause) })
    }

    /// Fails in a forked child.
    fn is_mine(&self) -> Result<(), Error> {
        if self.forks == hardened_vfs::forks() {
            return Ok(());
        }
        let hint = Some("open the database again in the child".to_owned());
        let cause = "the database was opened by the parent process";
        Err(Error::Sqlite(Detail { hint, ..self.detail(ffi::SQLITE_MISUSE, cause) }))
    }
}

impl Database {
    fn of(shared: Arc<Shared>) -> Database {
        Database { shared, closed: false }
    }

    pub(crate) fn open(options: &Options, path: &Path) -> Result<Database, Error> {
        cache::open(options, path).inspect_err(crate::error::keep)
    }

    /// The path with which it was first opened in this process.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Runs `work` in a transaction that may write (`BEGIN IMMEDIATE`), and commits it if `work` succeeds. Otherwise, and if it
    /// panics, everything is rolled back.
    ///
    /// Threads of this process get their turns in the order in which they ask. While another process holds the lock this is
    /// tried again, in uneven steps, for as long as [`Options::patience`] says. `work` runs once at most: what fails after it
    /// has begun is an error, because it may have been committed.
    ///
    /// # Errors
    /// What `work` answers, with the path; [`Error::Busy`] if others did not let go of the lock; any other error of the
    /// commit. After an error of the commit that is not [`Error::Busy`] or [`Error::NoSpace`] the transaction may be on disk or
    /// not; after those two it is not.
    pub fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.shared.write(|transaction| work(transaction).map_err(|error| self.shared.statement_failed(error)))
    }

    /// [`write`](Database::write) for closures with errors of their own.
    ///
    /// ```
    /// #[derive(Debug)]
    /// enum Failure { Database(hardened_sqlite::Error), Empty }
    /// impl From<hardened_sqlite::Error> for Failure {
    ///     fn from(error: hardened_sqlite::Error) -> Self { Failure::Database(error) }
    /// }
    /// # let db = hardened_sqlite::open(":memory:").unwrap();
    /// let stopped = db.try_write(|tx| {
    ///     tx.execute_batch("CREATE TABLE t(x)").map_err(hardened_sqlite::Error::from)?;
    ///     Err::<(), _>(Failure::Empty)
    /// });
    /// assert!(matches!(stopped, Err(Failure::Empty)), "and there is no table");
    /// ```
    ///
    /// # Errors
    /// What `work` answers; those of [`write`](Database::write).
    pub fn try_write<T, E: From<Error>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        self.shared.write(work)
    }

    /// Runs `work` in a transaction that only reads: everything it sees is of one moment.
    ///
    /// In WAL mode it gets one of the reading connections and waits for nobody who writes. Otherwise it takes the
    /// writer's turn.
    ///
    /// # Errors
    /// What `work` answers, with the path; an attempt to write is `SQLITE_READONLY`.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.shared.read(|connection| work(connection).map_err(|error| self.shared.statement_failed(error)))
    }

    /// [`read`](Database::read) for closures with errors of their own.
    ///
    /// # Errors
    /// What `work` answers; those of [`read`](Database::read).
    pub fn try_read<T, E: From<Error>>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        self.shared.read(work)
    }

    /// Runs `work` with the writing connection outside a transaction: for `VACUUM`, pragmas and whatever else wants the
    /// connection itself.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let db = hardened_sqlite::open(directory.path().join("app.db")).unwrap();
    /// db.with_writer(|connection| connection.execute_batch("VACUUM"))?;
    /// # Ok::<(), hardened_sqlite::Error>(())
    /// ```
    ///
    /// # Errors
    /// What `work` answers, with the path. A transaction that it leaves open is rolled back.
    pub fn with_writer<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.shared.with_writer(|connection| work(connection).map_err(|error| self.shared.statement_failed(error)))
    }

    /// What was seen, what was chosen and what has happened since. Waits for the writer's turn, unless this thread has it:
    /// then it is as it was last seen.
    pub fn report(&self) -> Report {
        let fresh = self.shared.with_writer::<_, Error>(crate::report).ok();
        let mut last = self.shared.report.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = fresh {
            *last = fresh;
        }
        last.clone()
    }

    /// Checks the database, on one of the connections in use, in a read transaction.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("app.db");
    /// let db = hardened_sqlite::open(&path)?;
    /// let health = db.check(hardened_sqlite::Check::Quick)?;
    /// assert!(health.is_ok(), "{health}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`check`](crate::check()): what kept it from coming to an end. Damage is in [`Health::findings`].
    pub fn check(&self, check: Check) -> Result<Health, Error> {
        self.shared.with_reader(|connection| health::check(connection, check))
    }

    /// [`check`](Database::check), with progress, and a way to stop it.
    ///
    /// # Errors
    /// As there, and [`Error::Cancelled`].
    pub fn check_with(&self, check: Check, watch: &mut Watch<'_>) -> Result<Health, Error> {
        self.shared.with_reader(|connection| health::check_with(connection, check, watch))
    }

    /// Backs the database up while others go on with it.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let db = hardened_sqlite::open(directory.path().join("app.db"))?;
    /// # db.write(|tx| tx.execute_batch("CREATE TABLE t(x)"))?;
    /// let backup = hardened_sqlite::Backup::to(directory.path().join("app.db.bak")).keep(3);
    /// println!("{}", db.backup(&backup)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Backup::run`].
    pub fn backup(&self, backup: &Backup) -> Result<BackupReport, Error> {
        self.shared.with_reader(|connection| backup.run(connection))
    }

    /// [`backup`](Database::backup), with progress, and a way to stop it.
    ///
    /// # Errors
    /// As there, and [`Error::Cancelled`].
    pub fn backup_with(&self, backup: &Backup, watch: &mut Watch<'_>) -> Result<BackupReport, Error> {
        self.shared.with_reader(|connection| backup.run_with(connection, watch))
    }

    /// Drops this handle; the last one closes the database: its log is emptied into the file, as far as others let it and
    /// within [`Options::close_limit`].
    ///
    /// Dropping does the same, and says in the log (of the `log` crate) what it could not do.
    ///
    /// # Errors
    /// Those of the connections' close. What could not be done without harm is not an error: see [`Closed`].
    pub fn close(mut self) -> Result<Closed, Error> {
        self.closed = true;
        cache::close(&self.shared)
    }
}

impl Clone for Database {
    fn clone(&self) -> Self {
        cache::another(&self.shared)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        match cache::close(&self.shared) {
            Ok(Closed { log_left: Some(why), .. }) => log::warn!("{}: {why}", self.shared.path.display()),
            Ok(_) => {}
            Err(error) => log::error!("closing failed: {error}"),
        }
    }
}
