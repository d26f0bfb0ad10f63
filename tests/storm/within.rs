//! Kills within one chosen step of a commit: the FUSE server holds the request of that step until the writer has its
//! SIGKILL, then does it, half does it, or does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use support::fuse::{Fault, Hold, Mount, Op, Options, What};
use support::require;
use tempfile::TempDir;

use crate::processes::Writers;
use crate::verdict::Wrong;
use crate::workload::{Rng, Task, open};
use crate::{kills, look, seed, uri};

const SOON: Duration = Duration::from_secs(60);

/// The steps of a commit in rollback mode.
const STEPS: [(&str, Op, &str); 6] = [
    ("journal create", Op::Create, "-journal"),
    ("journal write", Op::Write, "-journal"),
    ("journal fsync", Op::Fsync, "-journal"),
    ("database write", Op::Write, "app.db"),
    ("database fsync", Op::Fsync, "app.db"),
    ("journal unlink", Op::Unlink, "-journal"),
];

struct Share {
    mount: Mount,
    backing: TempDir,
    _at: TempDir,
}

fn share() -> Option<Share> {
    if !require::fuse() {
        return None;
    }
    let (backing, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Options::new(backing.path()).latency(Duration::from_micros(200));
    Some(Share { mount: Mount::new(options, at.path()).unwrap(), backing, _at: at })
}

/// What becomes of the request that the dead writer has sent.
fn fate(rng: &mut Rng, op: Op, name: &str) -> (&'static str, Option<Fault>) {
    let fault = Fault::on(op).name(name);
    match rng.below(3) {
        0 => ("done", None),
        1 if op == Op::Write => {
            ("half done", Some(fault.what(What::TearWrite { keep_sectors: rng.below(8) as usize })))
        }
        _ => ("not done", Some(fault)),
    }
}

/// One writer until it has committed a little, then killed within the step. The rest of that request's fate follows.
fn kill_within(
    share: &Share,
    writers: &mut Writers,
    rng: &mut Rng,
    (what, op, name): (&str, Op, &str),
) -> &'static str {
    writers.start();
    writers.wait_commits(1 + rng.below(3));
    let held = || {
        let hold = share.mount.hold(Hold::Named(op, name.to_owned()));
        assert!(share.mount.wait_held(1, SOON), "no {what} for {SOON:?}");
        hold
    };
    let mut hold = held();
    if op == Op::Write {
        // Not only the first one of a transaction.
        for _ in 0..rng.below(4) {
            let seen = share.mount.counters().get(op);
            drop(hold);
            assert!(share.mount.wait_counted(op, seen + 1, SOON), "no further {what} for {SOON:?}");
            hold = held();
        }
    }
    writers.kill(0);
    let (fate, fault) = fate(rng, op, name);
    fault.map(|fault| share.mount.fault(fault));
    drop(hold);
    writers.bury(0);
    share.mount.clear_faults();
    fate
}

/// Whether there is a journal, and a hot one: an empty one or one without a header means nothing to SQLite.
fn journal(share: &Share) -> Option<bool> {
    let bytes = std::fs::read(share.backing.path().join("app.db-journal")).ok()?;
    Some(bytes.first().is_some_and(|byte| *byte != 0))
}

fn writer(directory: &Path, test: &'static str, seed: u64, hardened: bool, pragmas: &str) -> Writers {
    let task = Task { uri: uri(directory, hardened), pragmas: pragmas.to_owned(), writer: 0, seed };
    Writers::new(test, vec![task])
}

/// A hardened writer, which has a rollback journal here.
pub(crate) fn every_step_of_a_commit(test: &'static str) {
    let Some(share) = share() else { return };
    let (seed, kills, began) = (seed(), kills(), Instant::now());
    let mut rng = Rng::new(&[seed, 2]);
    let mut writers = writer(share.mount.path(), test, seed, true, "");
    let (mut counts, mut left, mut there) = (BTreeMap::new(), 0, 0);
    for n in 0..kills {
        let step = STEPS[n as usize % STEPS.len()];
        let fate = kill_within(&share, &mut writers, &mut rng, step);
        *counts.entry((step.0, fate)).or_insert(0) += 1;
        let hot = journal(&share) == Some(true);
        left += u64::from(hot);
        assert!(hot || !step.0.starts_with("database"), "{step:?} {fate}: the journal is gone");
        there = look(&uri(share.mount.path(), true), seed, &writers)
            .unwrap_or_else(|wrong| panic!("{test}, seed {seed}, kill {n} within {}, {fate}: {wrong}", step.0))[0];
        assert_ne!(journal(&share), Some(true), "kill {n}: a hot journal outlived an open");
    }
    let db = open(&uri(share.mount.path(), true)).unwrap();
    assert_eq!(support::ask::text(&db, "PRAGMA journal_mode"), "delete");
    println!(
        "{test}: seed {seed}, {kills} kills, {left} hot journals left behind, {there} transactions, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    for ((step, fate), count) in counts {
        println!("    {count:4} within {step}, which was {fate}");
    }
}

/// The same kills where nothing could undo a half-written transaction: if this went unnoticed, the tests above would
/// prove nothing.
pub(crate) fn without_a_journal(test: &'static str) {
    let Some(share) = share() else { return };
    let seed = seed();
    let mut rng = Rng::new(&[seed, 3]);
    for n in 1..=30 {
        // A new database each time: a torn one may stop its writer.
        std::fs::remove_file(share.backing.path().join("app.db"))
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .unwrap();
        let mut writers = writer(share.mount.path(), test, seed, false, "PRAGMA journal_mode = memory");
        kill_within(&share, &mut writers, &mut rng, STEPS[3]);
        match look(&uri(share.mount.path(), false), seed, &writers) {
            Ok(_) => {}
            Err(Wrong::Lost(text) | Wrong::Early(text)) => panic!("{text}"),
            Err(torn) => {
                println!("{test}: seed {seed}, found out after {n} kills: {torn}");
                return;
            }
        }
    }
    panic!("seed {seed}: 30 kills without a journal, and every database passed");
}
