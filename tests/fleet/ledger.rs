//! What the writers write, and what every reader must find.
//!
//! Invariant of the database, at every commit: of each writer the last [`KEPT`] entries up to its tip and no others, with the
//! bodies that follow from the seed; balances that add up to zero; one stamp in all of the bulk.

use support::crash::Rng;
use support::sqlite::Failure;

use crate::cells::{Cell, Cells};
use crate::engine::Connection;

/// How many entries of a writer are kept. Older ones go in the transaction that makes a new one.
const KEPT: u64 = 60;
const ACCOUNTS: usize = 24;
const BULK: usize = 40;

/// What ends a fleet's voyage.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// Others are in the way.
    Busy,
    /// An error that nobody expects.
    Code(Failure),
    /// No error, and wrong all the same.
    Content(String),
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Wrong {
        if crate::engine::busy(&failure) { Wrong::Busy } else { Wrong::Code(failure) }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wrong::Busy => write!(f, "busy for too long"),
            Wrong::Code(failure) => write!(f, "error {}: {}", failure.code, failure.message),
            Wrong::Content(text) => write!(f, "{text}"),
        }
    }
}

/// Makes the tables, for so many writers.
pub(crate) fn create(db: &Connection, journal: &str, page_size: u32, writers: usize) -> Result<(), Failure> {
    db.rows(&format!(
        "PRAGMA page_size = {page_size};
         PRAGMA journal_mode = {journal};
         BEGIN;
         CREATE TABLE entry(writer, seq, body, PRIMARY KEY (writer, seq)) WITHOUT ROWID;
         CREATE TABLE tip(writer PRIMARY KEY, seq);
         CREATE TABLE account(id INTEGER PRIMARY KEY, balance);
         CREATE TABLE bulk(id INTEGER PRIMARY KEY, stamp, body);
         CREATE INDEX bulk_by_stamp ON bulk(stamp, body);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {writers} - 1)
             INSERT INTO tip SELECT i, 0 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS} - 1)
             INSERT INTO account SELECT i, 0 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {BULK} - 1)
             INSERT INTO bulk SELECT i, 0, randomblob(300) FROM n;
         COMMIT"
    ))
    .map(drop)
}

fn body(seed: u64, writer: usize, seq: u64) -> String {
    let mut rng = Rng::derived(seed, &[7, writer as u64, seq]);
    let length = 2 + rng.below(400);
    (0..length).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}

/// The number of a writer's last transaction.
pub(crate) fn tip(db: &Connection, writer: usize) -> Result<u64, Wrong> {
    let rows = db.rows(&format!("SELECT seq FROM tip WHERE writer = {writer}"))?;
    match rows.as_slice() {
        [seq] => Ok(seq.parse().unwrap()),
        _ => Err(Wrong::Content(format!("the tip of writer {writer} is {rows:?}"))),
    }
}

/// Writer `writer`'s transaction `seq`, up to its COMMIT. After an error the transaction may still be open.
///
/// `savepoints`: whether some have one that is rolled back after more was written than the page cache holds.
pub(crate) fn write(
    db: &Connection,
    seed: u64,
    writer: usize,
    seq: u64,
    rng: &mut Rng,
    savepoints: bool,
) -> Result<(), Wrong> {
    // One that reads first may find that its snapshot is old.
    let begin = if rng.percent(25) { "BEGIN; SELECT sum(balance) FROM account" } else { "BEGIN IMMEDIATE" };
    db.rows(begin)?;
    let last = tip(db, writer)?;
    if last != seq - 1 {
        return Err(Wrong::Content(format!("writer {writer} has committed {} and finds {last}", seq - 1)));
    }
    let amount = rng.below(1000);
    let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
    let body = body(seed, writer, seq);
    let old = seq.saturating_sub(KEPT);
    db.rows(&format!("UPDATE account SET balance = balance - {amount} WHERE id = {from}"))?;
    db.rows(&format!("INSERT INTO entry VALUES ({writer}, {seq}, '{body}')"))?;
    if savepoints && rng.percent(15) {
        db.rows("SAVEPOINT part; DELETE FROM entry; UPDATE account SET balance = 1; ROLLBACK TO part; RELEASE part")?;
    }
    if rng.percent(12) {
        // More than the page cache holds.
        let stamp = seq * 100 + writer as u64;
        db.rows(&format!("UPDATE bulk SET stamp = {stamp}, body = randomblob(200 + abs(random() % 1800))"))?;
    }
    db.rows(&format!(
        "UPDATE tip SET seq = {seq} WHERE writer = {writer};
         DELETE FROM entry WHERE writer = {writer} AND seq <= {old};
         UPDATE account SET balance = balance + {amount} WHERE id = {to}"
    ))?;
    Ok(())
}

/// One read transaction. `thorough`: with every body and SQLite's own look at all pages.
pub(crate) fn read(db: &Connection, seed: u64, cells: &Cells, thorough: bool) -> Result<(), Wrong> {
    let acknowledged: Vec<u64> = cells.all(Cell::Acknowledged);
    db.rows("BEGIN")?;
    let tips = db.rows("SELECT seq FROM tip ORDER BY writer")?;
    let begun: Vec<u64> = cells.all(Cell::Begun);
    let tips: Vec<u64> = tips.iter().map(|seq| seq.parse().unwrap()).collect();
    if tips.len() != acknowledged.len() {
        return Err(Wrong::Content(format!("{} tips of {} writers", tips.len(), acknowledged.len())));
    }
    for (writer, seq) in tips.iter().enumerate() {
        if *seq < acknowledged[writer] {
            let text = format!("writer {writer}: {} was acknowledged before, {seq} is found", acknowledged[writer]);
            return Err(Wrong::Content(text));
        }
        if *seq > begun[writer] {
            return Err(Wrong::Content(format!("writer {writer}: {seq} is found, {} was begun", begun[writer])));
        }
    }
    one_answer(db, "SELECT sum(balance) FROM account", "0")?;
    one_answer(db, "SELECT count(*) || ' in ' || count(DISTINCT stamp) FROM bulk", &format!("{BULK} in 1"))?;
    entries(db, &tips)?;
    if thorough {
        one_answer(db, "PRAGMA integrity_check", "ok")?;
        bodies(db, seed, &tips)?;
    }
    db.rows("COMMIT")?;
    Ok(())
}

fn one_answer(db: &Connection, sql: &str, expected: &str) -> Result<(), Wrong> {
    let rows = db.rows(sql)?;
    if rows == [expected] { Ok(()) } else { Err(Wrong::Content(format!("{sql}: {rows:?}"))) }
}

/// No holes: as many as there must be, from the first to the last.
fn entries(db: &Connection, tips: &[u64]) -> Result<(), Wrong> {
    let sql = "SELECT writer || ' ' || count(*) || ' ' || min(seq) || ' ' || max(seq) FROM entry GROUP BY writer ORDER BY writer";
    let expected = tips.iter().enumerate().filter(|(_, seq)| **seq > 0).map(|(writer, seq)| {
        let count = (*seq).min(KEPT);
        format!("{writer} {count} {} {seq}", seq - count + 1)
    });
    let (rows, expected) = (db.rows(sql)?, expected.collect::<Vec<_>>());
    if rows == expected { Ok(()) } else { Err(Wrong::Content(format!("entries {rows:?} and not {expected:?}"))) }
}

fn bodies(db: &Connection, seed: u64, tips: &[u64]) -> Result<(), Wrong> {
    for (writer, last) in tips.iter().enumerate() {
        let rows = db.rows(&format!("SELECT body FROM entry WHERE writer = {writer} ORDER BY seq"))?;
        let first = last - (*last).min(KEPT) + 1;
        let expected: Vec<String> = (first..=*last).map(|seq| body(seed, writer, seq)).collect();
        if rows != expected {
            return Err(Wrong::Content(format!("the bodies of writer {writer} up to {last} are wrong")));
        }
    }
    Ok(())
}
