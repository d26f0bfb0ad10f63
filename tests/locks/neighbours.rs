//! Other code of the same process that opens and closes the database file: tools, backups, a second SQLite library.

use std::fs::File;
use std::path::Path;

use hardened_sqlite::report;
use rusqlite::Connection;
use support::process::{alone, reuse_descriptor};
use support::second::Library;
use tempfile::TempDir;

use super::{HARDENED, STOCK, WAL, code, count, integrity, locked, open, peer};

const BUSY: i32 = rusqlite::ffi::SQLITE_BUSY;

fn fresh(home: &TempDir) -> std::path::PathBuf {
    let path = home.path().join("app.db");
    let db = open(&path, STOCK);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, zeroblob(900) FROM n";
    assert_eq!(code(&db, &format!("CREATE TABLE t(x, filler); {rows}")), 0);
    path
}

fn touch(path: &Path) {
    drop(File::open(path).unwrap());
}

#[test]
fn a_close_of_the_file_takes_the_locks_of_stock_and_not_ours() {
    let home = TempDir::new().unwrap();
    let path = fresh(&home);
    let mut other = peer(&path, STOCK);
    for (vfs, kept) in [(STOCK, false), (HARDENED, true)] {
        let db = open(&path, vfs);
        assert_eq!(code(&db, "BEGIN EXCLUSIVE; UPDATE t SET x = x + 1"), 0);
        let before = locked(&path);
        assert!(!before.is_empty());
        touch(&path);
        assert_eq!(locked(&path) == before, kept, "{vfs}");
        let let_in = other.run("BEGIN IMMEDIATE");
        assert_eq!(let_in == BUSY, kept, "{vfs}: {let_in}");
        other.run("ROLLBACK");
        assert_eq!(code(&db, "ROLLBACK"), 0);
    }
}

/// The WAL needs the lock for as long as the connection lives: whoever finds it free deletes the log.
#[test]
fn in_wal_mode_the_lock_that_says_that_somebody_is_there_stays() {
    alone("neighbours::in_wal_mode_the_lock_that_says_that_somebody_is_there_stays", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home);
        for (vfs, kept) in [(STOCK, false), ("vfs=hardened&policy=wal&locks=ofd", true)] {
            let db = open(&path, vfs);
            assert_eq!(code(&db, "PRAGMA journal_mode=WAL; UPDATE t SET x = x + 1"), 0);
            let mine = |lock: &String| lock.ends_with("1073741826 1073742335");
            assert_eq!(locked(&path).iter().filter(|lock| mine(lock)).count(), 1, "{vfs}");
            touch(&path);
            assert_eq!(locked(&path).iter().any(mine), kept, "{vfs}");
            drop(db);
            assert_eq!(locked(&path), Vec::<String>::new());
        }
    });
}

/// How many descriptors of this process are open on a file.
fn descriptors(path: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let here = |entry: &std::fs::DirEntry| std::fs::read_link(entry.path()).is_ok_and(|link| link == path);
    let mut found: Vec<i32> =
        entries.filter(here).map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_second_library_and_ours_leave_each_other_s_locks_alone() {
    let Some(second) = Library::load() else { return };
    let home = TempDir::new().unwrap();
    let path = fresh(&home).canonicalize().unwrap();
    let mut other = peer(&path, STOCK);
    for (vfs, kept) in [(STOCK, false), (HARDENED, true)] {
        // Theirs, while one of ours closes.
        let theirs = second.open(&path);
        assert_eq!(theirs.exec("BEGIN IMMEDIATE; UPDATE t SET x = 0"), 0);
        let before = locked(&path);
        let mine = open(&path, vfs);
        assert_eq!(code(&mine, "SELECT count(*) FROM t"), 0);
        drop(mine);
        assert_eq!(locked(&path) == before, kept, "{vfs}: their locks after our close");
        assert_eq!(other.run("BEGIN IMMEDIATE") == BUSY, kept, "{vfs}");
        other.run("ROLLBACK");
        assert_eq!(theirs.exec("ROLLBACK"), 0);
        drop(theirs);
        // Ours, while one of theirs closes.
        let mine = open(&path, vfs);
        assert_eq!(code(&mine, "BEGIN IMMEDIATE; UPDATE t SET x = 0"), 0);
        let before = locked(&path);
        let theirs = second.open(&path);
        theirs.exec("SELECT count(*) FROM t");
        drop(theirs);
        assert_eq!(locked(&path) == before, kept, "{vfs}: our locks after their close");
        assert_eq!(code(&mine, "ROLLBACK"), 0);
    }
    assert_eq!(descriptors(&path), Vec::<i32>::new(), "what was kept open is closed");
}

/// Alone: whoever closes something closes what others have kept too, and another test would be half way through.
#[test]
fn files_kept_open_for_a_neighbour_are_few_and_go_with_its_locks() {
    alone("neighbours::files_kept_open_for_a_neighbour_are_few_and_go_with_its_locks", || {
        let Some(second) = Library::load() else { return };
        let home = TempDir::new().unwrap();
        let path = fresh(&home).canonicalize().unwrap();
        let theirs = second.open(&path);
        assert_eq!(theirs.exec("BEGIN; SELECT * FROM t"), 0);
        let before = (locked(&path), descriptors(&path).len());
        for _ in 0..20 {
            drop(open(&path, HARDENED));
        }
        assert_eq!(locked(&path), before.0);
        let kept = descriptors(&path).len() - before.1;
        assert!((20..=21).contains(&kept), "{kept}: one file of the base for each, and one handle for all");
        assert_eq!(theirs.exec("COMMIT"), 0);
        drop(open(&path, HARDENED));
        assert_eq!(descriptors(&path).len(), before.1);
        drop(theirs);
    });
}

#[test]
fn connections_that_come_and_go_beside_others_keep_few_files_open() {
    alone("neighbours::connections_that_come_and_go_beside_others_keep_few_files_open", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home).canonicalize().unwrap();
        let stays = open(&path, "vfs=hardened&policy=wal");
        assert_eq!(count(&stays), 500);
        let before = descriptors(&path).len();
        for _ in 0..100 {
            let db = open(&path, "vfs=hardened&policy=wal");
            assert_eq!(count(&db), 500);
        }
        let kept = descriptors(&path).len() - before;
        assert!(kept <= 10, "{kept}");
        drop(stays);
        assert_eq!(descriptors(&path), Vec::<i32>::new());
    });
}

/// How many descriptors of this process are open on files that are gone.
fn descriptors_of_deleted(home: &Path) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let gone = |link: std::path::PathBuf| link.starts_with(home) && link.to_string_lossy().ends_with("(deleted)");
    entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(gone)).count()
}

#[test]
fn a_wal_index_that_is_deleted_while_its_handle_is_kept_does_not_stay_open() {
    alone("neighbours::a_wal_index_that_is_deleted_while_its_handle_is_kept_does_not_stay_open", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home).canonicalize().unwrap();
        let (index, home) = (path.with_extension("db-shm"), path.parent().unwrap());
        for _ in 0..5 {
            let theirs = open(&path, STOCK);
            assert_eq!(code(&theirs, "PRAGMA journal_mode=WAL; BEGIN; SELECT * FROM t"), 0);
            let mine = descriptors(&index).len();
            let ours = open(&path, WAL);
            assert_eq!(count(&ours), 500);
            drop(ours);
            assert_eq!(descriptors(&index).len(), mine + 1, "kept: closing it would drop their locks");
            assert_eq!(code(&theirs, "COMMIT"), 0);
            drop(theirs);
            assert!(!index.exists(), "the last one deletes it");
            assert_eq!(descriptors_of_deleted(home), 1, "nobody has asked since");
        }
        drop(open(&path, HARDENED));
        assert_eq!((descriptors_of_deleted(home), descriptors(&index).len()), (0, 0));
    });
}

fn last_note(db: &Connection) -> String {
    report(db).unwrap().notes.last().cloned().unwrap_or_default()
}

#[test]
fn a_lock_handle_is_out_of_reach_and_noticed_if_its_number_is_taken_all_the_same() {
    alone("neighbours::a_lock_handle_is_out_of_reach_and_noticed_if_its_number_is_taken_all_the_same", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home).canonicalize().unwrap();
        let db = open(&path, HARDENED);
        let handle = *descriptors(&path).last().unwrap();
        assert!(handle >= 1000, "{handle}");
        assert_eq!(code(&db, "SELECT count(*) FROM t"), 0);
        reuse_descriptor(handle);
        assert_eq!(code(&db, "UPDATE t SET x = 0"), rusqlite::ffi::SQLITE_IOERR_LOCK);
        assert!(last_note(&db).contains("closed the descriptor that held its locks"), "{}", last_note(&db));
        assert_eq!(code(&db, "SELECT count(*) FROM t"), rusqlite::ffi::SQLITE_IOERR_LOCK, "nothing without a lock");
        drop(db);
        assert_eq!(std::fs::read_link(format!("/proc/self/fd/{handle}")).unwrap(), Path::new("/dev/null"));
        let again = open(&path, HARDENED);
        assert_eq!((code(&again, "UPDATE t SET x = 0"), count(&again)), (0, 500));
    });
}

/// The locks of a writer would be on another file, and two would write.
#[test]
fn a_wal_index_whose_number_is_taken_is_noticed_before_anything_is_written() {
    alone("neighbours::a_wal_index_whose_number_is_taken_is_noticed_before_anything_is_written", || {
        let home = TempDir::new().unwrap();
        let path = fresh(&home).canonicalize().unwrap();
        let db = open(&path, WAL);
        assert_eq!(code(&db, "PRAGMA journal_mode=WAL; UPDATE t SET x = 0"), 0);
        let numbers = descriptors(&path.with_extension("db-shm"));
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        reuse_descriptor(numbers[0]);
        assert_eq!(code(&db, "UPDATE t SET x = 1"), rusqlite::ffi::SQLITE_IOERR_SHMLOCK);
        assert!(last_note(&db).contains("closed the descriptor that held its locks"), "{}", last_note(&db));
        assert!(code(&db, "UPDATE t SET x = 1") != 0, "for good");
        drop(db);
        assert_eq!(std::fs::read_link(format!("/proc/self/fd/{}", numbers[0])).unwrap(), Path::new("/dev/null"));
        let again = open(&path, WAL);
        assert_eq!((code(&again, "UPDATE t SET x = 2"), count(&again), integrity(&again).as_str()), (0, 500, "ok"));
    });
}

#[test]
fn the_report_says_whose_locks_are_taken_and_why() {
    let home = TempDir::new().unwrap();
    let path = fresh(&home);
    for (vfs, says) in [
        ("vfs=hardened", "of the open file"),
        ("vfs=hardened&locks=ofd&policy=off", "of the open file"),
        ("vfs=hardened&locks=posix", "the base VFS `unix` takes them: locks=posix"),
        ("vfs=hardened&policy=off", "policy=off"),
        ("vfs=hardened&base=unix-dotfile", "another base"),
        ("vfs=hardened&immutable=1", "none: opened with immutable=1"),
        ("vfs=hardened&nolock=1", "none: opened with nolock=1"),
    ] {
        let db = open(&path, vfs);
        let report = report(&db).unwrap();
        assert!(report.locks.contains(says), "{vfs}: {}", report.locks);
        assert!(report.to_string().contains(&format!("locks        {}", report.locks)));
    }
    let uri = format!("file:{}?vfs=hardened&locks=ofd&base=unix-dotfile", path.display());
    let error = Connection::open_with_flags(uri, Default::default()).unwrap_err();
    assert!(error.to_string().contains("locks=ofd"), "{error}");
}
