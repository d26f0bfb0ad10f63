//! Promise 2 as a whole: a fleet of stock and hardened processes, with one thread or several, new SQLite and old, on one database:
//! writers, readers, checkpoints, VACUUMs, connections that come and go, files closed behind SQLite's back, SIGKILLs.
//!
//! `HARDENED_FLEET_SECONDS` sets how long each fleet sails (12 s unless set), `HARDENED_FLEET_SEED` the seed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "fleet/cells.rs"]
mod cells;
#[path = "fleet/crew.rs"]
mod crew;
#[path = "fleet/duties.rs"]
mod duties;
#[path = "fleet/engine.rs"]
mod engine;
#[path = "fleet/ledger.rs"]
mod ledger;
#[path = "fleet/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cells::{COUNTED, Cells};
use crew::{Fleet, Kind, visits_only};
use engine::Journal;
use processes::{Processes, Voyage, aboard, needs};
use support::crash::Rng;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// What has been done, by kind.
type Done = BTreeMap<Kind, BTreeMap<&'static str, u64>>;

/// A fleet on a new database.
struct Sailing {
    voyage: Voyage,
    cells: Cells,
    processes: Processes,
    rng: Rng,
    kills: usize,
}

impl Sailing {
    fn new(test: &'static str, home: &Path, fleet: Fleet, journal: Journal, seed: u64) -> Sailing {
        let voyage = Voyage { fleet, journal, seed, database: home.join("app.db") };
        let hands = fleet.hands().count();
        let cells = Cells::create(&voyage.board(), hands);
        let page_size = [1024, 4096][seed as usize % 2];
        let db = engine::open(Kind::Stock, &voyage.database, journal).unwrap();
        ledger::create(&db, journal.word(), page_size, hands).unwrap();
        db.close().unwrap();
        let processes = Processes::new(test, voyage.clone());
        Sailing { voyage, cells, processes, rng: Rng::derived(seed, &[1]), kills: 0 }
    }

    /// Sails for some time, with kills, and ends well. Says what went wrong.
    fn sail(&mut self, time: Duration) -> Result<(), String> {
        let extension = needs(self.voyage.fleet, Kind::OldHardened)
            .then(|| support::extension::build(Path::new(env!("CARGO_MANIFEST_DIR"))));
        let began = Instant::now();
        while began.elapsed() < time {
            self.processes.start(extension);
            let pause = 30 + self.rng.below(500) as u64;
            self.processes.listen(Duration::from_millis(pause))?;
            let victims = self.victims();
            self.processes.kill(&victims)?;
            self.kills += victims.len();
            if victims.len() > self.processes.len() / 2 {
                // The others alone, for a while.
                self.processes.listen(Duration::from_millis(400))?;
            }
        }
        self.processes.start(extension);
        self.processes.listen(Duration::from_millis(300))?;
        self.processes.end()?;
        [Kind::Stock, Kind::Hardened]
            .into_iter()
            .try_for_each(|kind| self.judge(kind).map_err(|wrong| format!("at the end, {kind:?}: {wrong}")))
    }

    fn victims(&mut self) -> Vec<usize> {
        let crews = self.voyage.fleet.crews();
        match self.rng.below(6) {
            // All but one or two that visit only, so that the last to close is often met.
            0 => {
                let visitors: Vec<usize> = (0..crews.len()).filter(|process| visits_only(crews[*process])).collect();
                let kept = [0, 1].map(|_| visitors.get(self.rng.below(visitors.len())).copied());
                (0..crews.len()).filter(|process| !kept.contains(&Some(*process))).collect()
            }
            1 => (0..crews.len()).filter(|_| self.rng.percent(40)).collect(),
            _ => vec![self.rng.below(crews.len())],
        }
    }

    fn judge(&self, kind: Kind) -> Result<(), ledger::Wrong> {
        let db = engine::open(kind, &self.voyage.database, self.voyage.journal)?;
        ledger::read(&db, self.voyage.seed, &self.cells, true)?;
        if kind.hardened() {
            duties::no_alarms(&db)?;
        }
        Ok(db.close()?)
    }

    fn done(&self) -> Done {
        let mut done = Done::new();
        for (number, (kind, _)) in self.voyage.fleet.hands().enumerate() {
            let of_kind = done.entry(kind).or_default();
            for (cell, name) in COUNTED {
                *of_kind.entry(name).or_default() += self.cells.get(number, cell);
            }
        }
        done
    }
}

/// One fleet at a time: they want all processors.
fn alone() -> impl Drop {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing may go wrong.
fn comes_home(test: &'static str, fleet: Fleet, journal: Journal, share: u32) {
    if aboard() {
        return;
    }
    if needs(fleet, Kind::Old) && support::second::Library::load().is_none() {
        return;
    }
    let _alone = alone();
    let (seed, began) = (setting("HARDENED_FLEET_SEED", 20_251_121), Instant::now());
    let time = Duration::from_secs(setting("HARDENED_FLEET_SECONDS", 12)) / share;
    let home = tempfile::tempdir().unwrap();
    let mut sailing = Sailing::new(test, home.path(), fleet, journal, seed);
    let result = sailing.sail(time);
    println!("{test}: seed {seed}, {} kills, {:.1} s", sailing.kills, began.elapsed().as_secs_f64());
    let done = sailing.done();
    for (kind, of_kind) in &done {
        let counts = of_kind.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}"));
        println!("    {kind:?}: {}", counts.collect::<Vec<_>>().join(", "));
    }
    if let Err(wrong) = result {
        println!("{}{}", sailing.processes.threads(), std::fs::read_to_string("/proc/locks").unwrap_or_default());
        let kept = home.keep();
        panic!("{test}, seed {seed}: {wrong}; the files are in {}", kept.display());
    }
    for (kind, of_kind) in &done {
        assert!(of_kind["opens"] > 0, "{kind:?} has done nothing");
    }
    for what in ["commits", "reads", "raw closes"] {
        assert!(done.values().any(|of_kind| of_kind[what] > 0), "no {what}");
    }
    let mut names: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["app.db", "app.db.board"], "nothing is left beside a database that everybody has closed");
}

#[test]
fn a_mixed_fleet_in_wal_mode_loses_nothing() {
    comes_home("a_mixed_fleet_in_wal_mode_loses_nothing", Fleet::Mixed, Journal::Wal, 1);
}

#[test]
fn a_mixed_fleet_with_rollback_journals_loses_nothing() {
    comes_home("a_mixed_fleet_with_rollback_journals_loses_nothing", Fleet::Mixed, Journal::Delete, 1);
}

#[test]
fn hardened_processes_that_close_the_file_behind_sqlites_back_lose_nothing_in_wal_mode() {
    let test = "hardened_processes_that_close_the_file_behind_sqlites_back_lose_nothing_in_wal_mode";
    comes_home(test, Fleet::HardenedAlone, Journal::Wal, 3);
}

#[test]
fn hardened_processes_that_close_the_file_behind_sqlites_back_lose_nothing_with_rollback_journals() {
    let test = "hardened_processes_that_close_the_file_behind_sqlites_back_lose_nothing_with_rollback_journals";
    comes_home(test, Fleet::HardenedAlone, Journal::Delete, 3);
}

/// The same processes without `hardened`, again and again on new databases until one of them is breached: if that went unnoticed,
/// the tests above would prove nothing.
fn sinks(test: &'static str, journal: Journal) {
    if aboard() {
        return;
    }
    let _alone = alone();
    let began = Instant::now();
    for seed in (setting("HARDENED_FLEET_SEED", 20_251_121)..).take(40) {
        let home = tempfile::tempdir().unwrap();
        let mut sailing = Sailing::new(test, home.path(), Fleet::StockAlone, journal, seed);
        let Err(first) = sailing.sail(Duration::from_secs(5)) else { continue };
        // An error is not a loss yet.
        sailing.processes.abandon();
        if let Err(wrong) = sailing.judge(Kind::Stock) {
            let (time, kills) = (began.elapsed().as_secs_f64(), sailing.kills);
            println!("{test}: seed {seed}, after {time:.1} s and {kills} kills: {first}; then {wrong}");
            return;
        }
        println!("{test}: seed {seed}, {first}; and nothing is lost");
    }
    panic!("seed {}: 40 fleets of stock SQLite lost nothing", setting("HARDENED_FLEET_SEED", 20_251_121));
}

#[test]
fn stock_processes_that_close_the_file_behind_sqlites_back_are_found_out_in_wal_mode() {
    let test = "stock_processes_that_close_the_file_behind_sqlites_back_are_found_out_in_wal_mode";
    sinks(test, Journal::Wal);
}

#[test]
fn stock_processes_that_close_the_file_behind_sqlites_back_are_found_out_with_rollback_journals() {
    let test = "stock_processes_that_close_the_file_behind_sqlites_back_are_found_out_with_rollback_journals";
    sinks(test, Journal::Delete);
}
