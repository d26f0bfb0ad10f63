//! How a FUSE mount is set up, before it exists.

use super::lock_table::LockTable;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The settings of a [`Mount`](super::Mount).
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) backing: PathBuf,
    pub(super) subtype: Option<String>,
    pub(super) source: Option<String>,
    pub(super) cache: Duration,
    pub(super) direct_io: bool,
    pub(super) auto_invalidate: bool,
    pub(super) latency: Duration,
    pub(super) locks: Option<u64>,
    pub(super) read_only: bool,
    pub(super) allow_other: bool,
    pub(super) threads: usize,
}

impl Options {
    /// A filesystem over the directory `backing`: bare type `fuse`, nothing cached, no latency,
    /// locks kept by the kernel.
    pub fn new(backing: &Path) -> Self {
        Self {
            backing: backing.to_owned(),
            subtype: None,
            source: None,
            cache: Duration::ZERO,
            direct_io: false,
            auto_invalidate: false,
            latency: Duration::ZERO,
            locks: None,
            read_only: false,
            allow_other: false,
            threads: 2,
        }
    }

    /// Makes the type in mountinfo `fuse.SUBTYPE`.
    pub fn subtype(mut self, subtype: &str) -> Self {
        self.subtype = Some(subtype.to_owned());
        self
    }

    /// The mount source in mountinfo; without it the subtype, or `fuse`.
    pub fn source(mut self, source: &str) -> Self {
        self.source = Some(source.to_owned());
        self
    }

    /// How long the kernel may trust names and attributes.
    pub fn cache(mut self, timeout: Duration) -> Self {
        self.cache = timeout;
        self
    }

    /// Bypasses the page cache (`FOPEN_DIRECT_IO`); a shared mapping then fails with `ENODEV`.
    pub fn direct_io(mut self, on: bool) -> Self {
        self.direct_io = on;
        self
    }

    /// Lets the kernel drop cached pages when it sees a new size or modification time, as programs
    /// on libfuse do. Off, so that request counts do not depend on the time of writes.
    pub fn auto_invalidate(mut self, on: bool) -> Self {
        self.auto_invalidate = on;
        self
    }

    /// Every answer comes this long after its request; [`Mount::set_latency`](super::Mount::set_latency)
    /// changes it later.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sends POSIX and OFD locks to the filesystem, which keeps a byte-range lock table of its own.
    /// Off, the kernel keeps them and no GETLK or SETLK request is sent.
    pub fn forward_locks(mut self, on: bool) -> Self {
        self.locks = on.then(|| LockTable::default().id());
        self
    }

    /// [`forward_locks`](Self::forward_locks) into a given table: two mounts of one backing
    /// directory with one table are two clients of one server.
    pub fn lock_table(mut self, table: &LockTable) -> Self {
        self.locks = Some(table.id());
        self
    }

    /// Mounts read-only.
    pub fn read_only(mut self, on: bool) -> Self {
        self.read_only = on;
        self
    }

    /// Admits users other than the one who mounts; the kernel then checks the file modes.
    pub fn allow_other(mut self, on: bool) -> Self {
        self.allow_other = on;
        self
    }

    /// How many threads take requests (2 unless told; at least 1). Waiting requests need none.
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = n.max(1);
        self
    }
}
