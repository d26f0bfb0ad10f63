//! A database file as bytes.

use std::path::{Path, PathBuf};

use hardened_sqlite::hardened_vfs::checksum::sum;
use rusqlite::Connection;

/// The numbers of all pages whose sum is wrong, and how many pages there are.
pub(crate) fn wrong_pages(path: &Path) -> (Vec<usize>, usize) {
    let bytes = std::fs::read(path).unwrap();
    let size = page_size(&bytes);
    assert!(bytes.len() % size == 0 && !bytes.is_empty(), "{} bytes, pages of {size}", bytes.len());
    let pages = bytes.chunks_exact(size);
    let count = pages.len();
    (pages.enumerate().filter(|(_, page)| !sum::holds(page)).map(|(index, _)| index + 1).collect(), count)
}

/// All sums are right; how many pages there are.
#[track_caller]
pub(crate) fn assert_sealed(path: &Path, why: &str) -> usize {
    assert_eq!(reserved(path), 8, "{why}");
    let (wrong, count) = wrong_pages(path);
    assert!(wrong.is_empty(), "{why}: pages {wrong:?} of {count} have wrong sums");
    count
}

pub(crate) fn reserved(path: &Path) -> u8 {
    std::fs::read(path).unwrap()[20]
}

pub(crate) fn page_size(bytes: &[u8]) -> usize {
    match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => 65536,
        size => usize::from(size),
    }
}

/// Flips one bit.
pub(crate) fn flip(path: &Path, byte: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

/// Through the VFS `hardened`.
pub(crate) fn hardened(path: &Path, options: &str) -> Connection {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    Connection::open(uri(path, options)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn uri(path: &Path, options: &str) -> String {
    format!("file:{}?vfs=hardened&{options}", path.display())
}

/// Through the VFS `unix`.
pub(crate) fn stock(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), c"unix").unwrap()
}

/// The first value of the first row.
pub(crate) fn value(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    connection.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).map(|value| match value {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        other => format!("{other:?}"),
    })
}

/// A table with `rows` rows of about `bytes` bytes each, the same for the same seed.
pub(crate) fn fill(connection: &Connection, rows: u32, bytes: u32) {
    connection
        .execute_batch(&format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO t SELECT i, CAST(substr(replace(hex(zeroblob({bytes})), '00', char(97 + i % 26, 98 + i % 7)), 1, \
             {bytes}) || i AS BLOB) FROM n; CREATE INDEX i ON t(x)"
        ))
        .unwrap();
}

/// What the table holds, and that the database is in order.
pub(crate) fn content(connection: &Connection) -> (String, String) {
    let all = "SELECT count(*) || ' ' || sum(id * length(x)) || ' ' || group_concat(id || x, ',') FROM t";
    (value(connection, all).unwrap(), value(connection, "PRAGMA integrity_check").unwrap())
}

/// A path in a directory that lives as long as the test.
pub(crate) fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    (home, path)
}
