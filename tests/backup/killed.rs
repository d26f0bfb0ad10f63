//! SIGKILL at every system call of a backup with rotation, and of a restore: strace sends it.

use hardened_sqlite::restore;
use support::require;
use support::strace::{self, CALLS, Fate, everywhere};

use super::*;

/// What a killed process does: `backup` or `restore` in a directory.
#[test]
fn the_task_of_a_process_that_is_killed() {
    let Some((what, home)) = strace::task() else { return };
    let (path, to) = (home.join("app.db"), home.join("saved/a"));
    strace::begin();
    match what.as_str() {
        "backup" => {
            let connection = hardened_sqlite::open_connection(&path).unwrap();
            Backup::to(&to).keep(3).run(&connection).unwrap();
        }
        _ => drop(restore(&to, &path).unwrap()),
    }
}

/// Kills the task at each of its calls.
fn kill_everywhere(what: &str, most: usize, prepare: impl Fn(&Path), judge: impl Fn(&Path, &str)) {
    let test = "killed::the_task_of_a_process_that_is_killed";
    everywhere(test, what, (Fate::Kill, CALLS), (most, 30), prepare, judge);
}

/// A database of 13 rows with backups of 10, 11 and 12.
fn with_backups(home: &Path) {
    let connection = hardened_sqlite::open_connection(home.join("app.db")).unwrap();
    fill(&connection, 10);
    std::fs::create_dir(home.join("saved")).unwrap();
    let wanted = Backup::to(home.join("saved/a")).keep(3);
    for _ in 0..3 {
        wanted.run(&connection).unwrap();
        add(&connection);
    }
}

#[test]
fn a_backup_killed_at_any_call_leaves_the_last_good_ones_and_the_next_goes_on() {
    if !require::program("strace") {
        return;
    }
    kill_everywhere("backup", 40, with_backups, |home, when| {
        let saved = home.join("saved");
        let newest = rows(&saved.join("a"));
        assert!(newest == 12 || newest == 13, "{when}: {newest}");
        let files: Vec<String> = names(&saved).into_iter().filter(|name| !name.starts_with('.')).collect();
        let all: Vec<u32> = files.iter().map(|name| rows(&saved.join(name))).collect();
        assert!(all.contains(&12) && all.contains(&11), "{when}: {files:?} with {all:?}");
        assert!(all.windows(2).all(|two| two[0] >= two[1]), "{when}: {files:?} with {all:?}");
        let connection = hardened_sqlite::open_connection(home.join("app.db")).unwrap();
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "13", "{when}");
        let report = Backup::to(saved.join("a")).keep(3).run(&connection).unwrap();
        assert_eq!((report.identical, rows(&saved.join("a"))), (newest == 13, 13), "{when}");
        assert_eq!(rows(&saved.join("a.1")), 12, "{when}");
        let rest = names(&saved);
        assert!(rest.iter().all(|name| name.starts_with('a')), "{when}: {rest:?} is left");
    });
}

#[test]
fn a_restore_killed_at_any_call_leaves_the_old_or_the_new_database() {
    if !require::program("strace") {
        return;
    }
    kill_everywhere("restore", 25, with_backups, |home, when| {
        let options = Options::new().create(false);
        let connection = options.open_connection(home.join("app.db")).unwrap_or_else(|error| panic!("{when}: {error}"));
        let found = text(&connection, "SELECT count(*) FROM t");
        assert!(found == "13" || found == "12", "{when}: {found}");
        assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok", "{when}");
        drop(connection);
        assert_eq!(rows(&home.join("saved/a")), 12, "{when}");
        if found == "12" {
            assert_eq!(text(&stock(&home.join("app.db.replaced-1")), "SELECT count(*) FROM t"), "13", "{when}");
        } else {
            restore(home.join("saved/a"), home.join("app.db")).unwrap();
        }
        let connection = hardened_sqlite::open_connection(home.join("app.db")).unwrap();
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "12", "{when}");
    });
}
