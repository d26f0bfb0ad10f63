//! Which handles are of one database.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hardened_sqlite::{Error, Options, open};
use support::fault_vfs::{Call, FaultVfs};
use support::{process, require};
use tempfile::TempDir;

use crate::{count, descriptors, insert, made};

#[test]
fn every_spelling_of_a_path_gives_the_same_connection() {
    let (home, db) = made();
    let path = home.path().join("app.db");
    let once = descriptors(&path);
    std::fs::create_dir(home.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(&path, home.path().join("link.db")).unwrap();
    std::os::unix::fs::symlink(home.path(), home.path().join("sub/up")).unwrap();
    std::fs::hard_link(&path, home.path().join("hard.db")).unwrap();
    let mut others = Vec::new();
    for spelling in ["app.db", "sub/../app.db", "./app.db", "link.db", "sub/up/app.db", "sub/up/link.db", "hard.db"] {
        let other = open(home.path().join(spelling)).unwrap();
        insert(&other, others.len() as i64).unwrap();
        others.push(other);
    }
    assert_eq!(descriptors(&path), once, "one connection");
    assert_eq!(count(&db), 7);
    // A temporary table lives in the one connection that writes.
    db.write(|tx| tx.execute_batch("CREATE TEMP TABLE mine(x)")).unwrap();
    others.iter().for_each(|other| other.write(|tx| tx.execute("INSERT INTO mine VALUES (1)", [])).map(drop).unwrap());
    let stock = rusqlite::Connection::open(&path).unwrap();
    assert!(stock.execute("INSERT INTO mine VALUES (1)", []).is_err(), "another connection has no such table");
}

#[test]
fn a_relative_path_means_what_it_meant_when_it_was_opened() {
    process::alone("cache::a_relative_path_means_what_it_meant_when_it_was_opened", || {
        let (home, db) = made();
        std::env::set_current_dir(home.path()).unwrap();
        let relative = open("app.db").unwrap();
        drop(db);
        std::env::set_current_dir("/").unwrap();
        insert(&relative, 1).unwrap();
        assert_eq!(count(&relative), 1, "a reader is opened now");
    });
}

#[test]
fn a_bind_mount_of_the_directory_leads_to_the_same_database() {
    if !require::root() {
        return;
    }
    let (home, db) = made();
    let at = TempDir::new().unwrap();
    let _mounted = support::mounts::bind(home.path(), at.path()).unwrap();
    let other = open(at.path().join("app.db")).unwrap();
    insert(&other, 1).unwrap();
    assert_eq!(count(&db), 1);
    assert_eq!(other.path(), db.path());
}

#[test]
fn the_last_handle_closes_and_an_earlier_one_does_not() {
    let (home, db) = made();
    let path = home.path().join("app.db");
    let (second, third) = (open(&path).unwrap(), db.clone());
    assert!(db.close().unwrap().still_open);
    insert(&second, 1).unwrap();
    drop(third);
    insert(&second, 2).unwrap();
    assert_eq!(count(&second), 2);
    assert!(descriptors(&path) > 0);
    let closed = second.close().unwrap();
    assert!(!closed.still_open && closed.log_left.is_none(), "{closed:?}");
    assert_eq!(descriptors(&path), 0);
    let again = open(&path).unwrap();
    insert(&again, 3).unwrap();
    assert_eq!(count(&again), 3);
}

#[test]
fn databases_in_memory_and_temporary_ones_are_never_shared() {
    for name in [":memory:", ""] {
        let (one, other) = (open(name).unwrap(), open(name).unwrap());
        one.write(|tx| tx.execute_batch("CREATE TABLE t(x); INSERT INTO t(x) VALUES (1)")).unwrap();
        assert_eq!(count(&one), 1);
        other.read(|c| c.query_row("SELECT count(*) FROM t", [], |_| Ok(()))).unwrap_err();
        assert_eq!(count(&one.clone()), 1, "a clone is the same one");
        assert_eq!(one.report().verdict.filesystem, "memory");
        assert!(!one.close().unwrap().still_open);
    }
}

#[test]
fn other_options_for_an_open_file_are_an_error_that_names_both() {
    let (home, db) = made();
    let path = home.path().join("app.db");
    let other = Options::new().busy_timeout(Duration::from_millis(77)).foreign_keys(false);
    let error = other.open(&path).unwrap_err();
    assert!(matches!(error, Error::OtherOptions(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("busy_timeout=77 (it is open with busy_timeout=2000)"), "{text}");
    assert!(text.contains("foreign_keys=false (it is open with foreign_keys=true)"), "{text}");
    assert!(error.hint().unwrap().contains("the same options"), "{error:?}");
    // Whether a missing file is created does not matter for one that is there.
    drop(Options::new().create(false).open(&path).unwrap());
    drop(db);
    drop(other.open(&path).unwrap());
}

#[test]
fn a_file_that_was_replaced_is_another_database() {
    let (home, old) = made();
    let path = home.path().join("app.db");
    insert(&old, 1).unwrap();
    // Not read yet, so its reader would be opened by the name.
    for suffix in ["", "-wal", "-shm"] {
        let name = |stem: &str| home.path().join(format!("{stem}{suffix}"));
        std::fs::rename(name("app.db"), name("old.db")).unwrap();
    }
    let new = open(&path).unwrap();
    new.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY)")).unwrap();
    (2..5).for_each(|x| assert_eq!(insert(&new, x).unwrap(), 1));
    assert_eq!(count(&new), 3);
    let error = old.read(|c| c.query_row("SELECT count(*) FROM t", [], |_| Ok(()))).unwrap_err();
    assert!(matches!(error, Error::Moved(_)), "never the rows of another file: {error:?}");
    assert!(matches!(insert(&old, 9).unwrap_err(), Error::Moved(_)));
    drop(old);
    assert_eq!(count(&new), 3, "the close of the old one has done nothing to it");
}

#[test]
fn many_threads_that_open_and_close_at_once_never_see_two_writers_or_none() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let (threads, rounds) = (8_i64, 30);
    let start = Barrier::new(threads as usize);
    // Of a file that is not there yet each may open a connection, of which one stays.
    drop(open(&path).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (path, start) = (&path, &start);
            scope.spawn(move || {
                for round in 0..rounds {
                    start.wait();
                    let db = open(path).unwrap();
                    // It is there only while one connection lives; two at once would each have their own.
                    db.with_writer(|c| c.execute_batch("CREATE TEMP TABLE IF NOT EXISTS mine(x)")).unwrap();
                    db.write(|tx| {
                        tx.execute_batch("CREATE TABLE IF NOT EXISTS t(x INTEGER PRIMARY KEY)")?;
                        tx.execute("INSERT INTO t VALUES (?1)", [round * threads + thread])
                    })
                    .unwrap();
                    assert!(descriptors(path) <= 4, "the database, its lock handle, and one of each in between");
                }
            });
        }
    });
    assert_eq!(count(&open(&path).unwrap()), threads * rounds);
}

#[test]
fn many_threads_that_create_a_database_at_once_end_up_with_one_connection() {
    let home = TempDir::new().unwrap();
    std::os::unix::fs::symlink(home.path(), home.path().join("again")).unwrap();
    let base = FaultVfs::register("unix-created-once");
    let options = Options::new().base("unix-created-once");
    drop(options.open(home.path().join("one.db")).unwrap());
    let once = base.count(Call::Open);
    base.clear();
    let (start, next) = (Barrier::new(8), AtomicUsize::new(0));
    let all: Vec<_> = std::thread::scope(|scope| {
        let creates = || {
            let spelling = ["app.db", "again/app.db"][next.fetch_add(1, Ordering::Relaxed) % 2];
            start.wait();
            options.open(home.path().join(spelling)).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(creates)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(base.count(Call::Open), once, "the others waited for the first");
    all[0].with_writer(|c| c.execute_batch("CREATE TEMP TABLE mine(x)")).unwrap();
    for db in &all {
        db.with_writer(|c| c.execute("INSERT INTO mine VALUES (1)", [])).unwrap();
    }
}

#[test]
fn a_forked_child_cannot_use_or_harm_what_it_has_inherited_and_opens_its_own() {
    process::alone("cache::a_forked_child_cannot_use_or_harm_what_it_has_inherited_and_opens_its_own", || {
        let (home, db) = made();
        insert(&db, 1).unwrap();
        assert_eq!(count(&db), 1);
        let path = home.path().join("app.db");
        let (db, child) = process::start(db, process::End::Exit, |db| {
            assert!(insert(&db, 2).unwrap_err().to_string().contains("opened by the parent process"));
            db.read(|c| c.query_row("SELECT 1", [], |_| Ok(()))).unwrap_err();
            drop(db.clone());
            drop(db);
            let own = open(&path).unwrap();
            insert(&own, 3).unwrap();
            assert!(count(&own) >= 2, "that of the parent may be there already");
            own.close().unwrap();
        });
        insert(&db, 4).unwrap();
        assert!(child.succeeded());
        assert_eq!(count(&db), 3);
    });
}
