//! SQLite's files read as bytes: the database header, the write-ahead log, its index and the rollback journal.
//!
//! Invariant: nothing here opens, locks or changes a file, and no input makes it panic. A parser is given
//! bytes (or an [`std::io::Read`]) and answers what SQLite itself would conclude from them, so that a
//! diagnosis can be made of a file that SQLite refuses, or while another process holds it.
//!
//! The formats are those of the [SQLite file format document](https://www.sqlite.org/fileformat2.html):
//! section 1.3 for the database header, 3 for the rollback journal and 4 for the write-ahead log.

pub mod database;
pub mod journal;
pub mod lookalike;
pub mod wal;
pub mod wal_index;

/// The big-endian 16-bit field at byte `AT`. That the field lies inside the header is checked when compiled.
fn be16<const AT: usize, const N: usize>(header: &[u8; N]) -> u16 {
    const { assert!(AT + 2 <= N) };
    u16::from_be_bytes([header[AT], header[AT + 1]])
}

/// The big-endian 32-bit field at byte `AT`. That the field lies inside the header is checked when compiled.
fn be32<const AT: usize, const N: usize>(header: &[u8; N]) -> u32 {
    const { assert!(AT + 4 <= N) };
    u32::from_be_bytes([header[AT], header[AT + 1], header[AT + 2], header[AT + 3]])
}

/// Whether SQLite accepts `size` as a page size: a power of two from 512 to 65536.
fn is_page_size(size: u32) -> bool {
    size.is_power_of_two() && (512..=65536).contains(&size)
}

/// The first bytes of a file as a person can read them: printable ASCII as it is, the rest escaped.
fn printable_prefix(bytes: &[u8]) -> String {
    bytes.iter().take(16).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect()
}
