//! A damaged database becomes a sound one, is kept as it was, and is never worse than before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "recover/interrupted.rs"]
mod interrupted;
#[path = "recover/kept.rs"]
mod kept;
#[path = "recover/outcomes.rs"]
mod outcomes;
#[path = "recover/power_cut.rs"]
mod power_cut;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use support::ask::text;
use tempfile::TempDir;

fn stock(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix").unwrap()
}

const ROWS: u32 = 400;

/// A database of four hundred rows on pages of 1024 bytes, closed.
fn make(path: &Path) {
    let connection = stock(path);
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = 1024; CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX i ON t(x); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
             INSERT INTO t SELECT i, 'row ' || i || hex(zeroblob(20)) FROM n; PRAGMA user_version = 7; \
             CREATE TABLE u(y); INSERT INTO u VALUES('never touched')"
        ))
        .unwrap();
}

/// Overwrites part of the file.
fn write(path: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// The pages of an object that are of the kind of `first`, their first byte.
fn pages(path: &Path, first: u8, text: &[u8]) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    let is = |page: &&[u8]| page[0] == first && page.windows(text.len()).any(|window| window == text);
    bytes.chunks(1024).enumerate().filter(|(_, page)| is(page)).map(|(number, _)| number as u64 * 1024).collect()
}

/// Takes away one leaf of the table.
fn damage(path: &Path) {
    write(path, pages(path, 13, b"row 200")[0], &[0; 1024]);
}

/// All files in a directory, with what is in them.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default()))
        .collect()
}

fn count(path: &Path) -> u32 {
    let connection = stock(path);
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok", "{}", path.display());
    text(&connection, "SELECT count(*) FROM t").parse().unwrap()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

struct Place {
    home: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let home = TempDir::new().unwrap();
        let path = std::fs::canonicalize(home.path()).unwrap().join("app.db");
        make(&path);
        Place { home, path }
    }

    fn damaged() -> Place {
        let place = Place::new();
        damage(&place.path);
        place
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files(self.home.path())
    }
}
