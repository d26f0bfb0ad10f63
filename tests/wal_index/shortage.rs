//! No room for the -shm file.

use std::fs::File;
use std::io::Write;

use super::actors::{Actor, HARDENED_ELSEWHERE, STOCK_ELSEWHERE};
use super::roles::make;
use support::names::beside;
use support::{mounts, require};

#[test]
fn a_disk_without_room_for_a_further_region_answers_as_with_stock_and_works_again_later() {
    if !require::root() {
        return;
    }
    let answers = [STOCK_ELSEWHERE, HARDENED_ELSEWHERE].map(|kind| {
        let disk = mounts::tmpfs_with("size=4m").unwrap();
        let path = disk.path().join("app.db");
        make(&path);
        let mut db = Actor::open(&path, kind);
        db.ok("PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=10; CREATE TABLE u(x)");
        // Just below the 4062 frames of the first region, and then room for the log but not for the index.
        while std::fs::metadata(beside(&path, "-wal")).unwrap().len() < 4030 * 536 {
            db.ok("INSERT INTO u VALUES (zeroblob(2000))");
        }
        let ballast = disk.path().join("ballast");
        let mut file = File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        file.set_len(file.metadata().unwrap().len() - 28 * 1024).unwrap();
        let answer = (0..100).find_map(|_| db.sql("INSERT INTO t VALUES (1)").err());
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        db.ok("INSERT INTO t VALUES (2)");
        assert_eq!(db.ok("PRAGMA integrity_check"), "ok");
        answer
    });
    println!("{answers:?}");
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], Some(10 | (19 << 8)), "SQLITE_IOERR_SHMSIZE");
}
