//! No space on the disk, and no descriptors in the process.

use std::fs::File;
use std::io::Write;
use std::process::Command;

use super::unprivileged::{HERE, assert_passed, rerun_in};
use super::*;
use hardened_sqlite::report;
use support::mounts::{self, Mounted};
use support::require;

const FULL: i32 = rusqlite::ffi::SQLITE_FULL;

/// Takes all the space that is left.
fn fill(disk: &Mounted) -> PathBuf {
    let path = disk.path().join("ballast");
    let mut ballast = File::create(&path).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    path
}

fn insert(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t(filler) VALUES (zeroblob(9000))", [])
}

#[test]
fn a_full_disk_costs_no_row_and_works_again_after_space_is_made() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs_with("size=256k").unwrap();
    let path = disk.path().join("app.db");
    stock_database(&path, 3);
    let ballast = fill(&disk);
    let before = std::fs::read(&path).unwrap();
    let connection = open_connection(&path).unwrap();
    let notes = report(&connection).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("keeps journal_mode delete") && note.contains("full")), "{notes:?}");
    assert_eq!((rows(&connection), integrity(&connection).as_str()), (3, "ok"));
    assert_eq!(code_and_text(&insert(&connection).unwrap_err()).0, FULL);
    assert_eq!(rows(&connection), 3);
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::remove_file(&ballast).unwrap();
    insert(&connection).unwrap();
    drop(connection);
    let connection = open_connection(&path).unwrap();
    assert_eq!((rows(&connection), integrity(&connection).as_str()), (4, "ok"));
    assert_eq!(report(&connection).unwrap().journal_mode.as_deref(), Some("wal"));
}

#[test]
fn a_disk_that_fills_up_under_an_open_database_costs_no_row() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs_with("size=256k").unwrap();
    let path = disk.path().join("app.db");
    stock_database(&path, 3);
    let connection = open_connection(&path).unwrap();
    insert(&connection).unwrap();
    let ballast = fill(&disk);
    let error = (0..100).find_map(|_| insert(&connection).err()).expect("the disk is full");
    assert_eq!(code_and_text(&error).0, FULL);
    let kept = rows(&connection);
    assert_eq!(integrity(&connection), "ok");
    std::fs::remove_file(&ballast).unwrap();
    insert(&connection).unwrap();
    drop(connection);
    let stock = Connection::open(&path).unwrap();
    assert_eq!((rows(&stock), integrity(&stock).as_str()), (kept + 1, "ok"));
}

#[test]
fn a_wal_database_without_room_for_its_shared_memory_says_so_and_is_left_alone() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs_with("size=256k").unwrap();
    let path = disk.path().join("app.db");
    stock_database(&path, 3);
    drop(open_connection(&path).unwrap());
    let ballast = fill(&disk);
    let before = std::fs::read(&path).unwrap();
    {
        let _alone = alone();
        let error = open_connection(&path).map(drop).unwrap_err();
        assert_explained(&error, &path, rusqlite::ffi::SQLITE_IOERR_SHMSIZE, "no room for the -shm", "make room");
        assert_eq!(last_open_error(), Some(error));
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(rows(&open_connection(&path).unwrap()), 3);
}

#[test]
fn a_new_database_on_a_full_disk_opens_and_says_full_when_written() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs_with("size=64k").unwrap();
    let ballast = fill(&disk);
    let path = disk.path().join("app.db");
    let connection = open_connection(&path).unwrap();
    let error = connection.execute_batch("CREATE TABLE t(x)").unwrap_err();
    assert_eq!(code_and_text(&error).0, FULL);
    std::fs::remove_file(&ballast).unwrap();
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    drop(connection);
    assert_eq!(rows(&Connection::open(&path).unwrap()), 1);
}

#[test]
fn a_disk_without_room_for_another_file_is_told() {
    if !require::root() {
        return;
    }
    // One for the root directory, one for the file.
    let disk = mounts::tmpfs_with("nr_inodes=2").unwrap();
    std::fs::write(disk.path().join("only"), "one").unwrap();
    let seen = format!("no space left in {}", disk.path().display());
    let _alone = alone();
    let error = open_connection(disk.path().join("app.db")).map(drop).unwrap_err();
    assert_explained(&error, &disk.path().join("app.db"), CANTOPEN, &seen, "make room; nothing was written");
}

const NO_DESCRIPTORS: &str = "shortage::a_process_without_descriptors_is_told_so_and_no_database_changes";

#[test]
fn a_process_without_descriptors_is_told_so_and_no_database_changes() {
    if let Some(home) = rerun_in() {
        return open_with_few_descriptors(&home);
    }
    let home = tempfile::tempdir().unwrap();
    stock_database(&home.path().join("rollback.db"), 3);
    stock_database(&home.path().join("wal.db"), 3);
    let wal = Connection::open(home.path().join("wal.db")).unwrap();
    wal.execute_batch("PRAGMA journal_mode=WAL").unwrap();
    drop(wal);
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NO_DESCRIPTORS, "--nocapture"])
        .env(HERE, home.path())
        .output()
        .unwrap();
    assert_passed(&output);
    for name in ["rollback.db", "wal.db"] {
        let path = home.path().join(name);
        let stock = Connection::open(&path).unwrap();
        assert_eq!((rows(&stock), integrity(&stock).as_str()), (3, "ok"), "{name}");
        assert_eq!(std::fs::read(&path).unwrap()[18..20], [2, 2], "{name} became or stayed WAL with the last open");
    }
}

/// Opens with none, one, two... descriptors to be had.
fn open_with_few_descriptors(home: &Path) {
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    let mut works = [false; 2];
    for free in 0..12 {
        for (index, name) in ["rollback.db", "wal.db"].into_iter().enumerate() {
            let path = home.join(name);
            match open_connection(&path) {
                Ok(connection) => {
                    works[index] = true;
                    assert_eq!(report(&connection).unwrap().verdict.class, "local", "{name} with {free} free");
                    assert_eq!(rows(&connection), 3, "{name} with {free} free");
                }
                Err(error) => {
                    assert!(!works[index], "{name} with {free} free failed after it had worked with less: {error}");
                    assert_eq!(last_open_error(), Some(error.clone()));
                    let told = error.hint().unwrap_or_default().to_owned();
                    assert_eq!(error.code().unwrap() & 0xff, CANTOPEN, "{name} with {free} free: {error}");
                    assert!(error.cause().contains("as many open files"), "{name} with {free} free: {error} ({told})");
                    assert!(told.contains("ulimit -n"), "{told}");
                    let (_, text) = code_and_text(&plain(&path).map(drop).unwrap_err());
                    assert!(text.contains("as many open files"), "{name} with {free} free: {text}");
                }
            }
        }
        held.pop();
    }
    assert_eq!(works, [true, true]);
}
