//! A damaged database becomes a sound one again, and nothing is worse than before.
//!
//! The damaged database is read and never written: everything happens in copies, in a directory beside it (`work`). It is kept as
//! it was (`evidence`) before the new one takes its name (`publish`, where the order of the last steps is explained).
//!
//! Invariants: until the new database is complete, checked and on disk, the files of the damaged one are as they were, whatever
//! happens: an error, a full disk, a kill. Backups are only read. Nothing is taken for damage but what SQLite finds in a copy that
//! nobody else has: locks and failed reads are errors.

mod evidence;
mod publish;
mod report;
mod verify;
mod work;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hardened_vfs::{GuardChoice, PolicyChoice};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::backup::{users, verify::register};
use crate::beside::{Beside, with_ending};
use crate::error::{Detail, Error};
use crate::health::pace::Pace;
use crate::health::{Check, Health, examine_still, reindex};
use crate::progress::{Stage, Watch};
use crate::salvage::Salvage;
use publish::{Left, publish, resume};
use work::{Work, busy};

pub use report::{Outcome, Recovery};

/// How a database is recovered; everything has a default.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # drop(hardened_sqlite::open_connection(&path)?);
/// let recovery = hardened_sqlite::Recover::new().backups(["/backup/app.db"]).keep_corrupt(5).run(&path)?;
/// println!("{recovery}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recover {
    backups: Option<Vec<PathBuf>>,
    keep_corrupt: Option<usize>,
    salvage: Salvage,
}

/// Recovers the database at `path` with the defaults of [`Recover`]: checks a copy of it, and if that is damaged puts what can be
/// saved in its place. The damaged one is kept as `PATH.corrupt-TIME-SUM`.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # drop(hardened_sqlite::open_connection(&path)?);
/// let recovery = hardened_sqlite::recover(&path)?;
/// assert!(!recovery.has_changed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`Recover::run_with`].
pub fn recover(path: impl AsRef<Path>) -> Result<Recovery, Error> {
    Recover::new().run(path)
}

impl Recover {
    /// The defaults: backups beside the database, all that was ever kept stays.
    #[must_use]
    pub fn new() -> Recover {
        Recover::default()
    }

    /// Where there may be backups, the newest first, instead of `PATH.bak`, `PATH.bak.1`, `PATH.bak.2`, …. They are used only if
    /// nothing can be salvaged, and the first that is sound is taken.
    #[must_use]
    pub fn backups<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Recover {
        self.backups = Some(paths.into_iter().map(Into::into).collect());
        self
    }

    /// How many damaged databases are kept at most, this one among them; older ones are removed after a recovery.
    #[must_use]
    pub fn keep_corrupt(mut self, most: usize) -> Recover {
        self.keep_corrupt = Some(most.max(1));
        self
    }

    /// How rows are salvaged.
    #[must_use]
    pub fn salvage(mut self, salvage: Salvage) -> Recover {
        self.salvage = salvage;
        self
    }

    /// Recovers the database at `path`.
    ///
    /// # Errors
    /// As [`Recover::run_with`].
    pub fn run(&self, path: impl AsRef<Path>) -> Result<Recovery, Error> {
        self.make(path.as_ref(), &mut Pace::new(None))
    }

    /// Recovers the database at `path`, with progress, and a way to stop it as long as nothing has been replaced: then it is
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody has the database open, or recovers it too. [`Error::Corrupt`] if nothing can be salvaged and no
    /// backup is sound. [`Error::NoSpace`]: a copy of the database and a new one need room beside it. [`Error::CannotOpen`] if
    /// there is no such file. The database is then as it was; only if replacing it failed in the middle, which the message says,
    /// the next recovery goes on there.
    pub fn run_with(&self, path: impl AsRef<Path>, watch: &mut Watch<'_>) -> Result<Recovery, Error> {
        self.make(path.as_ref(), &mut Pace::new(Some(watch)))
    }

    fn make(&self, named: &Path, pace: &mut Pace<'_, '_>) -> Result<Recovery, Error> {
        let began = Instant::now();
        let path = std::fs::canonicalize(named).map_err(|error| {
            let code = if error.kind() == ErrorKind::NotFound { ffi::SQLITE_CANTOPEN } else { ffi::SQLITE_IOERR };
            Detail::of(named, code, format!("it cannot be found: {error}"))
        })?;
        let main = alone(&path)?;
        let mut work = Work::begin(&path)?;
        let mut notes = Vec::new();
        match resume(&mut work, &path)? {
            Left::Nothing => {}
            Left::Done(earlier) => {
                let kept = earlier.kept.map(|kept| format!("; the damaged one is kept as {}", kept.display()));
                notes.push(format!("an earlier recovery has replaced the database{}", kept.unwrap_or_default()));
            }
            Left::Finished(mut earlier) => {
                earlier
                    .notes
                    .push("it was finished now, after an earlier recovery had been ended in the middle".to_owned());
                return Ok(earlier);
            }
        }
        work.clear()?;
        has_room(&path, &main)?;
        evidence::copy(&path, &main, &work.copy())?;
        let mut recovery = Recovery {
            path,
            outcome: Outcome::Intact,
            findings: Vec::new(),
            kept: None,
            kept_before: false,
            notes,
            took: began.elapsed(),
        };
        let health = examine_copy(&work, pace)?;
        recovery.findings = health.findings.clone();
        if health.is_sound() {
            recovery.took = began.elapsed();
            return Ok(recovery);
        }
        let settled;
        (recovery.outcome, settled) = std::thread::scope(|scope| {
            let settled = scope.spawn(|| evidence::settle(&work.copy()));
            let outcome = self.save(&work, &recovery.path, &health, pace);
            let settled = settled.join().unwrap_or_else(|_| Err(std::io::Error::other("it could not be read")));
            outcome.map(|outcome| (outcome, settled))
        })?;
        if health.checksums && matches!(recovery.outcome, Outcome::Salvaged(_)) {
            let again = format!("hardened checksum on {}", recovery.path.display());
            recovery
                .notes
                .push(format!("the pages of the new database have no checksums; to have them again: {again}"));
        }
        pace.go_on(&recovery.path, Stage::Verify, 1, 1)?;
        let path = recovery.path.clone();
        take_after(&work, &path)?;
        // Who has opened it since waits for a lock, and would write to a file without a name afterwards.
        is_unused(&path, &main)?;
        let (kept, before) = evidence::keep(&path, &work.copy(), settled)?;
        (recovery.kept, recovery.kept_before, recovery.took) = (Some(kept.clone()), before, began.elapsed());
        let recovery = publish(&mut work, &path, recovery)?;
        if let Some(most) = self.keep_corrupt {
            evidence::thin_out(&path, most, &kept);
        }
        Ok(recovery)
    }

    /// Makes the new database.
    fn save(&self, work: &Work, path: &Path, health: &Health, pace: &mut Pace<'_, '_>) -> Result<Outcome, Error> {
        if health.is_index_only() {
            if let Some(outcome) = make_indexes_anew(work, health)? {
                return Ok(outcome);
            }
        }
        let cause = match self.salvage_into(work, path, pace) {
            Ok(outcome) => return Ok(outcome),
            Err(Error::Corrupt(detail) | Error::NotADatabase(detail)) => detail.cause,
            Err(error) => return Err(error),
        };
        for backup in self.candidates(path) {
            remove_database(&work.new_database());
            if use_backup(work, &backup, pace)? {
                return Ok(Outcome::Restored { backup, cause });
            }
        }
        let cause = format!("nothing could be salvaged ({cause}), and there is no sound backup");
        let hint = "it was not changed; look for a backup elsewhere and restore it".to_owned();
        Err(Detail { hint: Some(hint), ..Detail::of(path, ffi::SQLITE_CORRUPT, cause) }.into())
    }

    fn salvage_into(&self, work: &Work, path: &Path, pace: &mut Pace<'_, '_>) -> Result<Outcome, Error> {
        remove_database(&work.new_database());
        // Where there is a journal SQLite has played it back.
        let from = if with_ending(&work.copy(), "-journal").exists() { work.scratch() } else { work.copy() };
        let mut watch = |progress: crate::Progress| pace.tell(progress.stage, progress.done, progress.total);
        let mut salvaged = self.salvage.run(&from, &work.new_database(), &mut watch)?;
        if salvaged.is_empty() {
            let cause = "no table and no row was found in it".to_owned();
            return Err(Detail::of(path, ffi::SQLITE_CORRUPT, cause).into());
        }
        salvaged.lost_objects.extend(verify::new_database(&work.new_database(), pace)?);
        Ok(Outcome::Salvaged(salvaged))
    }

    fn candidates(&self, path: &Path) -> Vec<PathBuf> {
        if let Some(backups) = &self.backups {
            return backups.clone();
        }
        let older =
            (1_u32..).map(|number| with_ending(path, &format!(".bak.{number}"))).take_while(|name| name.exists());
        std::iter::once(with_ending(path, ".bak")).chain(older).filter(|name| name.exists()).collect()
    }
}

/// Opens the database and keeps everybody else out.
fn alone(path: &Path) -> Result<Beside, Error> {
    let failed = |error: std::io::Error| Error::of_file(path, "it cannot be opened", &error);
    let deadline = Instant::now() + PATIENCE;
    let taken = loop {
        match Beside::alone(path) {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            taken => break taken,
        }
    };
    let main = match taken {
        Ok(Some(main)) => main,
        Ok(None) => return Err(in_use(path, "somebody has a lock on it")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Err(failed(error));
        }
        // The filesystem knows no such locks; the list of open files tells of those on this host.
        Err(_) => Beside::open(path).map_err(failed)?,
    };
    is_unused(path, &main)?;
    Ok(main)
}

/// How long a process may have it open, or a lock on it, that another thread has forked and that has not come to exec(2).
const PATIENCE: Duration = Duration::from_millis(300);

fn is_unused(path: &Path, main: &Beside) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match users::one_besides(path, main.fd().ok()) {
            None => return Ok(()),
            Some(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Some(process) if process == std::process::id() => return Err(in_use(path, "this process has it open")),
            Some(process) => return Err(in_use(path, &format!("process {process} has it open"))),
        }
    }
}

fn in_use(path: &Path, cause: &str) -> Error {
    busy(path, cause, "close it everywhere, then try again")
}

/// Whether there is room for a copy of the damaged database and for the new one.
fn has_room(path: &Path, main: &Beside) -> Result<(), Error> {
    let length = |ending| std::fs::metadata(with_ending(path, ending)).map_or(0, |found| found.len());
    let size = main.size().unwrap_or(0);
    let (log, journal) = (length("-wal"), length("-journal"));
    // SQLite needs a copy of its own to play a journal back, or a log.
    let scratch = if log + journal > 0 { size + log + journal } else { 0 };
    let needed = (size + log + journal).saturating_add(scratch).saturating_add(size);
    match fs2::available_space(crate::beside::directory_of(path)) {
        Ok(free) if free < needed => {
            let cause = format!("{needed} bytes are needed beside it for copies, and {free} are free");
            Err(Error::NoSpace(Detail::of(path, ffi::SQLITE_FULL, cause)))
        }
        _ => Ok(()),
    }
}

/// What is wrong with the copy.
fn examine_copy(work: &Work, pace: &mut Pace<'_, '_>) -> Result<Health, Error> {
    let copy = work.copy();
    let has = |ending| with_ending(&copy, ending).exists();
    let mut pace = pace.within(Stage::Check);
    let connection = if has("-wal") || has("-journal") {
        copy_again(work)?;
        Some(open_scratch(work)?)
    } else {
        None
    };
    let mut look = |check| match &connection {
        Some(connection) => examine_still(connection, check, &mut pace),
        None => verify::check(&copy, check, &mut pace),
    };
    let health = look(Check::Quick)?;
    // Only of a sound one is it worth the time to compare indexes with their tables.
    let health = if health.is_sound() { look(Check::Full)? } else { health };
    if let Some(connection) = connection {
        close(work, connection)?;
    }
    Ok(health)
}

/// Makes the copy that SQLite may change.
fn copy_again(work: &Work) -> Result<(), Error> {
    let (copy, scratch) = (work.copy(), work.scratch());
    remove_database(&scratch);
    let file = Beside::open(&copy).map_err(|error| Error::of_file(&copy, "it cannot be opened", &error))?;
    evidence::copy(&copy, &file, &scratch)
}

/// Opens the scratch copy, whose log and journal SQLite plays back.
fn open_scratch(work: &Work) -> Result<Connection, Error> {
    register()?;
    let path = work.scratch();
    let mut options = hardened_vfs::Options::default();
    (options.policy, options.guard) = (PolicyChoice::Off, GuardChoice::Off);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags_and_vfs(crate::uri::of_all(&path, &options), flags, hardened_vfs::NAME);
    let connection = opened.map_err(|error| Detail::of_statement(&path, &error))?;
    // The log stays where it is: what is damaged need not be written once more.
    let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    kept.map_err(|error| Detail::of_statement(&path, &error))?;
    Ok(connection)
}

fn close(work: &Work, connection: Connection) -> Result<(), Error> {
    connection.close().map_err(|(_, error)| Detail::of_statement(&work.scratch(), &error).into())
}

/// Repairs indexes; `None` if that is not enough.
fn make_indexes_anew(work: &Work, health: &Health) -> Result<Option<Outcome>, Error> {
    copy_again(work)?;
    let connection = open_scratch(work)?;
    let made = match reindex(&connection, health) {
        Ok(_) => connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
            .map_err(|error| Detail::of_statement(&work.scratch(), &error).into()),
        Err(error) => Err(error),
    };
    close(work, connection)?;
    match made {
        Ok(0) => {}
        Ok(_) | Err(Error::Corrupt(_)) => return Ok(None),
        Err(error) => return Err(error),
    }
    let (from, to) = (work.scratch(), work.new_database());
    remove_database(&to);
    std::fs::rename(&from, &to).map_err(|error| Error::of_file(&from, "it cannot be renamed", &error))?;
    let indexes = health.indexes().into_iter().map(str::to_owned).collect();
    Ok(Some(Outcome::Reindexed { indexes }))
}

/// Makes a copy of a backup the new database, if the backup is sound.
fn use_backup(work: &Work, backup: &Path, pace: &mut Pace<'_, '_>) -> Result<bool, Error> {
    let Ok(file) = Beside::open(backup) else { return Ok(false) };
    let new = work.new_database();
    evidence::copy(backup, &file, &new)?;
    if with_ending(&new, "-wal").exists() || with_ending(&new, "-journal").exists() {
        // A backup has neither; this is a database in use.
        return Ok(false);
    }
    match verify::check(&new, Check::Full, &mut pace.within(Stage::Verify)) {
        Ok(health) => Ok(health.is_sound() && health.pages > 0),
        Err(Error::Corrupt(_) | Error::NotADatabase(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_database(path: &Path) {
    for ending in ["", "-wal", "-journal", "-shm", "-guard"] {
        let _ = std::fs::remove_file(with_ending(path, ending));
    }
}

/// Gives the new database the permissions and the owner of the damaged one, its journal mode, and puts it on disk.
fn take_after(work: &Work, path: &Path) -> Result<(), Error> {
    use std::fs::Permissions;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
    let new = work.new_database();
    let failed = |error: std::io::Error| Error::of_file(&new, "it cannot be written", &error);
    let file = std::fs::File::options().read(true).write(true).open(&new).map_err(failed)?;
    let (old, mine) = (std::fs::metadata(path).map_err(failed)?, file.metadata().map_err(failed)?);
    let mut mode = old.mode() & 0o777;
    let different = |theirs: u32, mine: u32| (theirs != mine).then_some(theirs);
    let (owner, group) = (different(old.uid(), mine.uid()), different(old.gid(), mine.gid()));
    if (owner.is_some() || group.is_some()) && fchown(&file, owner, group).is_err() {
        // What one group may do is not for another.
        if group.is_some() && fchown(&file, None, group).is_err() {
            mode &= !0o070;
        }
    }
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    let mut versions = [0; 2];
    let read = std::fs::File::open(work.copy()).and_then(|copy| copy.read_exact_at(&mut versions, 18));
    if read.is_ok() && versions == [2, 2] {
        // WAL, which stands in the header alone.
        file.write_all_at(&versions, 18).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}
