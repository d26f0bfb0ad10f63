//! What the disk is told to fail.

use super::model::Loss;
use crate::rule::Times;

/// A sync of a file that fails with SQLITE_IOERR_FSYNC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFault {
    /// Only files whose name ends with this.
    pub suffix: String,
    /// Which of their syncs since the recording began fails first, from 1.
    pub nth: u64,
    /// How often from then on.
    pub times: Times,
    /// What becomes of the unsynced bytes.
    pub loss: Loss,
    /// By this seed, some of them had reached the disk.
    pub spared: Option<u64>,
}

/// A sync of a directory that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryFault {
    /// Which one since the recording began fails first, from 1.
    pub nth: u64,
    /// How often from then on.
    pub times: Times,
    /// Whether a file's first sync reports it, as SQLITE_IOERR_DIR_FSYNC. SQLite's unix VFS does not: the sync succeeds
    /// and the directory is not synced again. A deletion always reports it.
    pub reported: bool,
}

/// A disk that gets full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How many bytes all files may have together.
    pub bytes: usize,
    /// Whether the write that meets the end writes what still fits, by sectors, before it fails.
    pub partial: bool,
}

/// All faults of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Syncs of files.
    pub syncs: Vec<SyncFault>,
    /// Syncs of directories.
    pub directory: Option<DirectoryFault>,
    /// The size of the disk.
    pub capacity: Option<Capacity>,
}

impl SyncFault {
    /// The `nth` sync of files whose name ends with `suffix` fails once.
    pub fn once(suffix: &str, nth: u64, loss: Loss) -> Self {
        Self { suffix: suffix.to_owned(), nth, times: Times::N(1), loss, spared: None }
    }
}

/// Whether the `seen`-th occasion is hit.
pub(super) fn hits(nth: u64, times: Times, seen: u64) -> bool {
    seen >= nth
        && match times {
            Times::N(n) => seen - nth < n,
            Times::Forever => true,
        }
}

impl From<SyncFault> for Faults {
    fn from(fault: SyncFault) -> Self {
        Faults { syncs: vec![fault], ..Faults::default() }
    }
}
