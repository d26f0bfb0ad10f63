//! Random histories of a database on an honest disk, with hardened and stock writers, crashes, power cuts and backups put
//! back: no alarm, ever. And the same histories with one fault: always an alarm where the log can prove it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod frames;
mod rollback;
mod rollback_faults;
mod wal;
mod wal_faults;

use hardened_vfs::guard::classify::{AlarmKind, Finding};
use std::collections::BTreeMap;

/// Sectors of a page. A page is described by what its sectors would sum up to.
const SECTORS: usize = 2;
const PAGE_SIZE: u32 = 1024;
type Page = [u32; SECTORS];

/// SplitMix64.
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// How often what happened, to be printed: a model that does nothing finds nothing.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn add(&mut self, finding: &Finding) {
        self.count("looks");
        self.count(if finding.notes.is_empty() { "looks without a note" } else { "looks with a note" });
    }

    fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

/// The seed of a history, told if it fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("in the history with seed {:#x}", self.0);
        }
    }
}

/// Runs histories; GUARD_MODEL_SEED and GUARD_MODEL_COUNT choose others and more.
fn histories(what: &str, count: u64, seed: u64, mut one: impl FnMut(Rng, &mut Tally)) -> Tally {
    let chosen = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (count, seed) = (chosen("GUARD_MODEL_COUNT").unwrap_or(count), chosen("GUARD_MODEL_SEED").unwrap_or(seed));
    println!("{what}: {count} histories, seed {seed:#x}");
    let mut tally = Tally::default();
    for history in 0..count {
        let told = Told(seed.wrapping_add(history << 20));
        one(Rng(told.0), &mut tally);
    }
    println!("{what}: {:#?}", tally.0);
    tally
}

fn has(finding: &Finding, kinds: &[AlarmKind]) -> bool {
    finding.alarms.iter().any(|alarm| kinds.contains(&alarm.kind))
}

#[test]
fn in_rollback_mode_an_honest_disk_never_raises_an_alarm_and_a_fault_does() {
    let tally = histories("rollback mode", 50_000, 0x6a2d_0000_0001, rollback::history);
    for what in ["journal deleted", "journal of another transaction", "write lost", "write torn", "database replaced"] {
        assert!(tally.of(what) > 300, "{what}: {}", tally.of(what));
    }
}
#[test]
fn in_wal_mode_an_honest_disk_never_raises_an_alarm_and_a_fault_does() {
    let tally = histories("WAL mode", 50_000, 0x6a2d_0000_0002, wal::history);
    for what in ["WAL deleted", "older WAL", "another WAL", "WAL damaged", "write lost", "database replaced"] {
        assert!(tally.of(what) > 300, "{what}: {}", tally.of(what));
    }
}
