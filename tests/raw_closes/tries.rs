//! Another process tries to get in while one here is within a VACUUM, a long transaction or a read.
//!
//! A breach is: while one here is within VACUUM or a transaction that has begun to write, a statement elsewhere gets a lock
//! for writing, empties the log, or changes the journal mode; while one here reads, a commit elsewhere reaches the database
//! file in rollback mode, or the log that is read from is emptied; or a commit that was acknowledged is not there at the end.

use std::path::Path;

use support::sqlite::Connection;
use tempfile::TempDir;

use super::actors::Other;
use super::closer::{Closes, close_once, closing};
use super::{BUSY, MODES, Mode, ROWS, VFSES, Vfs, code, elsewhere, found, fresh, number, open};

/// What a writer here does while others try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Vacuum,
    /// More pages than the cache holds, so that some are in the database or the log before the commit.
    Transaction,
}

const DEEDS: [Deed; 2] = [Deed::Vacuum, Deed::Transaction];

/// The value of a row that the writer here inserts, and of one from elsewhere.
const OURS: i64 = -1;
const THEIRS: i64 = -2;

fn insert(x: i64) -> String {
    format!("INSERT INTO t VALUES ({x}, zeroblob(900))")
}

/// Does the deed, and calls `point` within it while the write lock is held, until it answers `false`, which undoes the deed.
/// The result code of the end.
fn does(db: &Connection, deed: Deed, point: &mut dyn FnMut() -> bool) -> i32 {
    // Between two places of a deed there may be a sync, which costs more than a try.
    let mut place = || (0..5).all(|_| point());
    match deed {
        // The first few steps of the machine come before the lock.
        Deed::Vacuum => db.rows_during("VACUUM", 40, &mut place).map_or_else(|failure| failure.code, |_| 0),
        Deed::Transaction => {
            let began = code(db, &format!("PRAGMA cache_size=5; BEGIN IMMEDIATE; {}", insert(OURS)));
            assert_eq!(began, 0, "nobody else writes now");
            for part in 0..20 {
                assert_eq!(code(db, &format!("UPDATE t SET filler = randomblob(900) WHERE x % 20 = {part}")), 0);
                if !place() {
                    return code(db, "ROLLBACK");
                }
            }
            code(db, "COMMIT")
        }
    }
}

const TRIES: [&str; 6] = [
    "BEGIN IMMEDIATE",
    "INSERT INTO t VALUES (-3, zeroblob(900))",
    "BEGIN EXCLUSIVE",
    "DELETE FROM t",
    // For a log only; in rollback mode both are refused nothing, because they ask for nothing.
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA journal_mode=DELETE",
];

/// What came of the tries of the other process.
#[derive(Default)]
struct Tries {
    made: usize,
    breaches: Vec<String>,
}

impl Tries {
    /// One try, which must be refused. Whether it was.
    fn next(&mut self, other: &mut Other, mode: Mode) -> bool {
        let sql = TRIES[self.made % if mode == Mode::Wal { TRIES.len() } else { 4 }];
        self.made += 1;
        let answer = other.sql(sql);
        let refused = match &answer {
            // A checkpoint says in its row that it was in somebody's way.
            Ok(rows) => sql.contains("checkpoint") && rows.concat() == "1",
            Err(code) => *code == BUSY,
        };
        if !refused {
            self.breaches.push(format!("{sql}: {answer:?}"));
            other.run("ROLLBACK");
        }
        refused
    }
}

/// The tries within one deed of stock SQLite, up to the first breach.
fn within_stock(mode: Mode, deed: Deed, theirs: Vfs, closes: bool) -> Tries {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    let (db, mut other) = (open(&path, mode, Vfs::Stock), elsewhere(&path, mode, theirs));
    assert_eq!(other.run("SELECT count(*) FROM t"), 0);
    let mut tries = Tries::default();
    does(&db, deed, &mut || {
        if closes {
            close_once(&path);
        }
        tries.next(&mut other, mode)
    });
    tries
}

#[test]
fn stock_lets_another_process_in_at_the_first_try_after_a_close() {
    for mode in MODES {
        for (deed, theirs) in DEEDS.into_iter().flat_map(|deed| VFSES.map(|theirs| (deed, theirs))) {
            let without = within_stock(mode, deed, theirs, false);
            assert!(without.made >= 20, "{mode:?}, {deed:?}: {} tries", without.made);
            assert_eq!(without.breaches, [""; 0], "{mode:?}, {deed:?}: without a close the locks hold");
            let tries = within_stock(mode, deed, theirs, true);
            println!("{mode:?}, {deed:?}, {theirs:?} elsewhere: try {}: {:?}", tries.made, tries.breaches);
            assert_eq!((tries.made, tries.breaches.len()), (1, 1), "{mode:?}, {deed:?}, {theirs:?} elsewhere");
        }
    }
}

/// A row from elsewhere in the middle of a deed whose locks a close has dropped, if it is dropped then: the code of the row,
/// that of the deed, and what is found afterwards: whether the database is whole, and the rows from elsewhere and from here.
fn a_row_within(mode: Mode, deed: Deed, ours: Vfs) -> (i32, i32, Result<(String, i64, i64), i32>) {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    let (db, mut other) = (open(&path, mode, ours), elsewhere(&path, mode, Vfs::Stock));
    assert_eq!(other.run("SELECT count(*) FROM t"), 0);
    let (mut theirs, mut point) = (-1, 0);
    let end = does(&db, deed, &mut || {
        point += 1;
        if point == 20 {
            close_once(&path);
            theirs = other.run(&insert(THEIRS));
        }
        true
    });
    drop((db, other));
    let rows = |x| found(&path, mode, x);
    let found = rows(THEIRS).and_then(|(whole, theirs)| Ok((whole, theirs, rows(OURS)?.1)));
    (theirs, end, found)
}

#[test]
fn of_two_writers_that_stock_lets_in_one_is_lost() {
    for (mode, deed) in MODES.into_iter().flat_map(|mode| DEEDS.map(|deed| (mode, deed))) {
        let ours = i64::from(deed == Deed::Transaction);
        let stock = a_row_within(mode, deed, Vfs::Stock);
        println!("{mode:?}, {deed:?}: {stock:?}");
        assert_eq!(stock.0, 0, "{mode:?}, {deed:?}: the row is acknowledged");
        // Either its row is gone, or the deed ends with an error because its journal is, or the database is malformed.
        assert!(stock != (0, 0, Ok(("ok".to_owned(), 1, ours))), "{mode:?}, {deed:?}: stock has lost nothing");
        let hardened = a_row_within(mode, deed, Vfs::Hardened);
        assert_eq!(hardened, (BUSY, 0, Ok(("ok".to_owned(), 0, ours))), "{mode:?}, {deed:?}");
    }
}

fn count(db: &Connection) -> i64 {
    number(db.rows("SELECT count(*) FROM t").map_err(|failure| failure.code))
}

/// A read here: what another process commits meanwhile is not seen and takes nothing away.
fn reads(db: &Connection, other: &mut Other, mode: Mode, closes: &Closes, rows: &mut i64) {
    assert_eq!(code(db, "BEGIN"), 0);
    assert_eq!(count(db), *rows);
    closes.wait();
    match mode {
        Mode::Delete => {
            assert_eq!(other.run(&format!("BEGIN IMMEDIATE; {}", insert(THEIRS))), 0);
            assert_eq!(other.run("COMMIT"), BUSY, "one here reads");
            assert_eq!(other.run("ROLLBACK"), 0);
        }
        Mode::Wal => {
            assert_eq!(other.run(&insert(THEIRS)), 0);
            assert_eq!(other.sql("PRAGMA wal_checkpoint(TRUNCATE)").unwrap().concat(), "1", "one here reads");
        }
    }
    assert_eq!(count(db), *rows);
    assert_eq!(code(db, "COMMIT"), 0);
    *rows += i64::from(mode == Mode::Wal);
}

/// So many tries of another process at a connection here whose files are closed all the time, and what both write between.
fn ten_thousand(path: &Path, mode: Mode, theirs: Vfs, least: usize, rows: &mut i64) -> Tries {
    let (db, mut other) = (open(path, mode, Vfs::Hardened), elsewhere(path, mode, theirs));
    closing(path, |closes| {
        let mut tries = Tries::default();
        while tries.made < least {
            for deed in DEEDS {
                let code = does(&db, deed, &mut || {
                    // The closes go on meanwhile; on a busy machine a wait takes long.
                    if tries.made % 5 == 0 {
                        closes.wait();
                    }
                    tries.next(&mut other, mode);
                    true
                });
                assert_eq!(code, 0, "{deed:?}");
                assert_eq!(other.run(&insert(THEIRS)), 0, "after the {deed:?}");
                *rows += 1 + i64::from(deed == Deed::Transaction);
            }
            reads(&db, &mut other, mode, closes, rows);
            assert_eq!(other.run("BEGIN IMMEDIATE"), 0);
            closes.wait();
            assert_eq!(code(&db, &insert(OURS)), BUSY, "another process writes");
            assert_eq!(other.run(&format!("{}; COMMIT", insert(THEIRS))), 0);
            *rows += 1;
        }
        let [database, index] = closes.count();
        println!(
            "{mode:?}, {theirs:?} elsewhere: {} tries, {database} closes of the database, {index} of its -shm",
            tries.made
        );
        assert!(database > least as u64 && (mode == Mode::Delete || index > least as u64));
        tries
    })
}

fn no_breach_in_ten_thousand_tries(mode: Mode) {
    let least = std::env::var("HARDENED_CLOSES").map_or(10_000, |value| value.parse().unwrap());
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), mode);
    let (mut rows, mut made) = (ROWS, 0);
    for theirs in VFSES {
        let tries = ten_thousand(&path, mode, theirs, least / VFSES.len(), &mut rows);
        assert_eq!(tries.breaches, [""; 0]);
        made += tries.made;
    }
    assert!(made >= least);
    assert_eq!(number(elsewhere(&path, mode, Vfs::Stock).sql("SELECT count(*) FROM t")), rows);
    assert_eq!(found(&path, mode, -3), Ok(("ok".to_owned(), 0)), "whole, and nothing of what was refused");
}

#[test]
fn ten_thousand_closes_let_nobody_in_during_vacuums_and_transactions_in_rollback_mode() {
    no_breach_in_ten_thousand_tries(Mode::Delete);
}

#[test]
fn ten_thousand_closes_let_nobody_in_during_vacuums_and_transactions_in_wal_mode() {
    no_breach_in_ten_thousand_tries(Mode::Wal);
}
