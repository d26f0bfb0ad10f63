//! A power cut at any moment of a backup with rotation, or of a restore: what was not synced may be on disk or not.

use hardened_sqlite::restore;
use support::require;
use support::strace::{self, mark};
use support::unsynced::{Extent, State, after_each_kill, record};

use super::*;

const TASK: &str = "power_cut::the_task_of_a_process_that_is_recorded";

/// What a recorded process does in a directory.
#[test]
fn the_task_of_a_process_that_is_recorded() {
    let Some((what, home)) = strace::task() else { return };
    let (path, to) = (home.join("app.db"), home.join("saved/a"));
    let wanted = Backup::to(&to).keep(4);
    match what.as_str() {
        "backup" => {
            let connection = hardened_sqlite::open_connection(&path).unwrap();
            connection.execute_batch("PRAGMA synchronous = FULL").unwrap();
            add(&connection);
            mark("15 rows");
            wanted.run(&connection).unwrap();
            mark("backed up");
        }
        "before" => {
            let connection = Options::new().backup_before_open(wanted).open_connection(&path).unwrap();
            mark("backed up");
            drop(connection);
        }
        _ => {
            restore(&to, &path).unwrap();
            mark("restored");
        }
    }
}

/// A database of 14 rows with backups of 10 to 13.
fn with_backups(home: &Path) {
    let connection = hardened_sqlite::open_connection(home.join("app.db")).unwrap();
    fill(&connection, 10);
    std::fs::create_dir(home.join("saved")).unwrap();
    let wanted = Backup::to(home.join("saved/a")).keep(4);
    for _ in 0..4 {
        wanted.run(&connection).unwrap();
        add(&connection);
    }
}

/// The same, closed in a way that leaves the last row in the log.
fn with_a_log(home: &Path) {
    with_backups(home);
    let connection = stock(&home.join("app.db"));
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    add(&connection);
}

fn open_original(home: &Path) -> (Connection, u32) {
    let connection = Options::new().create(false).open_connection(home.join("app.db")).unwrap();
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    let rows = text(&connection, "SELECT count(*) FROM t");
    assert_eq!(rows, text(&connection, "SELECT n FROM count"), "half a transaction");
    (connection, rows.parse().unwrap())
}

/// What is good enough while a database of 14 rows, and then one more, is backed up.
fn backups_are_kept(state: &State<'_>) {
    let saved = state.home().join("saved");
    let files: Vec<String> = names(&saved).into_iter().filter(|name| !name.starts_with('.')).collect();
    let all: Vec<u32> = files.iter().map(|name| rows(&saved.join(name))).collect();
    assert!([13, 12, 11].iter().all(|rows| all.contains(rows)), "{files:?} with {all:?}");
    assert!(all.windows(2).all(|two| two[0] >= two[1]), "{files:?} with {all:?}");
    let (connection, now) = open_original(state.home());
    assert!(now == 15 || now == 14 && !state.has_told("15 rows"), "{now} rows");
    assert!(!state.has_told("backed up") || (all[0] == now && all.len() == 4), "{files:?} with {all:?}");
    let report = Backup::to(saved.join("a")).keep(4).run(&connection).unwrap();
    assert_eq!((report.identical, rows(&saved.join("a"))), (all[0] == now, now));
    let files = names(&saved);
    assert!(files.iter().all(|name| name.starts_with('a')), "{files:?}");
    let all: Vec<u32> = files.iter().map(|name| rows(&saved.join(name))).collect();
    assert!([13, 12].iter().all(|rows| all.contains(rows)), "after the next: {files:?} with {all:?}");
}

/// What is good enough while 13 rows take the place of `had`.
fn the_old_or_the_new_is_there(state: &State<'_>, had: u32) {
    let home = state.home();
    assert_eq!(rows(&home.join("saved/a")), 13);
    let aside = home.join("app.db.replaced-1");
    if !home.join("app.db").exists() {
        // Only of one with a log the name is free for a moment, and then all of it is under the other name.
        assert!(had == 15 && !state.has_told("restored"));
        assert_eq!(text(&stock(&aside), "SELECT count(*) FROM t"), "15");
    } else {
        let (_, found) = open_original(home);
        assert!(found == 13 || found == had && !state.has_told("restored"), "{found} rows");
        if found == 13 {
            assert_eq!(text(&stock(&aside), "SELECT count(*) FROM t"), had.to_string());
        }
    }
    restore(home.join("saved/a"), home.join("app.db")).unwrap();
    assert_eq!(open_original(home).1, 13);
    let files = names(home);
    assert!(files.iter().all(|name| !name.starts_with('.')), "{files:?}");
}

#[test]
fn a_power_cut_at_any_moment_of_a_backup_leaves_the_last_good_ones_and_the_next_goes_on() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment();
    for what in ["backup", "before"] {
        record(TASK, what, with_backups, None).judge(extent, backups_are_kept).is_good(what);
    }
}

#[test]
fn a_power_cut_after_a_backup_was_killed_and_made_again_leaves_the_last_good_ones() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment();
    let verdict = after_each_kill((TASK, "before"), "backed up", extent, with_backups, backups_are_kept);
    verdict.is_good("a killed backup, and the next");
}

#[test]
fn a_power_cut_at_any_moment_of_a_restore_leaves_the_old_or_the_new_database() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment();
    let alone = record(TASK, "restore", with_backups, None);
    alone.judge(extent, |state| the_old_or_the_new_is_there(state, 14)).is_good("restore");
    let with_log = record(TASK, "restore", with_a_log, None);
    with_log.judge(extent, |state| the_old_or_the_new_is_there(state, 15)).is_good("restore, with a log");
}

#[test]
fn without_its_syncs_a_backup_or_a_restore_loses_something_to_a_power_cut() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment().until_one_is_wrong();
    let backup = record(TASK, "before", with_backups, None);
    let restore = record(TASK, "restore", with_a_log, None);
    for (recording, is_backup) in [(backup, true), (restore, false)] {
        let judge = |state: &State<'_>| {
            if is_backup { backups_are_kept(state) } else { the_old_or_the_new_is_there(state, 15) }
        };
        let is_wrong = |is_lost: &dyn Fn(usize, usize) -> bool| {
            !recording.without_syncs(is_lost).judge(extent, judge).wrong.is_empty()
        };
        assert!(is_wrong(&|_, node| recording.is_directory(node)), "no name was synced");
        assert!(is_wrong(&|_, node| !recording.is_directory(node)), "no data were synced");
        let of_names = recording.syncs().filter(|(_, node)| recording.is_directory(*node));
        let needed: Vec<bool> = of_names.map(|(number, _)| is_wrong(&|other, _| other == number)).collect();
        println!("syncs of directories without which something is lost: {needed:?}");
        assert!(needed.iter().filter(|needed| **needed).count() >= 3, "{needed:?}");
    }
}
