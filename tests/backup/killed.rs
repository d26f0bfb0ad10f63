//! SIGKILL at every system call of a backup with rotation, and of a restore: strace sends it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use hardened_sqlite::restore;
use support::require;

use super::*;

const TASK: &str = "HARDENED_BACKUP_TASK";

/// The system calls that change what is on disk, or open what is changed.
const CALLS: &str = "openat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,ftruncate,fallocate,copy_file_range,\
                     pwrite64,write,fsync,fdatasync,fchmod,fchown,ioctl,flock,chmod,fchmodat";

/// What a killed process does: `backup` or `restore` in a directory.
#[test]
fn the_task_of_a_process_that_is_killed() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let task = task.into_string().unwrap();
    let (what, home) = task.split_once(' ').unwrap();
    let (path, to) = (Path::new(home).join("app.db"), Path::new(home).join("saved/a"));
    // From here on it counts.
    let _ = std::fs::metadata("/begin");
    match what {
        "backup" => {
            let connection = hardened_sqlite::open_connection(&path).unwrap();
            Backup::to(&to).keep(3).run(&connection).unwrap();
        }
        _ => drop(restore(&to, &path).unwrap()),
    }
}

/// Runs the task under strace with these options; what strace has written.
fn traced(home: &Path, what: &str, options: &[&str]) -> String {
    let output = home.join("trace");
    let test = "killed::the_task_of_a_process_that_is_killed";
    let _ = Command::new(require::find_program("strace").unwrap())
        .args(["-f", "-qq", "-o"])
        .arg(&output)
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(TASK, format!("{what} {}", home.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    std::fs::read_to_string(output).unwrap()
}

/// How often each call is made in all, and how often before the task begins.
fn counts(trace: &str) -> BTreeMap<String, (usize, usize)> {
    let (mut counts, mut begun) = (BTreeMap::<String, (usize, usize)>::new(), false);
    for line in trace.lines() {
        begun |= line.contains("\"/begin\"");
        let Some((name, _)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('(')) else {
            continue;
        };
        if line.contains("resumed>") {
            continue;
        }
        let count = counts.entry(name.to_owned()).or_default();
        count.0 += 1;
        count.1 += usize::from(!begun);
    }
    counts
}

/// Kills the task at each of its calls, in a directory as `prepare` makes it, and has `judge` look at what is left. At most
/// `most` times for each kind of call, the first and the last among them.
fn kill_everywhere(what: &str, most: usize, prepare: impl Fn(&Path), judge: impl Fn(&Path, &str)) {
    let fresh = || {
        let home = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        prepare(home.path());
        home
    };
    let home = fresh();
    let trace = traced(home.path(), what, &["-e", &format!("trace={CALLS},stat,newfstatat,statx")]);
    assert!(trace.contains("\"/begin\""), "{trace}");
    let (mut kills, mut deaths) = (0, 0);
    for (call, (all, before)) in counts(&trace) {
        if !CALLS.split(',').any(|name| name == call) {
            continue;
        }
        let step = (all - before).div_ceil(most).max(1);
        for number in (before + 1..=all).step_by(step).chain([all]) {
            let home = fresh();
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let trace = traced(home.path(), what, &["-e", &inject, "-e", &format!("trace={call}")]);
            kills += 1;
            deaths += usize::from(trace.contains("killed by SIGKILL"));
            judge(home.path(), &format!("{what} killed at {call} {number} of {all}"));
        }
    }
    println!("{what}: {kills} runs, {deaths} of them killed");
    assert!(deaths > 30, "{deaths} of {kills} runs were killed");
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
