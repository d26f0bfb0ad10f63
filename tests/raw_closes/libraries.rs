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

/// How many rows each of them writes.
const EACH: i64 = 100;

/// How many rows each connection writes before it is closed, in the first library and in the second one.
const TURNS: [(i64, i64); 4] = [(EACH, 10), (1, 10), (1, 1), (3, 2)];

/// Alone: the table of descriptors of a young process grows for the first handle of ours, which once gave neighbours the time
/// to take a lock that was then dropped.
#[test]
fn two_libraries_and_another_process_write_at_once_and_each_row_is_there_once() {
    alone("libraries::two_libraries_and_another_process_write_at_once_and_each_row_is_there_once", || {
        let Some(second) = Library::load() else { return };
        for mode in MODES {
            TURNS.into_iter().for_each(|turns| all_write(second, mode, turns));
        }
    });
}

/// Writes [`EACH`] rows with `open` anew after `turn` of them; the codes that were no success.
fn in_turns<C>(turn: i64, open: impl Fn() -> C, run: impl Fn(&C, &str) -> i32, sql: &str) -> Vec<i32> {
    let mut failed = Vec::new();
    for first in (0..EACH).step_by(turn as usize) {
        let connection = open();
        failed.push(run(&connection, PATIENT));
        failed.extend((first..EACH.min(first + turn)).map(|_| run(&connection, sql)));
    }
    failed.retain(|code| *code != 0);
    failed
}

/// No automatic checkpoints: the second library may be one that loses commits when the log is begun anew under a checkpoint
/// (<https://www.sqlite.org/wal.html#walresetbug>).
const PATIENT: &str = "PRAGMA busy_timeout=60000; PRAGMA wal_autocheckpoint=0";

fn all_write(second: Library, mode: Mode, turns: (i64, i64)) {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    let failed = std::thread::scope(|scope| {
        let mine = scope.spawn(|| in_turns(turns.0, || open(&path, mode, Vfs::Hardened), code, OURS));
        let theirs = scope.spawn(|| in_turns(turns.1, || second.open(&path), |db, sql| db.exec(sql), THEIRS));
        let mut other = elsewhere(&path, mode, Vfs::Stock);
        assert_eq!(other.run(PATIENT), 0);
        (0..EACH).for_each(|_| assert_eq!(other.run("INSERT INTO t VALUES (-3, 'elsewhere')"), 0));
        [mine.join().unwrap(), theirs.join().unwrap()]
    });
    let rows = [-1, -2, -3].map(|x| found(&path, mode, x));
    println!("{mode:?}, {turns:?} rows for each connection: {rows:?}, failed {failed:?}");
    assert_eq!(failed, [const { Vec::<i32>::new() }; 2], "{mode:?}, {turns:?}");
    for found in rows {
        assert_eq!(found, Ok(("ok".to_owned(), EACH)), "{mode:?}, {turns:?}");
    }
    assert_eq!(number(elsewhere(&path, mode, Vfs::Stock).sql("SELECT count(*) FROM t")), ROWS + 3 * EACH);
}
