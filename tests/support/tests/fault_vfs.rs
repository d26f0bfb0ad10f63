//! The fault VFS forwards what it is not told to fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use libsqlite3_sys as ffi;
use setup::Db;
use std::path::{Path, PathBuf};
use support::fault_vfs::{Call, FailSpec, FaultVfs};
use tempfile::TempDir;

/// A VFS of its own for each test, because its rules are for all of its files.
fn vfs(name: &str) -> (&'static FaultVfs, TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.db");
    (FaultVfs::register(name), dir, path)
}

fn table(vfs: &FaultVfs, path: &Path, mode: &str) -> Db {
    let db = Db::open(path, Some(vfs.name())).unwrap();
    let sql = format!("PRAGMA journal_mode = {mode}; CREATE TABLE IF NOT EXISTS t(x)");
    db.run(&sql).unwrap();
    db
}

#[test]
fn everything_works_through_it_in_delete_and_wal_mode_and_with_memory_mapping() {
    let (vfs, _dir, path) = vfs("forwards");
    for mode in ["delete", "wal"] {
        let (one, two) = (table(vfs, &path, mode), table(vfs, &path, mode));
        one.run("PRAGMA mmap_size = 1000000; INSERT INTO t VALUES(randomblob(100000))").unwrap();
        two.run("INSERT INTO t VALUES(randomblob(100000))").unwrap();
        assert_eq!(one.run("PRAGMA integrity_check").unwrap(), "ok");
        drop((one, two));
    }
    let plain = Db::open(&path, None).unwrap();
    assert_eq!(plain.run("SELECT count(*) FROM t").unwrap(), "4");
    use Call::*;
    for call in [
        Open,
        Delete,
        Access,
        FullPathname,
        Close,
        Read,
        Write,
        Sync,
        Lock,
        Unlock,
        FileControl,
        ShmMap,
        ShmLock,
        ShmUnmap,
        Fetch,
    ] {
        assert!(vfs.count(call) > 0, "{call:?}: {:?}", vfs.counts());
    }
    assert_eq!(vfs.count(Open), vfs.count(Close));
}

#[test]
fn each_failing_call_surfaces_with_its_code_and_goes_away_when_cleared() {
    let (vfs, _dir, path) = vfs("fails");
    let db = table(vfs, &path, "delete");
    let insert = "INSERT INTO t VALUES(1)";
    for (call, suffix, code) in [
        (Call::Open, "-journal", ffi::SQLITE_CANTOPEN),
        (Call::Write, "t.db", ffi::SQLITE_IOERR_WRITE),
        (Call::Write, "-journal", ffi::SQLITE_FULL),
        (Call::Sync, "t.db", ffi::SQLITE_IOERR_FSYNC),
        (Call::Lock, "t.db", ffi::SQLITE_IOERR_LOCK),
        (Call::Lock, "t.db", ffi::SQLITE_BUSY),
        (Call::Delete, "-journal", ffi::SQLITE_IOERR_DELETE),
    ] {
        let rule = vfs.fail(call, FailSpec::code(code).name(suffix));
        assert_eq!(db.run(insert), Err(code), "{call:?} of {suffix}");
        assert!(rule.seen() > 0);
        vfs.clear();
        assert_eq!(vfs.count(call), 0);
        db.run(insert).unwrap_or_else(|e| panic!("after {call:?} of {suffix}: {e}"));
    }
    assert_eq!(db.run("PRAGMA integrity_check").unwrap(), "ok");
}

#[test]
fn calls_at_open_and_on_the_shared_memory_fail_too() {
    let (vfs, _dir, path) = vfs("fails_early");
    drop(table(vfs, &path, "wal"));
    for (call, code) in [
        (Call::FullPathname, ffi::SQLITE_CANTOPEN),
        (Call::Read, ffi::SQLITE_IOERR_READ),
        (Call::Access, ffi::SQLITE_IOERR_ACCESS),
        (Call::FileSize, ffi::SQLITE_IOERR_FSTAT),
        (Call::ShmMap, ffi::SQLITE_IOERR_SHMMAP),
        (Call::ShmLock, ffi::SQLITE_IOERR_SHMLOCK),
    ] {
        let rule = vfs.fail(call, FailSpec::code(code));
        let opened = Db::open(&path, Some(vfs.name()));
        let result = opened.and_then(|db| db.run("SELECT count(*) FROM t"));
        assert_eq!(result.map_err(|rc| rc & 0xff), Err(code & 0xff), "{call:?}");
        assert!(rule.seen() > 0, "{call:?}");
        vfs.clear();
    }
}

#[test]
fn skip_and_times_choose_which_call_fails() {
    let (vfs, _dir, path) = vfs("chooses");
    let db = table(vfs, &path, "wal");
    let rule = vfs.fail(Call::Write, FailSpec::code(ffi::SQLITE_IOERR_WRITE).name("-wal").skip(1).times(1));
    // The header of the WAL, then two writes per frame.
    assert_eq!(db.run("INSERT INTO t VALUES(1)"), Err(ffi::SQLITE_IOERR_WRITE));
    assert_eq!((rule.seen(), rule.matched()), (1, 2));
    db.run("INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(db.run("SELECT group_concat(x) FROM t").unwrap(), "2");
}

#[test]
fn an_older_io_version_or_a_missing_xshmmap_rules_wal_out() {
    let (vfs, _dir, path) = vfs("older");
    let journal = |expect: &str| {
        let db = Db::open(&path, Some(vfs.name())).unwrap();
        assert_eq!(db.run("PRAGMA journal_mode = wal").unwrap(), expect);
        db.run("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)").unwrap();
        db.run("PRAGMA journal_mode = delete").unwrap();
    };
    vfs.io_version(1);
    journal("delete");
    assert_eq!(vfs.count(Call::ShmMap), 0);
    vfs.io_version(3);
    vfs.hide_shm_map(true);
    journal("delete");
    vfs.clear();
    vfs.io_version(2);
    journal("wal");
    assert!(vfs.count(Call::ShmMap) > 0);
}

#[test]
fn a_name_registered_twice_is_one_vfs() {
    let one: *const FaultVfs = FaultVfs::register("twice");
    assert!(std::ptr::eq(one, FaultVfs::register("twice")));
    assert!(!std::ptr::eq(one, FaultVfs::register("once")));
}
