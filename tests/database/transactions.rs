//! What runs on a shared database, and in which order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hardened_sqlite::rusqlite::ffi;
use hardened_sqlite::{Database, Error, Options, PolicyChoice};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{count, descriptors, insert, made};

/// In a rollback journal mode, and never waiting for others.
fn impatient(policy: PolicyChoice) -> (TempDir, Database) {
    let home = TempDir::new().unwrap();
    let options = Options::new().policy(policy).busy_timeout(Duration::ZERO).patience(Duration::ZERO);
    let db = options.open(home.path().join("app.db")).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY)")).unwrap();
    (home, db)
}

const BOTH: [PolicyChoice; 2] = [PolicyChoice::Wal, PolicyChoice::Delete];

#[test]
fn what_fails_or_panics_is_rolled_back_and_the_next_goes_on() {
    for policy in BOTH {
        let (_home, db) = impatient(policy);
        let error = db.write(|tx| tx.execute("INSERT INTO t VALUES (1)", []).and_then(|_| tx.execute("nonsense", [])));
        let error = error.unwrap_err();
        assert!(error.rusqlite().is_some() && error.path() == Some(db.path()), "{error:?}");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            db.write::<()>(|tx| {
                tx.execute("INSERT INTO t VALUES (2)", [])?;
                panic!("on purpose")
            })
        }));
        assert!(panicked.is_err());
        let panicked = catch_unwind(AssertUnwindSafe(|| db.read::<()>(|_| panic!("on purpose"))));
        assert!(panicked.is_err());
        // Left open by somebody who did not use write().
        db.with_writer(|c| c.execute_batch("BEGIN; INSERT INTO t VALUES (3)")).unwrap();
        assert_eq!(count(&db), 0);
        insert(&db, 4).unwrap();
        assert_eq!(count(&db), 1);
    }
}

#[test]
fn a_read_is_of_one_moment_while_others_write() {
    let (_home, db) = made();
    insert(&db, 1).unwrap();
    db.read(|c| {
        let look = || c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(look()?, 1);
        insert(&db, 2).unwrap();
        assert_eq!(count(&db), 2, "a read within a read is of its own moment");
        assert_eq!(look()?, 1);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_read_cannot_write() {
    for policy in BOTH {
        let (_home, db) = impatient(policy);
        let error = db.read(|c| c.execute("INSERT INTO t VALUES (1)", [])).unwrap_err();
        assert_eq!(error.code().unwrap() & 0xff, ffi::SQLITE_READONLY, "{error}");
        insert(&db, 2).unwrap();
    }
}

#[test]
fn in_a_rollback_journal_mode_there_is_one_connection() {
    let (home, db) = impatient(PolicyChoice::Delete);
    let path = home.path().join("app.db");
    let once = descriptors(&path);
    assert_eq!(db.read(|_| Ok(descriptors(&path))).unwrap(), once);
    let (home, db) = impatient(PolicyChoice::Wal);
    let path = home.path().join("app.db");
    let once = descriptors(&path);
    assert!(db.read(|_| Ok(descriptors(&path))).unwrap() > once);
}

#[test]
fn a_thread_that_would_wait_for_itself_gets_an_error() {
    for policy in BOTH {
        let (_home, db) = impatient(policy);
        db.write(|_| {
            let error = insert(&db, 1).unwrap_err();
            assert!(error.to_string().contains("would wait for itself"), "{error}");
            let read = db.read(|c| c.query_row("SELECT count(*) FROM t", [], |_| Ok(())));
            assert_eq!(read.is_ok(), policy == PolicyChoice::Wal, "{read:?}");
            assert!(!db.report().path.is_empty(), "as it was last seen");
            Ok(())
        })
        .unwrap();
        insert(&db, 2).unwrap();
    }
}

#[test]
fn no_more_readers_are_opened_than_allowed_and_all_get_their_turn() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let db = Options::new().readers(2).open(&path).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x)")).unwrap();
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..50 {
                    db.read(|c| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        c.prepare_cached("SELECT count(*) FROM t")?.query_row([], |_| Ok(()))?;
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[test]
fn a_lock_of_somebody_else_is_waited_for_as_long_as_patience_lasts_and_the_work_has_not_begun() {
    for policy in BOTH {
        let (home, db) = impatient(policy);
        let other = Connection::open(home.path().join("app.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = db.write::<()>(|_| panic!("never begun")).unwrap_err();
        assert!(matches!(error, Error::Busy(_)), "{error:?}");
        other.execute_batch("COMMIT").unwrap();
        insert(&db, 1).unwrap();
    }
    let home = TempDir::new().unwrap();
    let options = Options::new().busy_timeout(Duration::ZERO).patience(Duration::from_secs(100));
    let db = options.open(home.path().join("app.db")).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x)")).unwrap();
    let other = Connection::open(home.path().join("app.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| insert(&db, 1));
        other.execute("INSERT INTO t VALUES (0)", []).unwrap();
        assert!(!waits.is_finished());
        other.execute_batch("COMMIT").unwrap();
        waits.join().unwrap().unwrap();
    });
    assert_eq!(count(&db), 2);
}

/// In DELETE mode a reader keeps the writer from its commit, after the work was done.
#[test]
fn a_commit_that_others_hold_up_is_tried_again_without_doing_the_work_twice() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let options = Options::new().policy(PolicyChoice::Delete).busy_timeout(Duration::ZERO);
    let db = options.clone().patience(Duration::ZERO).open(&path).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")).unwrap();
    let reads = |path| {
        let reader = Connection::open(path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        reader
    };
    let reader = reads(&path);
    let error = insert(&db, 2).unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error:?}");
    drop(reader);
    assert_eq!(count(&db), 1, "it is not there, as the error says");
    drop(db);

    // Two stock connections of a process would share a lock.
    let plain = options.clone();
    let db = options.patience(Duration::from_secs(100)).open(&path).unwrap();
    let (reader, done) = (reads(&path), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            db.write(|tx| {
                done.fetch_add(1, Ordering::SeqCst);
                tx.execute("INSERT INTO t VALUES (3)", [])
            })
        });
        // Once it has tried to commit nobody can begin to read.
        let late = plain.open_connection(&path).unwrap();
        while late.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_ok() && !writes.is_finished() {
            std::thread::yield_now();
        }
        assert!(!writes.is_finished(), "{:?}", writes.join());
        drop(reader);
        writes.join().unwrap().unwrap();
    });
    assert_eq!((count(&db), done.into_inner()), (2, 1));
}

#[test]
fn a_database_that_is_opened_for_reading_is_read_and_not_written() {
    let (home, db) = made();
    insert(&db, 1).unwrap();
    drop(db);
    let db = Options::new().read_only(true).open(home.path().join("app.db")).unwrap();
    assert_eq!(count(&db), 1);
    let error = insert(&db, 2).unwrap_err();
    assert_eq!(error.code().unwrap() & 0xff, ffi::SQLITE_READONLY, "{error}");
    db.close().unwrap();
}

#[test]
fn settings_are_set_shown_and_can_be_overridden() {
    let (home, db) = made();
    let settings = db.report().settings;
    for word in
        ["foreign_keys on", "trusted_schema off", "defensive on", "cell_size_check on", "journal_size_limit 67108864"]
    {
        assert!(settings.contains(word), "{word}: {settings}");
    }
    assert_eq!(db.report().busy_timeout, Some(2000));
    let key = "CREATE TABLE a(x PRIMARY KEY); CREATE TABLE b(x REFERENCES a)";
    db.write(|tx| tx.execute_batch(key)).unwrap();
    assert!(db.write(|tx| tx.execute("INSERT INTO b VALUES (1)", [])).is_err());
    let schema = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'x'";
    assert!(db.write(|tx| tx.execute_batch(schema)).is_err());
    drop(db);
    let options = Options::new().foreign_keys(false).trusted_schema(true).defensive(false).cell_size_check(false);
    let db = options.journal_size_limit(None).mmap_size(1 << 20).open(home.path().join("app.db")).unwrap();
    let settings = db.report().settings;
    for word in
        ["foreign_keys off", "trusted_schema on", "defensive off", "cell_size_check off", "journal_size_limit -1"]
    {
        assert!(settings.contains(word), "{word}: {settings}");
    }
    assert!(settings.contains("mmap_size 1048576"), "{settings}");
    db.write(|tx| tx.execute("INSERT INTO b VALUES (1)", [])).unwrap();
}
