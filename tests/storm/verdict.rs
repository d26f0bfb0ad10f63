//! Judges a database after a crash.
//!
//! Invariant: a database passes only if every writer's rows are those after some number of its transactions, each
//! wholly or not at all, and that number lies within the bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use rusqlite::Connection;

use crate::workload::expected;

/// What is wrong with a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// SQLite cannot read it.
    Unreadable(String),
    /// SQLite reads all rows without an error, and integrity_check finds something.
    Malformed(String),
    /// SQLite finds nothing, but the rows are those of no single moment.
    Mixed(String),
    /// The rows are those of a moment that is too early.
    Lost(String),
    /// The rows are those of a moment that has not come.
    Early(String),
}

impl Wrong {
    /// The kind, without the particulars.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Wrong::Unreadable(_) => "error",
            Wrong::Malformed(_) => "only integrity_check says so",
            Wrong::Mixed(_) => "rows of different moments",
            Wrong::Lost(_) => "acknowledged commits lost",
            Wrong::Early(_) => "commits from nowhere",
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Wrong::Unreadable(text)
        | Wrong::Malformed(text)
        | Wrong::Mixed(text)
        | Wrong::Lost(text)
        | Wrong::Early(text)) = self;
        write!(f, "{}: {text}", self.kind())
    }
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Wrong {
        Wrong::Unreadable(error.to_string())
    }
}

/// Reads everything in one transaction; `bounds[writer]` is how many transactions of that writer there may be. Answers
/// how many there are.
pub(crate) fn judge(db: &Connection, seed: u64, bounds: &[RangeInclusive<u32>]) -> Result<Vec<u32>, Wrong> {
    db.execute_batch("BEGIN")?;
    let result = judge_snapshot(db, seed, bounds);
    db.execute_batch("COMMIT")?;
    result
}

fn judge_snapshot(db: &Connection, seed: u64, bounds: &[RangeInclusive<u32>]) -> Result<Vec<u32>, Wrong> {
    // The rows first: what SQLite says by itself counts as an error, and not as a finding of integrity_check.
    let rows = read_rows(db, seed, bounds.len());
    if let Err(Wrong::Unreadable(_)) = rows {
        return rows;
    }
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if integrity != "ok" {
        return Err(Wrong::Malformed(integrity));
    }
    let there = rows?;
    for (writer, (there, bounds)) in there.iter().zip(bounds).enumerate() {
        let text = || format!("writer {writer} has {there} transactions, not {bounds:?}");
        if there < bounds.start() {
            return Err(Wrong::Lost(text()));
        }
        if there > bounds.end() {
            return Err(Wrong::Early(text()));
        }
    }
    Ok(there)
}

fn read_rows(db: &Connection, seed: u64, writers: usize) -> Result<Vec<u32>, Wrong> {
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?;
    let count = |writer| if tables == 0 { Ok(0) } else { transactions_of(db, seed, writer) };
    (0..writers as u32).map(count).collect()
}

fn transactions_of(db: &Connection, seed: u64, writer: u32) -> Result<u32, Wrong> {
    let (count, last): (u32, u32) =
        db.query_row("SELECT count(*), ifnull(max(seq), 0) FROM done WHERE writer = ?", [writer], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if count != last {
        return Err(Wrong::Mixed(format!("writer {writer}: {count} transactions, the last has number {last}")));
    }
    let rows: BTreeMap<u32, Vec<u8>> = db
        .prepare("SELECT slot, body FROM item WHERE writer = ?")?
        .query_map([writer], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    if rows != expected(seed, writer, last) {
        return Err(Wrong::Mixed(format!("writer {writer}: its rows are not those after {last} transactions")));
    }
    Ok(last)
}

/// The alarms in the report of a hardened connection. A version without alarms has none.
pub(crate) fn alarms(db: &Connection) -> Result<Vec<String>, Wrong> {
    let text: String = db.query_row("PRAGMA hardened_report", [], |row| row.get(0))?;
    let report: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Wrong::Unreadable(format!("{error} in {text}")))?;
    let alarms = report.get("alarms").and_then(serde_json::Value::as_array);
    Ok(alarms.into_iter().flatten().map(ToString::to_string).collect())
}
