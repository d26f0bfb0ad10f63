//! The database header: the first hundred bytes of the database file.
//!
//! Invariant: [`Header::parse`] refuses exactly the headers for which SQLite answers `SQLITE_NOTADB`
//! (leaving aside input shorter than the header), in the order SQLite checks them. Fields that SQLite
//! tolerates at any value are reported as found.
//!
//! Source: [SQLite file format](https://www.sqlite.org/fileformat2.html#the_database_header), section 1.3.

use super::lookalike::Lookalike;
use super::{be16, be32, is_page_size, printable_prefix};
use std::fmt;

/// The size of the header in bytes.
pub const HEADER_SIZE: usize = 100;

/// The sixteen bytes with which every SQLite 3 database starts (section 1.3.1).
pub const MAGIC: [u8; 16] = *b"SQLite format 3\0";

/// The header of a database (section 1.3).
///
/// ```
/// use hardened_vfs::format::database::{Header, HeaderError};
///
/// let mut page = [0u8; 100];
/// page[..16].copy_from_slice(b"SQLite format 3\0");
/// page[16..18].copy_from_slice(&4096u16.to_be_bytes());
/// page[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
/// let header = Header::parse(&page).expect("a header");
/// assert_eq!(header.page_size, 4096);
/// assert!(header.is_wal());
///
/// let error = Header::parse(&[0x1f, 0x8b, 8, 0]).expect_err("not a database");
/// assert!(error.to_string().contains("gzip"));
/// assert_eq!(Header::parse(b""), Err(HeaderError::Empty));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Page size in bytes, 512 to 65536 (section 1.3.2; stored as 1 when it is 65536).
    pub page_size: u32,
    /// File format write version: 1 rollback journal, 2 WAL; above 2 SQLite opens the database read-only
    /// (section 1.3.3).
    pub write_version: u8,
    /// File format read version: 1 rollback journal, 2 WAL (section 1.3.3).
    pub read_version: u8,
    /// Bytes at the end of each page left to extensions such as encryption (section 1.3.4).
    pub reserved: u8,
    /// Counts the transactions in rollback mode (section 1.3.6).
    pub change_counter: u32,
    /// Size of the database in pages as stored; [`Header::trusted_page_count`] says whether to believe it
    /// (section 1.3.7).
    pub page_count: u32,
    /// First trunk page of the freelist, 0 when it is empty (section 1.3.8).
    pub freelist_trunk: u32,
    /// Number of pages on the freelist (section 1.3.8).
    pub freelist_count: u32,
    /// Changes whenever the schema does (section 1.3.9).
    pub schema_cookie: u32,
    /// Schema format, 1 to 4; 0 while no table has been created (section 1.3.10).
    pub schema_format: u32,
    /// Suggested cache size in pages, negative in KiB (section 1.3.11).
    pub default_cache_size: i32,
    /// Whether and how freed pages leave the file (section 1.3.12).
    pub auto_vacuum: AutoVacuum,
    /// Encoding of text (section 1.3.13).
    pub text_encoding: TextEncoding,
    /// `PRAGMA user_version` (section 1.3.14).
    pub user_version: i32,
    /// `PRAGMA application_id` (section 1.3.15).
    pub application_id: u32,
    /// The change counter at which `sqlite_version` was stored (section 1.3.16).
    pub version_valid_for: u32,
    /// The SQLite version that wrote the database last in rollback mode (section 1.3.16).
    pub sqlite_version: SqliteVersion,
}

/// Whether and how freed pages leave the file (section 1.3.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoVacuum {
    /// They stay on the freelist.
    None,
    /// At every commit.
    Full,
    /// On `PRAGMA incremental_vacuum`.
    Incremental,
}

/// Encoding of text in the database (section 1.3.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextEncoding {
    /// 0: no table has been created yet.
    Unset,
    /// 1: UTF-8.
    Utf8,
    /// 2: UTF-16, little-endian.
    Utf16Le,
    /// 3: UTF-16, big-endian.
    Utf16Be,
    /// A number that the format does not define.
    Undefined(u32),
}

/// A version of SQLite as `SQLITE_VERSION_NUMBER` counts it; displayed as `3.46.1`. Zero is displayed as
/// `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SqliteVersion(pub u32);

impl Header {
    /// Reads the header from the first bytes of a database file. Bytes beyond [`HEADER_SIZE`] are welcome
    /// and not looked at, except to tell a file of zeros.
    ///
    /// # Errors
    ///
    /// [`HeaderError`], when SQLite would not take the file for a database. An empty file gives
    /// [`HeaderError::Empty`] although SQLite treats it as a database without content.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        if bytes.is_empty() {
            return Err(HeaderError::Empty);
        }
        let start = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if !MAGIC.starts_with(start) {
            return Err(HeaderError::NotSqlite {
                seen: printable_prefix(bytes),
                lookalike: Lookalike::of(bytes),
                overwritten: continues_as_header(bytes),
            });
        }
        let Some(h) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(HeaderError::Truncated { have: bytes.len() });
        };
        let (write_version, read_version, reserved) = (h[18], h[19], h[20]);
        if read_version > 2 {
            return Err(HeaderError::UnknownReadVersion(read_version));
        }
        let fractions = [h[21], h[22], h[23]];
        if fractions != PAYLOAD_FRACTIONS {
            return Err(HeaderError::BadPayloadFractions(fractions));
        }
        let stored = be16::<16, HEADER_SIZE>(h);
        let page_size = match stored {
            1 => 65536,
            size => u32::from(size),
        };
        if !is_page_size(page_size) {
            return Err(HeaderError::BadPageSize(stored));
        }
        if page_size - u32::from(reserved) < 480 {
            return Err(HeaderError::ReservedTooLarge { page_size, reserved });
        }
        Ok(Header {
            page_size,
            write_version,
            read_version,
            reserved,
            change_counter: be32::<24, HEADER_SIZE>(h),
            page_count: be32::<28, HEADER_SIZE>(h),
            freelist_trunk: be32::<32, HEADER_SIZE>(h),
            freelist_count: be32::<36, HEADER_SIZE>(h),
            schema_cookie: be32::<40, HEADER_SIZE>(h),
            schema_format: be32::<44, HEADER_SIZE>(h),
            default_cache_size: be32::<48, HEADER_SIZE>(h) as i32,
            auto_vacuum: match (be32::<52, HEADER_SIZE>(h), be32::<64, HEADER_SIZE>(h)) {
                (0, _) => AutoVacuum::None,
                (_, 0) => AutoVacuum::Full,
                _ => AutoVacuum::Incremental,
            },
            text_encoding: match be32::<56, HEADER_SIZE>(h) {
                0 => TextEncoding::Unset,
                1 => TextEncoding::Utf8,
                2 => TextEncoding::Utf16Le,
                3 => TextEncoding::Utf16Be,
                other => TextEncoding::Undefined(other),
            },
            user_version: be32::<60, HEADER_SIZE>(h) as i32,
            application_id: be32::<68, HEADER_SIZE>(h),
            version_valid_for: be32::<92, HEADER_SIZE>(h),
            sqlite_version: SqliteVersion(be32::<96, HEADER_SIZE>(h)),
        })
    }

    /// Whether a reader of this database uses the write-ahead log.
    #[must_use]
    pub fn is_wal(&self) -> bool {
        self.read_version == 2
    }

    /// The stored size in pages, unless SQLite before 3.7.0 changed the file after it was stored; then only
    /// the length of the file tells (section 1.3.7). Pages that are still in the write-ahead log alone are
    /// not counted.
    #[must_use]
    pub fn trusted_page_count(&self) -> Option<u32> {
        (self.page_count != 0 && self.change_counter == self.version_valid_for).then_some(self.page_count)
    }
}

/// Maximum, minimum and leaf payload fraction, which are fixed (section 1.3.5).
const PAYLOAD_FRACTIONS: [u8; 3] = [64, 32, 32];

/// Whether bytes 16 to 23 are still those of a database header, whatever has become of the first sixteen.
fn continues_as_header(bytes: &[u8]) -> bool {
    match bytes.get(16..24) {
        Some(&[high, low, 0..=2, 0..=2, _, a, b, c]) => {
            let size = u16::from_be_bytes([high, low]);
            (size == 1 || is_page_size(u32::from(size))) && [a, b, c] == PAYLOAD_FRACTIONS
        }
        _ => false,
    }
}

impl fmt::Display for AutoVacuum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AutoVacuum::None => "none",
            AutoVacuum::Full => "full",
            AutoVacuum::Incremental => "incremental",
        })
    }
}

impl fmt::Display for TextEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextEncoding::Unset => f.write_str("not set yet"),
            TextEncoding::Utf8 => f.write_str("UTF-8"),
            TextEncoding::Utf16Le => f.write_str("UTF-16le"),
            TextEncoding::Utf16Be => f.write_str("UTF-16be"),
            TextEncoding::Undefined(number) => write!(f, "undefined ({number})"),
        }
    }
}

impl fmt::Display for SqliteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        if n == 0 {
            return f.write_str("unknown");
        }
        write!(f, "{}.{}.{}", n / 1_000_000, n / 1000 % 1000, n % 1000)
    }
}

/// Why the bytes are not the header of a database that SQLite would open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// There are no bytes: SQLite would treat the file as a new database.
    Empty,
    /// The file starts as a database does and ends before the header does.
    Truncated {
        /// How many bytes there are.
        have: usize,
    },
    /// The file does not start with [`MAGIC`].
    NotSqlite {
        /// The first sixteen bytes; those that are not printable ASCII are escaped.
        seen: String,
        /// What the file looks like instead.
        lookalike: Lookalike,
        /// Bytes 16 to 23 are still those of a database header: the file was a database, and its start has
        /// been overwritten or encrypted.
        overwritten: bool,
    },
    /// A file format read version that is not defined (section 1.3.3).
    UnknownReadVersion(u8),
    /// Payload fractions other than 64, 32, 32 (section 1.3.5).
    BadPayloadFractions([u8; 3]),
    /// The page size field as stored: neither 1 nor a power of two from 512 to 32768 (section 1.3.2).
    BadPageSize(u16),
    /// Less than 480 bytes of each page would be left (section 1.3.4).
    ReservedTooLarge {
        /// Page size in bytes.
        page_size: u32,
        /// Reserved bytes per page.
        reserved: u8,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Empty => f.write_str("the file is empty"),
            HeaderError::Truncated { have } => write!(
                f,
                "the file starts as an SQLite database does and ends after {have} of the {HEADER_SIZE} \
                 bytes of the header"
            ),
            HeaderError::NotSqlite { seen, lookalike, overwritten } => {
                write!(
                    f,
                    "the file is not an SQLite database: it looks like {lookalike} \
                     (it starts with \"{seen}\")"
                )?;
                match (overwritten, lookalike) {
                    (false, _) => Ok(()),
                    (true, Lookalike::Random) => f.write_str(
                        "; bytes 16 to 23 are still those of a database header, \
                         so its start has been encrypted or overwritten",
                    ),
                    (true, _) => f.write_str(
                        "; bytes 16 to 23 are still those of a database header, \
                         so it was a database whose start has been overwritten",
                    ),
                }
            }
            HeaderError::UnknownReadVersion(version) => {
                write!(f, "the database header asks for file format read version {version}; SQLite knows 1 and 2")
            }
            HeaderError::BadPayloadFractions([a, b, c]) => write!(
                f,
                "the database header is damaged: its payload fractions are {a}, {b}, {c}, \
                 not 64, 32, 32"
            ),
            HeaderError::BadPageSize(stored) => write!(
                f,
                "the database header is damaged: its page size field is {stored}, \
                 neither 1 nor a power of two from 512 to 32768"
            ),
            HeaderError::ReservedTooLarge { page_size, reserved } => write!(
                f,
                "the database header is damaged: it reserves {reserved} bytes of each page of \
                 {page_size} and leaves less than 480"
            ),
        }
    }
}

impl std::error::Error for HeaderError {}
