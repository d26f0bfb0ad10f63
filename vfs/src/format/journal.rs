//! The rollback journal: its header, and what SQLite would make of the file that holds it.
//!
//! Invariant: [`State::is_hot_candidate`] is true of every journal that SQLite would try to roll back. It
//! decides by the first byte alone, as SQLite does; whether the journal is hot also depends on the locks and
//! the length of the database, which only the caller can see.
//!
//! Source: [SQLite file format](https://www.sqlite.org/fileformat2.html#the_rollback_journal), section 3, and
//! [file locking](https://www.sqlite.org/lockingv3.html), "Dealing with hot journals".

use super::{be32, is_page_size, printable_prefix};
use std::fmt;

mod records;

pub use records::pages;

/// The size of the header in bytes; the rest of its sector is padding.
pub const HEADER_SIZE: usize = 28;

/// The eight bytes with which a journal header starts.
pub const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// The largest sector size that SQLite accepts.
const MAX_SECTOR_SIZE: u32 = 65536;

/// The header of a rollback journal (section 3).
///
/// ```
/// use hardened_vfs::format::journal::{Header, MAGIC, Records, State};
///
/// let mut journal = [0u8; 512];
/// journal[..8].copy_from_slice(&MAGIC);
/// journal[8..12].copy_from_slice(&3u32.to_be_bytes());
/// journal[16..20].copy_from_slice(&10u32.to_be_bytes());
/// journal[20..24].copy_from_slice(&512u32.to_be_bytes());
/// journal[24..28].copy_from_slice(&4096u32.to_be_bytes());
/// let header = Header::parse(&journal).expect("a header");
/// assert_eq!(header.records, Records::Count(3));
/// assert_eq!(header.initial_page_count, 10);
/// assert!(State::of(Some(512), &journal).is_hot_candidate());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Page records that follow, before the next header if there is one.
    pub records: Records,
    /// Random start value of the checksum of each page record.
    pub nonce: u32,
    /// Size of the database in pages before the transaction; rolling back restores it.
    pub initial_page_count: u32,
    /// Sector size of the writer: where the page records start.
    pub sector_size: u32,
    /// Page size of the database; 0 in journals of SQLite before 3.5.8, which means that of the database.
    pub page_size: u32,
}

/// The number of page records that follow a journal header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// So many.
    Count(u32),
    /// Stored as -1: all that the file holds. Written when nothing is synced, or when the filesystem
    /// never appends garbage (`SQLITE_IOCAP_SAFE_APPEND`).
    ToEndOfFile,
}

impl Header {
    /// Reads the header from the first bytes of a journal.
    ///
    /// # Errors
    ///
    /// [`HeaderError`], when SQLite would find nothing to roll back.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let start = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if !MAGIC.starts_with(start) {
            return Err(HeaderError::NotJournal { seen: printable_prefix(bytes) });
        }
        let Some(h) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(HeaderError::Truncated { have: bytes.len() });
        };
        let sector_size = be32::<20, HEADER_SIZE>(h);
        if !sector_size.is_power_of_two() || !(32..=MAX_SECTOR_SIZE).contains(&sector_size) {
            return Err(HeaderError::BadSectorSize(sector_size));
        }
        let page_size = be32::<24, HEADER_SIZE>(h);
        if page_size != 0 && !is_page_size(page_size) {
            return Err(HeaderError::BadPageSize(page_size));
        }
        Ok(Header {
            records: match be32::<8, HEADER_SIZE>(h) {
                u32::MAX => Records::ToEndOfFile,
                count => Records::Count(count),
            },
            nonce: be32::<12, HEADER_SIZE>(h),
            initial_page_count: be32::<16, HEADER_SIZE>(h),
            sector_size,
            page_size,
        })
    }
}

/// What a journal file is to SQLite, seen from its length and first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// There is no journal.
    Absent,
    /// The file has no bytes: the last transaction ended with `PRAGMA journal_mode=TRUNCATE`, or one is
    /// starting.
    Empty,
    /// The first byte is zero. The last transaction ended with `PRAGMA journal_mode=PERSIST`, which writes
    /// zeros over the header, or one has started and its journal is not synced yet, so that the database is
    /// unchanged. SQLite ignores the file.
    Zeroed,
    /// A valid header. The journal is hot if no connection holds a RESERVED lock and the database is not
    /// empty. A journal that belongs to a transaction over several databases names a super-journal at its
    /// end, and is stale if that file is gone (section 3).
    Header(Header),
    /// The first byte is not zero and the rest is no valid header. SQLite takes such a file for hot, finds
    /// nothing to roll back and discards it.
    Garbage(HeaderError),
}

impl State {
    /// The state of a journal whose length is `file_len` (`None`: there is no such file) and that starts
    /// with `first`. [`HEADER_SIZE`] bytes are enough; fewer are taken to be all that could be read.
    ///
    /// ```
    /// use hardened_vfs::format::journal::State;
    ///
    /// assert_eq!(State::of(None, b""), State::Absent);
    /// assert_eq!(State::of(Some(0), b""), State::Empty);
    /// assert_eq!(State::of(Some(512), &[0; 28]), State::Zeroed);
    /// ```
    #[must_use]
    pub fn of(file_len: Option<u64>, first: &[u8]) -> State {
        let Some(len) = file_len else {
            return State::Absent;
        };
        // What was read beyond the length was read before or after another process cut the file.
        let first = match usize::try_from(len) {
            Ok(len) => first.get(..len).unwrap_or(first),
            Err(_) => first,
        };
        match first.first() {
            None => State::Empty,
            Some(0) => State::Zeroed,
            Some(_) => match Header::parse(first) {
                Ok(header) => State::Header(header),
                Err(error) => State::Garbage(error),
            },
        }
    }

    /// Whether SQLite would take the journal for hot once it has seen that no connection holds a RESERVED
    /// lock and that the database is not empty.
    #[must_use]
    pub fn is_hot_candidate(&self) -> bool {
        matches!(self, State::Header(_) | State::Garbage(_))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Absent => f.write_str("there is no rollback journal"),
            State::Empty => f.write_str("the rollback journal is empty"),
            State::Zeroed => f.write_str("the rollback journal is not in use: its header is zeroed"),
            State::Header(header) => {
                match header.records {
                    Records::Count(count) => {
                        write!(f, "the rollback journal holds {count} page records")
                    }
                    Records::ToEndOfFile => f.write_str("the rollback journal holds page records up to its end"),
                }?;
                write!(f, " of a database that had {} pages", header.initial_page_count)
            }
            State::Garbage(error) => write!(f, "the rollback journal is not usable: {error}"),
        }
    }
}

/// Why the bytes are not the header of a rollback journal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file ends before the header does.
    Truncated {
        /// How many bytes there are.
        have: usize,
    },
    /// The file does not start with [`MAGIC`].
    NotJournal {
        /// The first sixteen bytes; those that are not printable ASCII are escaped.
        seen: String,
    },
    /// The sector size is not a power of two from 32 to 65536.
    BadSectorSize(u32),
    /// The page size is neither 0 nor a power of two from 512 to 65536.
    BadPageSize(u32),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Truncated { have } => {
                write!(f, "it ends after {have} of the {HEADER_SIZE} bytes of the journal header")
            }
            HeaderError::NotJournal { seen } => {
                write!(f, "it does not start as a rollback journal does (it starts with \"{seen}\")")
            }
            HeaderError::BadSectorSize(size) => {
                write!(f, "its sector size is {size}, not a power of two from 32 to 65536")
            }
            HeaderError::BadPageSize(size) => {
                write!(f, "its page size is {size}, not a power of two from 512 to 65536")
            }
        }
    }
}

impl std::error::Error for HeaderError {}
