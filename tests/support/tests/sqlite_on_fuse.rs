//! SQLite works on the FUSE filesystem as on any other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use libsqlite3_sys as ffi;
use setup::{Db, SOON, mounted, plain};
use std::process::Command;
use support::fuse::{Fault, Op, Options, What};
use support::require;

const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;";

#[test]
fn databases_in_delete_and_wal_mode_stay_intact_with_two_connections() {
    let kinds: [fn(Options) -> Options; 2] = [|o| o, |o| o.forward_locks(true)];
    for kind in kinds {
        for mode in ["delete", "wal"] {
            let Some(fs) = mounted(kind) else { return };
            let path = fs.on("t.db");
            let (one, two) = (Db::open(&path, None).unwrap(), Db::open(&path, None).unwrap());
            assert_eq!(one.run(&format!("PRAGMA journal_mode = {mode}")).unwrap(), mode);
            one.run("CREATE TABLE t(i, x)").unwrap();
            for _ in 0..3 {
                one.run(ROWS).unwrap();
                two.run("DELETE FROM t WHERE i % 2").unwrap();
                two.run("UPDATE t SET x = 1 WHERE i % 3").unwrap();
            }
            assert_eq!(two.run("SELECT count(*) FROM t").unwrap(), "7500");
            assert_eq!(one.run("VACUUM; PRAGMA integrity_check").unwrap(), "ok");
            drop((one, two));
            let behind = Db::open(&fs.behind("t.db"), None).unwrap();
            assert_eq!(behind.run("PRAGMA integrity_check").unwrap(), "ok", "{mode}");
        }
    }
}

#[test]
fn another_process_is_locked_out_by_a_write_transaction() {
    if !require::program("sqlite3") {
        return;
    }
    for forward in [false, true] {
        for mode in ["delete", "wal"] {
            let Some(fs) = mounted(|o| o.forward_locks(forward)) else { return };
            let db = Db::open(&fs.on("t.db"), None).unwrap();
            db.run(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t(x)")).unwrap();
            let shell = || {
                let insert = "INSERT INTO t VALUES(1); SELECT count(*) FROM t;";
                let output = Command::new("sqlite3").arg(fs.on("t.db")).arg(insert).output();
                String::from_utf8(output.map(|o| [o.stdout, o.stderr].concat()).unwrap()).unwrap()
            };
            db.run("BEGIN IMMEDIATE; INSERT INTO t VALUES(2)").unwrap();
            assert!(shell().contains("locked"), "{mode}, forwarded: {forward}");
            db.run("COMMIT").unwrap();
            assert_eq!(shell().trim(), "2", "{mode}, forwarded: {forward}");
            assert_eq!(db.run("SELECT count(*) FROM t").unwrap(), "2");
        }
    }
}

#[test]
fn wal_mode_fails_where_shared_memory_cannot_be_mapped() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else { return };
    let db = Db::open(&fs.on("t.db"), None).unwrap();
    db.run("CREATE TABLE t(x)").unwrap();
    // The switch itself maps nothing, but the first use of the WAL-index does.
    let used = db.run("PRAGMA journal_mode = wal; INSERT INTO t VALUES(1)");
    assert_eq!(used, Err(ffi::SQLITE_IOERR_SHMMAP));
}

#[test]
fn a_full_disk_and_a_failing_sync_reach_sqlite() {
    let Some(fs) = plain() else { return };
    let db = Db::open(&fs.on("t.db"), None).unwrap();
    db.run("PRAGMA journal_mode = wal; CREATE TABLE t(x)").unwrap();
    let full = fs.mount.fault(Fault::on(Op::Write).name("-wal").what(What::Enospc));
    assert_eq!(db.run("INSERT INTO t VALUES(1)"), Err(ffi::SQLITE_FULL));
    assert!(full.seen() > 0);
    fs.mount.clear_faults();
    let sync = fs.mount.fault(Fault::on(Op::Fsync).name("-wal"));
    let inserted = db.run("PRAGMA synchronous = full; INSERT INTO t VALUES(1)");
    assert_eq!(inserted, Err(ffi::SQLITE_IOERR_FSYNC));
    assert_eq!(sync.seen(), 1);
}

#[test]
fn a_transaction_on_a_server_that_hangs_completes_when_it_comes_back() {
    let Some(fs) = plain() else { return };
    let db = Db::open(&fs.on("t.db"), None).unwrap();
    db.run("CREATE TABLE t(x)").unwrap();
    let hold = fs.mount.hold(Op::Fsync);
    let insert = std::thread::spawn(move || db.run("INSERT INTO t VALUES(1)").map(|_| db));
    assert!(fs.mount.wait_held(1, SOON));
    assert!(!insert.is_finished());
    hold.release();
    let db = insert.join().unwrap().ok().unwrap();
    assert_eq!(db.run("SELECT count(*) FROM t").unwrap(), "1");
}
