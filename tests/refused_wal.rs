//! Promise 1 when a filesystem that looks local refuses WAL at run time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use hardened_sqlite::hardened_vfs;
use hardened_sqlite::{Report, report};
use rusqlite::{Connection, OpenFlags, ffi};
use support::ask::text;
use support::fault_vfs::{Call, FailSpec, FaultVfs};
use support::process::alone;

/// A native-looking base whose results the test decides. One for each test: tests run at the same time.
fn base(name: &str) -> &'static FaultVfs {
    hardened_vfs::register(Default::default()).unwrap();
    FaultVfs::register(name)
}

fn open(path: &Path, base: &FaultVfs) -> rusqlite::Result<Connection> {
    let uri = format!("file:{}?vfs=hardened&busy_timeout=50&base={}", path.display(), base.name().to_str().unwrap());
    Connection::open_with_flags(uri, OpenFlags::default())
}

fn rollback_database(path: &Path) {
    let stock = Connection::open(path).unwrap();
    stock.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
}

fn wal_database(path: &Path) {
    let stock = Connection::open(path).unwrap();
    stock.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
}

fn stamp(path: &Path) -> [u8; 2] {
    std::fs::read(path).unwrap()[18..20].try_into().unwrap()
}

fn fell_back(connection: &Connection, cause: &str) -> Report {
    assert_eq!(text(connection, "PRAGMA journal_mode"), "delete", "{cause}");
    assert_eq!(text(connection, "PRAGMA synchronous"), "2", "{cause}");
    let report = report(connection).unwrap();
    assert!(report.reason.contains("WAL was tried and refused"), "{report}");
    assert!(report.notes.iter().any(|note| note.contains(cause)), "{cause} in {report}");
    report
}

/// The failures by which filesystems refuse WAL, each on a database of rollback mode and on a new one.
#[test]
fn a_persistent_refusal_falls_back_to_delete_and_full_with_the_cause() {
    let home = tempfile::tempdir().unwrap();
    let base = base("unix-refusing");
    for (number, (call, code, cause)) in [
        (Call::ShmMap, ffi::SQLITE_IOERR_SHMMAP, "disk I/O error (5386)"),
        (Call::ShmLock, ffi::SQLITE_IOERR_SHMLOCK, "disk I/O error (5130)"),
        (Call::ShmLock, ffi::SQLITE_PROTOCOL, "locking protocol (15)"),
    ]
    .into_iter()
    .enumerate()
    {
        for existing in [true, false] {
            let path = home.path().join(format!("{number}-{existing}.db"));
            if existing {
                rollback_database(&path);
            }
            let fault = base.fail(call, FailSpec::code(code));
            let connection = open(&path, base).unwrap();
            assert!(fault.seen() > 0, "{call:?} {code}: the fault bit");
            fell_back(&connection, cause);
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (2)").unwrap();
            assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "delete", "and stays there");
            assert_eq!(text(&connection, "PRAGMA locking_mode"), "normal");
            // The lock of the detour is given back: another process can write.
            let stock = Connection::open(&path).unwrap();
            stock.execute_batch("INSERT INTO t VALUES (3)").unwrap();
            assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
            assert_eq!(stamp(&path), [1, 1], "{call:?} {code}");
            base.clear();
        }
        // Stock SQLite on the same filesystem stamps page 1 and then cannot read it any more.
        let path = home.path().join(format!("{number}-stock.db"));
        rollback_database(&path);
        let _ = base.fail(call, FailSpec::code(code));
        let stock =
            Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), base.name().to_str().unwrap()).unwrap();
        stock.busy_timeout(std::time::Duration::ZERO).unwrap();
        let _ = stock.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
        assert!(stock.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_err(), "stock fails with {code}");
        base.clear();
    }
}

/// A base that forbids a pragma says "not authorized" while the statement is prepared. Which of the file controls of an
/// open carries the pragma is SQLite's business, so each of them is refused in turn.
#[test]
fn not_authorized_falls_back_and_harms_nothing_wherever_it_comes() {
    let home = tempfile::tempdir().unwrap();
    let base = base("unix-forbidding");
    let mut fell = 0;
    for skip in 0..40 {
        let path = home.path().join(format!("{skip}.db"));
        rollback_database(&path);
        let fault = base.fail(Call::FileControl, FailSpec::code(ffi::SQLITE_AUTH).skip(skip).times(1));
        let connection = open(&path, base).unwrap();
        if fault.seen() == 0 {
            assert!(fell > 0, "no file control of {skip} carried the pragma");
            return;
        }
        let report = report(&connection).unwrap();
        if report.reason.contains("WAL was tried and refused") {
            fell_back(&connection, "(23)");
            fell += 1;
        }
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "2");
        base.clear();
    }
    panic!("an open has more file controls than this test expects");
}

#[test]
fn a_silent_refusal_falls_back_too() {
    let home = tempfile::tempdir().unwrap();
    let base = base("unix-silent");
    for (version, hide) in [(1, false), (2, true), (3, true)] {
        base.io_version(version);
        base.hide_shm_map(hide);
        let path = home.path().join(format!("{version}.db"));
        let connection = open(&path, base).unwrap();
        assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
        assert_eq!(text(&connection, "PRAGMA synchronous"), "2");
        let report = report(&connection).unwrap();
        assert!(report.reason.contains("no shared memory"), "{report}");
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    }
}

#[test]
fn a_transient_error_is_retried_and_does_not_cost_wal() {
    let home = tempfile::tempdir().unwrap();
    let base = base("unix-transient");
    for (number, (call, code)) in
        [(Call::ShmMap, ffi::SQLITE_IOERR_SHMMAP), (Call::Read, ffi::SQLITE_IOERR_READ)].into_iter().enumerate()
    {
        for times in [1, 2] {
            let path = home.path().join(format!("{number}-{times}.db"));
            rollback_database(&path);
            // The first read of a database is that of its header in sqlite3_open, where an error is the end.
            let skip = u64::from(call == Call::Read);
            let fault = base.fail(call, FailSpec::code(code).skip(skip).times(times));
            let connection = open(&path, base).unwrap();
            assert_eq!(fault.seen(), times, "{call:?}");
            assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal", "{call:?} {times} times");
            assert_eq!(text(&connection, "PRAGMA synchronous"), "1");
            base.clear();
        }
    }
}

#[test]
fn an_error_never_takes_a_database_out_of_wal_that_is_wal_on_disk() {
    let home = tempfile::tempdir().unwrap();
    let base = base("unix-broken");
    for (number, (call, code)) in [
        (Call::ShmMap, ffi::SQLITE_IOERR_SHMMAP),
        (Call::ShmLock, ffi::SQLITE_PROTOCOL),
        (Call::Lock, ffi::SQLITE_IOERR_LOCK),
    ]
    .into_iter()
    .enumerate()
    {
        let path = home.path().join(format!("{number}.db"));
        wal_database(&path);
        let fault = base.fail(call, FailSpec::code(code));
        let connection = open(&path, base).unwrap();
        assert!(fault.seen() >= 3, "tried again");
        assert!(connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_err(), "the error is passed through");
        base.clear();
        assert_eq!(stamp(&path), [2, 2]);
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "1", "and when it is gone, all is as before");
        assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal");
    }
}

#[test]
fn unrelated_errors_pass_through_and_change_nothing() {
    let home = tempfile::tempdir().unwrap();
    let base = base("unix-unrelated");
    let path = home.path().join("full.db");
    rollback_database(&path);
    let fault = base.fail(Call::Write, FailSpec::code(ffi::SQLITE_FULL));
    let connection = open(&path, base).unwrap();
    assert!(fault.seen() > 0);
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete", "the mode is kept");
    let report = report(&connection).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("keeps journal_mode delete")), "{report}");
    assert!(!report.reason.contains("refused"), "a full disk is no refusal of WAL: {report}");
    base.clear();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "1");
    assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "wal", "and WAL is still possible");
}

#[test]
fn one_warning_per_database_with_the_cause() {
    use std::sync::Mutex;
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    struct Ear;
    impl log::Log for Ear {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            HEARD.lock().unwrap().push(format!("{}: {}", record.target(), record.args()));
        }
        fn flush(&self) {}
    }
    log::set_logger(&Ear).unwrap();
    log::set_max_level(log::LevelFilter::Info);

    let home = tempfile::tempdir().unwrap();
    let base = base("unix-noisy");
    let path = home.path().join("app.db");
    let _ = base.fail(Call::ShmMap, FailSpec::code(ffi::SQLITE_IOERR_SHMMAP));
    for _ in 0..3 {
        let connection = open(&path, base).unwrap();
        fell_back(&connection, "disk I/O error");
    }
    let heard = HEARD.lock().unwrap().clone();
    let about: Vec<_> = heard.iter().filter(|line| line.contains(path.to_str().unwrap())).collect();
    assert_eq!(about.len(), 1, "{about:?}");
    assert!(about[0].starts_with("hardened: ") && about[0].contains("5386"), "{about:?}");
}

/// Between the mark in page 1 and its undoing another process opens the database, as it now must: as a WAL database.
#[test]
fn a_mark_that_cannot_be_taken_back_leaves_a_working_process() {
    alone("a_mark_that_cannot_be_taken_back_leaves_a_working_process", || {
        let home = tempfile::tempdir().unwrap();
        let base = base("unix-contended");
        let path = home.path().join("app.db");
        rollback_database(&path);
        let fault = base.fail(Call::ShmMap, FailSpec::code(ffi::SQLITE_IOERR_SHMMAP));
        let other = std::thread::spawn({
            let path = path.clone();
            move || {
                while stamp(&path) != [2, 2] {
                    std::thread::yield_now();
                }
                let other = Connection::open(&path).unwrap();
                assert_eq!(text(&other, "SELECT count(*) FROM t"), "1");
                other
            }
        });
        let connection = open(&path, base).unwrap();
        assert!(fault.seen() > 0);
        let other = other.join().unwrap();
        assert_eq!(stamp(&path), [2, 2], "the other one keeps it");
        let _ = connection.query_row("SELECT count(*) FROM t", [], |_| Ok(()));
        base.clear();
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "1", "and when the refusal is gone, all is well");
        drop(connection);
        assert_eq!(text(&other, "PRAGMA integrity_check"), "ok");
    });
}

/// Whoever has the database open holds the locks of the base that the URI names, so a conversion must meet them there.
#[test]
fn a_conversion_goes_through_the_base_of_the_uri() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    let holder = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "unix-dotfile").unwrap();
    // Without shared memory WAL needs EXCLUSIVE locking mode.
    holder.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; CREATE TABLE t(x)").unwrap();
    assert_eq!(stamp(&path), [2, 2]);
    let uri = format!("file:{}?vfs=hardened&base=unix-dotfile&fs=network", path.display());
    let refused = Connection::open_with_flags(uri, OpenFlags::default());
    assert!(refused.is_err(), "the holder has it open");
    assert_eq!(stamp(&path), [2, 2], "and it was not touched");
    holder.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    drop(holder);
    let stock = Connection::open(&path).unwrap();
    assert_eq!(text(&stock, "SELECT count(*) FROM t"), "1", "what was committed is there");
}

#[test]
fn without_locks_nothing_is_converted() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    wal_database(&path);
    let holder = Connection::open(&path).unwrap();
    assert_eq!(text(&holder, "SELECT count(*) FROM t"), "1");
    let uri = format!("file:{}?vfs=hardened&base=unix-none&fs=network", path.display());
    assert!(Connection::open_with_flags(uri, OpenFlags::default()).is_err(), "whoever has it open is not seen");
    assert_eq!(stamp(&path), [2, 2]);
    holder.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    drop(holder);
    assert_eq!(text(&Connection::open(&path).unwrap(), "SELECT count(*) FROM t"), "2");
}

/// The locking mode of all databases is set through the first one alone.
#[test]
fn an_attached_database_in_exclusive_mode_stays_usable_when_wal_is_asked_for() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    rollback_database(&path);
    let connection = Connection::open_in_memory().unwrap();
    let uri = format!("file:{}?vfs=hardened&fs=network", path.display());
    connection.execute("ATTACH ?1 AS net", [uri]).unwrap();
    assert_eq!(text(&connection, "PRAGMA locking_mode=EXCLUSIVE"), "exclusive");
    assert_eq!(text(&connection, "PRAGMA net.journal_mode=WAL"), "delete");
    connection.execute_batch("INSERT INTO net.t VALUES (2)").unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM net.t"), "2");
}
