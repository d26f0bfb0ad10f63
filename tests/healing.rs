//! Promise 4 where several connections write to one log: a sync of it that failed is healed when all that is committed is
//! there, whoever has committed it, and halts the database when something is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use actors::{Actor, HARDENED_ELSEWHERE, Kind, STOCK_ELSEWHERE};
use hardened_sqlite::hardened_vfs;
use hardened_sqlite::report;
use rusqlite::{Connection, OpenFlags, ffi};
use support::ask::text;
use support::fault_vfs::{Call, FailSpec, FaultHandle, FaultVfs};
use support::names::beside;
use support::system_call;
use tempfile::TempDir;

/// A connection here over a VFS that fails as told.
fn open(path: &Path, base: &FaultVfs, hardened: bool) -> Connection {
    hardened_vfs::register(Default::default()).unwrap();
    let base = base.name().to_str().unwrap();
    let vfs = if hardened { format!("hardened&fs=local&base={base}") } else { base.to_owned() };
    let uri = format!("file:{}?vfs={vfs}", path.display());
    let connection = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    connection
}

fn sql(connection: &Connection, sql: &str) {
    connection.execute_batch(sql).unwrap();
}

const BEGIN: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; \
                     CREATE TABLE t(x INTEGER PRIMARY KEY, y)";

/// Twenty rows, each on a page of its own.
const ROWS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20) \
                    INSERT INTO t SELECT x, zeroblob(3000) FROM n";

fn sync_fails_once(vfs: &FaultVfs) -> FaultHandle {
    vfs.fail(Call::Sync, FailSpec::code(ffi::SQLITE_IOERR_FSYNC).name("-wal").times(1))
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2))
}

/// Whether the database file is whole without its log: what a reader has after a checkpoint that says it is done.
fn whole_without_its_log(path: &Path) -> bool {
    let elsewhere = TempDir::new().unwrap();
    let copy = elsewhere.path().join("copy.db");
    std::fs::copy(path, &copy).unwrap();
    let connection = Connection::open(copy).unwrap();
    let integrity = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    println!("the database without its log: {integrity:?}");
    integrity.is_ok_and(|integrity| integrity == "ok")
}

#[track_caller]
fn is_healed(connection: &Connection) {
    let report = report(connection).unwrap();
    assert_eq!(report.alarms, [""; 0]);
    let healed = "a sync of the -wal failed (code 1034) and was healed";
    assert!(report.notes.iter().any(|note| note.starts_with(healed)), "{:?}", report.notes);
}

#[track_caller]
fn is_halted(connection: &Connection) {
    let alarms = report(connection).unwrap().alarms;
    println!("{alarms:?}");
    assert!(matches!(alarms.as_slice(), [one] if one.contains("a sync of the -wal failed")), "{alarms:?}");
    let error = connection.execute_batch("INSERT INTO t(x) VALUES (5000)").unwrap_err();
    // Reading goes on, and may meet what was lost before it comes to writing.
    let code = error.sqlite_error().unwrap().extended_code & 0xff;
    assert!(matches!(code, ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT), "{error}");
}

/// A checkpoint whose sync fails, and with it the write-back of what `damage` takes from the log: reported, and nothing of it
/// is copied.
fn not_copied(vfs: &FaultVfs, path: &Path, connection: &Connection, hardened: bool, damage: impl FnOnce(&File)) {
    damage(&File::options().write(true).open(beside(path, "-wal")).unwrap());
    let fault = sync_fails_once(vfs);
    let answer = checkpoint(connection);
    println!("{answer:?}");
    assert_eq!(fault.seen(), 1);
    assert!(whole_without_its_log(path), "pages were copied that are not in the log");
    let code = answer.unwrap_err().sqlite_error().unwrap().extended_code;
    assert_eq!(code & 0xff, ffi::SQLITE_IOERR, "{code}");
    if hardened {
        is_halted(connection);
    }
}

fn frames_of_another_process_are_lost(hardened: bool, other: Kind) {
    println!("hardened {hardened}, {other:?}");
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let vfs = FaultVfs::register(&format!("lost-frames-{hardened}-{}", other.hardened));
    let connection = open(&path, vfs, hardened);
    sql(&connection, BEGIN);
    for x in 0..200 {
        connection.execute("INSERT INTO t VALUES (?1, hex(randomblob(200)))", [x]).unwrap();
    }
    sql(&connection, "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (1000, 'ours')");
    let ours = std::fs::metadata(beside(&path, "-wal")).unwrap().len();
    let mut other = Actor::with(&path, other, "fs=local", false);
    other.ok("PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; UPDATE t SET y = hex(randomblob(200))");
    not_copied(vfs, &path, &connection, hardened, |log| {
        // Pages that were dropped and never on disk read as zeros.
        let (all, kept) = (log.metadata().unwrap().len(), ours.next_multiple_of(4096));
        assert!(all > kept);
        log.write_all_at(&vec![0; (all - kept) as usize], kept).unwrap();
    });
}

#[test]
fn frames_of_another_process_that_are_lost_with_a_failed_sync_are_not_checkpointed() {
    frames_of_another_process_are_lost(false, STOCK_ELSEWHERE);
    frames_of_another_process_are_lost(true, STOCK_ELSEWHERE);
    frames_of_another_process_are_lost(true, HARDENED_ELSEWHERE);
}

#[test]
fn a_generation_of_another_process_that_is_lost_with_a_failed_sync_is_not_healed_to_the_one_before() {
    for hardened in [false, true] {
        println!("hardened {hardened}");
        let home = TempDir::new().unwrap();
        let path = home.path().join("app.db");
        let vfs = FaultVfs::register(&format!("lost-generation-{hardened}"));
        let mut stock = Actor::open(&path, STOCK_ELSEWHERE);
        stock.ok(BEGIN);
        stock.ok("PRAGMA synchronous=OFF");
        for x in 1..=200 {
            stock.ok(&format!("INSERT INTO t VALUES ({x}, hex(randomblob(200)))"));
        }
        stock.ok("PRAGMA wal_checkpoint(PASSIVE)");
        let before = std::fs::read(beside(&path, "-wal")).unwrap();
        let connection = open(&path, vfs, hardened);
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "200");
        stock.ok("UPDATE t SET y = hex(randomblob(201)) WHERE x > 100");
        not_copied(vfs, &path, &connection, hardened, |log| {
            assert_eq!(log.metadata().unwrap().len(), before.len() as u64);
            log.write_all_at(&before, 0).unwrap();
        });
    }
}

/// A log in which frames of a commit that failed stand behind the last commit: the connection `stock` got an error from the
/// sync of its commit.
fn left_over(vfs: &FaultVfs, path: &Path) -> (Connection, Connection) {
    let connection = open(path, vfs, true);
    sql(&connection, BEGIN);
    sql(&connection, ROWS);
    sql(&connection, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET y = zeroblob(3001) WHERE x = 1");
    let stock = open(path, vfs, false);
    sql(&stock, "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0");
    let fault = sync_fails_once(vfs);
    stock.execute_batch("UPDATE t SET y = zeroblob(3002) WHERE x <= 10").unwrap_err();
    assert_eq!(fault.seen(), 1);
    vfs.clear();
    (connection, stock)
}

const LENGTHS: &str = "SELECT group_concat(length(y)) FROM t WHERE x IN (1, 2, 15)";

#[test]
fn a_log_sync_is_healed_where_frames_of_a_failed_commit_of_another_stand_behind_the_last_one() {
    let home = TempDir::new().unwrap();
    let vfs = FaultVfs::register("left-behind");
    // Behind the last commit of all, and behind one that was written over the first of them.
    for (name, last) in [("a.db", ""), ("b.db", "UPDATE t SET y = zeroblob(3003) WHERE x = 15")] {
        let path = home.path().join(name);
        let (connection, stock) = left_over(vfs, &path);
        sql(&stock, last);
        let expected = text(&stock, LENGTHS);
        let fault = sync_fails_once(vfs);
        checkpoint(&connection).unwrap();
        assert_eq!(fault.seen(), 1);
        is_healed(&connection);
        assert_eq!(text(&connection, LENGTHS), expected);
        assert!(whole_without_its_log(&path));
    }
}

/// Another connection commits at some point of a checkpoint whose log sync is healed: at the given one of its reads or
/// writes of the log. `false` if there are not so many.
fn commits_meanwhile(vfs: &'static FaultVfs, call: system_call::Call, skip: usize) -> bool {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let (connection, stock) = left_over(vfs, &path);
    let (send, receive) = std::sync::mpsc::channel();
    let meanwhile = system_call::within(call, "-wal", skip, move || {
        let answer = stock.execute_batch("UPDATE t SET y = zeroblob(3004) WHERE x = 15");
        send.send((stock, answer)).unwrap();
    });
    let fault = sync_fails_once(vfs);
    let answer = checkpoint(&connection);
    if !meanwhile.has_run() {
        return false;
    }
    drop(meanwhile);
    assert_eq!(fault.seen(), 1);
    vfs.clear();
    let (stock, committed) = receive.try_recv().unwrap();
    println!("{call:?} {skip}: checkpoint {answer:?}, commit {committed:?}");
    // Without the index, which tells what is in memory only.
    drop((stock, connection));
    let connection = Connection::open(&path).unwrap();
    let lengths = text(&connection, LENGTHS);
    match committed {
        Ok(()) => assert_eq!(lengths, "3001,3000,3004"),
        // Its frames may be there all the same.
        Err(_) => assert!(["3001,3000,3000", "3001,3000,3004"].contains(&lengths.as_str()), "{lengths}"),
    }
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    true
}

#[test]
fn healing_does_not_write_over_a_commit_that_another_connection_makes_meanwhile() {
    let vfs = FaultVfs::register("meanwhile");
    for call in [system_call::Call::Pread, system_call::Call::Pwrite] {
        let points = (0..1000).take_while(|skip| commits_meanwhile(vfs, call, *skip)).count();
        println!("{call:?}: {points} points");
        assert!((1..1000).contains(&points), "{points}");
        vfs.clear();
    }
}

/// A commit of a connection fails when all its frames are written; `then` the connection goes on. Another one commits over
/// the first of the frames.
fn healed_after_a_failed_commit(name: &str, then: &str) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let vfs = FaultVfs::register(name);
    let connection = open(&path, vfs, true);
    sql(&connection, BEGIN);
    sql(&connection, ROWS);
    sql(&connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    let frames = || std::fs::metadata(beside(&path, "-wal")).unwrap().len() / 4120;
    // The first region of the WAL-index holds 4062 frames.
    for n in 0.. {
        if frames() > 4052 {
            break;
        }
        connection.execute("UPDATE t SET y = zeroblob(3000 + ?1) WHERE x <= 10", [n % 50]).unwrap();
    }
    let fault = vfs.fail(Call::ShmMap, FailSpec::code(ffi::SQLITE_IOERR_SHMSIZE).times(1));
    connection.execute_batch("UPDATE t SET y = zeroblob(3077) WHERE x <= 10").unwrap_err();
    assert_eq!(fault.seen(), 1);
    vfs.clear();
    sql(&connection, then);
    let mut stock = Actor::open(&path, STOCK_ELSEWHERE);
    stock.ok("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; UPDATE t SET y = zeroblob(10) WHERE x = 15");
    let fault = sync_fails_once(vfs);
    let answer = checkpoint(&connection);
    println!("{answer:?}");
    assert_eq!(fault.seen(), 1);
    is_healed(&connection);
    answer.unwrap();
    assert_eq!(text(&connection, "SELECT max(length(y)) < 3077 AND min(length(y)) = 10 FROM t"), "1");
    assert!(whole_without_its_log(&path));
}

#[test]
fn a_log_sync_is_healed_after_a_commit_that_failed_behind_its_last_frame() {
    healed_after_a_failed_commit("failed-behind", "");
}

#[test]
fn a_log_sync_is_healed_after_a_commit_that_failed_and_a_transaction_that_wrote_nothing() {
    healed_after_a_failed_commit("failed-then-empty", "BEGIN IMMEDIATE; COMMIT");
}

/// Such a log gets salts that are not derived from those before, but random.
#[test]
fn a_log_sync_that_fails_once_is_healed_after_another_connection_has_truncated_the_log() {
    let home = TempDir::new().unwrap();
    let vfs = FaultVfs::register("truncated");
    for other in [true, false] {
        for n in 0..12 {
            let path = home.path().join(format!("{other}-{n}.db"));
            let connection = open(&path, vfs, true);
            sql(&connection, BEGIN);
            sql(&connection, "INSERT INTO t VALUES (1, '')");
            sql(&open(&path, vfs, other), "PRAGMA wal_checkpoint(TRUNCATE)");
            assert_eq!(std::fs::metadata(beside(&path, "-wal")).unwrap().len(), 0);
            let fault = sync_fails_once(vfs);
            sql(&connection, "INSERT INTO t VALUES (2, '')");
            assert_eq!(fault.seen(), 1);
            is_healed(&connection);
            assert_eq!(text(&connection, "SELECT count(*) FROM t"), "2");
            vfs.clear();
        }
    }
}
