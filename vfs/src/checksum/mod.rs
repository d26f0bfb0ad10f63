//! Checksums of pages, in the format of SQLite's checksum VFS (<https://www.sqlite.org/cksumvfs.html>).
//!
//! Invariants: what stands in the header of the database decides, not an option: as long as it reserves exactly 8 bytes of
//! each page, every page that reaches the database file carries the right sum, and no byte of a database that does not is
//! touched. The option decides whether a wrong sum is an error when a page is read.
//!
//! Frames of the WAL carry no right sums: SQLite has computed the checksum of the frame over the page before xWrite sees it,
//! so a changed byte would make recovery throw the frame away. Pages get their sums when a checkpoint writes them to the
//! database. For the same reason the sum is put into a copy and never into SQLite's own buffer.

pub(crate) mod header;
pub(crate) mod pages;
pub(crate) mod pragma;
pub(crate) mod reserve;
pub mod sum;
mod transaction;
