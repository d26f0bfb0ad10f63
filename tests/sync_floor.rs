//! Promise 5: the order of syncs holds under `synchronous=OFF`, whoever managed to set that, for main and attached databases.
//!
//! Another shim stands above, which keeps its pragmas to itself, so that OFF is really in force. What a power cut leaves is
//! simulated, on an honest disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use hardened_sqlite::hardened_vfs;
use support::crash::{
    Disk, Faults, Journal, Judge, Lies, Opener, Promise, Setting, Stock, Synchronous, Tally, record, workloads,
};
use support::fault_vfs::{Call, FailSpec, FaultVfs};

const SEED: u64 = 20_261_121;

/// Hardened under a shim that does not hand pragmas down.
struct Deaf(&'static str);

impl Opener for Deaf {
    fn name(&self) -> &str {
        "hardened under a deaf shim"
    }

    fn uri(&self, disk: &Disk, file: &str, setting: &Setting) -> String {
        let below = format!("floor-{}", disk.name());
        let mut options = hardened_vfs::Options::default();
        options.base = Some(disk.name().to_owned());
        hardened_vfs::register_as(&below, options).unwrap();
        let deaf = FaultVfs::register_over(&format!("deaf-{}", disk.name()), &below);
        deaf.clear();
        deaf.fail(Call::Pragma, FailSpec::code(12));
        let policy = match setting.journal {
            Journal::Wal => "policy=wal&fs=local".to_owned(),
            journal => format!("policy=delete&journal={}", journal.word()),
        };
        let vfs = deaf.name().to_str().unwrap();
        format!("file:{}?vfs={vfs}&{policy}&guard={}", disk.path(file), self.0)
    }
}

fn judged(opener: &dyn Opener, setting: Setting, transactions: usize) -> Tally {
    let name = format!("{} off, {} databases", setting.journal.word(), setting.databases);
    let workload = workloads::mixed(&name, setting, transactions);
    let disk = Disk::lease();
    let recording = record(&workload, opener, &disk, Faults::default(), SEED);
    assert_eq!(recording.promise, Promise::Nothing, "OFF is in force");
    let mut judge = Judge::new(&recording, opener, &disk);
    judge.all(Lies::None, 3, SEED);
    println!("{name}, {}: {}", opener.name(), judge.tally.row());
    judge.tally
}

#[test]
fn under_synchronous_off_a_power_cut_leaves_every_database_whole() {
    println!("seed {SEED} {}", Tally::head());
    let (mut stock, mut states) = (Tally::default(), 0);
    for journal in [Journal::Delete, Journal::Truncate, Journal::Persist, Journal::Wal] {
        for databases in if journal == Journal::Wal { vec![1] } else { vec![1, 2] } {
            let autocheckpoint = if journal == Journal::Wal { 8 } else { 1000 };
            let cache = (databases == 1).then_some(10);
            let off = Setting::new(journal, Synchronous::Off);
            let setting = Setting { databases, autocheckpoint, cache, ..off };
            stock += judged(&Stock, setting, 12);
            for guard in ["off", "on"] {
                let tally = judged(&Deaf(guard), setting, 12);
                // Under OFF SQLite has no super-journal: each database is whole, and one may be ahead of the other.
                let whole = if databases == 1 { tally.good } else { tally.good + tally.mixed };
                assert_eq!(whole, tally.states, "{}: {:?}", journal.word(), tally.examples);
                states += tally.states;
            }
        }
    }
    assert!(stock.corrupt > 0 && stock.undetected > 0, "the case bites: {stock:?}");
    println!("{states} states, all of them whole");
}
