//! Writers are killed with SIGKILL at any moment, and every acknowledged commit must be there, on an intact database,
//! without an alarm.
//!
//! `HARDENED_STORM_KILLS` sets how often each test kills (60 times unless set), `HARDENED_STORM_SEED` the seed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "storm/processes.rs"]
mod processes;
#[path = "storm/verdict.rs"]
mod verdict;
#[path = "storm/within.rs"]
mod within;
#[path = "storm/workload.rs"]
mod workload;

use std::path::Path;
use std::time::Instant;

use processes::{Writers, is_writer};
use support::{mounts, require};
use verdict::{Wrong, alarms, judge};
use workload::{Rng, Task, open};

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

fn kills() -> u64 {
    setting("HARDENED_STORM_KILLS", 60)
}

fn seed() -> u64 {
    setting("HARDENED_STORM_SEED", 20_251_121)
}

/// The URI of `app.db` in a directory, for the VFS `hardened` or for SQLite as it comes.
fn uri(directory: &Path, hardened: bool) -> String {
    let vfs = if hardened { "?vfs=hardened" } else { "" };
    format!("file:{}/app.db{vfs}", directory.display())
}

/// Opens, judges and closes. Only a hardened connection knows of alarms.
fn look(uri: &str, seed: u64, writers: &Writers) -> Result<Vec<u32>, Wrong> {
    let db = open(uri)?;
    let there = judge(&db, seed, &writers.bounds())?;
    if uri.contains("vfs=hardened") {
        assert_eq!(alarms(&db)?, Vec::<String>::new(), "nothing is wrong with this database");
    }
    Ok(there)
}

/// Two or three writers at once, of which some or all are killed, again and again; looked at with `lookers` in turn.
fn storm(test: &'static str, directory: &Path, hardened: &[bool]) {
    let (seed, kills, began) = (seed(), kills(), Instant::now());
    let mut rng = Rng::new(&[seed, 1]);
    let stock = "PRAGMA journal_mode = wal";
    let task = |(writer, hardened): (u32, &bool)| {
        let pragmas = if *hardened { "" } else { stock }.to_owned();
        Task { uri: uri(directory, *hardened), pragmas, writer, seed }
    };
    let mut writers = Writers::new(test, (0..).zip(hardened).map(task).collect());
    let (mut killed, mut looks, mut within, mut unsaid) = (0, 0, 0, 0);
    let mut there = vec![0; writers.len()];
    while killed < kills {
        writers.start();
        writers.wait_commits(1 + rng.below(8));
        let all = rng.once_in(3);
        let one = rng.below(writers.len() as u32) as usize;
        if rng.once_in(2) {
            writers.wait_begun(one);
        }
        for _ in 0..rng.below(200_000) {
            std::hint::spin_loop();
        }
        let victims: Vec<usize> = if all { (0..writers.len()).collect() } else { vec![one] };
        victims.iter().for_each(|victim| writers.kill(*victim));
        victims.iter().for_each(|victim| writers.bury(*victim));
        killed += victims.len() as u64;
        within += victims.iter().filter(|victim| writers.in_transaction(**victim)).count();
        let with = hardened[rng.below(hardened.len() as u32) as usize];
        there = look(&uri(directory, with), seed, &writers)
            .unwrap_or_else(|wrong| panic!("{test}, seed {seed}, after {killed} kills: {wrong}"));
        looks += 1;
        unsaid += victims.iter().filter(|victim| there[**victim] > *writers.bounds()[**victim].start()).count();
    }
    assert!(within > 0, "no writer was killed within a transaction");
    println!(
        "{test}: seed {seed}, {killed} kills ({within} within a transaction, {unsaid} between COMMIT and its \
         acknowledgement), {looks} looks, {} transactions by {} writers, {:.1} s",
        there.iter().sum::<u32>(),
        there.len(),
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn hardened_writers_lose_nothing() {
    if is_writer() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    storm("hardened_writers_lose_nothing", home.path(), &[true, true, true]);
}

#[test]
fn stock_writers_lose_nothing_either() {
    if is_writer() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    storm("stock_writers_lose_nothing_either", home.path(), &[false, false, false]);
}

#[test]
fn a_mix_of_hardened_and_stock_writers_loses_nothing() {
    if is_writer() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    storm("a_mix_of_hardened_and_stock_writers_loses_nothing", home.path(), &[true, false, true]);
}

#[test]
fn hardened_writers_on_an_ext4_of_their_own_lose_nothing() {
    if is_writer() || !require::loop_devices() {
        return;
    }
    // Room for a log that grows while looks keep checkpoints from beginning it anew.
    let disk = mounts::loop_fs("ext4", 512 << 20).unwrap();
    storm("hardened_writers_on_an_ext4_of_their_own_lose_nothing", disk.path(), &[true, true]);
}

#[test]
fn a_writer_on_fuse_killed_within_any_step_of_a_commit_loses_nothing() {
    if !is_writer() {
        within::every_step_of_a_commit("a_writer_on_fuse_killed_within_any_step_of_a_commit_loses_nothing");
    }
}

#[test]
fn a_writer_without_a_journal_is_found_out() {
    if !is_writer() {
        within::without_a_journal("a_writer_without_a_journal_is_found_out");
    }
}
