//! A child that inherits a connection cannot use it, cannot harm it, and can close it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rusqlite::Connection;
use std::time::{Duration, Instant};
use support::fuse::{Mount, Op, Options};
use support::process::{End, Unseen, alone, become_cat, die, start};
use support::require;
use tempfile::TempDir;

use super::{HARDENED, STOCK, WAL, code, count, integrity, locked, open, peer};

const IOERR: i32 = rusqlite::ffi::SQLITE_IOERR;
fn fresh(home: &TempDir, wal: bool) -> PathBuf {
    let path = home.path().join("app.db");
    let db = open(&path, STOCK);
    assert_eq!(code(&db, "CREATE TABLE t(x)"), 0);
    if wal {
        assert_eq!(code(&db, "PRAGMA journal_mode=WAL"), 0);
    }
    path
}

/// The names in the directory, and the bytes behind them.
fn everything(home: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    found.sort();
    found
}

/// The same without the bytes of the WAL-index, in which a connection of the child's own leaves traces.
fn but_the_index(mut found: Vec<(PathBuf, Vec<u8>)>) -> Vec<(PathBuf, Vec<u8>)> {
    let index = |path: &Path| path.to_string_lossy().ends_with("-shm");
    found.iter_mut().filter(|(path, _)| index(path)).for_each(|(_, bytes)| bytes.clear());
    found
}

/// A transaction with pages in the journal, and in the file as well where the cache is too small for them.
const BEGUN: &str = "PRAGMA cache_size=5; BEGIN IMMEDIATE; CREATE TABLE u(y); \
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO u SELECT zeroblob(900) FROM n";

/// What the child does, and the code of which it does not care.
type Deed = fn(Connection, &Path);

fn commits(db: Connection, _: &Path) {
    let code = code(&db, "COMMIT");
    assert!(code != 0, "{code}");
    std::mem::forget(db);
}

fn rolls_back(db: Connection, _: &Path) {
    // SQLite calls it a success that the transaction is over; what it could not undo it says at the next statement.
    code(&db, "ROLLBACK");
    assert_eq!(code(&db, "INSERT INTO t VALUES (99)") & 0xff, IOERR);
    std::mem::forget(db);
}

fn writes_on(db: Connection, _: &Path) {
    let code = code(&db, "INSERT INTO u SELECT zeroblob(9000) FROM u; COMMIT");
    assert!(code != 0, "{code}");
    drop(db);
}

fn closes(db: Connection, path: &Path) {
    drop(db);
    // And opens its own, which finds the parent's transaction in its way.
    let own = open(path, HARDENED.replace("policy=delete", "policy=auto").as_str());
    assert!(code(&own, "BEGIN IMMEDIATE") != 0);
}

fn only_ends(db: Connection, _: &Path) {
    std::mem::forget(db);
}

fn asks(db: Connection, _: &Path) {
    let error = db.query_row("PRAGMA hardened_report", [], |row| row.get::<_, String>(0)).unwrap_err();
    assert!(error.to_string().contains("before fork()"), "{error}");
    drop(db);
}

const DEEDS: [(&str, Deed); 6] = [
    ("commits", commits),
    ("rolls back", rolls_back),
    ("writes on", writes_on),
    ("closes", closes),
    ("only ends", only_ends),
    ("asks", asks),
];

fn a_child_harms_nothing(vfs: &str, wal: bool) {
    for end in [End::AtOnce, End::Exit] {
        for (what, deed) in DEEDS {
            let home = TempDir::new().unwrap();
            let path = fresh(&home, wal);
            let db = open(&path, vfs);
            assert_eq!(code(&db, BEGUN), 0);
            let (before, locks) = (everything(home.path()), locked(&path));
            let (db, child) = start(db, end, |db| deed(db, &path));
            assert!(child.succeeded(), "{what}");
            let after = everything(home.path());
            let same = match what {
                "closes" => but_the_index(after) == but_the_index(before),
                _ => after == before,
            };
            assert!(same, "{what}, {end:?}: the child has changed a file");
            assert_eq!(locked(&path), locks, "{what}, {end:?}");
            let mut other = peer(&path, STOCK);
            assert_eq!(other.run("BEGIN IMMEDIATE"), rusqlite::ffi::SQLITE_BUSY, "{what}: the parent is still in it");
            assert_eq!(code(&db, "COMMIT; INSERT INTO t VALUES (2)"), 0, "{what}");
            assert_eq!((integrity(&db).as_str(), count(&db)), ("ok", 1));
        }
    }
}

#[test]
fn a_child_harms_nothing_of_its_parent_s_rollback_transaction() {
    alone("forked::a_child_harms_nothing_of_its_parent_s_rollback_transaction", || {
        a_child_harms_nothing(HARDENED, false)
    });
}

#[test]
fn a_child_harms_nothing_of_its_parent_s_wal_transaction() {
    alone("forked::a_child_harms_nothing_of_its_parent_s_wal_transaction", || a_child_harms_nothing(WAL, true));
}

/// The same with stock SQLite: the child's rollback takes the parent's journal away.
#[test]
fn with_stock_a_child_undoes_what_its_parent_is_doing() {
    alone("forked::with_stock_a_child_undoes_what_its_parent_is_doing", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home, false);
        let db = open(&path, STOCK);
        assert_eq!(code(&db, BEGUN), 0);
        let before = everything(home.path());
        let (db, child) = start(db, End::AtOnce, |db| {
            code(&db, "ROLLBACK");
        });
        assert!(child.succeeded());
        assert!(everything(home.path()) != before, "stock has changed: then this test proves nothing");
        assert!(!home.path().join("app.db-journal").exists(), "the parent's journal is gone");
        std::mem::forget(db);
    });
}

/// What the index says of the pages that the parent has in the log already: stock forgets it when the child rolls back.
fn index_after_a_rollback_in_a_child(vfs: &str) -> bool {
    let home = TempDir::new().unwrap();
    let path = fresh(&home, true);
    let db = open(&path, vfs);
    // Nothing is taken back from an index that is empty but for the transaction.
    assert_eq!(code(&db, &format!("INSERT INTO t VALUES (0); {BEGUN}")), 0);
    let index = home.path().join("app.db-shm");
    let before = std::fs::read(&index).unwrap();
    let (db, child) = start(db, End::AtOnce, |db| {
        code(&db, "ROLLBACK");
        std::mem::forget(db);
    });
    assert!(child.succeeded());
    let kept = std::fs::read(&index).unwrap() == before;
    std::mem::forget(db);
    kept
}

#[test]
fn a_rollback_in_a_child_leaves_the_index_of_its_parent_alone() {
    alone("forked::a_rollback_in_a_child_leaves_the_index_of_its_parent_alone", || {
        assert!(!index_after_a_rollback_in_a_child(STOCK), "stock changes it: otherwise this proves nothing");
        assert!(index_after_a_rollback_in_a_child(WAL));
    });
}

/// BEGIN IMMEDIATE, and the child is the first to write: it would make the parent's journal.
#[test]
fn a_child_makes_no_journal_for_its_parent() {
    alone("forked::a_child_makes_no_journal_for_its_parent", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home, false);
        let db = open(&path, HARDENED);
        assert_eq!(code(&db, "BEGIN IMMEDIATE"), 0);
        let (db, child) = start(db, End::AtOnce, |db| {
            assert!(code(&db, "INSERT INTO t VALUES (1)") != 0);
            drop(db);
        });
        assert!(child.succeeded());
        assert!(!home.path().join("app.db-journal").exists());
        assert_eq!((code(&db, "INSERT INTO t VALUES (2); COMMIT"), count(&db)), (0, 1));
    });
}

/// Locks of an open file live as long as any copy of the descriptor.
#[test]
fn a_parent_that_dies_leaves_no_lock_with_its_child() {
    alone("forked::a_parent_that_dies_leaves_no_lock_with_its_child", || {
        for (vfs, wal) in [(HARDENED, false), (WAL, true)] {
            for replaced in [false, true] {
                let home = TempDir::new().unwrap();
                let path = fresh(&home, wal);
                let (mut here, there) = UnixStream::pair().unwrap();
                // The parent of the test's story is itself a child of this test.
                let ((), story) = start((), End::AtOnce, |()| {
                    let db = open(&path, vfs);
                    assert_eq!(code(&db, "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)"), 0);
                    let (db, _lives_on) = start(db, End::AtOnce, |db| {
                        std::mem::forget(db);
                        (&there).write_all(b"x").unwrap();
                        if replaced {
                            become_cat(&there);
                        }
                        // Until the test lets go.
                        let _ = (&there).read(&mut [0]);
                    });
                    std::mem::forget(db);
                    die();
                });
                here.read_exact(&mut [0]).unwrap();
                drop(there);
                assert!(story.succeeded());
                assert!(locked(&path).iter().all(|lock| !lock.contains("OFDLCK")), "{:?}", locked(&path));
                let mut other = peer(&path, STOCK);
                assert_eq!(other.run("INSERT INTO t VALUES (3)"), 0, "{vfs}: at once");
                here.shutdown(Shutdown::Both).unwrap();
            }
        }
    });
}

/// What bars others during a close may not be what such a child has a copy of.
#[test]
fn a_child_that_no_handler_was_told_of_keeps_no_lock_of_a_connection_that_is_closed() {
    alone("forked::a_child_that_no_handler_was_told_of_keeps_no_lock_of_a_connection_that_is_closed", || {
        // With one thread only nobody would have to be barred.
        let (_open, closed) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || closed.recv());
        for (vfs, wal) in [(HARDENED, false), (WAL, true)] {
            let home = TempDir::new().unwrap();
            let path = fresh(&home, wal);
            let db = open(&path, vfs);
            assert_eq!(code(&db, "INSERT INTO t VALUES (1)"), 0);
            let _child = Unseen::start();
            drop(db);
            assert_eq!(locked(&path), Vec::<String>::new(), "{vfs}");
            assert_eq!(peer(&path, STOCK).run("INSERT INTO t VALUES (2)"), 0, "{vfs}");
            let db = open(&path, vfs);
            assert_eq!((code(&db, "INSERT INTO t VALUES (3)"), count(&db)), (0, 3), "{vfs}");
        }
    });
}

/// The process has a copy of what bars others, if it was started in that very moment; nobody can take it away.
#[test]
fn what_bars_others_during_a_close_goes_at_the_latest_when_a_process_that_is_being_started_runs() {
    const CLOSES: u32 = 500;
    let test = "forked::what_bars_others_during_a_close_goes_at_the_latest_when_a_process_that_is_being_started_runs";
    alone(test, || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home, false);
        let (done, started) = (AtomicBool::new(false), AtomicU32::new(0));
        let begun = Instant::now();
        let starts = || {
            while !done.load(Ordering::Relaxed) {
                assert!(Command::new("/bin/true").status().unwrap().success());
                started.fetch_add(1, Ordering::Relaxed);
            }
        };
        let closes = || {
            let (mut left, mut longest) = (0, Duration::ZERO);
            for _ in 0..CLOSES {
                let db = open(&path, HARDENED);
                let codes = std::iter::repeat_with(|| code(&db, "INSERT INTO t VALUES (1)"));
                assert_eq!(codes.into_iter().find(|code| *code != rusqlite::ffi::SQLITE_BUSY), Some(0));
                drop(db);
                let closed = Instant::now();
                if !locked(&path).is_empty() {
                    left += 1;
                    while !locked(&path).is_empty() {
                        assert!(closed.elapsed() < Duration::from_secs(60), "{:?}", locked(&path));
                    }
                    longest = longest.max(closed.elapsed());
                }
            }
            (left, longest)
        };
        let (left, longest) = std::thread::scope(|scope| {
            scope.spawn(starts);
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(closes));
            done.store(true, Ordering::Relaxed);
            told.unwrap()
        });
        let each_second = f64::from(started.into_inner()) / begun.elapsed().as_secs_f64();
        println!("{left} of {CLOSES} closes, at most {longest:?}; {each_second:.0} processes started each second");
    });
}

#[test]
fn a_child_of_a_child_may_use_what_it_has_opened_itself() {
    alone("forked::a_child_of_a_child_may_use_what_it_has_opened_itself", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home, false);
        let db = open(&path, HARDENED);
        assert_eq!(code(&db, "INSERT INTO t VALUES (1)"), 0);
        let (db, child) = start(db, End::Exit, |inherited| {
            let own = open(&path, HARDENED);
            assert_eq!(code(&own, "INSERT INTO t VALUES (2)"), 0);
            let (own, grandchild) = start(own, End::Exit, |own| {
                assert!(code(&own, "INSERT INTO t VALUES (3)") != 0);
                assert!(code(&inherited, "INSERT INTO t VALUES (3)") != 0);
                let third = open(&path, HARDENED);
                assert_eq!(code(&third, "INSERT INTO t VALUES (4)"), 0);
            });
            assert!(grandchild.succeeded());
            assert_eq!((code(&own, "INSERT INTO t VALUES (5)"), integrity(&own).as_str()), (0, "ok"));
            drop(inherited);
            assert_eq!(code(&own, "INSERT INTO t VALUES (6)"), 0, "also after the inherited one is closed");
        });
        assert!(child.succeeded());
        assert_eq!((code(&db, "INSERT INTO t VALUES (7)"), count(&db)), (0, 6));
    });
}

/// A child that kept it would keep the locks that its parent takes with it later.
#[test]
fn a_child_forked_while_a_handle_is_being_opened_does_not_keep_it() {
    if !require::root_and_fuse() {
        return;
    }
    alone("forked::a_child_forked_while_a_handle_is_being_opened_does_not_keep_it", || {
        let (backing, at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mount = Mount::new(Options::new(backing.path()).forward_locks(true), at.path()).unwrap();
        let path = mount.path().join("app.db");
        assert_eq!(code(&open(&path, STOCK), "CREATE TABLE t(x)"), 0);
        let copies = |path: &Path| {
            let all = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
            all.filter(|fd| std::fs::read_link(fd).is_ok_and(|to| to == path)).count()
        };
        let hold = mount.hold(Op::Getlk);
        let opening = std::thread::spawn({
            let path = path.clone();
            move || drop(open(&path, HARDENED))
        });
        assert!(mount.wait_held(1, Duration::from_secs(30)), "nobody asks for locks");
        assert_eq!(copies(&path), 3, "the base's, the one for the locks, and another one against which they are tried");
        // The child does not use SQLite.
        let ((), child) = start((), End::AtOnce, |()| assert_eq!(copies(&path), 1));
        assert!(child.succeeded(), "it has kept the handle");
        hold.release();
        opening.join().unwrap();
    });
}
