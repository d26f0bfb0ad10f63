//! The -shm file is cut off under its mapping.

use std::fs::File;
use std::path::Path;

use super::actors::{Actor, HARDENED, HARDENED_ELSEWHERE, STOCK_ELSEWHERE};
use super::roles::make;
use support::names::beside;

/// SQLITE_IOERR_SHMMAP.
const LOST: i32 = 10 | (21 << 8);
const SIGBUS: i32 = 7;

fn cut(path: &Path) {
    cut_to(path, 0);
}

fn cut_to(path: &Path, length: u64) {
    File::options().write(true).open(beside(path, "-shm")).unwrap().set_len(length).unwrap();
}

/// Before the cut, and after it.
const USES: [(&str, &str); 5] = [
    ("SELECT * FROM t", "SELECT * FROM t"),
    ("SELECT * FROM t", "INSERT INTO t VALUES (9)"),
    ("SELECT * FROM t", "PRAGMA wal_checkpoint(TRUNCATE)"),
    ("BEGIN; SELECT * FROM t", "SELECT max(x) FROM u"),
    ("BEGIN; INSERT INTO t VALUES (8)", "COMMIT"),
];

fn prepare(path: &Path) {
    make(path);
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("CREATE TABLE u AS SELECT zeroblob(20000) AS x; INSERT INTO t VALUES (1)").unwrap();
}

#[test]
fn an_index_that_is_cut_off_is_an_error_and_not_the_end_of_the_process() {
    for (before, after) in USES {
        for kind in [STOCK_ELSEWHERE, HARDENED_ELSEWHERE] {
            println!("{kind:?}: {before}, cut, {after}");
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.db");
            prepare(&path);
            let mut db = Actor::open(&path, kind);
            db.ok("PRAGMA cache_size=1; INSERT INTO t VALUES (2)");
            db.ok(before);
            cut(&path);
            if !kind.hardened {
                assert_eq!(db.dies_of(after), Some(SIGBUS));
                continue;
            }
            assert_eq!(db.sql(after), Err(LOST));
            let _ = db.sql("ROLLBACK");
            for sql in ["SELECT count(*) FROM t", "INSERT INTO t VALUES (3)", "PRAGMA wal_checkpoint"] {
                assert_eq!(db.sql(sql), Err(LOST), "{sql}: until it is closed");
            }
            let report = db.ok("PRAGMA hardened_report");
            assert!(report.contains("-shm file was cut off"), "{report}");
            db.close();
            let mut db = Actor::open(&path, kind);
            assert_eq!(db.ok("SELECT count(*) FROM t WHERE x<3"), "3", "nothing that was committed is lost");
            assert_eq!(db.ok("PRAGMA integrity_check"), "ok");
        }
    }
}

/// What is left of the file may look sound: then the answer is right, or it is the error.
#[test]
fn an_index_of_which_a_part_is_left_gives_no_wrong_answer() {
    for (before, after) in USES {
        for length in [3, 4096, 8192, 16384, 20480] {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.db");
            prepare(&path);
            let mut db = Actor::open(&path, HARDENED_ELSEWHERE);
            db.ok("PRAGMA cache_size=1; INSERT INTO t VALUES (2)");
            let mut other = Actor::open(&path, HARDENED_ELSEWHERE);
            other.ok("SELECT * FROM t");
            db.ok(before);
            cut_to(&path, length);
            let answer = db.sql(after);
            let written = after.starts_with("INSERT") || after == "COMMIT";
            println!("{before}, cut to {length}, {after}: {answer:?}");
            assert!(answer.is_ok() || answer == Err(LOST));
            // Somebody else goes on with what is left of it.
            let others = other.sql("INSERT INTO t VALUES (1)");
            assert!(others.is_ok() || others == Err(LOST) || others == Err(5), "{others:?}");
            db.close();
            other.close();
            let mut db = Actor::open(&path, STOCK_ELSEWHERE);
            assert_eq!(db.ok("PRAGMA integrity_check"), "ok");
            let there = |rows: &str| rows.parse::<u32>().unwrap();
            assert_eq!(there(&db.ok("SELECT count(*) FROM t WHERE x IN (0, 2)")), 2);
            if written && answer.is_ok() {
                assert_eq!(db.ok("SELECT count(*) FROM t WHERE x IN (8, 9)"), "1", "acknowledged");
            }
        }
    }
}

/// Zeros up to the end of the page, and no signal: a checkpoint finds no pages to copy.
#[test]
fn a_checkpoint_with_an_index_that_is_cut_off_within_its_first_page_drops_no_commit() {
    for (kind, close) in [(STOCK_ELSEWHERE, false), (HARDENED_ELSEWHERE, false), (HARDENED_ELSEWHERE, true)] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        prepare(&path);
        let mut db = Actor::open(&path, kind);
        for _ in 0..30 {
            db.ok("INSERT INTO t VALUES (zeroblob(300))");
        }
        cut_to(&path, 200);
        let mut answer = Err(LOST);
        if close {
            // The last to close checkpoints without a lock on the index.
            db.close();
        } else {
            answer = db.sql("PRAGMA wal_checkpoint(TRUNCATE)");
            db.kill();
        }
        let mut db = Actor::open(&path, STOCK_ELSEWHERE);
        let (rows, intact) = (db.sql("SELECT count(*) FROM t"), db.sql("PRAGMA integrity_check"));
        println!("{kind:?}, closed {close}: {answer:?}, {rows:?} {intact:?}");
        let whole = (rows, intact) == (Ok(vec!["32".into()]), Ok(vec!["ok".into()]));
        assert_eq!(whole, kind.hardened);
        if kind.hardened {
            assert_eq!(answer, Err(LOST));
        }
    }
}

#[test]
fn a_connection_that_lost_its_index_does_not_delete_the_log_when_it_closes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    prepare(&path);
    let mut db = Actor::open(&path, HARDENED);
    db.ok("INSERT INTO t VALUES (2)");
    cut(&path);
    // The first access is that of the checkpoint at the close.
    db.close();
    assert!(beside(&path, "-wal").exists());
    let mut db = Actor::open(&path, STOCK_ELSEWHERE);
    assert_eq!(db.ok("SELECT count(*) FROM t"), "3");
    assert_eq!(db.ok("PRAGMA integrity_check"), "ok");
}

#[test]
fn others_go_on_with_an_index_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    prepare(&path);
    let (mut a, mut b) = (Actor::open(&path, HARDENED), Actor::open(&path, HARDENED_ELSEWHERE));
    a.ok("INSERT INTO t VALUES (2)");
    b.ok("SELECT * FROM t");
    cut(&path);
    assert_eq!(a.sql("SELECT * FROM t"), Err(LOST));
    let mut c = Actor::open(&path, STOCK_ELSEWHERE);
    assert_eq!(c.ok("SELECT count(*) FROM t"), "3");
    c.ok("INSERT INTO t VALUES (3)");
    // The file is long enough again when the second one looks.
    assert_eq!(b.ok("SELECT count(*) FROM t"), "4");
    b.ok("INSERT INTO t VALUES (4)");
    assert_eq!(c.ok("SELECT count(*) FROM t"), "5");
    assert_eq!(c.ok("PRAGMA integrity_check"), "ok");
}

#[test]
fn an_index_that_is_shorter_than_it_was_is_noticed_when_it_grows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    make(&path);
    let mut db = Actor::open(&path, HARDENED_ELSEWHERE);
    db.ok("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (zeroblob(3000000))");
    cut(&path);
    // Long enough for the header, which is not touched before the region behind it.
    cut_to(&path, 32768);
    let answer = db.sql("SELECT count(*) FROM t");
    assert_eq!(answer, Err(LOST));
    db.close();
    assert_eq!(Actor::open(&path, STOCK_ELSEWHERE).ok("PRAGMA integrity_check"), "ok");
}
