//! Somebody else in the process opens and closes the files: a backup, a virus scanner's library, a hash of all files.

use std::fs::File;
use std::path::Path;

use super::actors::{Actor, HARDENED, HARDENED_ELSEWHERE, Kind, STOCK, STOCK_ELSEWHERE};
use super::roles::make;
use support::names::beside;

fn touch(path: &Path) {
    let path = path.to_owned();
    std::thread::spawn(move || {
        for suffix in ["-shm", "-wal"] {
            drop(File::open(beside(&path, suffix)).unwrap());
        }
    })
    .join()
    .unwrap();
}

/// Whether a reader here keeps the log it reads from being emptied by a process elsewhere, after a close() of its files.
fn reader_is_respected(reader: Kind, checkpointer: Kind) -> bool {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    make(&path);
    let (mut reader, mut writer) = (Actor::open(&path, reader), Actor::open(&path, checkpointer));
    writer.ok("INSERT INTO t VALUES (1)");
    reader.ok("BEGIN; SELECT * FROM t");
    touch(&path);
    writer.ok("INSERT INTO t VALUES (2)");
    writer.ok("PRAGMA wal_checkpoint(TRUNCATE)") == "1"
}

#[test]
fn a_close_elsewhere_in_the_process_does_not_take_the_reader_s_lock_away() {
    assert!(!reader_is_respected(STOCK, STOCK_ELSEWHERE), "stock loses it");
    assert!(reader_is_respected(HARDENED, STOCK_ELSEWHERE));
    assert!(reader_is_respected(HARDENED, HARDENED_ELSEWHERE));
}

/// Whether a writer here keeps others from writing, after a close() of its files.
fn writer_is_respected(writer: Kind) -> bool {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    make(&path);
    let (mut writer, mut other) = (Actor::open(&path, writer), Actor::open(&path, STOCK_ELSEWHERE));
    writer.ok("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)");
    touch(&path);
    other.sql("INSERT INTO t VALUES (2)") == Err(5)
}

#[test]
fn a_close_elsewhere_in_the_process_does_not_take_the_writer_s_lock_away() {
    assert!(!writer_is_respected(STOCK), "stock loses it");
    assert!(writer_is_respected(HARDENED));
}

/// Our handle on the -shm is one more that could drop the locks of a stock neighbour when it is closed.
#[test]
fn our_own_closes_take_no_lock_of_a_stock_neighbour_away() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    make(&path);
    let mut writer = Actor::open(&path, STOCK_ELSEWHERE);
    writer.ok("INSERT INTO t VALUES (1)");
    let mut neighbour = Actor::open(&path, STOCK);
    neighbour.ok("BEGIN; SELECT * FROM t");
    for read_only in ["", "readonly_shm=1", "mode=ro"] {
        let mut ours = Actor::with(&path, HARDENED, read_only, false);
        ours.ok("SELECT * FROM t");
        ours.close();
        writer.ok("INSERT INTO t VALUES (2)");
        assert_eq!(writer.ok("PRAGMA wal_checkpoint(TRUNCATE)"), "1", "{read_only:?}: the reader is still respected");
    }
    assert_eq!(neighbour.ok("SELECT count(*) FROM t"), "2");
}
