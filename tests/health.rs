//! Checks of a database in use: what is damage, of which kind, and what is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "health/damage.rs"]
mod damage;
#[path = "health/watching.rs"]
mod watching;
#[path = "health/writing.rs"]
mod writing;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use hardened_sqlite::health::{Kind, reindex};
use hardened_sqlite::{Check, ChecksumChoice, Error, Health, Options, PolicyChoice, check};
use rusqlite::{Connection, OpenFlags};
use support::ask::text;
use support::fault_vfs::{Call, FailSpec, FaultVfs};
use tempfile::TempDir;

const ALL: [Check; 3] = [Check::Quick, Check::Full, Check::Pages];

/// Options for WAL, for a rollback journal, and for both with checksums.
fn ways() -> Vec<(&'static str, Options)> {
    let delete = || Options::new().policy(PolicyChoice::Delete);
    vec![
        ("wal", Options::new()),
        ("delete", delete()),
        ("wal, sums", Options::new().checksum(ChecksumChoice::On)),
        ("delete, sums", delete().checksum(ChecksumChoice::On)),
    ]
}

/// A database with a table, two indexes, long values, and free pages.
fn database(home: &TempDir, options: &Options) -> PathBuf {
    let path = home.path().join("app.db");
    fill(&options.open_connection(&path).unwrap());
    path
}

fn fill(connection: &Connection) {
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB); CREATE INDEX i ON t(a); \
             CREATE UNIQUE INDEX \"odd \"\" name; --\" ON t(b); CREATE TABLE gone(x); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) \
             INSERT INTO t SELECT i, 'row ' || i, CAST(i || hex(zeroblob(CASE WHEN i % 50 THEN 40 ELSE 5000 END)) AS BLOB) \
             FROM n; \
             INSERT INTO gone SELECT zeroblob(3000) FROM t; DROP TABLE gone",
        )
        .unwrap();
}

fn stock(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix").unwrap()
}

fn kinds(health: &Health) -> Vec<Kind> {
    health.findings.iter().map(|finding| finding.kind.clone()).collect()
}

/// Takes the index out of the schema, changes the table, and puts it back.
fn behind_the_index(path: &Path, index: &str, change: &str) {
    let connection = stock(path);
    let name = index.replace('\'', "''");
    connection
        .execute_batch(&format!(
            "PRAGMA writable_schema=ON; CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = '{name}'; \
             DELETE FROM sqlite_schema WHERE name = '{name}'; PRAGMA writable_schema=RESET"
        ))
        .unwrap();
    connection.execute_batch(change).unwrap();
    connection
        .execute_batch(
            "PRAGMA writable_schema=ON; INSERT INTO sqlite_schema SELECT * FROM kept; PRAGMA writable_schema=RESET",
        )
        .unwrap();
}

#[test]
fn nothing_is_found_in_a_sound_database_in_any_mode_within_or_without_a_transaction() {
    for (way, options) in ways() {
        let home = TempDir::new().unwrap();
        let path = database(&home, &options);
        let connection = options.open_connection(&path).unwrap();
        for within in [false, true] {
            if within {
                connection.execute_batch("BEGIN IMMEDIATE; UPDATE t SET a = 'x' WHERE id = 1").unwrap();
            }
            for what in ALL {
                let health = check(&connection, what).unwrap();
                assert!(health.is_ok() && health.is_sound() && !health.is_index_only(), "{way}, {within}: {health}");
                assert_eq!(health.checksums, way.contains("sums"), "{way}, {what}");
                assert!(health.pages > 200, "{health}");
                assert_eq!(connection.is_autocommit(), !within, "the transaction is as it was");
            }
        }
    }
}

#[test]
fn a_database_in_memory_and_one_of_another_vfs_are_checked_too_but_not_page_by_page() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    for connection in [Connection::open_in_memory().unwrap(), stock(&path)] {
        assert!(check(&connection, Check::Quick).unwrap().is_ok());
        assert!(check(&connection, Check::Full).unwrap().is_ok());
        assert_eq!(check(&connection, Check::Pages), Err(Error::NotHardened));
    }
}

#[test]
fn an_index_that_lacks_a_row_is_told_with_its_name_and_made_anew() {
    for (way, options) in ways() {
        for index in ["i", "odd \" name; --"] {
            let home = TempDir::new().unwrap();
            let path = database(&home, &options);
            if way.contains("sums") {
                // Stock SQLite would leave pages with stale sums.
                continue;
            }
            behind_the_index(&path, index, "UPDATE t SET a = 'other', b = x'00' WHERE id = 77");
            let connection = options.open_connection(&path).unwrap();
            assert!(check(&connection, Check::Quick).unwrap().is_ok(), "it does not look at that");
            let health = check(&connection, Check::Full).unwrap();
            assert!(health.is_index_only() && !health.is_sound(), "{way}: {health}");
            assert_eq!(health.indexes(), [index], "{way}: {health}");
            let after = reindex(&connection, &health).unwrap();
            assert!(after.is_ok(), "{after}");
            assert!(check(&connection, Check::Full).unwrap().is_ok());
        }
    }
}

#[test]
fn a_unique_index_that_cannot_be_made_anew_leaves_everything_as_it_was() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    behind_the_index(&path, "odd \" name; --", "UPDATE t SET b = x'00' WHERE id < 3");
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    let health = check(&connection, Check::Full).unwrap();
    assert!(health.is_index_only(), "{health}");
    let error = reindex(&connection, &health).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt(detail) if detail.hint.as_ref().unwrap().contains("kept apart")),
        "{error}"
    );
    assert!(connection.is_autocommit());
    assert_eq!(check(&connection, Check::Full).unwrap().findings, health.findings);
}

#[test]
fn indexes_are_not_made_anew_over_damaged_rows_or_within_a_transaction() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    let mut health = check(&connection, Check::Full).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    assert!(matches!(reindex(&connection, &health), Err(Error::Busy(_))));
    connection.execute_batch("COMMIT").unwrap();
    assert!(reindex(&connection, &health).unwrap().is_ok(), "nothing to do");
    let finding = r#"{"kind":"free-list","message":"Freelist: size is 3 but should be 4"}"#;
    health.findings.push(serde_json::from_str(finding).unwrap());
    assert!(matches!(reindex(&connection, &health), Err(Error::Corrupt(_))));
}

#[test]
fn a_row_that_breaks_a_rule_is_no_damage() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    stock(&path)
        .execute_batch(
            "CREATE TABLE r(a, b); INSERT INTO r VALUES (NULL, 3); PRAGMA writable_schema=ON; \
             UPDATE sqlite_schema SET sql = 'CREATE TABLE r(a NOT NULL, b CHECK (b < 3))' WHERE name = 'r'",
        )
        .unwrap();
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    let health = check(&connection, Check::Quick).unwrap();
    assert_eq!(kinds(&health), [Kind::Content, Kind::Content], "{health}");
    assert!(health.is_sound() && !health.is_ok());
    let json = serde_json::to_string(&health).unwrap();
    assert_eq!(serde_json::from_str::<Health>(&json).unwrap(), health);
}

#[test]
fn a_check_leaves_settings_and_running_statements_as_they_are() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    for on in [true, false] {
        let connection = Options::new().cell_size_check(on).open_connection(&path).unwrap();
        for what in ALL {
            assert!(check(&connection, what).unwrap().is_ok());
            assert_eq!(text(&connection, "PRAGMA cell_size_check"), i32::from(on).to_string(), "after {what:?}");
        }
        let stopped = hardened_sqlite::check_with(&connection, Check::Full, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(Error::Cancelled(_))));
        assert_eq!(text(&connection, "PRAGMA cell_size_check"), i32::from(on).to_string(), "after a stop");
        // A subquery that has its first row still to come, with a table of its own.
        let sql =
            "SELECT id, CASE WHEN id > 1 THEN (SELECT count(*) FROM t AS u WHERE u.id <= t.id) END FROM t ORDER BY id";
        let mut statement = connection.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        rows.next().unwrap().unwrap();
        assert!(check(&connection, Check::Full).unwrap().is_ok());
        let second: u32 = rows.next().unwrap().unwrap().get(1).unwrap();
        assert_eq!(second, 2);
    }
}

#[test]
fn a_locked_database_is_busy_and_not_damaged() {
    let home = TempDir::new().unwrap();
    let options = Options::new().policy(PolicyChoice::Delete).busy_timeout(std::time::Duration::ZERO);
    let path = database(&home, &options);
    let connection = options.open_connection(&path).unwrap();
    let other = stock(&path);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for what in ALL {
        assert!(matches!(check(&connection, what), Err(Error::Busy(_))), "{what}");
    }
    other.execute_batch("COMMIT").unwrap();
    assert!(check(&connection, Check::Full).unwrap().is_ok());
}

#[test]
fn a_read_that_fails_is_an_error_of_the_check_and_no_finding() {
    let faults = FaultVfs::register("failing-reads");
    let home = TempDir::new().unwrap();
    let options = Options::new().policy(PolicyChoice::Delete).base("failing-reads");
    let path = database(&home, &options);
    for code in [rusqlite::ffi::SQLITE_IOERR_READ, rusqlite::ffi::SQLITE_BUSY, rusqlite::ffi::SQLITE_NOMEM] {
        for skip in [3, 8, 40, 150] {
            let connection = options.open_connection(&path).unwrap();
            faults.fail(Call::Read, FailSpec::code(code).name("app.db").skip(skip).times(1));
            for what in [Check::Quick, Check::Full] {
                let health = check(&connection, what);
                assert!(health.as_ref().map_or(true, Health::is_ok), "{code}, {skip}: {health:?}");
            }
            faults.clear();
            assert!(check(&connection, Check::Full).unwrap().is_ok());
        }
    }
    assert_eq!(text(&options.open_connection(&path).unwrap(), "SELECT count(*) FROM t"), "600");
}
