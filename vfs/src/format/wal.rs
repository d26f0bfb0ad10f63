//! The write-ahead log: its header, and a scan that finds what SQLite would recover from it.
//!
//! Invariant: [`Header::parse`] accepts exactly the headers behind which SQLite's recovery looks for frames, and
//! [`scan`] exactly the frames that it finds there.
//!
//! Source: [SQLite file format](https://www.sqlite.org/fileformat2.html#the_write_ahead_log), section 4:
//! 4.1 the format, 4.2 the checksum algorithm, 4.4 resets and the salts.

use super::{be32, is_page_size, printable_prefix};
use std::fmt;

mod recovery;

pub use recovery::{End, Scan, ValidFrame, scan, scan_frames};

/// The size of the header of the log in bytes.
pub const HEADER_SIZE: usize = 32;

/// The size of the header of each frame in bytes; a page follows it.
pub const FRAME_HEADER_SIZE: usize = 24;

/// The only version of the format there is.
pub const VERSION: u32 = 3_007_000;

/// The magic number without its lowest bit, which says how checksums read the bytes.
const MAGIC: u32 = 0x377f_0682;

/// The byte order in which checksums read the log. Every other field is big-endian regardless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumOrder {
    /// Magic number 0x377f0682.
    LittleEndian,
    /// Magic number 0x377f0683.
    BigEndian,
}

/// A checksum, and the state from which the checksum of the next bytes goes on (section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(pub u32, pub u32);

impl Checksum {
    /// The checksum of what this one covers followed by `bytes`. The format sums whole pairs of 32-bit words;
    /// a remainder of less than 8 bytes is left out.
    ///
    /// ```
    /// use hardened_vfs::format::wal::{Checksum, ChecksumOrder};
    ///
    /// let sum = Checksum::default().over(&[1, 0, 0, 0, 2, 0, 0, 0], ChecksumOrder::LittleEndian);
    /// assert_eq!(sum, Checksum(1, 3));
    /// ```
    #[must_use]
    pub fn over(self, bytes: &[u8], order: ChecksumOrder) -> Checksum {
        let Checksum(mut first, mut second) = self;
        for pair in bytes.chunks_exact(8) {
            let (x, y) = match (order, pair) {
                (ChecksumOrder::LittleEndian, &[a, b, c, d, e, f, g, h]) => {
                    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
                }
                (ChecksumOrder::BigEndian, &[a, b, c, d, e, f, g, h]) => {
                    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
                }
                // chunks_exact gives slices of eight.
                _ => continue,
            };
            first = first.wrapping_add(x).wrapping_add(second);
            second = second.wrapping_add(y).wrapping_add(first);
        }
        Checksum(first, second)
    }
}

/// The header of a write-ahead log (section 4.1).
///
/// ```
/// use hardened_vfs::format::wal::{Header, HeaderError};
///
/// assert_eq!(Header::parse(b""), Err(HeaderError::Truncated { have: 0 }));
/// assert!(matches!(Header::parse(&[0; 32]), Err(HeaderError::NotWal { .. })));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// How the checksums of this log read its bytes.
    pub order: ChecksumOrder,
    /// Page size of the database, 512 to 65536.
    pub page_size: u32,
    /// Counts the generations of the log: each reset after a checkpoint adds one.
    pub checkpoint_sequence: u32,
    /// The salts, which change with each generation; every frame of this generation repeats them.
    pub salts: [u32; 2],
    /// The checksum of the header, from which that of the first frame goes on.
    pub checksum: Checksum,
}

impl Header {
    /// Reads the header from the first bytes of a log and verifies its checksum.
    ///
    /// # Errors
    ///
    /// [`HeaderError`], when SQLite would not recover a single frame from the log.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let Some(h) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(HeaderError::Truncated { have: bytes.len() });
        };
        let magic = be32::<0, HEADER_SIZE>(h);
        if magic & !1 != MAGIC {
            return Err(HeaderError::NotWal { seen: printable_prefix(bytes) });
        }
        let order = if magic == MAGIC { ChecksumOrder::LittleEndian } else { ChecksumOrder::BigEndian };
        let page_size = be32::<8, HEADER_SIZE>(h);
        if !is_page_size(page_size) {
            return Err(HeaderError::BadPageSize(page_size));
        }
        let stored = Checksum(be32::<24, HEADER_SIZE>(h), be32::<28, HEADER_SIZE>(h));
        if Checksum::default().over(&h[..24], order) != stored {
            return Err(HeaderError::BadChecksum);
        }
        let version = be32::<4, HEADER_SIZE>(h);
        if version != VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        Ok(Header {
            order,
            page_size,
            checkpoint_sequence: be32::<12, HEADER_SIZE>(h),
            salts: [be32::<16, HEADER_SIZE>(h), be32::<20, HEADER_SIZE>(h)],
            checksum: stored,
        })
    }

    /// The length of a frame with its header in bytes.
    #[must_use]
    pub fn frame_size(&self) -> u64 {
        u64::from(self.page_size) + FRAME_HEADER_SIZE as u64
    }
}

/// Why the bytes are not the header of a write-ahead log that SQLite would read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file ends before the header does; an empty log is the usual case.
    Truncated {
        /// How many bytes there are.
        have: usize,
    },
    /// The file does not start with the magic number.
    NotWal {
        /// The first sixteen bytes; those that are not printable ASCII are escaped.
        seen: String,
    },
    /// The page size is not a power of two from 512 to 65536.
    BadPageSize(u32),
    /// The checksum of the header is wrong.
    BadChecksum,
    /// The header is sound, and its version is not [`VERSION`]; SQLite refuses to open the database.
    UnknownVersion(u32),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Truncated { have: 0 } => f.write_str("the write-ahead log is empty"),
            HeaderError::Truncated { have } => {
                write!(f, "the write-ahead log ends after {have} of the {HEADER_SIZE} bytes of its header")
            }
            HeaderError::NotWal { seen } => {
                write!(f, "the file does not start as a write-ahead log does (it starts with \"{seen}\")")
            }
            HeaderError::BadPageSize(size) => {
                write!(f, "the write-ahead log has page size {size}, not a power of two from 512 to 65536")
            }
            HeaderError::BadChecksum => f.write_str("the header of the write-ahead log does not match its checksum"),
            HeaderError::UnknownVersion(version) => {
                write!(f, "the write-ahead log has version {version}; SQLite knows {VERSION}")
            }
        }
    }
}

impl std::error::Error for HeaderError {}
