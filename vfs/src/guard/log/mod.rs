//! The sidecar's byte format, version 1: a header and self-checksummed records (`docs/sidecar.md`).
//!
//! Invariant: a reader believes a record only if all its bytes are those that a writer of this log wrote after the
//! records before it. Where that ends, the log ends: a torn tail is the normal end and never an error.

mod decode;
mod encode;
mod pages;

pub use decode::{End, Logged, Reader};
pub use encode::{Body, Encoder, TooLong};
pub use pages::{Entry, Pages};

use std::fmt;

/// The size of the header in bytes; records follow it.
pub const HEADER_SIZE: usize = 64;

/// The sixteen bytes with which a sidecar starts.
pub const MAGIC: [u8; 16] = *b"hardened guard\0\0";

/// The version of the format that is written here.
pub const VERSION: u32 = 1;

/// The longest record in bytes. A transaction of more pages takes several.
pub const MAX_RECORD: usize = 64 << 20;

/// The fields before the body of a record.
const RECORD_HEADER: usize = 20;

/// The shortest record: no body, padding to eight bytes, the checksum.
const MIN_RECORD: usize = 24;

/// The longest message of a [`Halted`] record in bytes.
const MAX_MESSAGE: usize = 512;

/// The longest text of an [`Alarm`] record in bytes.
const MAX_ALARM: usize = 4096;

/// Flag of every record: the log was synced after it and before the pages it names were written.
const DURABLE: u16 = 1;

/// Flag of a record of a kind added later, behind which a reader that does not know the kind must not go on.
const MUST_UNDERSTAND: u16 = 1 << 15;

/// The numbers of the kinds of records.
mod kind {
    pub(super) const WRITTEN: u16 = 1;
    pub(super) const DONE: u16 = 2;
    pub(super) const PENDING: u16 = 3;
    pub(super) const CHECKPOINTED: u16 = 4;
    pub(super) const WAL_SYNCED: u16 = 5;
    pub(super) const HALTED: u16 = 6;
    pub(super) const RESUMED: u16 = 7;
    pub(super) const ALARM: u16 = 8;
}

/// The boot id of a host: other after each restart, and on each host.
pub type Boot = [u8; 16];

/// A file's time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

impl Time {
    /// The time of change (ctime).
    pub(crate) fn of_change(found: &std::fs::Metadata) -> Time {
        use std::os::unix::fs::MetadataExt;
        Time { seconds: found.ctime(), nanoseconds: u32::try_from(found.ctime_nsec()).unwrap_or(0) }
    }

    /// Whether it is longer ago than filesystems take to tell one moment from the next.
    pub(crate) fn lies_back(self) -> bool {
        const TICK: i128 = 20_000_000;
        // ext2, ext3 and small ext4 filesystems with inodes of 128 bytes count seconds, FAT pairs of them.
        const SECONDS: i128 = 2_000_000_000;
        let tick = if self.nanoseconds == 0 { SECONDS } else { TICK };
        let then = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds);
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| i128::try_from(now.as_nanos()).unwrap_or(0));
        then + tick < now
    }
}

/// The database file as a writer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Where and since which start of the host.
    pub boot: Boot,
    /// When the file was last changed (ctime), if that can be told.
    pub changed: Option<Time>,
    /// Whether `changed` lay further back than the filesystem's clock ticks (20 ms) when it was looked at, so that any
    /// write after the look shows as another time. False if unknown.
    pub settled: bool,
    /// Size in bytes.
    pub file_size: u64,
}

/// The header of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Page size of the database.
    pub page_size: u32,
    /// Where and since which start of the host the log was begun.
    pub boot: Boot,
    /// A random number that tells this log from the one before it in the same file.
    pub epoch: u64,
}

/// Why the bytes are no log that can be read. Never a reason for an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file ends before the header does.
    Truncated {
        /// How many bytes there are.
        have: usize,
    },
    /// The file does not start with [`MAGIC`].
    NotGuard,
    /// The header does not match its checksum.
    BadChecksum,
    /// A later version wrote it; it must be left alone.
    Newer {
        /// Which.
        version: u32,
    },
    /// The version or the page size is none that was ever written.
    Senseless,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Truncated { have } => {
                write!(f, "it ends after {have} of the {HEADER_SIZE} bytes of its header")
            }
            HeaderError::NotGuard => f.write_str("it does not start as a guard's log does"),
            HeaderError::BadChecksum => f.write_str("its header does not match its checksum"),
            HeaderError::Newer { version } => {
                write!(f, "it has version {version}; this program reads version {VERSION}")
            }
            HeaderError::Senseless => f.write_str("its header names a version or a page size that does not exist"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Rollback mode: pages that are about to be written. A transaction may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The database file before the transaction wrote to it; every record of a transaction repeats it.
    pub before: Witness,
    /// The nonce in the first header of the transaction's journal.
    pub nonce: u32,
    /// Size of the database in pages before the transaction.
    pub initial_pages: u32,
    /// Change counter of page 1 before the transaction.
    pub counter_before: u32,
    /// Change counter that page 1 of this record brings; that before if page 1 is not among the pages.
    pub counter_after: u32,
    /// Whether the connection is in EXCLUSIVE locking mode, or may be: its next transactions then leave the counter
    /// alone.
    pub exclusive: bool,
    /// The pages, with their old sums where the image before is known.
    pub pages: Pages,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its pages are the database now.
    Committed,
    /// The journal was played back.
    RolledBack,
}

/// The transaction with this nonce has ended and its journal is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The transaction's nonce.
    pub nonce: u32,
    /// How.
    pub outcome: Outcome,
    /// The database file then.
    pub witness: Witness,
}

/// A generation of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    /// The salts of the WAL header.
    pub salts: [u32; 2],
    /// The checkpoint sequence number of the WAL header.
    pub sequence: u32,
}

/// A generation of the WAL holds commits that are not in the database file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub generation: Generation,
    /// Whether the header of the WAL is known to be on disk.
    pub wal_synced: bool,
    /// Change counter of page 1 in the database file.
    pub counter: u32,
    /// Frames up to the last commit that other connections can see.
    pub frames: u64,
    /// The last committed frame that holds page 1, counted from 1, if its image is other than that in the database
    /// file; else 0.
    pub page1_frame: u64,
    /// The database file as it was seen before the first of these commits became visible.
    pub witness: Witness,
    /// Page 1 as it stood in the database file then: one entry, new sums.
    pub page1: Pages,
}

/// Pages that a checkpoint has written to the database file and is about to sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpointed {
    /// The generation of the WAL they come from.
    pub generation: Generation,
    /// Whether every commit of the generation is in the database file now.
    pub complete: bool,
    /// The database file before these writes.
    pub before: Witness,
    /// The database file after these writes.
    pub witness: Witness,
    /// Change counter of page 1 in the database file after these writes.
    pub counter: u32,
    /// The pages.
    pub pages: Pages,
}

/// The WAL was synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSynced {
    /// The salts of its header.
    pub salts: [u32; 2],
    /// Frames up to the last commit that other connections could see and that the sync covered.
    pub frames: u64,
}

/// Which file a sync failed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The database.
    Database,
    /// Its rollback journal.
    Journal,
    /// Its WAL.
    Wal,
    /// The directory.
    Directory,
    /// One that a later version knows.
    Other(u32),
}

/// A sync failed: what was written before it may be lost although later reads may show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halted {
    /// On which file.
    pub which: Which,
    /// SQLite's extended error code.
    pub code: u32,
    /// Where and since which start of the host.
    pub boot: Boot,
    /// When, in seconds since 1970.
    pub time: u64,
    /// What the operating system said. At most 512 bytes are kept.
    pub message: String,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// See [`Written`].
    Written(Written),
    /// See [`Done`].
    Done(Done),
    /// See [`Pending`].
    Pending(Pending),
    /// See [`Checkpointed`].
    Checkpointed(Checkpointed),
    /// See [`WalSynced`].
    WalSynced(WalSynced),
    /// See [`Halted`].
    Halted(Halted),
    /// Halts and alarms before this record were lifted by a person.
    Resumed,
    /// An alarm was raised. At most 4096 bytes of the text are kept.
    Alarm(String),
    /// A kind that a later writer of this version added and that can be skipped.
    Unknown(u16),
}
