//! SQLite's own multi-process test program, on the VFS `hardened` and, for comparison, on SQLite as it comes: the same scripts,
//! the same number of checks, no error.
//!
//! The program is Debian's SQLite 3.40.1 with the loadable extension.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "mptest/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use program::Mptest;
use rusqlite::Connection;
use support::ask::text;

/// Each script, and what `hardened` refuses in it under `policy=delete`: it sets all four of the other rollback journals.
const SCRIPTS: [(&str, usize); 4] =
    [("multiwrite01.test", 0), ("crash01.test", 0), ("config02.test", 0), ("config01.test", 4)];

/// In seconds; a script takes up to 30 on a disk.
const LIMIT: &str = "300";

/// What a run ended with.
struct Summary {
    errors: usize,
    checks: usize,
    /// What the program printed.
    log: String,
}

/// Runs a script on a new database. `options` are for the VFS.
fn run(mptest: &Mptest, script: &Path, vfs: &str, options: &str, journal_mode: &str, database: &Path) -> Summary {
    // One at a time: its tasks count on getting on.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let mut command = Command::new("timeout");
    // The program starts others, which are of its process group and hold its output open until they end.
    command.args(["--signal=KILL", LIMIT]).arg(mptest.program()).arg(database).arg(script);
    // Without --sync the program would ask for synchronous=OFF, which `hardened` refuses and says so in the error log.
    command.args(["--journalmode", journal_mode, "--vfs", vfs, "--sync"]).env("HARDENED_OPTIONS", options);
    if vfs == "hardened" {
        command.env("HARDENED_EXTENSION", support::extension::build(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let number = |word: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix("Summary: "));
        let before = line.and_then(|line| line.split_once(word)).unwrap_or_else(|| panic!("no summary in {log}")).0;
        before.rsplit(' ').find_map(|word| word.parse().ok()).unwrap()
    };
    let summary = Summary { errors: number(" errors"), checks: number(" tests"), log };
    println!(
        "{} {vfs} {options} --journalmode {journal_mode}: {} errors, {} checks, {:.1} s",
        script.file_name().unwrap().display(),
        summary.errors,
        summary.checks,
        began.elapsed().as_secs_f64()
    );
    summary
}

/// A copy of a script that leaves out to check what WAL does not allow in any SQLite: a VACUUM there cannot change the page size.
fn without_page_sizes(mptest: &Mptest, script: &str) -> PathBuf {
    let sizes = |line: &str| line.strip_prefix("--match ").is_some_and(|sizes| sizes.split(' ').count() == 5);
    let text = std::fs::read_to_string(mptest.script(script)).unwrap();
    let lines = text.lines().map(|line| if sizes(line) { "--reset" } else { line });
    let copy = mptest.script(&format!("wal-{script}"));
    std::fs::write(&copy, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    copy
}

fn open(database: &Path, parameters: &str) -> Connection {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    Connection::open(format!("file:{}?{parameters}", database.display())).unwrap()
}

/// All scripts that a journal mode allows. Answers how many checks there were.
fn all(vfs: &str, options: &str, journal_mode: &str) -> Option<usize> {
    let mptest = Mptest::get()?;
    let mut checks = 0;
    for (script, refused) in SCRIPTS {
        // config01 sets a journal mode in each task, which nobody can do beside others in WAL mode.
        if journal_mode == "wal" && script == "config01.test" {
            continue;
        }
        let home = support::memory::directory();
        let database = home.path().join("app.db");
        let path = match journal_mode {
            "wal" => without_page_sizes(mptest, script),
            _ => mptest.script(script),
        };
        let summary = run(mptest, &path, vfs, options, journal_mode, &database);
        let answered = summary.log.lines().filter(|line| line.contains("was not obeyed")).count();
        let allowed = if vfs == "hardened" { refused } else { 0 };
        assert_eq!((summary.errors, answered), (allowed, allowed), "{}", summary.log);
        assert!(summary.checks > 75, "{} checks", summary.checks);
        checks += summary.checks;
        for parameters in ["vfs=unix".to_owned(), format!("vfs=hardened&{options}")] {
            let db = open(&database, &parameters);
            assert_eq!(text(&db, "PRAGMA integrity_check"), "ok", "{parameters}");
            if parameters.contains("hardened") {
                assert_eq!(hardened_sqlite::report(&db).unwrap().alarms, Vec::<String>::new());
            }
        }
    }
    Some(checks)
}

#[test]
fn hardened_passes_it_in_wal_mode() {
    all("hardened", "", "wal");
}

#[test]
fn hardened_passes_it_in_rollback_mode() {
    all("hardened", "policy=delete", "delete");
}

#[test]
fn stock_passes_the_same_checks() {
    let checks = ["wal", "delete"].map(|journal_mode| all("unix", "", journal_mode));
    if let [Some(wal), Some(delete)] = checks {
        println!("{wal} checks in WAL mode, {delete} in rollback mode");
    }
}

/// On a local disk each open sets WAL, so a rollback mode that one process has set lasts until the next opens the database.
#[test]
fn a_journal_mode_of_the_first_process_gives_way_to_the_wal_of_the_next_open() {
    let Some(mptest) = Mptest::get() else { return };
    let home = support::memory::directory();
    let database = home.path().join("app.db");
    let summary = run(mptest, &mptest.script("multiwrite01.test"), "hardened", "", "delete", &database);
    assert_eq!(summary.errors, 0, "{}", summary.log);
    assert_eq!(text(&open(&database, "vfs=unix"), "PRAGMA journal_mode"), "wal");
}
