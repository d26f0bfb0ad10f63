//! Every pair of lock levels, between stock and hardened connections in two processes and in one.

use std::path::Path;

use rusqlite::Connection;
use support::process::alone;
use tempfile::TempDir;

use super::actors::Other;
use super::{HARDENED, STOCK, code, locked, open, peer};

/// Who runs the statements.
trait Runs {
    fn run(&mut self, sql: &str) -> i32;
}

impl Runs for Other {
    fn run(&mut self, sql: &str) -> i32 {
        Other::run(self, sql)
    }
}

impl Runs for Connection {
    fn run(&mut self, sql: &str) -> i32 {
        code(self, sql)
    }
}

const READ: &str = "SELECT * FROM t";
const WRITE: &str = "INSERT INTO t VALUES (1)";

/// The levels that somebody holds: the statements that lead there, and their codes with no one else there but a reader, if
/// the level needs one to stay at it.
const LEVELS: [(&str, &[&str], bool); 5] = [
    ("NONE", &[READ], false),
    ("SHARED", &["BEGIN", READ], false),
    ("RESERVED", &["BEGIN IMMEDIATE", WRITE], false),
    ("PENDING", &["BEGIN IMMEDIATE", WRITE, "COMMIT"], true),
    ("EXCLUSIVE", &["BEGIN EXCLUSIVE", WRITE], false),
];

/// What the other one then tries.
const TRIES: [&[&str]; 6] = [
    &[READ],
    &["BEGIN IMMEDIATE", "ROLLBACK"],
    &["BEGIN EXCLUSIVE", "ROLLBACK"],
    &["BEGIN", READ, WRITE, "COMMIT", "ROLLBACK"],
    &["BEGIN IMMEDIATE", WRITE, "COMMIT", "COMMIT", "ROLLBACK"],
    &["PRAGMA locking_mode=EXCLUSIVE", WRITE, READ, "PRAGMA locking_mode=NORMAL", READ],
];

fn fresh(home: &Path, name: &str) -> std::path::PathBuf {
    let path = home.join(name);
    let db = open(&path, STOCK);
    assert_eq!(code(&db, "CREATE TABLE t(x); INSERT INTO t VALUES (0)"), 0);
    path
}

/// All codes, in order: of the holder's steps, of the other's tries, and of the holder's end.
fn verdicts(path: &Path, holder: &str, other: &str, within: bool) -> Vec<String> {
    let mut told = Vec::new();
    for (level, steps, reader) in LEVELS {
        for tries in TRIES {
            let mut holds: Box<dyn Runs> = Box::new(peer(path, holder));
            let mut tries_it: Box<dyn Runs> = match within {
                // Both in the process of the holder is the same as both in this one.
                true => {
                    holds = Box::new(open(path, holder));
                    Box::new(open(path, other))
                }
                false => Box::new(open(path, other)),
            };
            let mut third = reader.then(|| peer(path, STOCK));
            if let Some(third) = &mut third {
                assert_eq!((third.run("BEGIN"), third.run(READ)), (0, 0));
            }
            let mut codes: Vec<i32> = steps.iter().map(|sql| holds.run(sql)).collect();
            codes.extend(tries.iter().map(|sql| tries_it.run(sql)));
            drop(third);
            // Only what ends without an error everywhere is compared by the locks that are left.
            codes.push(holds.run(if level == "PENDING" { "COMMIT" } else { "ROLLBACK" }));
            codes.push(tries_it.run(WRITE));
            codes.push(holds.run(WRITE));
            drop((holds, tries_it));
            assert_eq!(locked(path), Vec::<String>::new(), "{level} {tries:?}: nothing is left locked");
            told.push(format!("{level} then {tries:?}: {codes:?}"));
        }
    }
    told
}

/// Alone: a process that another test starts in the instant of a close has a copy of what bars others from the file meanwhile,
/// until it has called exec(2).
fn exclude_each_other_as_stock_does(test: &str, within: bool) {
    alone(test, || {
        let home = TempDir::new().unwrap();
        let expected = verdicts(&fresh(home.path(), "stock.db"), STOCK, STOCK, within);
        assert!(within || expected.iter().any(|line| line.contains('5')), "BUSY is among them: {expected:#?}");
        for (name, holder, other) in
            [("a.db", STOCK, HARDENED), ("b.db", HARDENED, STOCK), ("c.db", HARDENED, HARDENED)]
        {
            let told = verdicts(&fresh(home.path(), name), holder, other, within);
            assert_eq!(told, expected, "{holder} and {other}");
        }
    });
}

#[test]
fn stock_and_hardened_exclude_each_other_in_two_processes_as_stock_and_stock_do() {
    let test = "levels::stock_and_hardened_exclude_each_other_in_two_processes_as_stock_and_stock_do";
    exclude_each_other_as_stock_does(test, false);
}

#[test]
fn stock_and_hardened_exclude_each_other_in_one_process_as_stock_and_stock_do() {
    let test = "levels::stock_and_hardened_exclude_each_other_in_one_process_as_stock_and_stock_do";
    exclude_each_other_as_stock_does(test, true);
}

#[test]
fn sqlite_is_told_the_level_that_is_held() {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), "app.db");
    let db = support::sqlite::Connection::open(&format!("file:{}?{HARDENED}", path.display()), None);
    // Registered by nobody yet in this process, perhaps.
    drop(db);
    drop(open(&path, HARDENED));
    let db = support::sqlite::Connection::open(&format!("file:{}?{HARDENED}", path.display()), None).unwrap();
    for (sql, level) in
        [("SELECT * FROM t", 0), ("BEGIN IMMEDIATE", 2), ("COMMIT", 0), ("BEGIN EXCLUSIVE", 4), ("ROLLBACK", 0)]
    {
        db.rows(sql).unwrap();
        assert_eq!(db.lock_state("main"), level, "{sql}");
    }
}
