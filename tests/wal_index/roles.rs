//! Writer, reader, checkpointer, last closer and recoverer, each stock and hardened, in one process and in two.

use std::path::Path;

use super::actors::{ALL, Actor, HARDENED, Kind, STOCK_ELSEWHERE, pairs};
use support::names::beside;
use support::process::alone;
use support::sqlite::{collect_log, log};

const BUSY: i32 = 5;

/// A WAL database of stock SQLite's with one row, closed.
pub(crate) fn make(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE t(x)").unwrap();
    connection.execute("INSERT INTO t VALUES (0)", []).unwrap();
    drop(connection);
    assert!(!beside(path, "-shm").exists());
}

const COUNT: &str = "SELECT count(*) FROM t";

fn each_pair(body: impl Fn(&Path, Kind, Kind)) {
    for (a, b) in pairs() {
        println!("{a:?} and {b:?}");
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        make(&path);
        body(&path, a, b);
    }
}

#[test]
fn each_sees_what_the_other_commits_and_keeps_its_own_snapshot() {
    each_pair(|path, a, b| {
        let (mut a, mut b) = (Actor::open(path, a), Actor::open(path, b));
        a.ok("INSERT INTO t VALUES (1)");
        assert_eq!(b.ok(COUNT), "2");
        b.ok("BEGIN; SELECT * FROM t");
        a.ok("INSERT INTO t VALUES (2)");
        assert_eq!(b.ok(COUNT), "2");
        b.ok("COMMIT");
        assert_eq!(b.ok(COUNT), "3");
        b.ok("INSERT INTO t VALUES (3)");
        assert_eq!(a.ok(COUNT), "4");
        assert_eq!(a.ok("PRAGMA integrity_check"), "ok");
    });
}

#[test]
fn one_writes_at_a_time() {
    each_pair(|path, a, b| {
        let (mut a, mut b) = (Actor::open(path, a), Actor::open(path, b));
        for _ in 0..2 {
            a.ok("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)");
            assert_eq!(b.sql("BEGIN IMMEDIATE"), Err(BUSY));
            assert_eq!(b.ok(COUNT), "1");
            a.ok("ROLLBACK");
            b.ok("BEGIN IMMEDIATE");
            assert_eq!(a.sql("INSERT INTO t VALUES (1)"), Err(BUSY));
            b.ok("COMMIT");
        }
    });
}

#[test]
fn a_checkpoint_by_one_respects_the_reader_of_the_other() {
    each_pair(|path, a, b| {
        let (mut a, mut b) = (Actor::open(path, a), Actor::open(path, b));
        for (writer, reader) in [(0, 1), (1, 0)] {
            let both = [&mut a, &mut b];
            both[writer].ok("INSERT INTO t VALUES (1)");
            both[reader].ok("BEGIN; SELECT * FROM t");
            let seen = both[reader].ok(COUNT);
            both[writer].ok("INSERT INTO t VALUES (2)");
            // 1: somebody was in the way.
            assert_eq!(both[writer].ok("PRAGMA wal_checkpoint(TRUNCATE)"), "1");
            assert_eq!(both[reader].ok(COUNT), seen);
            both[reader].ok("COMMIT");
            assert_eq!(both[writer].ok("PRAGMA wal_checkpoint(TRUNCATE)"), "0");
            assert_eq!(std::fs::metadata(beside(path, "-wal")).unwrap().len(), 0);
            assert_eq!(both[reader].ok("PRAGMA integrity_check"), "ok");
        }
    });
}

#[test]
fn a_log_begins_anew_when_all_of_it_is_in_the_database() {
    for kind in ALL {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        make(&path);
        let mut a = Actor::open(&path, kind);
        a.ok("INSERT INTO t VALUES (1)");
        a.ok("PRAGMA wal_checkpoint(PASSIVE)");
        let long = std::fs::metadata(beside(&path, "-wal")).unwrap().len();
        a.ok("INSERT INTO t VALUES (1)");
        assert_eq!(std::fs::metadata(beside(&path, "-wal")).unwrap().len(), long, "{kind:?}");
        a.ok("INSERT INTO t VALUES (1)");
        assert!(std::fs::metadata(beside(&path, "-wal")).unwrap().len() > long, "{kind:?}");
    }
}

#[test]
fn only_the_last_of_them_to_close_deletes_the_log_and_its_index() {
    each_pair(|path, a, b| {
        let (mut a, mut b) = (Actor::open(path, a), Actor::open(path, b));
        a.ok("INSERT INTO t VALUES (1)");
        b.ok(COUNT);
        a.close();
        assert!(beside(path, "-wal").exists() && beside(path, "-shm").exists());
        b.ok("INSERT INTO t VALUES (2)");
        assert_eq!(b.ok(COUNT), "3");
        b.close();
        assert!(!beside(path, "-wal").exists() && !beside(path, "-shm").exists());
    });
}

#[test]
fn after_a_kill_the_other_recovers_all_that_was_committed() {
    for (a, b) in pairs().filter(|(a, _)| a.elsewhere) {
        println!("{a:?} is killed, {b:?} recovers");
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        make(&path);
        let mut victim = Actor::open(&path, a);
        victim.ok("INSERT INTO t VALUES (1)");
        victim.ok("BEGIN; INSERT INTO t VALUES (2)");
        victim.kill();
        // Whoever comes first empties the index, so what is in it does not matter.
        let garbage = vec![0xff; std::fs::metadata(beside(&path, "-shm")).unwrap().len() as usize];
        std::fs::write(beside(&path, "-shm"), garbage).unwrap();
        let mut heir = Actor::open(&path, b);
        assert_eq!(heir.ok(COUNT), "2");
        heir.ok("INSERT INTO t VALUES (3)");
        assert_eq!(heir.ok("PRAGMA integrity_check"), "ok");
    }
}

/// A process that is killed while it writes the header leaves two copies that differ; whoever closes last reads the log anew
/// within the checkpoint of its close.
#[test]
fn the_last_to_close_finds_a_torn_header_and_keeps_all_commits() {
    for (kind, copy) in ALL.into_iter().flat_map(|kind| [(kind, 0), (kind, 48)]) {
        for sql in ["SELECT 1", "PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.db");
            make(&path);
            let mut last = Actor::open(&path, kind);
            last.ok("INSERT INTO t VALUES (1)");
            let index = std::fs::File::options().write(true).open(beside(&path, "-shm")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&index, &[0xff; 48], copy).unwrap();
            // Closing it now would drop the locks of a stock connection.
            std::mem::forget(index);
            last.ok(sql);
            last.close();
            assert!(!beside(&path, "-wal").exists());
            let connection = rusqlite::Connection::open(&path).unwrap();
            let rows: u32 = connection.query_row(COUNT, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 2, "{kind:?}, copy at {copy}, {sql}");
        }
    }
}

#[test]
fn a_writer_that_is_killed_beside_a_living_connection_leaves_no_lock() {
    for (a, b) in pairs().filter(|(a, _)| a.elsewhere) {
        println!("{a:?} is killed, {b:?} goes on");
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        make(&path);
        let mut heir = Actor::open(&path, b);
        heir.ok(COUNT);
        let mut victim = Actor::open(&path, a);
        victim.ok("BEGIN; INSERT INTO t VALUES (2)");
        assert_eq!(heir.sql("INSERT INTO t VALUES (3)"), Err(BUSY));
        victim.kill();
        heir.ok("INSERT INTO t VALUES (3)");
        assert_eq!(heir.ok(COUNT), "2");
        assert_eq!(heir.ok("PRAGMA wal_checkpoint(TRUNCATE)"), "0");
    }
}

/// A log of more frames than two regions of the index hold, read and written by both.
#[test]
fn an_index_of_many_regions_is_one_for_both() {
    each_pair(|path, a, b| {
        let (mut a, mut b) = (Actor::open(path, a), Actor::open(path, b));
        for actor in [&mut a, &mut b] {
            actor.ok("PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=10");
        }
        // 4062 frames fit the first region, 4096 each further one.
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3300) \
                    INSERT INTO t SELECT zeroblob(460) FROM n";
        for turn in 1..=3 {
            a.ok(rows);
            assert_eq!(b.ok(COUNT), (1 + 3300 * (2 * turn - 1)).to_string());
            b.ok(rows);
            assert_eq!(a.ok(COUNT), (1 + 3300 * 2 * turn).to_string());
        }
        let shm = std::fs::metadata(beside(path, "-shm")).unwrap().len();
        assert!(shm >= 5 * 32768 && shm % 32768 == 0, "{shm}");
        assert_eq!(b.ok("PRAGMA integrity_check"), "ok");
        a.ok("PRAGMA wal_checkpoint(TRUNCATE)");
        assert_eq!(b.ok(COUNT), "19801");
        assert_eq!(b.ok("PRAGMA integrity_check"), "ok");
    });
}

/// SQLite asks for the exclusive lock when it closes a log, with a handle for reading as well.
#[test]
fn a_reader_that_is_the_last_to_close_says_nothing() {
    alone("roles::a_reader_that_is_the_last_to_close_says_nothing", || {
        collect_log();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        make(&path);
        let mut killed = Actor::open(&path, STOCK_ELSEWHERE);
        killed.ok("INSERT INTO t VALUES (1)");
        killed.kill();
        let mut reader = Actor::with(&path, HARDENED, "mode=ro", false);
        assert_eq!(reader.ok(COUNT), "2");
        reader.close();
        assert!(beside(&path, "-wal").exists());
        let about: Vec<_> = log().into_iter().filter(|(_, message)| message.contains("hardened")).collect();
        assert!(about.is_empty(), "{about:?}");
    });
}
