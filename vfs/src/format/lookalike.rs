//! What a file that is not an SQLite database looks like, in words that tell its owner what happened.
//!
//! Invariant: a verdict is a description, never a basis for changing or deleting anything; it is drawn from
//! the first bytes alone and may be wrong about files made to deceive.

use std::fmt;

/// What the first bytes of a file that is not a database resemble.
///
/// ```
/// use hardened_vfs::format::lookalike::Lookalike;
///
/// assert_eq!(Lookalike::of(&[0x1f, 0x8b, 0x08, 0]), Lookalike::Gzip);
/// assert_eq!(Lookalike::of(&[0x17, 3, 3, 0, 0x30]), Lookalike::TlsRecord);
/// assert_eq!(Lookalike::of(b"id,name\n1,Ada\n"), Lookalike::Text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lookalike {
    /// Only zero bytes: space that was allocated and never written, or a lost first page.
    ZeroFilled,
    /// A gzip stream (RFC 1952).
    Gzip,
    /// A zip archive.
    Zip,
    /// A Zstandard frame (RFC 8878).
    Zstd,
    /// An xz stream.
    Xz,
    /// A bzip2 stream.
    Bzip2,
    /// A TLS record header (RFC 8446 section 5.1). A program closed a descriptor that a network connection
    /// still used; the number was given to the database next, and the connection wrote into it.
    TlsRecord,
    /// A write-ahead log, the `-wal` file of a database.
    WriteAheadLog,
    /// A WAL-index, the `-shm` file of a database.
    WalIndex,
    /// A rollback journal, the `-journal` file of a database.
    RollbackJournal,
    /// A database of SQLite 2, which SQLite 3 does not read.
    Sqlite2,
    /// A Git LFS pointer: the large file itself has not been downloaded.
    GitLfsPointer,
    /// SQL text, as `.dump` writes it.
    SqlDump,
    /// Text of some other kind.
    Text,
    /// Bytes without visible structure: an encrypted database, or random data.
    Random,
    /// None of these.
    Unknown,
}

/// The signatures that decide by themselves, in no order: none is a prefix of another.
const SIGNATURES: &[(&[u8], Lookalike)] = &[
    (&[0x1f, 0x8b], Lookalike::Gzip),
    (b"PK\x03\x04", Lookalike::Zip),
    (b"PK\x05\x06", Lookalike::Zip),
    (&[0x28, 0xb5, 0x2f, 0xfd], Lookalike::Zstd),
    (b"\xfd7zXZ\x00", Lookalike::Xz),
    (b"BZh", Lookalike::Bzip2),
    (&[0x37, 0x7f, 0x06, 0x82], Lookalike::WriteAheadLog),
    (&[0x37, 0x7f, 0x06, 0x83], Lookalike::WriteAheadLog),
    (&super::journal::MAGIC, Lookalike::RollbackJournal),
    // The WAL-index version 3007000 in either byte order, then four unused bytes that are zero.
    (&[0x18, 0xe2, 0x2d, 0, 0, 0, 0, 0], Lookalike::WalIndex),
    (&[0, 0x2d, 0xe2, 0x18, 0, 0, 0, 0], Lookalike::WalIndex),
    (b"** This file contains an SQLite 2", Lookalike::Sqlite2),
    (b"version https://git-lfs.github.com/spec/", Lookalike::GitLfsPointer),
];

impl Lookalike {
    /// The best description of a file that starts with `bytes`. A hundred bytes are plenty; what lies beyond
    /// them is not looked at, except that [`Lookalike::ZeroFilled`] is said of all of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Lookalike {
        if bytes.is_empty() {
            return Lookalike::Unknown;
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Lookalike::ZeroFilled;
        }
        for (signature, kind) in SIGNATURES {
            if bytes.starts_with(signature) {
                return *kind;
            }
        }
        if is_tls_record(bytes) {
            return Lookalike::TlsRecord;
        }
        if let Some(text) = text_prefix(bytes) {
            let start = text.trim_start().to_ascii_uppercase();
            let dump = ["PRAGMA ", "BEGIN TRANSACTION", "CREATE TABLE", "--"];
            return if dump.iter().any(|word| start.starts_with(word)) { Lookalike::SqlDump } else { Lookalike::Text };
        }
        if is_random(bytes) {
            return Lookalike::Random;
        }
        Lookalike::Unknown
    }
}

impl fmt::Display for Lookalike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lookalike::ZeroFilled => "only zero bytes, as in space that was allocated and never written",
            Lookalike::Gzip => "a gzip-compressed file",
            Lookalike::Zip => "a zip archive",
            Lookalike::Zstd => "a Zstandard-compressed file",
            Lookalike::Xz => "an xz-compressed file",
            Lookalike::Bzip2 => "a bzip2-compressed file",
            Lookalike::TlsRecord => {
                "a TLS record: a network connection has written into this file, \
                 which happens when a program closes a descriptor that is still in use"
            }
            Lookalike::WriteAheadLog => "a write-ahead log, the -wal file of a database",
            Lookalike::WalIndex => "a WAL-index, the -shm file of a database",
            Lookalike::RollbackJournal => "a rollback journal, the -journal file of a database",
            Lookalike::Sqlite2 => "a database of SQLite 2, which SQLite 3 does not read",
            Lookalike::GitLfsPointer => "a Git LFS pointer: the database itself has not been downloaded",
            Lookalike::SqlDump => "SQL text, such as a dump of a database",
            Lookalike::Text => "text",
            Lookalike::Random => "random bytes, as in an encrypted database",
            Lookalike::Unknown => "a file of another kind",
        })
    }
}

/// A record header: content type 20 to 24, version 3.0 to 3.4, length up to 2^14 + 2048.
fn is_tls_record(bytes: &[u8]) -> bool {
    match bytes {
        [20..=24, 3, 0..=4, high, low, ..] => {
            let length = u16::from_be_bytes([*high, *low]);
            (1..=16384 + 2048).contains(&length)
        }
        _ => false,
    }
}

/// The first bytes as text, if all of them are: UTF-8 without control characters other than white space.
fn text_prefix(bytes: &[u8]) -> Option<&str> {
    let head = bytes.get(..64).unwrap_or(bytes);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character that the end of `head` cuts in two has no error length.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    (!text.is_empty() && text.chars().all(printable)).then_some(text)
}

/// Sixteen bytes of which nearly all differ and about half have the high bit set. File headers made of small
/// numbers and letters fail one of the two; fewer than one random prefix in a hundred does.
fn is_random(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<16>() else {
        return false;
    };
    let distinct = (0..16).filter(|i| !head[..*i].contains(&head[*i])).count();
    let high = head.iter().filter(|byte| **byte >= 0x80).count();
    distinct >= 13 && (4..=13).contains(&high)
}
