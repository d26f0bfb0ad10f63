//! Promises 2 to 5 under orders of events that are easily overlooked: several connections, processes and databases at once,
//! generations that others began, forks, closes, and shims above that keep things to themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use hardened_sqlite::hardened_vfs::guard::classify::{Finding, Journal, Observation, PageNow, Wal, WalSeen, classify};
use hardened_sqlite::hardened_vfs::guard::images::Folded;
use hardened_sqlite::hardened_vfs::guard::log::{Outcome, Reader, Record, Time};
use hardened_sqlite::hardened_vfs::guard::sums::Sums;
use hardened_sqlite::hardened_vfs::{self, guard};
use hardened_sqlite::{FsChoice, GuardChoice, Options, PolicyChoice, report};
use rusqlite::{Connection, OpenFlags, ffi};
use support::fault_vfs::{Call, FailSpec, FaultHandle, FaultVfs};
use support::names::beside;
use support::{ofd, process, system_call};
use tempfile::TempDir;

fn count(vfs: &FaultVfs, call: Call, suffix: &str) -> FaultHandle {
    vfs.fail(call, FailSpec::code(10).name(suffix).skip(u64::MAX))
}

fn uri(path: &Path, options: &str) -> Connection {
    hardened_vfs::register(Default::default()).unwrap();
    let uri = format!("file:{}?vfs=hardened&{options}", path.display());
    Connection::open_with_flags(uri, OpenFlags::default()).unwrap()
}

fn sql(connection: &Connection, sql: &str) {
    connection.execute_batch(sql).unwrap();
}

/// synchronous=OFF for a database whose pragmas the shim does not see: a VFS above it keeps file controls to itself.
fn off(connection: &Connection, above: &FaultVfs, schemas: &[&str]) {
    above.fail(Call::Pragma, FailSpec::code(ffi::SQLITE_NOTFOUND));
    for schema in schemas {
        sql(connection, &format!("PRAGMA {schema}.synchronous=OFF"));
    }
    above.clear();
    for schema in schemas {
        let level: i64 = connection.query_row(&format!("PRAGMA {schema}.synchronous"), [], |row| row.get(0)).unwrap();
        assert_eq!(level, 0, "{schema}");
    }
}

fn above(name: &str) -> &'static FaultVfs {
    hardened_vfs::register(Default::default()).unwrap();
    FaultVfs::register_over(name, "hardened")
}

fn uri_above(vfs: &FaultVfs, path: &Path, options: &str) -> Connection {
    let uri = format!("file:{}?vfs={}&{options}", path.display(), vfs.name().to_str().unwrap());
    Connection::open_with_flags(uri, OpenFlags::default()).unwrap()
}

fn settle(path: &Path) {
    while std::fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap_or_default() < Duration::from_millis(40)
    {
        std::thread::yield_now();
    }
}

fn changed(path: &Path) -> Time {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).unwrap();
    Time { seconds: found.ctime(), nanoseconds: found.ctime_nsec() as u32 }
}

/// What the guard finds after a power cut that took nothing from the database and left this WAL. The number of pages is
/// told where there is no WAL.
fn after_a_power_cut(path: &Path, log: &Folded, wal: Wal) -> Finding {
    let file = std::fs::read(path).unwrap();
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    let seen = Observation {
        page_size: 4096,
        counter: Some(number(24)),
        page_count: matches!(wal, Wal::Absent).then(|| number(28)),
        journal: Journal::Absent,
        wal,
        boot: [9; 16],
        shared: false,
        changed: Some(changed(path)),
        log_changed: Some(changed(&guard::sidecar(path))),
        thorough: false,
    };
    let finding = classify(log, &seen, &mut |page: u32| {
        file.get((page as usize - 1) * 4096..page as usize * 4096)
            .map_or(PageNow::Beyond, |image| PageNow::Image(Sums::of(image)))
    });
    println!("notes {:?}", finding.notes);
    finding
}

/// Promise 5: the sync of an earlier commit is no sync of what another connection has appended since.
#[test]
fn a_checkpoint_under_off_syncs_the_log_of_other_connections_first() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let vfs = FaultVfs::register("order-stale");
    let options = "base=order-stale&fs=local&guard=off";
    let above = above("above-1");
    let (a, b) = (uri_above(above, &path, options), uri_above(above, &path, options));
    sql(&a, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x); PRAGMA synchronous=FULL");
    sql(&b, "PRAGMA wal_autocheckpoint=0");
    off(&b, above, &["main"]);
    sql(&a, "INSERT INTO t VALUES (1)");
    off(&a, above, &["main"]);
    sql(&b, "INSERT INTO t VALUES (2)");
    let (syncs, writes) = (count(vfs, Call::Sync, "-wal"), count(vfs, Call::Write, "app.db"));
    sql(&a, "PRAGMA wal_checkpoint(PASSIVE)");
    assert!(writes.matched() > 0, "pages were written");
    assert!(syncs.matched() > 0, "pages were copied from a log that was not synced");
}

/// The pages of attached databases are written before the super-journal goes, also where the main database is not ours.
#[test]
fn pages_reach_attached_databases_before_the_super_journal_goes() {
    let home = TempDir::new().unwrap();
    let (main, one, two) = (home.path().join("main.db"), home.path().join("one.db"), home.path().join("two.db"));
    hardened_vfs::register(Default::default()).unwrap();
    let vfs = FaultVfs::register("order-full");
    let stock = Connection::open(&main).unwrap();
    let above = above("above-3");
    for (name, path) in [("one", &one), ("two", &two)] {
        let at = format!("file:{}?vfs=above-3&base=order-full&policy=delete", path.display());
        sql(&stock, &format!("ATTACH '{at}' AS {name}; CREATE TABLE {name}.t(x)"));
    }
    sql(&stock, "PRAGMA synchronous=OFF; CREATE TABLE t(x)");
    off(&stock, above, &["one", "two"]);
    let full = vfs.fail(Call::Write, FailSpec::code(13).name("two.db"));
    let answer = stock.execute_batch(
        "BEGIN; INSERT INTO t VALUES (1); INSERT INTO one.t VALUES (1); INSERT INTO two.t VALUES (1); COMMIT",
    );
    vfs.clear();
    println!("{answer:?}, {} writes failed", full.seen());
    drop(stock);
    let rows = |path: &Path| -> i64 {
        Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    };
    let rows = [rows(&main), rows(&one), rows(&two)];
    assert!(
        rows == [1, 1, 1] || (answer.is_err() && rows == [0, 0, 0]),
        "COMMIT answered {answer:?}, and there are {rows:?}"
    );
}

/// The disk is full at the commit: stock rolls back, and goes on in EXCLUSIVE locking mode.
#[test]
fn a_full_disk_at_a_commit_is_rolled_back() {
    let home = TempDir::new().unwrap();
    let vfs = FaultVfs::register("order-nospace");
    const STOCK: &str = "base=order-nospace&policy=off";
    const ONE_BY_ONE: &str = "base=order-nospace&policy=delete&combine=off";
    const TOGETHER: &str = "base=order-nospace&policy=delete&combine=on";
    for (mode, how, skip) in ["normal", "exclusive"]
        .into_iter()
        .flat_map(|mode| [(mode, STOCK, 2), (mode, ONE_BY_ONE, 2), (mode, TOGETHER, 0)])
    {
        let path = home.path().join(format!("{mode}{}.db", how.len()));
        let a = uri(&path, how);
        sql(
            &a,
            &format!(
                "PRAGMA journal_mode=DELETE; PRAGMA locking_mode={mode}; CREATE TABLE t(x); INSERT INTO t VALUES (1)"
            ),
        );
        // What lies beyond the present end cannot be written: the new page is the first that fails.
        vfs.fail(Call::Write, FailSpec::code(13).name(".db").skip(skip).times(if mode == "normal" { 3 } else { 1000 }));
        let answer = a.execute_batch("BEGIN; INSERT INTO t VALUES (zeroblob(20000)); COMMIT");
        println!("{mode}, {how}: {answer:?}");
        assert!(answer.is_err());
        let auto = a.is_autocommit();
        let _ = a.execute_batch("ROLLBACK");
        let read = a.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        println!("  autocommit {auto}, then {read:?}");
        vfs.clear();
        let read = a.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(read.unwrap(), 1);
    }
}

/// Promise 3: in EXCLUSIVE locking mode a second commit that writes page 1 leaves the counter; it was not undone.
#[test]
fn a_commit_in_exclusive_locking_mode_is_not_taken_for_undone() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let a = Options::new().policy(PolicyChoice::Delete).guard(GuardChoice::Strict).open_connection(&path).unwrap();
    sql(&a, "CREATE TABLE t(x INTEGER PRIMARY KEY, y); CREATE TABLE u(x INTEGER PRIMARY KEY, y)");
    sql(&a, "INSERT INTO t VALUES (1, zeroblob(100)); INSERT INTO u VALUES (1, 'a')");
    sql(&a, "PRAGMA locking_mode=EXCLUSIVE; UPDATE u SET y = 'b'");
    sql(&a, "INSERT INTO t VALUES (2, zeroblob(9000))");
    sql(&a, "INSERT INTO t VALUES (3, zeroblob(9000))");
    settle(&path);
    sql(&a, "UPDATE u SET y = 'c'");
    let record = std::fs::read(guard::sidecar(&path)).unwrap();
    for logged in Reader::new(&record).unwrap() {
        match logged.record {
            Record::Written(w) => println!(
                "written {} -> {}, exclusive {}, pages {:?}",
                w.counter_before,
                w.counter_after,
                w.exclusive,
                w.pages.iter().map(|e| e.page).collect::<Vec<_>>()
            ),
            Record::Done(done) => println!("done {:?}", done.outcome),
            _ => {}
        }
    }
    // A power cut now, on an honest disk.
    let log = Folded::read(&record).unwrap();
    let finding = after_a_power_cut(&path, &log, Wal::Absent);
    let undone = Reader::new(&record)
        .unwrap()
        .filter(|l| matches!(&l.record, Record::Done(d) if d.outcome == Outcome::RolledBack))
        .count();
    assert!(finding.alarms.is_empty(), "{:?}", finding.alarms);
    assert_eq!(undone, 0, "commits that are recorded as rolled back");
}

/// Promise 4: the place of the last commit counts only in its own generation.
#[test]
fn a_log_sync_that_fails_once_is_healed_in_a_generation_that_another_process_began() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let vfs = FaultVfs::register("order-end");
    let a = uri(&path, "base=order-end&fs=local&guard=off");
    sql(&a, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x)");
    for _ in 0..30 {
        sql(&a, "INSERT INTO t VALUES (1)");
    }
    let b = Connection::open(&path).unwrap();
    b.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    sql(&b, "INSERT INTO t VALUES (2)");
    sql(&a, "INSERT INTO t VALUES (3)");
    let fault = vfs.fail(Call::Sync, FailSpec::code(ffi::SQLITE_IOERR_FSYNC).name("-wal").times(1));
    let answer = a.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
    assert_eq!(fault.seen(), 1);
    let report = report(&a).unwrap();
    assert!(report.alarms.is_empty(), "{answer:?}: {:?}", report.alarms);
}

/// Promise 3, the same: no more frames are recorded as synced than the generation has.
#[test]
fn no_frames_are_recorded_as_synced_that_never_were() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let a = Options::new().fs(FsChoice::Local).open_connection(&path).unwrap();
    sql(&a, "PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x)");
    for _ in 0..60 {
        sql(&a, "INSERT INTO t VALUES (1)");
    }
    let b = Connection::open(&path).unwrap();
    b.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    sql(&b, "INSERT INTO t VALUES (2)");
    let reader = Connection::open(&path).unwrap();
    sql(&reader, "BEGIN; SELECT * FROM t");
    reader.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    sql(&a, "INSERT INTO t VALUES (3)");
    sql(&a, "PRAGMA wal_checkpoint(PASSIVE)");
    let frames = (std::fs::metadata(beside(&path, "-wal")).unwrap().len() - 32) / 4120;
    for _ in 0..150 {
        sql(&a, "INSERT INTO t VALUES (4)");
    }
    let record = std::fs::read(guard::sidecar(&path)).unwrap();
    let log = Folded::read(&record).unwrap();
    let pending = log.pending.as_ref().unwrap();
    let claimed = log.synced.get(&pending.generation.salts).copied().unwrap_or(0);
    // A power cut: a frame that was never synced is not there, those behind it are.
    let wal = WalSeen {
        generation: pending.generation,
        valid_frames: frames + 3,
        committed_frames: frames + 3,
        unreachable_frames: 140,
        unreachable_commits: 140,
        visible_frames: 0,
        index_recovered: false,
        pages: [2].into(),
        page1: Vec::new(),
        page1_counters: None,
    };
    let finding = after_a_power_cut(&path, &log, Wal::Log(wal));
    assert!(finding.alarms.is_empty(), "{:?}", finding.alarms);
    assert!(claimed <= frames, "{claimed} frames are recorded as synced, and there were {frames}");
}

/// Promise 3: SQLite cuts a log that is too long in the middle of a commit, which is no end of a generation.
#[test]
fn a_size_limit_of_the_log_does_not_record_a_checkpoint() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let a = Options::new().fs(FsChoice::Local).open_connection(&path).unwrap();
    sql(&a, "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=0; CREATE TABLE t(x)");
    for _ in 0..20 {
        sql(&a, "INSERT INTO t VALUES (1)");
    }
    sql(&a, "PRAGMA wal_checkpoint(RESTART)");
    sql(&a, "INSERT INTO t VALUES (2)");
    let record = std::fs::read(guard::sidecar(&path)).unwrap();
    let salts: Vec<u8> = std::fs::read(beside(&path, "-wal")).unwrap()[16..24].to_vec();
    let log = Folded::read(&record).unwrap();
    println!("{:?}", log.checkpoint.as_ref().map(|c| (c.generation, c.expected.len())));
    for logged in Reader::new(&record).unwrap() {
        if let Record::Checkpointed(done) = logged.record {
            let of: Vec<u8> = done.generation.salts.iter().flat_map(|salt| salt.to_be_bytes()).collect();
            println!(
                "checkpointed {:?} complete {} pages {}",
                done.generation,
                done.complete,
                done.pages.iter().count()
            );
            assert!(!(done.complete && of == salts), "the generation that has just begun is recorded as checkpointed");
        }
    }
}

/// A neighbour may look who else is there, for a moment: that stops neither the record for good nor, with guard=strict,
/// all writes.
#[test]
fn a_sidecar_that_is_busy_for_a_moment_is_used_afterwards() {
    let home = TempDir::new().unwrap();
    for choice in [GuardChoice::On, GuardChoice::Strict] {
        let path = home.path().join(format!("{choice:?}.db"));
        sql(&Connection::open(&path).unwrap(), "CREATE TABLE t(x)");
        let a = Options::new().policy(PolicyChoice::Delete).guard(choice).open_connection(&path).unwrap();
        a.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        std::fs::write(guard::sidecar(&path), b"x").unwrap();
        let neighbour = std::fs::File::options().read(true).write(true).open(guard::sidecar(&path)).unwrap();
        let busy = ofd::lock(&neighbour, 0x4000_0000, 1);
        let first = a.execute_batch("INSERT INTO t VALUES (1)");
        drop(busy);
        let second = a.execute_batch("INSERT INTO t VALUES (2)");
        println!("{choice:?}: {first:?}, {second:?}, {}", report(&a).unwrap().guard);
        assert_eq!(
            first.is_err(),
            choice == GuardChoice::Strict,
            "only strict writes nothing without a record: {first:?}"
        );
        assert!(second.is_ok(), "{choice:?}: nothing is in the way any more: {second:?}");
        assert!(!report(&a).unwrap().guard.contains("cannot"), "{choice:?}: {}", report(&a).unwrap().guard);
    }
}

/// A forked child closes its copy of the connection.
#[test]
fn a_forked_child_does_not_remove_the_record_of_its_parent() {
    process::alone("a_forked_child_does_not_remove_the_record_of_its_parent", || {
        let home = TempDir::new().unwrap();
        let path = home.path().join("app.db");
        let a = Options::new().policy(PolicyChoice::Delete).open_connection(&path).unwrap();
        sql(&a, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
        assert!(guard::sidecar(&path).exists());
        let (a, child) = process::start(a, process::End::AtOnce, drop);
        assert!(child.succeeded());
        assert!(guard::sidecar(&path).exists(), "the child has removed it");
        sql(&a, "INSERT INTO t VALUES (2)");
    });
}

/// Promise 3 and 9: a log with a damaged header is missed, writing is blocked, and closing leaves the log alone.
#[test]
fn a_damaged_log_outlives_the_connection_that_was_blocked_because_of_it() {
    const DIE_WITH: &str = "HARDENED_TEST_DIE_WITH";
    if let Some(at) = std::env::var_os(DIE_WITH) {
        let a = Options::new().fs(FsChoice::Local).open_connection(&at).unwrap();
        sql(&a, "CREATE TABLE t(x); PRAGMA wal_checkpoint(TRUNCATE)");
        settle(Path::new(&at));
        for _ in 0..10 {
            sql(&a, "INSERT INTO t VALUES (1)");
        }
        std::mem::forget(a);
        std::process::exit(77);
    }
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_damaged_log_outlives_the_connection_that_was_blocked_because_of_it"])
        .env(DIE_WITH, &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(77), "{}", String::from_utf8_lossy(&output.stderr));
    let wal = beside(&path, "-wal");
    let mut log = std::fs::read(&wal).unwrap();
    log[20] ^= 1;
    std::fs::write(&wal, &log).unwrap();
    std::fs::remove_file(beside(&path, "-shm")).unwrap();
    let a = Options::new().fs(FsChoice::Local).open_connection(&path).unwrap();
    let alarms = report(&a).unwrap().alarms;
    println!("{alarms:?}");
    assert!(!alarms.is_empty());
    assert!(a.execute_batch("INSERT INTO t VALUES (2)").is_err());
    drop(a);
    assert_eq!(std::fs::read(&wal).ok().map(|now| now == log), Some(true), "the damaged log was deleted at close");
}

/// Two connections opened without a URI: one looks whether a PERSIST journal is hot at the moment in which the other
/// begins to write. Its journal is paired with the writer's database.
#[test]
fn a_reader_that_looks_into_a_journal_is_not_taken_for_its_writer() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    hardened_vfs::register_as("order-plain", "policy=delete&journal=persist&guard=off".parse().unwrap()).unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let open = || Connection::open_with_flags_and_vfs(&path, flags, c"order-plain").unwrap();
    let (a, b) = (Rc::new(open()), open());
    sql(&a, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    assert!(beside(&path, "-journal").exists());
    b.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    let writer = Rc::clone(&a);
    let look = system_call::in_next_fstat(move || sql(&writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"));
    let read = b.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert!(look.has_run());
    println!("{read:?}");
    let commit = a.execute_batch("COMMIT");
    assert!(commit.is_ok(), "the commit of the writer fails with {commit:?}");
}
