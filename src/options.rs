//! How a database is opened.

use std::path::Path;
use std::time::Duration;

use hardened_vfs::{ChecksumChoice, CombineChoice, FsChoice, GuardChoice, LocksChoice, PolicyChoice, RollbackJournal};
use rusqlite::{Connection, OpenFlags};

use crate::settings::Settings;
use crate::{Backup, Database, Error};

/// How a database is opened; everything has a default. What stands here counts, whatever defaults the VFS was registered
/// with.
///
/// ```
/// use std::time::Duration;
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let connection = hardened_sqlite::Options::new()
///     .busy_timeout(Duration::from_secs(5))
///     .open_connection(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) vfs: hardened_vfs::Options,
    pub(crate) settings: Settings,
    pub(crate) shared: Shared,
    pub(crate) backup: Option<Backup>,
    pub(crate) read_only: bool,
    create: bool,
}

/// What concerns a database that is shared in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) readers: usize,
    pub(crate) patience: Duration,
    pub(crate) close_limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (vfs, settings) = Default::default();
        let shared = Shared { readers: 8, patience: Duration::from_secs(10), close_limit: Duration::from_secs(5) };
        Options { vfs, settings, shared, backup: None, read_only: false, create: true }
    }
}

impl Options {
    /// The defaults: read and write, create if missing, everything else chosen by the filesystem.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens for reading only, and creates nothing. Such a connection changes nothing, not even the journal mode.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Whether a database that does not exist is created (the default) or an error.
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    pub(crate) fn flags(&self) -> OpenFlags {
        let access = match (self.read_only, self.create) {
            (true, _) => OpenFlags::SQLITE_OPEN_READ_ONLY,
            (false, true) => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            (false, false) => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        access | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX
    }

    /// Which journal mode is chosen.
    pub fn policy(mut self, policy: PolicyChoice) -> Self {
        self.vfs.policy = policy;
        self
    }

    /// What kind of filesystem is assumed.
    pub fn fs(mut self, fs: FsChoice) -> Self {
        self.vfs.fs = fs;
        self
    }

    /// How torn and lost writes are watched for. The first connection of the process to a database decides.
    pub fn guard(mut self, guard: GuardChoice) -> Self {
        self.vfs.guard = guard;
        self
    }

    /// The rollback journal where WAL is not allowed.
    pub fn journal(mut self, journal: RollbackJournal) -> Self {
        self.vfs.journal = journal;
        self
    }

    /// How long a statement waits for a lock: 2 s unless set, zero for not at all. Counted in milliseconds, at most
    /// `i32::MAX` of them.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.vfs.busy_timeout = timeout.min(Duration::from_millis(i32::MAX as u64));
        self
    }

    /// How long the filesystem may take to answer before the open fails: 10 s unless set.
    pub fn fs_timeout(mut self, timeout: Duration) -> Self {
        self.vfs.fs_timeout = timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
        self
    }

    /// Whose locks are taken.
    pub fn locks(mut self, locks: LocksChoice) -> Self {
        self.vfs.locks = locks;
        self
    }

    /// Whether writes that follow each other are sent as one.
    pub fn combine(mut self, combine: CombineChoice) -> Self {
        self.vfs.combine = combine;
        self
    }

    /// Whether pages have checksums.
    pub fn checksum(mut self, checksum: ChecksumChoice) -> Self {
        self.vfs.checksum = checksum;
        self
    }

    /// The VFS that does the file I/O under the hardened one.
    pub fn base(mut self, name: impl Into<String>) -> Self {
        self.vfs.base = Some(name.into());
        self
    }

    /// Whether foreign keys are enforced (the default); SQLite itself does not unless told to.
    pub fn foreign_keys(mut self, yes: bool) -> Self {
        self.settings.foreign_keys = yes;
        self
    }

    /// Whether the schema may call any function and virtual table (default: no), which a database from somebody else could
    /// misuse (<https://www.sqlite.org/pragma.html#pragma_trusted_schema>).
    pub fn trusted_schema(mut self, yes: bool) -> Self {
        self.settings.trusted_schema = yes;
        self
    }

    /// Whether SQL that can damage the file is refused (the default): writing to `sqlite_schema` and to shadow tables
    /// (<https://www.sqlite.org/c3ref/c_dbconfig_defensive.html>).
    pub fn defensive(mut self, yes: bool) -> Self {
        self.settings.defensive = yes;
        self
    }

    /// Whether pages are looked at more closely when they are read (the default), so that damage is an error and not
    /// nonsense.
    pub fn cell_size_check(mut self, yes: bool) -> Self {
        self.settings.cell_size_check = yes;
        self
    }

    /// How many bytes a journal or log keeps on disk when it begins anew: 64 MiB unless set, `None` for all of them.
    pub fn journal_size_limit(mut self, bytes: Option<u64>) -> Self {
        self.settings.journal_size_limit = bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        self
    }

    /// How many bytes of the file are read through a mapping. Unless set it is SQLite's own default on a local disk, and
    /// none elsewhere, where a mapping that the server cuts off ends the process.
    pub fn mmap_size(mut self, bytes: u64) -> Self {
        self.settings.mmap_size = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        self
    }

    /// How many connections [`Database::read`] uses at most at the same time: 8 unless set, at least one. They are opened when
    /// they are needed.
    pub fn readers(mut self, count: usize) -> Self {
        self.shared.readers = count.max(1);
        self
    }

    /// How long [`Database::write`] tries again while other processes hold the lock: 10 s unless set. One attempt waits as
    /// long as the busy timeout, so the last may end that much later.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.shared.patience = limit;
        self
    }

    /// How long the last close of a [`Database`] may take to empty its log: 5 s unless set. What is not done then is done by
    /// whoever opens the database next.
    pub fn close_limit(mut self, limit: Duration) -> Self {
        self.shared.close_limit = limit;
        self
    }

    /// Before the application gets the database it is checked, and if it is sound it is backed up; a damaged one is
    /// [`Error::Corrupt`], and no backup was made or moved. A [`Database`] that is open in this process already is not
    /// checked again.
    ///
    /// ```
    /// use hardened_sqlite::{Backup, Options};
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("app.db");
    /// let backup = Backup::to(directory.path().join("app.db.bak")).keep(2);
    /// let db = Options::new().backup_before_open(backup).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup_before_open(mut self, backup: Backup) -> Self {
        self.backup = Some(backup);
        self
    }

    /// Opens a database that all of this process shares.
    ///
    /// # Errors
    /// As [`Options::open_connection`], and [`Error::OtherOptions`] if it is open in this process with other options.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Database, Error> {
        Database::open(self, path.as_ref())
    }

    /// Where these options differ from others, for who reads the error; `None` if they do not.
    pub(crate) fn difference(&self, open: &Options) -> Option<String> {
        if (&self.vfs, &self.settings, self.shared, self.read_only)
            == (&open.vfs, &open.settings, open.shared, open.read_only)
        {
            return None;
        }
        let [asked, is] = [self, open].map(Options::words);
        let differ = |(asked, is): (&String, &String)| (asked != is).then(|| format!("{asked} (it is open with {is})"));
        let all: Vec<_> = asked.iter().zip(&is).filter_map(differ).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// One word for each option, in the same order for all.
    fn words(&self) -> Vec<String> {
        let Settings { foreign_keys, trusted_schema, defensive, cell_size_check, journal_size_limit, mmap_size } =
            &self.settings;
        let Shared { readers, patience, close_limit } = &self.shared;
        let mut words: Vec<String> = self.vfs.in_full().split('&').map(str::to_owned).collect();
        if self.vfs.base.is_none() {
            words.push("base=default".into());
        }
        words.extend([
            format!("read_only={}", self.read_only),
            format!("foreign_keys={foreign_keys}"),
            format!("trusted_schema={trusted_schema}"),
            format!("defensive={defensive}"),
            format!("cell_size_check={cell_size_check}"),
            format!("journal_size_limit={journal_size_limit}"),
            format!("mmap_size={mmap_size:?}"),
            format!("readers={readers}"),
            format!("patience={patience:?}"),
            format!("close_limit={close_limit:?}"),
        ]);
        words
    }

    /// Opens a plain connection.
    ///
    /// # Errors
    /// [`Error`] with the path, the cause and a hint if the database cannot be opened or read. It is also kept for
    /// [`last_open_error`](crate::last_open_error).
    pub fn open_connection(&self, path: impl AsRef<Path>) -> Result<Connection, Error> {
        crate::open::open_first(self, path.as_ref())
    }
}
