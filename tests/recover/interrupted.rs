//! SIGKILL at every system call of a recovery, and a disk that is full from any of them on.

use hardened_sqlite::recover;
use support::require;
use support::strace::{self, CALLS, Fate, everywhere};

use super::*;

const TASK: &str = "interrupted::the_task_of_a_process_that_is_interrupted";

#[test]
fn the_task_of_a_process_that_is_interrupted() {
    let Some((_, home)) = strace::task() else { return };
    strace::begin();
    let _ = recover(home.join("app.db"));
}

/// A damaged database with a log, and a backup.
pub(super) fn prepare(home: &Path) {
    let path = home.join("app.db");
    make(&path);
    std::fs::copy(&path, home.join("app.db.bak")).unwrap();
    let connection = stock(&path);
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    connection.execute_batch("INSERT INTO t VALUES(1001, 'in the log')").unwrap();
    drop(connection);
    let _ = std::fs::remove_file(with_ending(&path, "-shm"));
    damage(&path);
}

/// What [`prepare`] makes.
fn prepared() -> BTreeMap<String, Vec<u8>> {
    let home = support::memory::directory();
    prepare(home.path());
    files(home.path())
}

/// The database and its log as they were, in place or kept.
fn is_all_there(home: &Path, before: &BTreeMap<String, Vec<u8>>, when: &str) {
    let now = files(home);
    assert_eq!(now["app.db.bak"], before["app.db.bak"], "{when}");
    // The salts of a log are random.
    let page = |bytes: &[u8]| bytes.len();
    let is_old = |name: &str, log: &str| {
        now.get(name) == Some(&before["app.db"])
            && now.get(log).is_some_and(|log| page(log) == page(&before["app.db-wal"]))
    };
    let kept = now.keys().find(|name| name.contains(".corrupt-") && !name.ends_with("-wal"));
    let is_kept = kept.is_some_and(|name| is_old(name, &format!("{name}-wal")));
    assert!(is_kept || is_old("app.db", "app.db-wal"), "{when}: {:?}", now.keys());
}

pub(super) fn is_recovered(home: &Path, when: &str) {
    let connection = stock(&home.join("app.db"));
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok", "{when}");
    assert_eq!(text(&connection, "SELECT x FROM t WHERE id = 1001"), "in the log", "{when}");
    let rows: u32 = text(&connection, "SELECT count(*) FROM t").parse().unwrap();
    assert!(rows > ROWS - 20, "{when}: {rows}");
}

#[test]
fn a_recovery_killed_at_any_call_loses_nothing_and_the_next_one_goes_on() {
    if !require::program("strace") {
        return;
    }
    let before = prepared();
    everywhere(TASK, "recover", (Fate::Kill, CALLS), (16, 40), prepare, |home, when| {
        is_all_there(home, &before, when);
        recover(home.join("app.db")).unwrap_or_else(|error| panic!("{when}: {error}"));
        is_recovered(home, when);
        is_all_there(home, &before, when);
        let rest = files(home).into_keys().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
        assert!(rest.is_empty(), "{when}: {rest:?} is left");
    });
}

#[test]
fn a_disk_that_is_full_at_any_call_leaves_the_old_database_or_the_new_one() {
    if !require::program("strace") {
        return;
    }
    let before = prepared();
    let calls = "write,pwrite64,copy_file_range,openat,mkdir,fsync,rename";
    everywhere(TASK, "recover", (Fate::Full, calls), (12, 30), prepare, |home, when| {
        is_all_there(home, &before, when);
        recover(home.join("app.db")).unwrap_or_else(|error| panic!("{when}: {error}"));
        is_recovered(home, when);
    });
}

#[test]
fn what_is_committed_between_a_killed_recovery_and_the_next_one_is_not_lost() {
    if !require::program("strace") {
        return;
    }
    // From where all is ready until the new database has the name.
    everywhere(TASK, "recover", (Fate::Kill, "rename,unlink,fsync"), (40, 8), prepare, |home, when| {
        let path = home.join("app.db");
        let connection = stock(&path);
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.execute_batch("INSERT INTO u VALUES('since')").unwrap();
        drop(connection);
        recover(&path).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(text(&stock(&path), "SELECT group_concat(y) FROM u"), "never touched,since", "{when}");
    });
}
