//! The header of the WAL-index, as far as it tells how many frames of a log were committed.
//!
//! The -shm file is no record of anything: SQLite makes it anew from the log whenever nobody has it open. But on a host that
//! has run on since the last writer died it still says where that one's last commit ended.
//!
//! Source: [WAL-mode file format](https://www.sqlite.org/walformat.html), section 2.1.

use super::wal::{Checksum, ChecksumOrder};

/// The size of one of the two copies of the header in bytes.
const COPY: usize = 48;

/// The size of both copies in bytes: what [`Header::parse`] wants.
pub const HEADER_SIZE: usize = 2 * COPY;

/// The version of the format, the same as the log's.
const VERSION: u32 = 3_007_000;

/// What the WAL-index of a log says.
///
/// ```
/// use hardened_vfs::format::wal_index::{HEADER_SIZE, Header};
///
/// assert_eq!(Header::parse(&[0; HEADER_SIZE]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The salts of the log that it belongs to.
    pub salts: [u32; 2],
    /// The number of its last committed frame, from 1; 0 if there is none.
    pub frames: u32,
    /// It was made from the log, and nobody has committed since: it knows of no frame that was not found there.
    pub recovered: bool,
}

impl Header {
    /// Reads the header from the first bytes of a -shm file. Numbers are in the byte order of the host that wrote it, which
    /// is taken for this one; what has another order, or was being changed, is `None`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let first = bytes.get(..COPY)?;
        // A writer changes the second copy first.
        if bytes.get(COPY..HEADER_SIZE)? != first {
            return None;
        }
        let word =
            |at: usize| first.get(at..at + 4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let order = if cfg!(target_endian = "big") { ChecksumOrder::BigEndian } else { ChecksumOrder::LittleEndian };
        let sum = Checksum::default().over(first.get(..40)?, order);
        let initialized = first.get(12).is_some_and(|byte| *byte != 0);
        if word(0)? != VERSION || !initialized || (word(40)?, word(44)?) != (sum.0, sum.1) {
            return None;
        }
        // The salts are kept as they stand in the log.
        Some(Header { salts: [word(32)?.to_be(), word(36)?.to_be()], frames: word(16)?, recovered: word(8)? == 0 })
    }
}
