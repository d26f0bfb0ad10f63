//! How a database is opened.

use std::path::Path;
use std::time::Duration;

use hardened_vfs::{ChecksumChoice, FsChoice, GuardChoice, LocksChoice, PolicyChoice, RollbackJournal};
use rusqlite::{Connection, OpenFlags};

use crate::Error;

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
    read_only: bool,
    create: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { vfs: hardened_vfs::Options::default(), read_only: false, create: true }
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

    /// Opens a plain connection.
    ///
    /// # Errors
    /// [`Error`] with the path, the cause and a hint if the database cannot be opened or read. It is also kept for
    /// [`last_open_error`](crate::last_open_error).
    pub fn open_connection(&self, path: impl AsRef<Path>) -> Result<Connection, Error> {
        crate::open::open_with(self, path.as_ref())
    }
}
