//! The last close.

use std::time::Duration;

use hardened_sqlite::{Options, open};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{count, insert, made};

#[test]
fn the_last_close_empties_the_log() {
    let (home, db) = made();
    assert_eq!(count(&db), 0);
    let wal = home.path().join("app.db-wal");
    assert!(wal.metadata().unwrap().len() > 0);
    let closed = db.close().unwrap();
    assert!(!closed.still_open && closed.log_left.is_none(), "{closed:?}");
    assert!(!wal.exists());
}

#[test]
fn a_log_that_others_read_is_left_with_a_word_about_it_and_nothing_is_lost() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let db = Options::new().busy_timeout(Duration::from_millis(1)).open(&path).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY)")).unwrap();
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    (0..20).for_each(|x| assert_eq!(insert(&db, x).unwrap(), 1));
    let closed = db.close().unwrap();
    let left = closed.log_left.unwrap();
    assert!(left.contains("pages of its log are not in the file yet, since others use it"), "{left}");
    assert!(left.contains("nothing is lost"), "{left}");
    drop(reader);
    let again = open(&path).unwrap();
    assert_eq!(count(&again), 20);
}

#[test]
fn a_close_is_given_up_at_its_limit_and_loses_nothing() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    // Longer than any test may take.
    let options = Options::new().busy_timeout(Duration::from_secs(3600)).close_limit(Duration::from_millis(100));
    let db = options.open(&path).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY)")).unwrap();
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    db.close().unwrap();
    writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&open(&path).unwrap()), 1);
}
