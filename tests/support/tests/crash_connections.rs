//! Several connections on one simulated disk: locks, the WAL-index, and SQLite on both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "the raw files serve two tests")]

mod raw;

use libsqlite3_sys as ffi;
use raw::{DATABASE, Raw};
use support::crash::{Disk, Session};

const SHARED: i32 = ffi::SQLITE_LOCK_SHARED;
const RESERVED: i32 = ffi::SQLITE_LOCK_RESERVED;
const EXCLUSIVE: i32 = ffi::SQLITE_LOCK_EXCLUSIVE;

fn open(disk: &Disk) -> Session {
    Session::open(&format!("file:{}?vfs={}", disk.path("x.db"), disk.name())).unwrap()
}

fn code(result: Result<(), support::sqlite::Failure>) -> i32 {
    result.map_or_else(|failure| failure.code & 0xff, |()| ffi::SQLITE_OK)
}

#[test]
fn a_writer_waits_for_readers_and_keeps_new_ones_out() {
    let disk = Disk::lease();
    let [one, two, three] = [0, 1, 2].map(|_| Raw::open(&disk, "x.db", DATABASE).unwrap());
    assert_eq!([one.lock(SHARED), two.lock(SHARED), one.lock(RESERVED)], [ffi::SQLITE_OK; 3]);
    assert!(two.reserved() && three.reserved());
    assert_eq!(two.lock(RESERVED), ffi::SQLITE_BUSY);
    assert_eq!(three.lock(SHARED), ffi::SQLITE_OK);
    assert_eq!(three.unlock(ffi::SQLITE_LOCK_NONE), ffi::SQLITE_OK);
    assert_eq!(one.lock(EXCLUSIVE), ffi::SQLITE_BUSY);
    assert_eq!(three.lock(SHARED), ffi::SQLITE_BUSY, "a lock is pending");
    assert_eq!(two.unlock(ffi::SQLITE_LOCK_NONE), ffi::SQLITE_OK);
    assert_eq!(one.lock(EXCLUSIVE), ffi::SQLITE_OK);
    assert_eq!(two.lock(SHARED), ffi::SQLITE_BUSY);
    assert_eq!(one.unlock(SHARED), ffi::SQLITE_OK);
    assert!(!two.reserved());
    assert_eq!(two.lock(SHARED), ffi::SQLITE_OK);
    // As for a hot journal: from SHARED to EXCLUSIVE at once, by one of two.
    drop(one);
    assert_eq!([two.lock(EXCLUSIVE), three.lock(SHARED)], [ffi::SQLITE_OK, ffi::SQLITE_BUSY]);
}

#[test]
fn the_locks_of_the_wal_index_exclude_as_they_should_and_its_regions_are_shared() {
    const LOCK: i32 = ffi::SQLITE_SHM_LOCK;
    const UNLOCK: i32 = ffi::SQLITE_SHM_UNLOCK;
    const SHARE: i32 = ffi::SQLITE_SHM_SHARED;
    const EXCLUDE: i32 = ffi::SQLITE_SHM_EXCLUSIVE;
    let disk = Disk::lease();
    let [one, two] = [0, 1].map(|_| Raw::open(&disk, "x.db", DATABASE).unwrap());
    assert!(one.shm_map(0, false).is_null());
    let region = one.shm_map(0, true);
    assert!(!region.is_null() && region == two.shm_map(0, false));
    assert_ne!(two.shm_map(1, true), region);
    assert_eq!([one.shm_lock(3, 1, LOCK | SHARE), two.shm_lock(3, 1, LOCK | SHARE)], [ffi::SQLITE_OK; 2]);
    assert_eq!(one.shm_lock(3, 1, LOCK | EXCLUDE), ffi::SQLITE_BUSY);
    assert_eq!(two.shm_lock(2, 4, LOCK | EXCLUDE), ffi::SQLITE_BUSY);
    assert_eq!(two.shm_lock(4, 4, LOCK | EXCLUDE), ffi::SQLITE_OK);
    assert_eq!(one.shm_lock(7, 1, LOCK | SHARE), ffi::SQLITE_BUSY);
    assert_eq!(two.shm_lock(4, 4, UNLOCK | EXCLUDE), ffi::SQLITE_OK);
    assert_eq!(one.shm_lock(7, 1, LOCK | SHARE), ffi::SQLITE_OK);
    drop(one);
    assert_eq!(two.shm_lock(7, 1, LOCK | EXCLUDE), ffi::SQLITE_OK, "closing gives locks back");
    drop(two);
    let three = Raw::open(&disk, "x.db", DATABASE).unwrap();
    assert!(three.shm_map(0, false).is_null(), "the last one takes the regions along");
}

#[test]
fn sqlite_excludes_writers_and_rolls_back_in_every_rollback_journal_mode() {
    for mode in ["delete", "truncate", "persist"] {
        let disk = Disk::lease();
        let (one, two) = (open(&disk), open(&disk));
        for session in [&one, &two] {
            session.run(&format!("PRAGMA journal_mode={mode}")).unwrap();
        }
        one.run("CREATE TABLE t(x); INSERT INTO t VALUES(1)").unwrap();
        assert_eq!(one.rows("PRAGMA journal_mode").unwrap(), [mode]);
        one.run("BEGIN IMMEDIATE; INSERT INTO t VALUES(2)").unwrap();
        assert_eq!(code(two.run("INSERT INTO t VALUES(3)")), ffi::SQLITE_BUSY);
        assert_eq!(two.rows("SELECT group_concat(x) FROM t").unwrap(), ["1"]);
        one.run("ROLLBACK").unwrap();
        two.run("INSERT INTO t VALUES(3)").unwrap();
        one.run("BEGIN EXCLUSIVE").unwrap();
        assert_eq!(code(two.run("SELECT * FROM t")), ffi::SQLITE_BUSY);
        one.run("COMMIT").unwrap();
        assert_eq!(one.rows("SELECT group_concat(x) FROM t").unwrap(), ["1,3"]);
        assert_eq!(two.integrity().unwrap(), None);
        let journal = disk.cached().files.contains_key(&disk.path("x.db-journal"));
        assert_eq!(journal, mode != "delete");
    }
}

#[test]
fn a_reader_of_a_wal_keeps_its_snapshot_while_another_connection_writes_and_checkpoints() {
    let disk = Disk::lease();
    let (one, two) = (open(&disk), open(&disk));
    assert_eq!(one.rows("PRAGMA journal_mode=wal").unwrap(), ["wal"]);
    one.run("CREATE TABLE t(x); INSERT INTO t VALUES(1)").unwrap();
    two.run("BEGIN").unwrap();
    assert_eq!(two.rows("SELECT group_concat(x) FROM t").unwrap(), ["1"]);
    one.run("INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(two.rows("SELECT group_concat(x) FROM t").unwrap(), ["1"]);
    let partial = one.rows("PRAGMA wal_checkpoint(FULL)").unwrap();
    assert!(partial[0].starts_with("1|"), "{partial:?}");
    two.run("COMMIT").unwrap();
    assert!(one.rows("PRAGMA wal_checkpoint(TRUNCATE)").unwrap()[0].starts_with("0|0|0"));
    assert_eq!(two.rows("SELECT group_concat(x) FROM t").unwrap(), ["1,2"]);
    drop(one);
    assert_eq!(two.integrity().unwrap(), None);
    drop(two);
    let names: Vec<String> = disk.cached().files.into_keys().collect();
    assert_eq!(names, [disk.path("x.db")], "the last close deletes the WAL");
}

#[test]
fn a_disk_is_handed_on_with_nothing_on_it() {
    let names: Vec<&str> = (0..5)
        .map(|_| {
            let disk = Disk::lease();
            assert!(disk.cached().files.is_empty());
            open(&disk).run("CREATE TABLE t(x)").unwrap();
            disk.name()
        })
        .collect();
    // Other tests hold some at the same time, but five leases in turn do not make five registrations.
    let crash = support::sqlite::vfs_names().into_iter().filter(|name| name.starts_with("crash-")).count();
    assert!(crash <= 8, "{crash} registered, {names:?} used");
}
