//! Promise 7, the part that can be counted: the system calls of a read transaction and of a commit on a local disk, beside
//! those of stock SQLite, and those of an open. `cargo test --test system_calls -- --nocapture` prints the tables of docs/locks.md
//! and docs/benchmarks-local.md; with HARDENED_TEST_TRACE in the environment it prints each call of an open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use support::require;
use tempfile::TempDir;

const TEST: &str = "reads_and_commits_make_no_more_system_calls_than_stock";
const WORK: &str = "HARDENED_SYSTEM_CALLS_WORK";
/// Files that are not there: looking for them shows in the trace.
const BEGIN: &str = "/hardened-test-begin";
const END: &str = "/hardened-test-end";
/// Transactions that are counted.
const TIMES: u32 = 200;

/// What is done again and again, and in which mode.
const WORKS: [(&str, &str, &str); 5] = [
    ("read, WAL", "PRAGMA journal_mode = WAL", "SELECT * FROM t WHERE rowid = 5"),
    ("read, DELETE", "PRAGMA journal_mode = DELETE", "SELECT * FROM t WHERE rowid = 5"),
    ("commit, WAL, NORMAL", "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", "INSERT INTO t VALUES (1)"),
    ("commit, WAL, FULL", "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", "INSERT INTO t VALUES (1)"),
    ("commit, DELETE, FULL", "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL", "INSERT INTO t VALUES (1)"),
];

const CLOSES: &str = "a_close_beside_other_threads_makes_few_more_system_calls_than_stock";

/// Closes connections in rollback mode, in a process of its own that is traced. The thread of the test is not the only one.
fn closes(path: &Path, hardened: bool) {
    hardened_sqlite::hardened_vfs::register(hardened_sqlite::hardened_vfs::Options::default()).unwrap();
    let name = format!("file:{}{}", path.display(), if hardened { "?vfs=hardened" } else { "" });
    let connect = || {
        let connection = Connection::open(&name).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = DELETE; CREATE TABLE IF NOT EXISTS t(x); SELECT * FROM t")
            .unwrap();
        connection
    };
    let connections: Vec<Connection> = (0..TIMES).map(|_| connect()).collect();
    assert!(!Path::new(BEGIN).exists());
    drop(connections);
    assert!(!Path::new(END).exists());
}

/// In a process of its own, traced.
fn work(work: usize, path: &Path, hardened: bool) {
    hardened_sqlite::hardened_vfs::register(hardened_sqlite::hardened_vfs::Options::default()).unwrap();
    let name = format!("file:{}{}", path.display(), if hardened { "?vfs=hardened" } else { "" });
    let connection = Connection::open(name).unwrap();
    let (_, setup, sql) = WORKS[work];
    // Neither the checkpoint of the log nor the growth of the file belongs to a transaction.
    connection.execute_batch(&format!("{setup}; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(x)")).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let mut once = || drop(statement.raw_query().next().map(drop));
    let mut times = || (0..TIMES).for_each(|_| once());
    connection.execute_batch("INSERT INTO t VALUES (1), (2), (3), (4), (5)").unwrap();
    times();
    assert!(!Path::new(BEGIN).exists());
    times();
    assert!(!Path::new(END).exists());
}

/// The calls of one thread in a process of its own, between the marks.
fn traced(test: &str, which: usize, hardened: bool) -> Vec<String> {
    let home = TempDir::new().unwrap();
    let (path, trace) = (home.path().join("app.db"), home.path().join("trace"));
    if test == OPENS {
        let made = "PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)";
        Connection::open(&path).unwrap().execute_batch(made).unwrap();
    }
    let mut strace = Command::new("strace");
    let strace = strace.arg("-f").arg("-o").arg(&trace).arg(std::env::current_exe().unwrap());
    let strace = strace.args(["--exact", test, "--nocapture"]);
    let output =
        strace.env(WORK, format!("{which} {} {}", u8::from(hardened), path.display())).output().expect("strace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = std::fs::read_to_string(trace).unwrap();
    let mark = |name: &str| trace.lines().position(|line| line.contains(name)).unwrap_or_else(|| panic!("{trace}"));
    // "PID call(...": what other threads do is not counted.
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let ours = trace.lines().nth(mark(BEGIN)).and_then(thread);
    let lines = trace.lines().take(mark(END)).skip(mark(BEGIN) + 1).filter(|line| thread(line) == ours);
    // The standard library's own look before a close, in unoptimised programs.
    lines.filter(|line| !line.contains("F_GETFD")).map(str::to_owned).collect()
}

/// How many calls of each kind these are, for one of `times`.
fn kinds<'a>(lines: impl IntoIterator<Item = &'a String>, times: u32) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let call = line.split_whitespace().nth(1).and_then(|call| call.split_once('('));
        if let Some((call, _)) = call {
            *counts.entry(call.to_owned()).or_default() += 1.0 / f64::from(times);
        }
    }
    counts
}

/// How many calls of each kind are between the marks, for one transaction.
fn counted(test: &str, which: usize, hardened: bool) -> BTreeMap<String, f64> {
    kinds(&traced(test, which, hardened), TIMES)
}

fn words(counts: &BTreeMap<String, f64>) -> String {
    let mut calls: Vec<_> = counts.iter().filter(|(_, n)| **n >= 0.1).collect();
    calls.sort_by(|a, b| b.1.total_cmp(a.1));
    calls.iter().map(|(call, n)| format!("{call} {n:.1}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn reads_and_commits_make_no_more_system_calls_than_stock() {
    if let Ok(task) = std::env::var(WORK) {
        let [which, hardened, path] = task.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
        return work(which.parse().unwrap(), Path::new(path), hardened == "1");
    }
    if !require::program("strace") {
        return;
    }
    println!("| | stock | hardened | calls of stock | calls of hardened |\n|---|---|---|---|---|");
    for (which, (name, _, _)) in WORKS.iter().enumerate() {
        let [stock, hardened] = [false, true].map(|hardened| counted(TEST, which, hardened));
        let all = |counts: &BTreeMap<String, f64>| counts.values().sum::<f64>();
        let locks = |counts: &BTreeMap<String, f64>| counts.get("fcntl").copied().unwrap_or(0.0);
        println!("| {name} | {:.1} | {:.1} | {} | {} |", all(&stock), all(&hardened), words(&stock), words(&hardened));
        assert!(all(&stock) > 1.0, "{name}: the trace shows nothing");
        assert!(locks(&hardened) <= locks(&stock) + 0.05, "{name}: more calls for locks");
        // Before the sync of a commit in WAL mode: whether another process has recorded one that failed.
        let more = if *name == "commit, WAL, FULL" { 1.0 } else { 0.0 };
        assert!(all(&hardened) <= all(&stock) + more + 0.05, "{name}: more calls");
    }
}

#[test]
fn a_close_beside_other_threads_makes_few_more_system_calls_than_stock() {
    if let Ok(task) = std::env::var(WORK) {
        let [_, hardened, path] = task.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
        return closes(Path::new(path), hardened == "1");
    }
    if !require::program("strace") {
        return;
    }
    let [stock, hardened] = [false, true].map(|hardened| counted(CLOSES, 0, hardened));
    let all = |counts: &BTreeMap<String, f64>| counts.values().sum::<f64>();
    println!("| close | {:.1} | {:.1} | {} | {} |", all(&stock), all(&hardened), words(&stock), words(&hardened));
    assert!(all(&stock) > 0.9, "the trace shows nothing");
    // Of the handle, and of the barrier: whether there are other threads, one more descriptor, whose number must not be that of a
    // standard stream, its lock, and a second question.
    assert!(all(&hardened) <= all(&stock) + 10.5, "more calls");
}

const OPENS: &str = "an_open_makes_few_more_system_calls_than_stock";
/// Between what is counted of an open.
const STAGE: &str = "/hardened-test-stage";
/// What is counted, and how many calls more than stock hardened may make. Of memory nothing is counted: how much the allocator has
/// is not the same in every run.
const STAGES: [(&str, f64); 6] = [
    ("first open", 4.0),
    ("its first read", 0.0),
    ("second open", 17.0),
    ("its first read", 0.0),
    ("its close", 8.0),
    ("close of the first", 26.0),
];
const MEMORY: [&str; 3] = ["brk", "mprotect", "madvise"];

/// A database that is in WAL mode, opened twice.
fn opens(path: &Path, hardened: bool) {
    hardened_sqlite::hardened_vfs::register(hardened_sqlite::hardened_vfs::Options::default()).unwrap();
    let name = format!("file:{}{}", path.display(), if hardened { "?vfs=hardened" } else { "" });
    let stage = || assert!(!Path::new(STAGE).exists());
    let open = || {
        let connection = Connection::open(&name).unwrap();
        if !hardened {
            let pragmas = "PRAGMA busy_timeout = 2000; PRAGMA journal_mode; PRAGMA synchronous = NORMAL";
            connection.execute_batch(pragmas).unwrap();
        }
        stage();
        let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        assert_eq!(connection.query_row("SELECT count(*) FROM t", [], read).unwrap(), 1);
        stage();
        connection
    };
    assert!(!Path::new(BEGIN).exists());
    let first = open();
    drop(open());
    stage();
    drop(first);
    assert!(!Path::new(END).exists());
}

#[test]
fn an_open_makes_few_more_system_calls_than_stock() {
    if let Ok(task) = std::env::var(WORK) {
        let [_, hardened, path] = task.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
        return opens(Path::new(path), hardened == "1");
    }
    if !require::program("strace") {
        return;
    }
    let [stock, hardened] = [false, true].map(|hardened| {
        let trace = traced(OPENS, 0, hardened);
        let calls = |stage| {
            let mut calls = kinds(stage, 1);
            calls.retain(|call, _| !MEMORY.contains(&call.as_str()));
            calls
        };
        let stages: Vec<_> = trace.split(|line| line.contains(STAGE)).map(calls).collect();
        assert_eq!(stages.len(), STAGES.len());
        if std::env::var_os("HARDENED_TEST_TRACE").is_some() {
            println!("{}", trace.join("\n"));
        }
        stages
    });
    println!("| | stock | hardened | calls of stock | calls of hardened |\n|---|---|---|---|---|");
    let all = |counts: &BTreeMap<String, f64>| counts.values().sum::<f64>();
    for (((what, _), stock), hardened) in STAGES.iter().zip(&stock).zip(&hardened) {
        println!("| {what} | {} | {} | {} | {} |", all(stock), all(hardened), words(stock), words(hardened));
    }
    for (((what, more), stock), hardened) in STAGES.iter().zip(&stock).zip(&hardened) {
        assert!(all(hardened) <= all(stock) + more, "{what}: {hardened:?}, stock: {stock:?}");
    }
}

const HANDLES: &str = "an_open_of_what_is_open_already_is_one_look_at_the_file";

#[test]
fn an_open_of_what_is_open_already_is_one_look_at_the_file() {
    if let Ok(task) = std::env::var(WORK) {
        let [_, _, path] = task.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
        let first = hardened_sqlite::open(path).unwrap();
        drop(hardened_sqlite::open(path).unwrap());
        assert!(!Path::new(BEGIN).exists());
        for _ in 0..TIMES {
            hardened_sqlite::open(path).unwrap().close().unwrap();
        }
        assert!(!Path::new(END).exists());
        return drop(first);
    }
    if !require::program("strace") {
        return;
    }
    let calls = counted(HANDLES, 0, true);
    println!("| open() of an open database | {} |", words(&calls));
    assert_eq!(calls.into_values().map(f64::round).sum::<f64>(), 1.0);
}
