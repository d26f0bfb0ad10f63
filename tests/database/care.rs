//! Checks and backups of a shared database.

use std::fs;
use std::ops::ControlFlow;

use hardened_sqlite::{Backup, Check, Error, Options, PolicyChoice};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{count, descriptors, insert, made};

#[test]
fn a_check_runs_on_a_connection_in_use_and_opens_no_other() {
    for policy in [PolicyChoice::Wal, PolicyChoice::Delete] {
        let home = TempDir::new().unwrap();
        let path = home.path().join("app.db");
        let db = Options::new().policy(policy).readers(1).open(&path).unwrap();
        db.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, writer, seq)")).unwrap();
        assert_eq!(count(&db), 0);
        let once = descriptors(&path);
        for check in [Check::Quick, Check::Full, Check::Pages] {
            let mut most = 0;
            let mut watch = |_| {
                most = most.max(descriptors(&path));
                ControlFlow::Continue(())
            };
            assert!(db.check_with(check, &mut watch).unwrap().is_ok());
            assert!(db.check(check).unwrap().is_ok());
            // The reading ahead has one of its own.
            assert!(most <= once + 1, "{check}: {most} of {once}");
        }
        insert(&db, 1).unwrap();
    }
}

#[test]
fn a_backup_holds_what_was_committed_and_can_be_stopped() {
    let (home, db) = made();
    let backup = Backup::to(home.path().join("app.db.bak")).keep(2);
    insert(&db, 1).unwrap();
    db.backup(&backup).unwrap();
    insert(&db, 2).unwrap();
    let stopped = db.backup_with(&backup, &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(stopped, Error::Cancelled(_)), "{stopped:?}");
    let rows = |name: &str| {
        let saved = Connection::open(home.path().join(name)).unwrap();
        saved.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(rows("app.db.bak"), 1);
    db.backup(&backup).unwrap();
    assert_eq!((rows("app.db.bak"), rows("app.db.bak.1")), (2, 1));
    assert!(db.backup(&backup).unwrap().identical, "nothing has changed, and nothing is rotated");
    assert_eq!((rows("app.db.bak"), rows("app.db.bak.1")), (2, 1));
}

#[test]
fn before_an_open_a_sound_database_is_backed_up_and_a_damaged_one_is_an_error() {
    let (home, db) = made();
    (0..2000).for_each(|x| assert_eq!(insert(&db, x).unwrap(), 1));
    drop(db);
    let (path, saved) = (home.path().join("app.db"), home.path().join("app.db.bak"));
    let options = Options::new().backup_before_open(Backup::to(&saved).keep(2));
    drop(options.open(&path).unwrap());
    let good = fs::read(&saved).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0);
    fs::write(&path, bytes).unwrap();
    for error in [options.open(&path).unwrap_err(), options.open_connection(&path).unwrap_err()] {
        assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
        assert!(error.hint().unwrap().contains("recover"), "{error:?}");
    }
    assert_eq!(fs::read(&saved).unwrap(), good);
    assert!(!home.path().join("app.db.bak.1").exists(), "no good one has moved for a bad one");
    // Without the check it opens as with stock SQLite, and fails where it is read.
    drop(Options::new().open(&path).unwrap());
}
