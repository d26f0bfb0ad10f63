//! What came out, for people, for programs and for the way from the worker.

use std::io::{self, Write};

use hardened_sqlite::VerdictReport;
use hardened_sqlite::rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use crate::sql::ResultSink;
use crate::table::{Table, printable};

/// One directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) directory: String,
    pub(crate) verdict: VerdictReport,
    /// The verdict in a sentence.
    pub(crate) filesystem: String,
    /// The rule that hardened chose, and stock was given: `WAL, synchronous NORMAL`.
    pub(crate) policy: String,
    pub(crate) sqlite: String,
    /// How long each row was measured at least.
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
}

/// One operation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) operation: String,
    pub(crate) stock: Outcome,
    pub(crate) hardened: Outcome,
    /// None if a side has failed.
    pub(crate) ratio: Option<Ratio>,
    pub(crate) rounds: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    Measured(Times),
    Failed { error: String },
}

/// Of one side.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    /// Operations a second: the median of the rounds.
    per_second: f64,
    median_us: f64,
    p95_us: f64,
    operations: usize,
}

/// Operations a second of hardened in those of stock: median and quartiles of the rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

/// The value below which that part of them lies, between two of them if it has to be.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = sorted.len().saturating_sub(1) as f64 * part;
    match (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize)) {
        (Some(below), Some(above)) => below + (above - below) * at.fract(),
        _ => 0.0,
    }
}

impl Times {
    pub(crate) fn of(times: Vec<std::time::Duration>, mut rates: Vec<f64>) -> Times {
        let mut micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        micros.sort_unstable_by(f64::total_cmp);
        rates.sort_unstable_by(f64::total_cmp);
        Times {
            per_second: quantile(&rates, 0.5),
            median_us: quantile(&micros, 0.5),
            p95_us: quantile(&micros, 0.95),
            operations: micros.len(),
        }
    }
}

impl Ratio {
    pub(crate) fn of(mut ratios: Vec<f64>) -> Ratio {
        ratios.sort_unstable_by(f64::total_cmp);
        let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(&ratios, part));
        Ratio { median, low, high }
    }
}

impl Measured {
    /// Whether hardened has failed in a row.
    pub(crate) fn has_failed(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.hardened, Outcome::Failed { .. }))
    }

    /// For people.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let line = |out: &mut dyn Write, text: &str| writeln!(out, "{}", printable(text.as_bytes()));
        line(out, &self.directory)?;
        line(out, &format!("  {}", self.filesystem))?;
        line(out, &format!("  hardened and stock SQLite {}: {}", self.sqlite, self.policy))?;
        writeln!(out)?;
        let mut table = Table::new(&mut *out, short);
        table.start(&COLUMNS.map(str::to_owned))?;
        for row in &self.rows {
            let [stock, hardened] = [&row.stock, &row.hardened].map(Outcome::numbers);
            let (ratio, quartiles) = match &row.ratio {
                Some(ratio) => (ratio.median, format!("{:.2} to {:.2}", ratio.low, ratio.high)),
                None => (f64::NAN, String::new()),
            };
            table.row(&[
                ValueRef::Text(row.operation.as_bytes()),
                ValueRef::Real(stock[0]),
                ValueRef::Real(hardened[0]),
                ValueRef::Real(ratio),
                ValueRef::Text(quartiles.as_bytes()),
                ValueRef::Real(stock[1]),
                ValueRef::Real(hardened[1]),
                ValueRef::Real(stock[2]),
                ValueRef::Real(hardened[2]),
            ])?;
        }
        table.end()?;
        line(
            out,
            "ratio: operations per second of hardened divided by those of stock, in rounds; above 1 hardened is faster",
        )?;
        for row in &self.rows {
            for (who, side) in [("stock SQLite", &row.stock), ("hardened", &row.hardened)] {
                if let Outcome::Failed { error } = side {
                    line(out, &format!("{who} failed, {}: {error}", row.operation))?;
                }
            }
        }
        Ok(())
    }
}

const COLUMNS: [&str; 9] = [
    "operation",
    "stock/s",
    "hardened/s",
    "ratio",
    "quartiles",
    "stock, µs",
    "hardened, µs",
    "stock, p95 µs",
    "hardened, p95 µs",
];

impl Outcome {
    fn numbers(&self) -> [f64; 3] {
        match self {
            Outcome::Measured(times) => [times.per_second, times.median_us, times.p95_us],
            Outcome::Failed { .. } => [f64::NAN; 3],
        }
    }
}

/// About three digits; nothing of what is not known.
fn short(number: f64) -> String {
    match number {
        _ if number.is_nan() => "-".to_owned(),
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_the_rounds() {
        let ratio = Ratio::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 3.0, 4.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[7.0], 0.95), 7.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
    }

    #[test]
    fn numbers_are_short() {
        let all = [123456.7, 99.94, 9.994, 0.504, f64::NAN].map(short);
        assert_eq!(all, ["123457", "99.9", "9.99", "0.50", "-"]);
    }
}
