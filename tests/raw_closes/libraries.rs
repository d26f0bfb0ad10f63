//! Two SQLite libraries in one process on one database: POSIX locks do not stand between them, and each close of one drops
//! those of the other.

use support::names::beside;
use support::process::alone;
use support::second::Library;
use tempfile::TempDir;

use super::{BUSY, MODES, Mode, ROWS, Vfs, code, elsewhere, found, fresh, number, open};

const OURS: &str = "INSERT INTO t VALUES (-1, 'ours')";
const THEIRS: &str = "INSERT INTO t VALUES (-2, 'theirs')";

/// Whether each library keeps the other one out while it writes.
fn exclude_each_other(second: Library, mode: Mode, ours: Vfs) -> [bool; 2] {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    let (mine, theirs) = (open(&path, mode, ours), second.open(&path));
    assert_eq!((code(&mine, "SELECT * FROM t"), theirs.exec("SELECT * FROM t")), (0, 0));
    assert_eq!(code(&mine, "BEGIN IMMEDIATE"), 0);
    let theirs_refused = theirs.exec("BEGIN IMMEDIATE") == BUSY;
    theirs.exec("ROLLBACK");
    assert_eq!(code(&mine, "ROLLBACK"), 0);
    assert_eq!(theirs.exec("BEGIN IMMEDIATE"), 0);
    let mine_refused = code(&mine, "BEGIN IMMEDIATE") == BUSY;
    code(&mine, "ROLLBACK");
    assert_eq!(theirs.exec("ROLLBACK"), 0);
    [theirs_refused, mine_refused]
}

#[test]
fn two_libraries_exclude_each_other_where_one_of_them_is_hardened() {
    let Some(second) = Library::load() else { return };
    for mode in MODES {
        assert_eq!(exclude_each_other(second, mode, Vfs::Stock), [false; 2], "{mode:?}: stock lets both write at once");
        assert_eq!(exclude_each_other(second, mode, Vfs::Hardened), [true; 2], "{mode:?}");
    }
}

/// Whether a process elsewhere is kept out by one library while the other one closes: by theirs while ours closes, and by ours
/// while theirs closes.
fn keep_others_out(second: Library, mode: Mode, ours: Vfs) -> [bool; 2] {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    let mut other = elsewhere(&path, mode, Vfs::Stock);
    assert_eq!(other.run("SELECT * FROM t"), 0);
    let mut kept_out = || {
        let refused = other.run("BEGIN IMMEDIATE") == BUSY;
        other.run("ROLLBACK");
        refused
    };
    let (mine, theirs) = (open(&path, mode, ours), second.open(&path));
    assert_eq!((code(&mine, "SELECT * FROM t"), theirs.exec(&format!("BEGIN IMMEDIATE; {THEIRS}"))), (0, 0));
    drop(mine);
    let by_theirs = kept_out();
    assert_eq!(theirs.exec("ROLLBACK"), 0);
    let mine = open(&path, mode, ours);
    assert_eq!((code(&mine, &format!("BEGIN IMMEDIATE; {OURS}")), theirs.exec("SELECT 1")), (0, 0));
    drop(theirs);
    [by_theirs, kept_out()]
}

#[test]
fn what_one_library_closes_lets_nobody_past_the_other_where_one_of_them_is_hardened() {
    let Some(second) = Library::load() else { return };
    for mode in MODES {
        assert_eq!(keep_others_out(second, mode, Vfs::Stock), [false; 2], "{mode:?}: stock loses its locks");
        assert_eq!(keep_others_out(second, mode, Vfs::Hardened), [true; 2], "{mode:?}");
    }
}

/// Whether the log is there after their close, which believes to be the last, and the rows of ours that others find.
fn after_their_close(second: Library, ours: Vfs) -> (bool, Result<(String, i64), i32>) {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), Mode::Wal);
    let (mine, theirs) = (open(&path, Mode::Wal, ours), second.open(&path));
    assert_eq!((code(&mine, OURS), theirs.exec(THEIRS)), (0, 0));
    drop(theirs);
    let log = beside(&path, "-wal").exists() && beside(&path, "-shm").exists();
    assert_eq!(code(&mine, OURS), 0);
    (log, found(&path, Mode::Wal, -1))
}

#[test]
fn the_close_of_another_library_does_not_delete_the_log() {
    let Some(second) = Library::load() else { return };
    let stock = after_their_close(second, Vfs::Stock);
    println!("stock: {stock:?}");
    assert_eq!(stock, (false, Ok(("ok".to_owned(), 1))), "stock: the second commit is in a log without a name");
    assert_eq!(after_their_close(second, Vfs::Hardened), (true, Ok(("ok".to_owned(), 2))));
}

/// Alone: the table of descriptors of a young process grows for the first handle of ours, which once gave neighbours the time
/// to take a lock that was then dropped.
#[test]
fn two_libraries_and_another_process_write_at_once_and_each_row_is_there_once() {
    alone("libraries::two_libraries_and_another_process_write_at_once_and_each_row_is_there_once", || {
        let Some(second) = Library::load() else { return };
        MODES.into_iter().for_each(|mode| all_write(second, mode));
    });
}

fn all_write(second: Library, mode: Mode) {
    const EACH: i64 = 100;
    let patient = "PRAGMA busy_timeout=60000";
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mine = open(&path, mode, Vfs::Hardened);
            assert_eq!(code(&mine, patient), 0);
            (0..EACH).for_each(|_| assert_eq!(code(&mine, OURS), 0));
        });
        scope.spawn(|| {
            for _ in 0..EACH / 10 {
                // A connection for some rows: its closes drop what locks the process has.
                let theirs = second.open(&path);
                assert_eq!(theirs.exec(patient), 0);
                (0..10).for_each(|_| assert_eq!(theirs.exec(THEIRS), 0));
            }
        });
        let mut other = elsewhere(&path, mode, Vfs::Stock);
        assert_eq!(other.run(patient), 0);
        (0..EACH).for_each(|_| assert_eq!(other.run("INSERT INTO t VALUES (-3, 'elsewhere')"), 0));
    });
    for x in [-1, -2, -3] {
        assert_eq!(found(&path, mode, x), Ok(("ok".to_owned(), EACH)), "{mode:?}, {x}");
    }
    assert_eq!(number(elsewhere(&path, mode, Vfs::Stock).sql("SELECT count(*) FROM t")), ROWS + 3 * EACH);
}
