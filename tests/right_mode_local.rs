//! Promise 1 on a local filesystem: WAL and synchronous NORMAL, before anything is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hardened_sqlite::{Options, open_connection, report};
use rusqlite::{Connection, OpenFlags};
use support::ask::text;
use tempfile::TempDir;

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A plain open, as any program in any language does it.
fn plain(uri: &str) -> rusqlite::Result<Connection> {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    Connection::open_with_flags(uri, OpenFlags::default())
}

fn stock_database(path: &Path) -> PathBuf {
    let stock = Connection::open(path).unwrap();
    stock.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1), (2)").unwrap();
    path.to_owned()
}

fn wal_stamp(path: &Path) -> bool {
    std::fs::read(path).unwrap()[18..20] == [2, 2]
}

#[test]
fn a_new_database_is_wal_before_the_first_statement() {
    let home = home();
    let path = home.path().join("app.db");
    let connection = plain(&format!("file:{}?vfs=hardened", path.display())).unwrap();
    assert!(wal_stamp(&path), "page 1 says WAL before any statement of the application");
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal");
    assert_eq!(text(&connection, "PRAGMA synchronous"), "1");

    let stock = Connection::open(home.path().join("stock.db")).unwrap();
    assert_eq!(text(&stock, "PRAGMA journal_mode"), "delete", "stock SQLite does not do this by itself");
    assert_eq!(text(&stock, "PRAGMA synchronous"), "2");
}

#[test]
fn the_busy_timeout_is_two_seconds_unless_asked_otherwise() {
    let home = home();
    let path = home.path().join("app.db");
    let connection = open_connection(&path).unwrap();
    assert_eq!(text(&connection, "PRAGMA busy_timeout"), "2000");
    let connection = Options::new().busy_timeout(Duration::from_millis(77)).open_connection(&path).unwrap();
    assert_eq!(text(&connection, "PRAGMA busy_timeout"), "77");
}

#[test]
fn an_existing_rollback_database_is_switched_and_keeps_its_rows() {
    let home = home();
    let path = stock_database(&home.path().join("app.db"));
    let connection = open_connection(&path).unwrap();
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal");
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "2");
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
}

#[test]
fn read_only_immutable_and_nolock_databases_are_left_alone() {
    let home = home();
    let path = stock_database(&home.path().join("app.db"));
    let before = std::fs::read(&path).unwrap();
    for parameters in ["mode=ro", "immutable=1", "nolock=1"] {
        let connection = plain(&format!("file:{}?vfs=hardened&{parameters}", path.display())).unwrap();
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "2", "{parameters}");
        assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete", "{parameters}");
        drop(connection);
        assert_eq!(std::fs::read(&path).unwrap(), before, "{parameters}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "{parameters}: no journal was made");
    }
}

#[test]
fn in_memory_and_temporary_databases_are_left_alone() {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    for (name, mode) in [(":memory:", "memory"), ("", "delete"), ("file::memory:?vfs=hardened", "memory")] {
        let connection = Connection::open_with_flags_and_vfs(name, OpenFlags::default(), "hardened").unwrap();
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(text(&connection, "PRAGMA journal_mode"), mode, "{name:?}");
        assert!(report(&connection).is_err(), "{name:?} has no file to report on");
    }
}

#[test]
fn a_database_in_use_keeps_its_mode_and_the_report_says_why() {
    let home = home();
    let path = stock_database(&home.path().join("app.db"));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let connection = Options::new().busy_timeout(Duration::ZERO).open_connection(&path).unwrap();
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
    let notes = report(&connection).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("in use") && note.contains("delete")), "{notes:?}");
    other.execute_batch("INSERT INTO t VALUES (3); COMMIT").unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "3");

    let later = open_connection(&path).unwrap();
    assert_eq!(text(&later, "SELECT count(*) FROM t"), "3");
}

#[test]
fn a_database_locked_exclusively_can_still_be_opened() {
    let home = home();
    let path = stock_database(&home.path().join("app.db"));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let connection = Options::new().busy_timeout(Duration::ZERO).open_connection(&path).unwrap();
    let error = connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "2");
}

#[test]
fn the_applications_own_choices_above_the_floor_stand() {
    let home = home();
    let connection = open_connection(home.path().join("app.db")).unwrap();
    for (pragma, answer) in [("FULL", "2"), ("EXTRA", "3"), ("NORMAL", "1")] {
        connection.execute_batch(&format!("PRAGMA synchronous={pragma}")).unwrap();
        assert_eq!(text(&connection, "PRAGMA synchronous"), answer);
    }
    for mode in ["delete", "truncate", "persist", "wal"] {
        assert_eq!(text(&connection, &format!("PRAGMA journal_mode={mode}")), mode);
    }
}

#[test]
fn no_pragma_goes_below_the_floor() {
    let home = home();
    let connection = open_connection(home.path().join("app.db")).unwrap();
    let stock = Connection::open(home.path().join("stock.db")).unwrap();
    for value in ["OFF", "0", "no", "false", "7"] {
        connection.execute_batch(&format!("PRAGMA synchronous={value}")).unwrap();
        assert_eq!(text(&connection, "PRAGMA synchronous"), "1", "{value}");
        stock.execute_batch(&format!("PRAGMA synchronous={value}")).unwrap();
        assert_eq!(text(&stock, "PRAGMA synchronous"), "0", "stock obeys {value}");
    }
    for mode in ["OFF", "memory", "o", "m"] {
        assert_eq!(text(&connection, &format!("PRAGMA journal_mode={mode}")), "wal", "{mode}");
        assert_ne!(text(&stock, &format!("PRAGMA journal_mode={mode}")), "delete", "stock obeys {mode}");
    }
    connection.execute_batch("CREATE TABLE t(x)").unwrap();
    let notes = report(&connection).unwrap().notes;
    assert_eq!(notes.iter().filter(|note| note.contains("synchronous")).count(), 5, "{notes:?}");
}

#[test]
fn the_policy_off_is_a_pure_shim() {
    let home = home();
    let path = home.path().join("app.db");
    let connection = plain(&format!("file:{}?vfs=hardened&policy=off", path.display())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "nothing was written");
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
    assert_eq!(text(&connection, "PRAGMA journal_mode=off"), "off");
    connection.execute_batch("PRAGMA synchronous=OFF; CREATE TABLE t(x)").unwrap();
    assert_eq!(text(&connection, "PRAGMA synchronous"), "0");
    assert_eq!(report(&connection).unwrap().policy, "off");
}

#[test]
fn plain_connections_and_hardened_ones_share_one_database() {
    let home = home();
    let path = home.path().join("app.db");
    let hardened = open_connection(&path).unwrap();
    hardened.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    hardened.execute_batch("INSERT INTO t VALUES (3)").unwrap();
    for connection in [&hardened, &stock] {
        assert_eq!(text(connection, "SELECT group_concat(x) FROM t"), "1,2,3");
    }
}

#[test]
fn the_report_says_what_was_seen_and_chosen() {
    let home = home();
    let path = home.path().join("app.db");
    let connection = open_connection(&path).unwrap();
    let report = report(&connection).unwrap();
    assert_eq!(report.path, std::fs::canonicalize(&path).unwrap().display().to_string());
    assert_eq!((report.verdict.class.as_str(), report.verdict.wal), ("local", true));
    assert_eq!(report.journal_mode.as_deref(), Some("wal"));
    assert_eq!(report.synchronous.as_deref(), Some("NORMAL"));
    assert_eq!(report.busy_timeout, Some(2000));
    assert_eq!(report.base, "unix");
    assert_eq!(report.overridden, Vec::<String>::new());
    let words = report.to_string();
    for word in ["journal_mode wal", "synchronous NORMAL", &report.verdict.filesystem] {
        assert!(words.contains(word), "{words}");
    }

    let overridden = Options::new().fs(hardened_sqlite::FsChoice::Network).open_connection(home.path().join("b.db"));
    let report = hardened_sqlite::report(&overridden.unwrap()).unwrap();
    assert_eq!(report.journal_mode.as_deref(), Some("delete"));
    assert!(report.overridden[0].contains("fs=network"), "{report}");

    let stock = Connection::open(&path).unwrap();
    assert_eq!(hardened_sqlite::report(&stock).unwrap_err(), hardened_sqlite::Error::NotHardened);
}

#[test]
fn a_connection_that_is_busy_with_a_transaction_can_report() {
    let home = home();
    let connection = open_connection(home.path().join("app.db")).unwrap();
    connection.execute_batch("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(report(&connection).unwrap().journal_mode.as_deref(), Some("wal"));
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "1");
}
