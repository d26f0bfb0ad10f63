//! What a hand does: one thread of a child, until the child is killed or told to end.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::crash::Rng;

use crate::cells::{Cell, Cells};
use crate::crew::{Duty, Kind};
use crate::engine::{Connection, Journal, open};
use crate::ledger::{self, Wrong};

/// Set when the test wants no more.
pub(crate) static ENOUGH: AtomicBool = AtomicBool::new(false);

fn enough() -> bool {
    ENOUGH.load(Ordering::Relaxed)
}

/// Beyond this a hand is starved. A disk that is busy with others may hold up a writer for minutes, and everybody behind it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A thread's place in the fleet.
pub(crate) struct Hand {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) duty: Duty,
    pub(crate) database: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) cells: Cells,
    /// Its connection stays open, also at the end.
    pub(crate) steady: bool,
    pub(crate) db: Option<Connection>,
}

/// That path with more behind its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Hand {
    /// Works until [`ENOUGH`].
    pub(crate) fn work(&mut self) -> Result<(), Wrong> {
        if self.duty == Duty::CloseRaw {
            return self.close_raw();
        }
        while !enough() {
            let rounds = match self.duty {
                Duty::Visit => 1,
                Duty::Checkpoint => 1 + self.rng.below(30),
                _ => 1 + self.rng.below(300),
            };
            self.open()?;
            let mut round = 0;
            while (round < rounds || self.steady) && !enough() {
                self.one_round()?;
                round += 1;
            }
            if self.steady {
                // The process ends with it.
                std::mem::forget(self.db.take());
                return Ok(());
            }
            self.close()?;
        }
        Ok(())
    }

    pub(crate) fn open(&mut self) -> Result<(), Wrong> {
        if self.db.is_none() {
            let (kind, database, journal) = (self.kind, self.database.clone(), self.journal);
            self.db = self.patiently(|_| Ok(open(kind, &database, journal)?))?;
            self.cells.count(self.number, Cell::Opens);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Wrong> {
        let Some(db) = self.db.take() else { return Ok(()) };
        if self.kind.hardened() && self.rng.percent(10) {
            no_alarms(&db)?;
        }
        db.close()?;
        if self.journal == Journal::Wal && !beside(&self.database, "-wal").exists() {
            self.cells.count(self.number, Cell::LastCloses);
        }
        Ok(())
    }

    fn one_round(&mut self) -> Result<(), Wrong> {
        match self.duty {
            Duty::Write => self.write(),
            Duty::Read => self.read(),
            Duty::Checkpoint if self.rng.percent(2) => self.counted(Cell::Vacuums, "VACUUM"),
            Duty::Checkpoint => self.checkpoint(),
            Duty::Visit => match self.rng.below(10) {
                0..4 => self.write(),
                4..8 => self.read(),
                _ => Ok(()),
            },
            Duty::CloseRaw => Ok(()),
        }
    }

    /// Tries until nobody is in the way; `None` if the end comes first.
    fn patiently<T>(&mut self, mut attempt: impl FnMut(&mut Hand) -> Result<T, Wrong>) -> Result<Option<T>, Wrong> {
        let began = Instant::now();
        while !enough() {
            match attempt(self) {
                Err(Wrong::Busy) if began.elapsed() < PATIENCE => self.cells.count(self.number, Cell::Busy),
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    fn counted(&mut self, cell: Cell, sql: &str) -> Result<(), Wrong> {
        let Some(db) = &self.db else { return Ok(()) };
        match db.rows(sql).map_err(Wrong::from) {
            Ok(_) => self.cells.count(self.number, cell),
            Err(Wrong::Busy) => self.cells.count(self.number, Cell::Busy),
            Err(wrong) => return Err(wrong),
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Wrong> {
        let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][self.rng.below(4)];
        self.counted(Cell::Checkpoints, &format!("PRAGMA wal_checkpoint({mode})"))
    }

    fn read(&mut self) -> Result<(), Wrong> {
        let thorough = self.rng.percent(3);
        let read = self.patiently(|hand| {
            let Some(db) = &hand.db else { return Ok(()) };
            ledger::read(db, hand.seed, &hand.cells, thorough).inspect_err(|_| roll_back(db))
        })?;
        if read.is_some() {
            self.cells.count(self.number, Cell::Reads);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Wrong> {
        let (number, cells) = (self.number, self.cells);
        let last = self.patiently(|hand| hand.db.as_ref().map_or(Ok(0), |db| ledger::tip(db, number)))?;
        let Some(last) = last else { return Ok(()) };
        // After a life that ended between COMMIT and its acknowledgement it may be one more.
        let (acknowledged, begun) = (cells.get(number, Cell::Acknowledged), cells.get(number, Cell::Begun));
        if !(acknowledged..=begun).contains(&last) {
            let text = format!("writer {number} finds {last}, has begun {begun} and acknowledged {acknowledged}");
            return Err(Wrong::Content(text));
        }
        cells.set(number, Cell::Acknowledged, last);
        let seq = last + 1;
        cells.set(number, Cell::Begun, seq);
        let written = self.patiently(|hand| {
            let Some(db) = &hand.db else { return Ok(()) };
            // In WAL mode 3.40.1 by itself leaves frames without a checksum after one (`tests/savepoints.rs`), so that a crash loses
            // what anybody commits behind them.
            let savepoints = hand.kind != Kind::Old;
            let written = ledger::write(db, hand.seed, number, seq, &mut hand.rng, savepoints);
            written.and_then(|()| commit(db)).inspect_err(|_| roll_back(db))
        })?;
        if written.is_some() {
            cells.set(number, Cell::Acknowledged, seq);
            cells.count(number, Cell::Commits);
        }
        Ok(())
    }

    /// The database, its log, its journal and its index, in any order and with a pause of no given length.
    fn close_raw(&mut self) -> Result<(), Wrong> {
        let names = ["", "", "", "-wal", "-shm", "-journal"].map(|suffix| beside(&self.database, suffix));
        while !enough() {
            if let Ok(mut file) = File::open(&names[self.rng.below(names.len())]) {
                let mut some = [0; 100];
                let _any = file.read(&mut some);
                drop(file);
                self.cells.count(self.number, Cell::RawCloses);
            }
            // Others want the processor, too.
            for _ in 0..self.rng.below(40) {
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}

/// Again while it is busy, for a while: readers leave.
fn commit(db: &Connection) -> Result<(), Wrong> {
    for _ in 0..4 {
        match db.rows("COMMIT").map_err(Wrong::from) {
            Err(Wrong::Busy) => {}
            other => return other.map(drop),
        }
    }
    Err(Wrong::Busy)
}

/// An error may have ended the transaction already; then there is nothing to roll back.
fn roll_back(db: &Connection) {
    let _none = db.rows("ROLLBACK");
}

pub(crate) fn no_alarms(db: &Connection) -> Result<(), Wrong> {
    let json = db.rows("PRAGMA hardened_report")?.join("");
    let report =
        hardened_sqlite::Report::from_json(&json).map_err(|error| Wrong::Content(format!("{error}: {json}")))?;
    match report.alarms.as_slice() {
        [] => Ok(()),
        alarms => Err(Wrong::Content(format!("alarms: {alarms:?}"))),
    }
}
