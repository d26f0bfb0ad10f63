//! Promise 3 for a WAL database whose last process was killed: what the next open makes of the log, the WAL-index and the
//! guard's record that it finds, and what it does to others while it looks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actors::{Actor, HARDENED_ELSEWHERE, Kind, STOCK_ELSEWHERE};
use hardened_sqlite::{FsChoice, Options, Report, report};
use rusqlite::Connection;
use support::ask::text;
use support::fuse::{self, Hold, Mount, Op};
use support::names::beside;
use support::system_call::{Call, within};
use support::{mounts, require};
use tempfile::TempDir;

fn elsewhere(path: &Path, kind: Kind) -> Actor {
    let mut actor = Actor::with(path, kind, "fs=local", false);
    actor.ok("PRAGMA wal_autocheckpoint=0");
    actor
}

fn hardened(path: &Path) -> Connection {
    let connection = Options::new().fs(FsChoice::Local).open_connection(path).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

/// A change of the file must lie back far enough to be told from a later one.
fn settle(path: &Path) {
    let age = || fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap_or_default();
    while age() < Duration::from_millis(40) {
        std::thread::yield_now();
    }
}

const ROWS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60) \
                    INSERT INTO t SELECT x, zeroblob(3000) FROM n";

/// A database in WAL mode with an empty log, of which the record can tell every later change.
fn begun(path: &Path, kind: Kind) -> Actor {
    let mut actor = elsewhere(path, kind);
    actor.ok("PRAGMA journal_mode=WAL; CREATE TABLE t(x INTEGER PRIMARY KEY, y); PRAGMA wal_checkpoint(TRUNCATE)");
    settle(path);
    actor
}

/// A process was killed that has committed so many rows, none of them checkpointed.
fn killed(path: &Path, rows: i64) {
    let mut actor = begun(path, HARDENED_ELSEWHERE);
    for x in 1..=rows {
        actor.ok(&format!("INSERT INTO t VALUES ({x}, 'filler')"));
    }
    actor.kill();
}

/// Flips a bit of the log; what the log is then.
fn damage(path: &Path, at: impl FnOnce(usize) -> usize) -> Vec<u8> {
    let wal = beside(path, "-wal");
    let mut log = fs::read(&wal).unwrap();
    let at = at(log.len());
    log[at] ^= 1;
    fs::write(&wal, &log).unwrap();
    log
}

/// Whether stock SQLite reads such a database without a word. It is given a copy.
fn stock_is_silent(path: &Path, rows: i64) {
    let home = TempDir::new().unwrap();
    let copy = home.path().join("copy.db");
    for suffix in ["", "-wal"] {
        fs::copy(beside(path, suffix), beside(&copy, suffix)).unwrap();
    }
    let stock = Connection::open(copy).unwrap();
    assert_eq!(text(&stock, "PRAGMA integrity_check"), "ok");
    let count = stock.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(count < rows, "commits are missing: {count} of {rows}");
}

fn told(connection: &Connection) -> Report {
    let report = report(connection).unwrap();
    println!("alarms {:?}\nnotes {:?}", report.alarms, report.notes);
    report
}

/// The logs that were kept aside.
fn kept(path: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let kept = entries.filter(|entry| entry.to_string_lossy().contains("-wal_kept_"));
    kept.map(|entry| fs::read(entry).unwrap()).collect()
}

/// Whether a neighbour of this process, which takes its locks while `look` is in the middle of something, keeps another
/// process from writing afterwards.
fn neighbour_is_respected(look: impl FnOnce(&Path) -> Option<Connection> + Send, in_the_close: bool) -> bool {
    let (backing, at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mount = Mount::new(fuse::Options::new(backing.path()), at.path()).unwrap();
    let path = mount.path().join("app.db");
    killed(&path, 40);
    let neighbour = || {
        let stock = Connection::open(&path).unwrap();
        stock.execute_batch("PRAGMA wal_autocheckpoint=0; BEGIN IMMEDIATE; INSERT INTO t(x) VALUES (6000)").unwrap();
        stock
    };
    let (stock, ours) = if in_the_close {
        // The kernel asks the filesystem to flush before it drops the locks of whoever closes.
        let hold = mount.hold(Hold::Named(Op::Flush, "-shm".into()));
        std::thread::scope(|scope| {
            let look = scope.spawn(|| look(&path));
            while mount.held() == 0 && !look.is_finished() {
                std::thread::yield_now();
            }
            println!("{} close() of the -shm", mount.held());
            let stock = neighbour();
            hold.release();
            (stock, look.join().unwrap())
        })
    } else {
        (neighbour(), look(&path))
    };
    let mut other = elsewhere(&path, STOCK_ELSEWHERE);
    let answer = other.sql("INSERT INTO t(x) VALUES (5000)");
    println!("another process writes meanwhile: {answer:?}");
    let commit = stock.execute_batch("COMMIT");
    if answer == Err(5) {
        commit.unwrap();
        if let Some(ours) = ours {
            assert_eq!(text(&ours, "SELECT count(*) FROM t"), "41");
            assert_eq!(text(&ours, "PRAGMA integrity_check"), "ok");
        }
    }
    answer == Err(5)
}

#[test]
fn an_open_that_looks_at_the_index_takes_no_lock_of_a_stock_neighbour_away_whenever_that_is_taken() {
    if !require::root_and_fuse() {
        return;
    }
    for in_the_close in [false, true] {
        let closed = |path: &Path| {
            drop(File::open(beside(path, "-shm")).unwrap());
            None
        };
        assert!(!neighbour_is_respected(closed, in_the_close), "any close() does");
        assert!(neighbour_is_respected(|path| Some(hardened(path)), in_the_close));
    }
}

/// A process was killed after a commit of its failed with all its frames in the log, because the disk was full where the
/// -shm was to grow; `then` it went on, committed over the first of the frames, and synced the log.
fn killed_after_a_failed_commit(path: &Path, then: &str) {
    let mut stock = elsewhere(path, STOCK_ELSEWHERE);
    stock.ok("PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE t(x INTEGER PRIMARY KEY, y)");
    stock.ok(&ROWS.replace("3000", "300"));
    stock.close();
    settle(path);
    let (mut db, mut reader) = (elsewhere(path, HARDENED_ELSEWHERE), elsewhere(path, STOCK_ELSEWHERE));
    db.ok("UPDATE t SET y = zeroblob(301) WHERE x <= 10");
    reader.ok("BEGIN; SELECT * FROM t");
    // The first region of the WAL-index holds 4062 frames.
    let frames = || fs::metadata(beside(path, "-wal")).unwrap().len() / 536;
    for n in 0..410 {
        if frames() <= 4052 {
            db.ok(&format!("UPDATE t SET y = zeroblob({}) WHERE x <= 10", 302 + n % 2));
        }
    }
    assert!((4053..4062).contains(&frames()), "{}", frames());
    // Room for the frames of a commit, two pages, but not for the second region, eight.
    let ballast = path.with_file_name("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - 7 * 4096).unwrap();
    assert_eq!(db.sql("UPDATE t SET y = zeroblob(304) WHERE x <= 10"), Err(10 | (19 << 8)), "SQLITE_IOERR_SHMSIZE");
    fs::remove_file(&ballast).unwrap();
    db.ok(then);
    db.ok("UPDATE t SET y = zeroblob(200) WHERE x = 1");
    db.ok("PRAGMA wal_checkpoint(PASSIVE)");
    db.kill();
    reader.kill();
}

#[test]
fn a_commit_that_failed_is_not_missed_at_the_next_open_although_an_empty_transaction_succeeded_after_it() {
    if !require::root() {
        return;
    }
    for then in ["SELECT 1", "BEGIN IMMEDIATE; COMMIT"] {
        println!("{then}");
        let disk = mounts::tmpfs_with("size=4m").unwrap();
        let path = disk.path().join("app.db");
        killed_after_a_failed_commit(&path, then);
        let connection = hardened(&path);
        assert_eq!(told(&connection).alarms, [""; 0]);
        assert_eq!(text(&connection, "SELECT min(length(y)) = 200 AND max(length(y)) < 304 FROM t"), "1");
        assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
        drop(connection);
    }
}

/// A stock process has the database open, and a hardened one was killed when it had just checkpointed the log.
fn checkpointed(path: &Path) -> Actor {
    let mut stock = begun(path, STOCK_ELSEWHERE);
    stock.ok(ROWS);
    stock.ok("PRAGMA wal_checkpoint(TRUNCATE)");
    settle(path);
    let mut db = elsewhere(path, HARDENED_ELSEWHERE);
    for x in 1..=60 {
        db.ok(&format!("UPDATE t SET y = zeroblob(3001) WHERE x = {x}"));
    }
    assert_eq!(db.ok("PRAGMA wal_checkpoint(PASSIVE)"), "0");
    db.kill();
    stock
}

/// `false` if the log is not read so often.
fn begun_anew_meanwhile(skip: usize) -> bool {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let stock = Rc::new(RefCell::new(checkpointed(&path)));
    let other = Rc::clone(&stock);
    // The log is read in pieces, so the first of the old frames may be seen and the others not.
    let meanwhile = within(Call::Pread, "-wal", skip, move || {
        other.borrow_mut().ok("UPDATE t SET y = zeroblob(2999) WHERE x <= 18");
    });
    let connection = hardened(&path);
    let alarms = told(&connection).alarms;
    let run = meanwhile.has_run();
    drop(meanwhile);
    assert_eq!(alarms, [""; 0], "at read {skip}");
    if run {
        assert_eq!(text(&connection, "SELECT count(*) FROM t WHERE length(y) = 2999"), "18");
        connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
    }
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    drop(stock);
    run
}

#[test]
fn a_stock_process_that_begins_the_log_anew_while_the_record_is_judged_is_no_alarm() {
    let reads = (0..1000).take_while(|skip| begun_anew_meanwhile(*skip)).count();
    println!("at {reads} reads");
    assert!((4..1000).contains(&reads), "{reads}");
}

/// Which number a generation has depends on who begins it: each connection counts those that it has begun, from the one that
/// it found when it read the log alone. So the next one may have any.
#[test]
fn a_generation_that_another_connection_begins_while_the_record_is_judged_is_no_alarm() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let mut first = begun(&path, STOCK_ELSEWHERE);
    let mut second = elsewhere(&path, STOCK_ELSEWHERE);
    second.ok("SELECT count(*) FROM t");
    first.ok("INSERT INTO t VALUES (1, 'first')");
    first.ok("PRAGMA wal_checkpoint(RESTART)");
    first.ok("INSERT INTO t VALUES (2, 'the second generation')");
    let generation = |path: &Path| {
        let log = fs::read(beside(path, "-wal")).unwrap();
        let field = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
        (field(12), field(16))
    };
    settle(&path);
    let mut db = elsewhere(&path, HARDENED_ELSEWHERE);
    db.ok("INSERT INTO t VALUES (3, 'recorded')");
    let (number, salt) = generation(&path);
    db.kill();
    let meanwhile = within(Call::Pread, "-wal", 0, move || {
        second.ok("PRAGMA wal_checkpoint(RESTART)");
        second.ok("INSERT INTO t VALUES (4, 'the third generation')");
    });
    let connection = hardened(&path);
    assert!(meanwhile.has_run());
    let (number_now, salt_now) = generation(&path);
    assert_eq!(salt_now, salt.wrapping_add(1), "the generation after it");
    assert_ne!(number_now, number + 1, "the number does not say so");
    assert_eq!(told(&connection).alarms, [""; 0]);
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "4");
    connection.execute_batch("INSERT INTO t VALUES (5, 'may be written')").unwrap();
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
}

/// A stock process changes page 1 and checkpoints it, at one of the reads of the database. `false` if there are fewer.
fn checkpointed_meanwhile(skip: usize) -> bool {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let mut stock = begun(&path, STOCK_ELSEWHERE);
    let mut db = elsewhere(&path, HARDENED_ELSEWHERE);
    db.ok("INSERT INTO t VALUES (1, 'recorded')");
    db.kill();
    let meanwhile = within(Call::Pread, "app.db", skip, move || {
        for name in ["a", "b", "c"] {
            stock.ok(&format!("CREATE TABLE {name}(x)"));
        }
        assert_eq!(stock.ok("PRAGMA wal_checkpoint(PASSIVE)"), "0");
        drop(stock);
    });
    let connection = hardened(&path);
    let alarms = told(&connection).alarms;
    let run = meanwhile.has_run();
    drop(meanwhile);
    assert_eq!(alarms, [""; 0], "at read {skip}");
    assert_eq!(text(&connection, "SELECT count(*) FROM sqlite_schema"), if run { "4" } else { "1" });
    connection.execute_batch("INSERT INTO t VALUES (1000, 'may be written')").unwrap();
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    run
}

#[test]
fn a_stock_process_that_checkpoints_page_1_while_the_record_is_judged_is_no_alarm() {
    let reads = (0..1000).take_while(|skip| checkpointed_meanwhile(*skip)).count();
    println!("at {reads} reads");
    assert!((4..1000).contains(&reads), "{reads}");
}

#[test]
fn a_damaged_log_whose_index_a_stock_process_has_made_anew_is_told_and_kept() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    killed(&path, 20);
    let log = damage(&path, |length| length / 2);
    let mut stock = elsewhere(&path, STOCK_ELSEWHERE);
    let seen: i64 = stock.ok("SELECT count(*) FROM t").parse().unwrap();
    assert!((1..20).contains(&seen), "stock says nothing: {seen} rows");
    stock.kill();
    let told = told(&hardened(&path));
    assert!(told.notes.iter().any(|note| note.contains("The -wal holds commits that SQLite cannot reach")));
    assert!(kept(&path) == [log], "kept as it is");
}

#[test]
fn a_damaged_log_is_still_an_alarm_after_a_session_that_only_reads() {
    for between in [&[][..], &[HARDENED_ELSEWHERE], &[HARDENED_ELSEWHERE; 3]] {
        println!("{between:?}");
        let home = TempDir::new().unwrap();
        let path = home.path().join("app.db");
        let mut db = begun(&path, HARDENED_ELSEWHERE);
        db.ok("INSERT INTO t VALUES (0, '')");
        let mut reader = elsewhere(&path, STOCK_ELSEWHERE);
        reader.ok("BEGIN; SELECT * FROM t");
        for x in 1..=40 {
            db.ok(&format!("INSERT INTO t VALUES ({x}, zeroblob(100))"));
        }
        // It syncs the log, and does not come to the end because of the reader.
        db.ok("PRAGMA wal_checkpoint(PASSIVE)");
        db.kill();
        reader.kill();
        for kind in between {
            let mut db = elsewhere(&path, *kind);
            assert_eq!(db.ok("SELECT count(*) FROM t"), "41");
            db.kill();
        }
        damage(&path, |length| length / 2);
        stock_is_silent(&path, 41);
        let connection = hardened(&path);
        let alarms = told(&connection).alarms;
        assert!(alarms.iter().any(|alarm| alarm.contains("-wal")), "{alarms:?}");
    }
}

#[test]
fn a_log_with_a_damaged_header_is_kept_aside_also_where_nothing_is_proven() {
    use std::os::unix::fs::PermissionsExt;
    for proven in [true, false] {
        println!("proven {proven}");
        let home = TempDir::new().unwrap();
        let path = home.path().join("app.db");
        killed(&path, 20);
        let log = damage(&path, |_| 25);
        stock_is_silent(&path, 20);
        if !proven {
            // Somebody has changed the file since, as far as its times tell.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let connection = hardened(&path);
        let told = told(&connection);
        assert_eq!(!told.alarms.is_empty(), proven, "{told}");
        assert_eq!(connection.execute_batch("INSERT INTO t VALUES (1000, '')").is_err(), proven);
        assert!(kept(&path) == [&log[..]], "kept as it is");
        drop(connection);
        assert!(kept(&path) == [log], "kept as it is");
    }
}
