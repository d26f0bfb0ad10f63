//! Promise 3: torn and lost writes, and journals that are missing, are found with proof, and nothing else is.
//!
//! On a real filesystem, with what real processes leave there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "guard/killed.rs"]
mod killed;

use std::path::{Path, PathBuf};

use hardened_sqlite::{FsChoice, GuardChoice, Options, PolicyChoice, report};
use killed::{COMMITS, PAGES, ROWS, killed_after, killed_in_small, killed_in_wal};
use rusqlite::Connection;
use support::names::beside;
use support::ofd;

/// SQLITE_IOERR_DATA. SQLite itself turns SQLITE_IOERR_CORRUPTFS into SQLITE_CORRUPT.
const IOERR_DATA: i32 = 10 | (32 << 8);

fn rollback() -> Options {
    Options::new().policy(PolicyChoice::Delete)
}

fn local() -> Options {
    Options::new().fs(FsChoice::Local)
}

fn open(options: &Options, path: &Path) -> Connection {
    options.open_connection(path).unwrap()
}

fn rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn integrity(connection: &Connection) -> String {
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

fn alarms(connection: &Connection) -> Vec<String> {
    report(connection).unwrap().alarms
}

fn assert_blocked(connection: &Connection, says: &str) {
    let alarms = alarms(connection);
    assert!(alarms.iter().any(|alarm| alarm.contains(says)), "{says}: {alarms:?}");
    let error = connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code, IOERR_DATA, "{error}");
}

/// Stock SQLite opens the same files, and says nothing.
fn stock_is_silent(path: &Path) -> Connection {
    let stock = Connection::open(path).unwrap();
    stock.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
    stock
}

#[test]
fn a_hot_journal_that_was_deleted_is_missed_and_writing_waits_for_the_user() {
    for pages in [1, 3, PAGES - 1] {
        let test = "a_hot_journal_that_was_deleted_is_missed_and_writing_waits_for_the_user";
        let killed = killed_after(test, pages);
        let path = killed.path();
        std::fs::remove_file(beside(&path, "-journal")).unwrap();
        let copy = killed.copy();
        let connection = open(&rollback(), &path);
        assert_blocked(&connection, "its journal is gone");
        drop(connection);
        assert_blocked(&open(&rollback(), &path), "its journal is gone");
        assert_ne!(integrity(&stock_is_silent(&copy)), "ok", "the case bites with {pages} pages");
        std::fs::rename(beside(&path, "-guard"), beside(&path, "-guard-accepted")).unwrap();
        let accepted = open(&rollback(), &path);
        assert_eq!(alarms(&accepted), [""; 0]);
        accepted.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
    }
}

/// Of several processes that open the database at once none is alone with the record.
#[test]
fn of_several_that_open_the_record_at_once_one_judges_it_and_the_others_wait() {
    const SHARED: (i64, i64) = (0x4000_0002, 510);
    const JUDGING: (i64, i64) = (0x4000_0200, 1);
    const JUDGED: (i64, i64) = (0x4000_0201, 1);
    let test = "of_several_that_open_the_record_at_once_one_judges_it_and_the_others_wait";
    let killed = killed_after(test, 3);
    let path = killed.path();
    std::fs::remove_file(beside(&path, "-journal")).unwrap();
    let record = beside(&path, "-guard");
    let record = std::fs::File::options().read(true).write(true).open(record).unwrap();
    // Another process has it open, and has not looked at it yet.
    let other = ofd::share(&record, SHARED.0, SHARED.1);
    // A third looks at it.
    let judging = ofd::lock(&record, JUDGING.0, JUDGING.1);
    let waits = open(&rollback(), &path);
    waits.busy_timeout(std::time::Duration::ZERO).unwrap();
    let error = waits.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{error}");
    drop((judging, waits));
    assert_blocked(&open(&rollback(), &path), "its journal is gone");
    // Whoever has judged it without an alarm may have begun to write.
    let killed = killed_after(test, 3);
    let path = killed.path();
    std::fs::remove_file(beside(&path, "-journal")).unwrap();
    let second = std::fs::File::options().read(true).write(true).open(beside(&path, "-guard")).unwrap();
    let (there, judged) = (ofd::share(&second, SHARED.0, SHARED.1), ofd::share(&second, JUDGED.0, JUDGED.1));
    assert_eq!(alarms(&open(&rollback(), &path)), [""; 0]);
    drop((other, there, judged));
}

#[test]
fn a_hot_journal_that_was_emptied_or_damaged_is_missed() {
    // An empty file is none to SQLite.
    for (content, says) in [(&b""[..], "its journal is gone"), (b"garbage", "its journal is damaged")] {
        let killed = killed_after("a_hot_journal_that_was_emptied_or_damaged_is_missed", 3);
        std::fs::write(beside(&killed.path(), "-journal"), content).unwrap();
        assert_blocked(&open(&rollback(), &killed.path()), says);
        assert_ne!(integrity(&stock_is_silent(&killed.copy())), "ok", "the case bites");
    }
}

#[test]
fn a_hot_journal_of_another_transaction_is_not_rolled_back() {
    let test = "a_hot_journal_of_another_transaction_is_not_rolled_back";
    let (killed, other) = (killed_after(test, 3), killed_in_small(test));
    let path = killed.path();
    std::fs::copy(beside(&other.path(), "-journal"), beside(&path, "-journal")).unwrap();
    // As root SQLite's unix VFS changes the record's own time when it opens it.
    killed.rest();
    let before = std::fs::read(&path).unwrap();
    let error = rollback().open_connection(&path).map(drop).unwrap_err();
    assert_eq!(error.code(), Some(IOERR_DATA), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "nothing was rolled back");
}

#[test]
fn another_database_under_the_hot_journal_is_not_rolled_back() {
    let killed = killed_after("another_database_under_the_hot_journal_is_not_rolled_back", 3);
    let path = killed.path();
    let restored = tempfile::NamedTempFile::new().unwrap();
    let backup = Connection::open(restored.path()).unwrap();
    backup.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, filler)").unwrap();
    for x in 1..=500 {
        backup.execute("INSERT INTO t VALUES (?1, hex(randomblob(200)))", [x]).unwrap();
    }
    drop(backup);
    std::fs::copy(restored.path(), &path).unwrap();
    let copy = killed.copy();
    let error = rollback().open_connection(&path).map(drop).unwrap_err();
    assert_eq!(error.code(), Some(IOERR_DATA), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(restored.path()).unwrap(), "the backup is as it was");
    let stock = Connection::open(copy).unwrap();
    let _ = stock.query_row("SELECT count(*) FROM t", [], |_| Ok(()));
    assert_ne!(integrity(&stock), "ok", "stock SQLite rolls the journal back into the backup");
}

#[test]
fn the_journal_put_back_lifts_the_alarm_and_is_rolled_back() {
    let killed = killed_after("the_journal_put_back_lifts_the_alarm_and_is_rolled_back", 3);
    let path = killed.path();
    let (journal, aside) = (beside(&path, "-journal"), beside(&path, "-aside"));
    std::fs::rename(&journal, &aside).unwrap();
    assert_blocked(&open(&rollback(), &path), "its journal is gone");
    std::fs::rename(&aside, &journal).unwrap();
    let connection = open(&rollback(), &path);
    assert_eq!((rows(&connection), integrity(&connection).as_str()), (ROWS, "ok"));
    assert_eq!(alarms(&connection), [""; 0]);
    connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
}

#[test]
fn a_hot_journal_that_is_there_is_no_alarm_after_however_many_pages() {
    for pages in 0..=PAGES {
        let killed = killed_after("a_hot_journal_that_is_there_is_no_alarm_after_however_many_pages", pages);
        let connection = open(&rollback(), &killed.path());
        assert_eq!(alarms(&connection), [""; 0], "{pages}");
        assert_eq!((rows(&connection), integrity(&connection).as_str()), (ROWS, "ok"), "{pages}");
        connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
        drop(connection);
        assert!(!beside(&killed.path(), "-guard").exists());
    }
}

#[test]
fn a_stock_process_that_has_rolled_back_and_written_in_between_is_no_alarm() {
    let killed = killed_after("a_stock_process_that_has_rolled_back_and_written_in_between_is_no_alarm", 3);
    let stock = Connection::open(killed.path()).unwrap();
    stock.execute_batch("UPDATE t SET filler = printf('%0200d', x + 1000) WHERE x = 4").unwrap();
    drop(stock);
    let connection = open(&rollback(), &killed.path());
    assert_eq!(alarms(&connection), [""; 0]);
    connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
}

#[test]
fn a_wal_with_commits_that_is_gone_is_missed() {
    let killed = killed_in_wal("a_wal_with_commits_that_is_gone_is_missed");
    let path = killed.path();
    std::fs::remove_file(beside(&path, "-wal")).unwrap();
    std::fs::remove_file(beside(&path, "-shm")).unwrap();
    assert_eq!(rows(&stock_is_silent(&killed.copy())), 0, "stock SQLite shows it without its last commits");
    assert_blocked(&open(&local(), &path), "The WAL that holds the latest commits");
}

/// Flips a bit in the middle of the -wal, and shows that stock SQLite drops commits without a word. The -wal as it is then.
fn damage_the_wal(killed: &killed::Killed) -> Vec<u8> {
    let wal = beside(&killed.path(), "-wal");
    let mut log = std::fs::read(&wal).unwrap();
    let middle = log.len() / 2;
    log[middle] ^= 1;
    std::fs::write(&wal, &log).unwrap();
    let copy = killed.copy();
    std::fs::write(beside(&copy, "-wal"), &log).unwrap();
    assert!(rows(&stock_is_silent(&copy)) < COMMITS, "stock SQLite shows it without its last commits");
    log
}

/// The file that a sentence says was kept.
fn kept(text: &str) -> PathBuf {
    text.split_once("It is kept as ").unwrap_or_else(|| panic!("{text}")).1.trim_end_matches('.').into()
}

#[test]
fn a_wal_that_is_damaged_in_the_middle_is_told_and_kept() {
    let killed = killed_in_wal("a_wal_that_is_damaged_in_the_middle_is_told_and_kept");
    let log = damage_the_wal(&killed);
    let connection = open(&local(), &killed.path());
    let alarms = alarms(&connection);
    assert!(alarms.len() == 1 && alarms[0].contains("commits among those that can be told"), "{alarms:?}");
    let kept = kept(&alarms[0]);
    assert_eq!(std::fs::read(&kept).unwrap(), log);
    assert!(rows(&connection) < COMMITS);
    connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
    drop(connection);
    assert_eq!(std::fs::read(&kept).unwrap(), log);
}

#[test]
fn a_wal_that_may_be_damaged_is_kept_with_the_mode_of_the_database_and_is_no_alarm() {
    use std::os::unix::fs::PermissionsExt;
    let killed = killed_in_wal("a_wal_that_may_be_damaged_is_kept_with_the_mode_of_the_database_and_is_no_alarm");
    let log = damage_the_wal(&killed);
    // The time of change is another now, and the WAL-index is gone: both files may be an older copy.
    std::fs::set_permissions(killed.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(beside(&killed.path(), "-shm")).unwrap();
    let connection = open(&local(), &killed.path());
    assert_eq!(alarms(&connection), [""; 0]);
    let notes = report(&connection).unwrap().notes;
    let note = notes.iter().find(|note| note.contains("kept as")).unwrap_or_else(|| panic!("{notes:?}"));
    assert_eq!(std::fs::read(kept(note)).unwrap(), log);
    assert_eq!(std::fs::metadata(kept(note)).unwrap().permissions().mode() & 0o777, 0o600);
}

/// What is told of a damaged log, of which others are kept beside the database: with one of the same content, or without.
fn told_beside_others(killed: &Path, same: Option<&Path>, others: usize) -> String {
    let home = tempfile::TempDir::new().unwrap();
    let path = home.path().join(killed.file_name().unwrap());
    for suffix in ["", "-wal", "-guard"] {
        std::fs::copy(beside(killed, suffix), beside(&path, suffix)).unwrap();
    }
    (0..others).for_each(|other| std::fs::write(beside(&path, &format!("-wal_kept_0000{other:04}")), "").unwrap());
    if let Some(same) = same {
        std::fs::copy(same, home.path().join(same.file_name().unwrap())).unwrap();
    }
    let notes = report(&open(&local(), &path)).unwrap().notes;
    notes.into_iter().find(|note| note.contains("kept as")).unwrap_or_default()
}

#[test]
fn damage_that_is_kept_already_is_told_as_kept_however_many_others_are() {
    let killed = killed_in_wal("damage_that_is_kept_already_is_told_as_kept_however_many_others_are");
    let log = damage_the_wal(&killed);
    let home = tempfile::TempDir::new().unwrap();
    let note = told_beside_others(&killed.path(), None, 15);
    assert!(note.contains("It is kept as"), "{note:?}: there is room for one more");
    assert!(told_beside_others(&killed.path(), None, 16).contains("It is not kept aside: 16 others are"));
    let same = home.path().join(kept(&note).file_name().unwrap());
    std::fs::write(&same, log).unwrap();
    assert!(told_beside_others(&killed.path(), Some(&same), 15).contains("It is kept as"));
    assert!(told_beside_others(&killed.path(), Some(&same), 16).contains("It is kept as"));
}

#[test]
fn a_wal_that_is_there_is_recovered_without_an_alarm() {
    let killed = killed_in_wal("a_wal_that_is_there_is_recovered_without_an_alarm");
    let connection = open(&local(), &killed.path());
    assert_eq!((rows(&connection), alarms(&connection)), (COMMITS, vec![]));
    connection.execute_batch("INSERT INTO t VALUES (1000, '')").unwrap();
    drop(connection);
    assert!(!beside(&killed.path(), "-guard").exists());
}

#[test]
fn a_wal_that_a_stock_process_has_checkpointed_and_deleted_is_no_alarm() {
    let killed = killed_in_wal("a_wal_that_a_stock_process_has_checkpointed_and_deleted_is_no_alarm");
    assert_eq!(rows(&Connection::open(killed.path()).unwrap()), COMMITS);
    assert!(!beside(&killed.path(), "-wal").exists());
    let connection = open(&local(), &killed.path());
    assert_eq!((rows(&connection), alarms(&connection)), (COMMITS, vec![]));
}

#[test]
fn a_wal_under_another_database_is_not_replayed_into_it() {
    let killed = killed_in_wal("a_wal_under_another_database_is_not_replayed_into_it");
    let path = killed.path();
    let home = tempfile::tempdir().unwrap();
    let backup = home.path().join("backup.db");
    let stock = Connection::open(&backup).unwrap();
    stock.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, filler)").unwrap();
    for x in 1..=200 {
        stock.execute("INSERT INTO t VALUES (?1, hex(randomblob(200)))", [x]).unwrap();
    }
    stock.execute_batch("PRAGMA journal_mode=WAL").unwrap();
    drop(stock);
    std::fs::copy(&backup, &path).unwrap();
    let error = local().open_connection(&path).map(drop).unwrap_err();
    assert_eq!(error.code(), Some(IOERR_DATA), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&backup).unwrap(), "the backup is as it was");
}

#[test]
fn the_record_is_removed_by_the_last_close_and_has_the_mode_of_the_database() {
    use std::os::unix::fs::PermissionsExt;
    for options in [rollback(), local()] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        drop(open(&options, &path));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let (first, second) = (open(&options, &path), open(&options, &path));
        first.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        drop(first);
        let mode = std::fs::metadata(beside(&path, "-guard")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        drop(second);
        assert!(!beside(&path, "-guard").exists());
    }
}

#[test]
fn a_link_or_a_foreign_file_in_the_place_of_the_record_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    drop(open(&rollback(), &path));
    let other = home.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    std::os::unix::fs::symlink(&other, beside(&path, "-guard")).unwrap();
    let connection = open(&rollback(), &path);
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    assert!(report(&connection).unwrap().guard.contains("cannot be kept"), "{}", report(&connection).unwrap());
    drop(connection);
    assert_eq!(std::fs::read(&other).unwrap(), b"mine");
    let strict = Options::new().policy(PolicyChoice::Delete).guard(GuardChoice::Strict);
    assert!(open(&strict, &path).execute_batch("INSERT INTO t VALUES (2)").is_err(), "strict writes nothing unseen");
}
