//! What each page of a database is, told without SQLite and compared with what SQLite says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use hardened_sqlite::Error;
use hardened_sqlite::page_map::{PageKind, PageMap};
use rusqlite::Connection;
use tempfile::TempDir;

#[path = "salvage/corpus.rs"]
mod corpus;
#[path = "salvage/damage.rs"]
mod damage;
#[path = "page_map/damaged.rs"]
mod damaged;
#[path = "page_map/in_use.rs"]
mod in_use;

use corpus::KINDS;
use damage::{ALL, Random};

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    (home, path)
}

fn map(path: &Path) -> PageMap {
    let map = PageMap::read(path).unwrap();
    let all: u64 = PageKind::ALL.into_iter().map(|kind| map.count(kind)).sum();
    assert_eq!(all, map.kinds().len() as u64, "each page is one thing");
    map
}

fn number(connection: &Connection, sql: &str) -> u64 {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

/// The pages of trees, as the virtual table dbstat tells them: their words there, and whether they are of an index.
fn trees(connection: &Connection) -> BTreeMap<u32, (String, bool)> {
    let sql = "SELECT s.pageno, s.pagetype,
                   coalesce((SELECT type = 'index' FROM sqlite_schema WHERE name = s.name), 0)
                   OR EXISTS (SELECT 1 FROM pragma_table_list(s.name) WHERE wr)
               FROM dbstat AS s";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[track_caller]
fn assert_as_sqlite_says(path: &Path, name: &str) {
    let map = map(path);
    assert_eq!((map.count(PageKind::Damaged), map.unsettled()), (0, None), "{name}: {map:?}");
    assert_eq!(map.count(PageKind::Orphan), 0, "{name}");
    let connection = Connection::open(path).unwrap();
    assert_eq!(map.kinds().len() as u64, number(&connection, "PRAGMA page_count"), "{name}");
    assert_eq!(u64::from(map.page_size()), number(&connection, "PRAGMA page_size"), "{name}");
    let free = map.count(PageKind::FreeTrunk) + map.count(PageKind::FreeLeaf);
    assert_eq!(free, number(&connection, "PRAGMA freelist_count"), "{name}");
    let trees = trees(&connection);
    for (page, kind) in (1..).zip(map.kinds()) {
        let expected: &[PageKind] = match trees.get(&page).map(|(word, index)| (word.as_str(), *index)) {
            Some(("internal", false)) => &[PageKind::TableInterior],
            Some(("internal", true)) => &[PageKind::IndexInterior],
            Some(("leaf", false)) => &[PageKind::TableLeaf],
            Some(("leaf", true)) => &[PageKind::IndexLeaf],
            Some(("overflow", _)) => &[PageKind::Overflow],
            _ => &[PageKind::FreeTrunk, PageKind::FreeLeaf, PageKind::PointerMap],
        };
        assert!(expected.contains(kind), "{name}: page {page} is {kind:?} and dbstat says {:?}", trees.get(&page));
    }
}

#[test]
fn every_page_of_a_sound_database_of_any_kind_is_what_dbstat_says() {
    for kind in KINDS {
        let (_home, path) = home();
        kind.make(&path);
        assert_as_sqlite_says(&path, kind.name);
    }
}

#[test]
fn free_pages_and_overflow_are_counted() {
    let (_home, path) = home();
    let connection = Connection::open(&path).unwrap();
    let sql = "PRAGMA page_size = 1024; CREATE TABLE t(x); CREATE TABLE gone(x);
               INSERT INTO t VALUES (zeroblob(10000)); INSERT INTO gone VALUES (zeroblob(20000)); DROP TABLE gone";
    connection.execute_batch(sql).unwrap();
    drop(connection);
    let map = map(&path);
    let counts = PageKind::ALL.map(|kind| map.count(kind));
    // 10,000 bytes: 860 of them in the row, 9 pages of 1020. Of 20,000 there are 19, and the page of their row.
    assert_eq!(counts, [0, 2, 0, 0, 9, 1, 19, 0, 0, 0, 0], "{map:?}");
    assert_as_sqlite_says(&path, "counted");
}

#[test]
fn pointer_maps_stand_where_auto_vacuum_puts_them() {
    let (_home, path) = home();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA page_size = 512; PRAGMA auto_vacuum = INCREMENTAL").unwrap();
    connection.execute_batch("CREATE TABLE t(x); CREATE TABLE gone(x)").unwrap();
    for table in ["t", "gone", "t"] {
        let sql = format!("INSERT INTO {table} SELECT zeroblob(700) FROM generate_series");
        let series = "WITH RECURSIVE generate_series(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM generate_series WHERE i < 80) ";
        connection.execute(&format!("{series}{sql}"), []).unwrap();
    }
    connection.execute_batch("DROP TABLE gone").unwrap();
    drop(connection);
    let map = map(&path);
    // One for each 512 / 5 = 102 pages behind it.
    let maps: Vec<u32> = map.pages(PageKind::PointerMap).collect();
    assert_eq!(maps, (2..=map.kinds().len() as u32).step_by(103).collect::<Vec<_>>());
    assert!(maps.len() > 2 && map.count(PageKind::FreeLeaf) > 10, "{maps:?}");
    assert_as_sqlite_says(&path, "auto_vacuum");
}

#[test]
fn the_page_of_the_lock_bytes_is_none_of_any_tree() {
    let (_home, path) = home();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA page_size = 65536; CREATE TABLE t(x)").unwrap();
    drop(connection);
    // Longer than 1 GiB, with holes instead of pages.
    let (page, pages) = (65536_u64, 16386_u32);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(page * u64::from(pages)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &pages.to_be_bytes(), 28).unwrap();
    let map = map(&path);
    assert_eq!(map.pages(PageKind::LockByte).collect::<Vec<_>>(), [16385]);
    assert_eq!((map.count(PageKind::TableLeaf), map.count(PageKind::Orphan)), (2, u64::from(pages) - 3));
}

#[test]
fn what_is_no_database_has_no_map() {
    let (home, path) = home();
    assert!(PageMap::read(&path).is_err());
    assert!(PageMap::read(home.path()).is_err());
    std::fs::write(&path, "").unwrap();
    assert_eq!(map(&path).kinds(), []);
    for bytes in [&b"S"[..], b"Dear diary, today I wrote nothing.\n", &[0; 70_000], &[0xff; 10_000]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(PageMap::read(&path), Err(Error::NotADatabase(_))), "{:?}", PageMap::read(&path));
    }
}
