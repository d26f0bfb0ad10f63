//! The power of an emulated guest is cut while programs commit there. From the log of what reached its disks follow the
//! states that a cut may leave on a disk with a volatile cache; in each the database must be as promised.
//!
//! `HARDENED_POWERCUT_CUTS` sets how often the power is cut (twice unless set), `HARDENED_POWERCUT_STATES` how many states
//! of each disk are looked at after each cut (40), `HARDENED_POWERCUT_SEED` the seed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "powercut/disks.rs"]
mod disks;
#[path = "powercut/guest.rs"]
mod guest;
#[path = "powercut/lies.rs"]
mod lies;
#[path = "powercut/states.rs"]
mod states;
#[path = "storm/verdict.rs"]
mod verdict;
#[path = "storm/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Instant;

use disks::{KINDS, Promise};
use states::Tally;
use support::{mounts, require};
use workload::Rng;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

const TEST: &str = "a_power_cut_leaves_what_was_promised";

/// The disks that also lie.
const LIARS: [&str; 2] = ["ext4-wal-full", "ext4-delete-extra"];

#[test]
fn a_power_cut_leaves_what_was_promised() {
    if disks::is_writer() {
        return;
    }
    let programs = ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "filefrag"];
    if !require::netlab() || !require::loop_devices() || !programs.iter().all(|name| require::program(name)) {
        return;
    }
    let seed = setting("HARDENED_POWERCUT_SEED", 20_251_121);
    let count = setting("HARDENED_POWERCUT_STATES", 40) as u32;
    let times = setting("HARDENED_POWERCUT_CUTS", 2);
    let began = Instant::now();
    let mut honest: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut lied: BTreeMap<(&str, &str), Tally> = BTreeMap::new();
    let mut commits = 0;
    let (sender, cuts) = channel();
    std::thread::scope(|scope| {
        // The next guest boots while the disks of the last one are looked at.
        scope.spawn(move || {
            for cut in 0..times {
                let room = mounts::tmpfs().unwrap();
                let mut rng = Rng::new(&[seed, cut, 1]);
                let remains = guest::cut(room.path(), TEST, seed, &mut rng);
                if sender.send((cut, room, remains)).is_err() {
                    return;
                }
            }
        });
        for (cut, room, remains) in cuts {
            let mut rng = Rng::new(&[seed, cut, 2]);
            for disk in &remains {
                let name = disk.kind.name;
                commits += disk.heard;
                let tally = states::examine(disk, seed, count, &mut rng, room.path());
                honest.entry(name).or_default().merge(tally);
                if LIARS.contains(&name) {
                    let [stock, hardened] = lies::examine(disk, seed, count / 2, &mut rng, room.path());
                    lied.entry((name, "stock")).or_default().merge(stock);
                    lied.entry((name, "hardened")).or_default().merge(hardened);
                }
            }
        }
    });

    let states: u32 = honest.values().map(|tally| tally.states).sum();
    println!(
        "seed {seed}, {times} cuts, {commits} acknowledged commits on {} disks each, {states} states, {:.1} s",
        KINDS.len(),
        began.elapsed().as_secs_f64()
    );
    for kind in &KINDS {
        let tally = &honest[kind.name];
        println!(
            "    {:18} {:3} states ({} after a commit), {:6} pieces left to chance, {:3} sound and behind, wrong: {:?}",
            kind.name, tally.states, tally.with_commits, tally.chances, tally.behind, tally.wrong
        );
    }
    for ((name, who), tally) in &lied {
        println!(
            "    {name} on a lying disk, {who}: {} states, {} sound, {} alarms, wrong: {:?}",
            tally.states,
            tally.states - tally.all_wrong(),
            tally.alarmed,
            tally.wrong
        );
    }
    for kind in &KINDS {
        let tally = &honest[kind.name];
        assert!(tally.with_commits > 0 && tally.chances > 0, "{}: nothing was at stake", kind.name);
        if kind.promise != Promise::None {
            let some: Vec<_> = tally.failures.iter().take(5).collect();
            assert!(some.is_empty(), "seed {seed}, {} failures, such as {some:#?}", tally.failures.len());
        }
        match kind.promise {
            // The two where something must go wrong, or the states are too tame to prove anything.
            Promise::None => assert!(tally.all_wrong() > 0, "{}: nothing was corrupted", kind.name),
            Promise::Beginning => assert!(tally.behind > 0, "{}: no commit was ever lost", kind.name),
            Promise::Every => assert_eq!(tally.behind, 0),
        }
    }
    for name in LIARS {
        let [stock, hardened] = ["stock", "hardened"].map(|who| &lied[&(name, who)]);
        assert!(stock.all_wrong() > 0, "{name}: no lie did any harm");
        assert!(hardened.alarmed > 0, "{name}: no lie was noticed");
    }
}
