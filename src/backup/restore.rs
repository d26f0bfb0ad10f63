//! A backup becomes the database again.
//!
//! Invariant: the name of the database leads to the old one or to the whole, verified new one, and the old one is never
//! removed: it is kept aside. (Of one that SQLite would change by opening it, because a log or journal is beside
//! it, the name is free for a moment; these go aside with it, so that nobody plays them into the new one.) No name goes before
//! the one that takes its place is on disk: a power cut may keep the later of two changes and lose the earlier.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, ffi};
use serde::{Deserialize, Serialize};

use super::copy::Copier;
use super::destination::{Destination, is_database, is_unused};
use super::staged::{Staged, Turn};
use super::{Method, users, verify};
use crate::beside::{Beside, identity_of, with_ending};
use crate::error::{Detail, Error};
use crate::health::pace::Pace;
use crate::health::{Check, Health};
use crate::progress::Watch;

/// What [`restore`] has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The database.
    pub path: PathBuf,
    /// What was there before, under the name that it has now, with its log and journal beside it if it had any;
    /// remove it when nobody misses it. `None` if nothing was there.
    pub kept: Option<PathBuf>,
    /// How the pages were copied.
    pub method: Method,
    /// What the check of the restored database has found.
    pub health: Health,
}

/// Makes the database at `path` what `backup` is. The backup is checked first and stays; what was at `path` is kept aside
/// as `path.replaced-1` or the next number that is free.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # let saved = directory.path().join("app.db.bak");
/// # let connection = hardened_sqlite::open_connection(&path)?;
/// # connection.execute_batch("CREATE TABLE t(x)")?;
/// hardened_sqlite::backup(&connection, &saved)?;
/// drop(connection);
/// let report = hardened_sqlite::restore(&saved, &path)?;
/// println!("the old one is {:?}", report.kept);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Busy`] if the database or the backup is open anywhere, as far as locks and the kernel's list of open files tell;
/// [`Error::Corrupt`] and [`Error::NotADatabase`] if the backup is damaged; [`Error::NoSpace`]. Then the database is as it was.
pub fn restore(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<RestoreReport, Error> {
    make(backup.as_ref(), path.as_ref(), &mut Pace::new(None))
}

/// [`restore`], with progress, and a way to stop it before the database is replaced: then it is [`Error::Cancelled`].
///
/// # Errors
/// As [`restore`].
pub fn restore_with(
    backup: impl AsRef<Path>,
    path: impl AsRef<Path>,
    watch: &mut Watch<'_>,
) -> Result<RestoreReport, Error> {
    make(backup.as_ref(), path.as_ref(), &mut Pace::new(Some(watch)))
}

fn make(backup: &Path, named: &Path, pace: &mut Pace<'_, '_>) -> Result<RestoreReport, Error> {
    is_unused(backup)?;
    if !is_database(backup)? {
        return Err(Detail::of(backup, ffi::SQLITE_NOTADB, "the backup is not a database".to_owned()).into());
    }
    let destination = Destination::of_database(named, backup)?;
    let path = destination.path.clone();
    is_unused_by_all(&path)?;
    let staged = Staged::begin(&destination)?;
    let file = Beside::open(backup).map_err(|error| Error::of_file(backup, "the backup cannot be opened", &error))?;
    let mut copier = Copier::new(backup, &file, &staged, None)?;
    while !copier.is_done() {
        copier.step(pace)?;
    }
    let method = copier.method();
    staged.take_after(if path.exists() { &path } else { backup })?;
    staged.sync()?;
    let mut health = verify::copy(staged.path(), Check::Quick, pace)?;
    health.path.clone_from(&path);
    // It took a while.
    is_unused_by_all(&path)?;
    let old = Old::take(&path)?;
    let turn = Turn::take(&destination)?;
    let (kept, alone) = old.set_aside(&path, &turn)?;
    turn.sync(&path)?;
    staged.publish(&path)?;
    // Until here nobody could open the old one.
    drop(alone);
    turn.sync(&path)?;
    Ok(RestoreReport { path, kept, method, health })
}

/// How long a process is waited for, or a lock of its, that may only be a copy of this one, about to become another program.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether nobody has the database open, also a connection in rollback mode that is idle, which has no locks.
fn is_unused_by_all(path: &Path) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        match users::one_of(path) {
            None => return Ok(()),
            Some(process) if process == std::process::id() || began.elapsed() > PATIENCE => {
                return Err(busy(path, format!("process {process} has it open")));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn busy(path: &Path, cause: String) -> Error {
    Detail::of(path, ffi::SQLITE_BUSY, cause).into()
}

/// The files that belong to a database and would be taken for those of the next of its name.
const BELONGING: [&str; 4] = ["-wal", "-journal", "-shm", "-guard"];

/// What is at the path now.
enum Old {
    Nothing,
    /// A database with nothing beside it, and a transaction that keeps everybody else out of it as long as this is open.
    Alone(Connection),
    /// What SQLite would change if it opened it: a log or a journal is beside it, or it is damaged. Nobody has locks on it.
    AsItIs,
}

impl Old {
    /// Makes sure that nobody uses what is there.
    fn take(path: &Path) -> Result<Old, Error> {
        let exists = match std::fs::symlink_metadata(path) {
            Ok(_) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::of_file(path, "it cannot be looked at", &error)),
        };
        let is_beside = |ending: &&str| std::fs::symlink_metadata(with_ending(path, ending)).is_ok();
        if !exists {
            // A log that waits there must not be played into what comes.
            return Ok(if BELONGING.iter().any(&is_beside) { Old::AsItIs } else { Old::Nothing });
        }
        if let Ok(file) = Beside::open(path) {
            let began = Instant::now();
            while file.is_locked().unwrap_or(false) {
                if began.elapsed() > PATIENCE {
                    return Err(busy(path, "somebody has a lock on it".to_owned()));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if ["-wal", "-journal"].iter().any(is_beside) || is_database(path).ok() != Some(true) {
            return Ok(Old::AsItIs);
        }
        verify::register()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut options = hardened_vfs::Options::default();
        options.policy = hardened_vfs::PolicyChoice::Off;
        let opened = Connection::open_with_flags_and_vfs(crate::uri::of_all(path, &options), flags, hardened_vfs::NAME);
        let alone = opened.and_then(|connection| {
            connection.busy_timeout(std::time::Duration::ZERO)?;
            // Out of WAL: meets the lock of everybody who has the database open.
            connection.query_row("PRAGMA main.journal_mode=DELETE", [], |_| Ok(()))?;
            connection.execute_batch("BEGIN EXCLUSIVE")?;
            let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
            Ok((connection, mode))
        });
        match alone.map_err(|error| Error::from(Detail::of_statement(path, &error))) {
            Ok((connection, mode)) if mode == "delete" => Ok(Old::Alone(connection)),
            Ok(_) => Err(busy(path, "somebody has turned WAL on".to_owned())),
            Err(Error::Corrupt(_) | Error::NotADatabase(_)) => Ok(Old::AsItIs),
            Err(error) => Err(error),
        }
    }

    /// Keeps it under another name, under which it stays when the first goes to the new one. Nobody gets in as long as the
    /// connection is open.
    fn set_aside(self, path: &Path, turn: &Turn) -> Result<(Option<PathBuf>, Option<Connection>), Error> {
        let failed = |error: &std::io::Error| Error::of_file(path, "it cannot be kept aside", error);
        let aside = free_name(path);
        let connection = match self {
            Old::Nothing => return Ok((None, None)),
            Old::Alone(connection) => {
                if std::fs::hard_link(path, &aside).is_err() {
                    std::fs::rename(path, &aside).map_err(|error| failed(&error))?;
                }
                return Ok((Some(aside), Some(connection)));
            }
            Old::AsItIs => None,
        };
        // All of it has its second name before the first of anything goes. The database goes first: where it is missing nobody
        // takes its log for that of another, and without its log it would be there with commits missing.
        let endings = || std::iter::once("").chain(BELONGING);
        let there = |ending: &&str| std::fs::symlink_metadata(with_ending(path, ending)).is_ok();
        let moves = endings().filter(there).map(|ending| (with_ending(path, ending), with_ending(&aside, ending)));
        let moves: Vec<(PathBuf, PathBuf)> = moves.collect();
        let linked = moves.iter().take_while(|(from, to)| std::fs::hard_link(from, to).is_ok()).count();
        for (number, (from, to)) in moves.iter().enumerate() {
            turn.sync(path)?;
            // A rename between two names of one file does nothing (rename(2)).
            let gone = if number < linked { std::fs::remove_file(from) } else { std::fs::rename(from, to) };
            gone.map_err(|error| failed(&error))?;
        }
        Ok((Some(aside), connection))
    }
}

fn free_name(path: &Path) -> PathBuf {
    let names = (1_u32..).map(|number| with_ending(path, &format!(".replaced-{number}")));
    let mut free = names.filter(|name| {
        std::iter::once("").chain(BELONGING).all(|ending| std::fs::symlink_metadata(with_ending(name, ending)).is_err())
    });
    free.next().unwrap_or_else(|| with_ending(path, ".replaced"))
}

impl Destination {
    /// The place of a database that is to be restored from `backup`.
    fn of_database(named: &Path, backup: &Path) -> Result<Destination, Error> {
        let identity =
            identity_of(backup).map_err(|error| Error::of_file(backup, "the backup cannot be opened", &error))?;
        let destination = Destination::anywhere(named)?;
        if identity_of(&destination.path).is_ok_and(|found| found == identity) {
            let cause = "the backup and the database are the same file".to_owned();
            return Err(Detail::of(named, ffi::SQLITE_CANTOPEN, cause).into());
        }
        Ok(destination)
    }
}
