//! Recordings repeat, and the judge tells good states from bad ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use support::crash::{
    Cut, Disk, Faults, Journal, Judge, Keep, Lies, Opener, Outcome, Recording, Session, Setting, States, Stock,
    Synchronous, record, record_recovery, unfinished, workloads,
};

const SEED: u64 = 3;

fn recording(journal: Journal, synchronous: Synchronous, disk: &Disk) -> Recording {
    let setting = Setting { autocheckpoint: 12, ..Setting::new(journal, synchronous) };
    let workload = workloads::mixed("of the judge", setting, 5);
    record(&workload, &Stock, disk, Faults::default(), SEED)
}

#[test]
fn a_seed_gives_the_same_record_and_another_seed_another_one() {
    for workload in workloads::all() {
        let disk = Disk::lease();
        let [one, two, other] =
            [SEED, SEED, SEED + 2].map(|seed| record(&workload, &Stock, &disk, Faults::default(), seed));
        assert_eq!(one.log.events, two.log.events, "{}", workload.name);
        assert_eq!(one.ledger, two.ledger);
        assert_ne!(one.log.events, other.log.events, "{}", workload.name);
        assert!(one.ledger.boundaries.len() > 3 && one.live.is_none_or(|live| one.ledger.find(live).is_some()));
        let contents: HashSet<_> = one.ledger.boundaries.iter().map(|boundary| boundary.content).collect();
        assert_eq!(contents.len(), one.ledger.boundaries.len(), "{}: contents repeat", workload.name);
    }
}

#[test]
fn the_states_of_a_log_repeat_and_are_many() {
    let disk = Disk::lease();
    let recording = recording(Journal::Wal, Synchronous::Full, &disk);
    for lies in [Lies::None, Lies::Some] {
        let hashes =
            |seed| States::new(&recording.log, lies, 4, seed).map(|(_, image)| image.hash()).collect::<Vec<_>>();
        assert_eq!(hashes(SEED), hashes(SEED));
        assert_ne!(hashes(SEED), hashes(SEED + 1));
        let distinct: HashSet<_> = hashes(SEED).into_iter().collect();
        println!("{lies:?}: {} distinct of {} states, seed {SEED}", distinct.len(), hashes(SEED).len());
        assert!(distinct.len() > recording.log.events.len());
    }
}

/// The end of a recording with its last state, and what the judge says after `spoil`.
fn spoiled(synchronous: Synchronous, spoil: impl Fn(&Disk, &Recording, &mut Vec<u8>)) -> Option<Outcome> {
    let disk = Disk::lease();
    let recording = recording(Journal::Delete, synchronous, &disk);
    let after = recording.log.events.len();
    let mut image = recording.log.cut(after, Keep::Everything);
    spoil(&disk, &recording, image.files.get_mut(&disk.path("x.db")).unwrap());
    let mut judge = Judge::new(&recording, &Stock, &disk);
    let cut = Cut { after, keep: Keep::Everything, lies: None };
    let outcome = judge.state(&cut, &image);
    assert_eq!(judge.state(&cut, &image), None, "a state counts once");
    assert_eq!(judge.tally.states, 1);
    outcome
}

#[test]
fn the_last_content_is_good() {
    assert_eq!(spoiled(Synchronous::Full, |_, _, _| ()), Some(Outcome::Good));
}

#[test]
fn an_older_content_has_lost_a_commit_if_that_was_promised() {
    let older = |disk: &Disk, recording: &Recording, bytes: &mut Vec<u8>| {
        let told = recording.ledger.boundaries[3].acknowledged.unwrap();
        *bytes = recording.log.cut(told, Keep::Everything).files.remove(&disk.path("x.db")).unwrap();
    };
    assert_eq!(spoiled(Synchronous::Full, older), Some(Outcome::LostDurable { found: 3, required: 5 }));
    assert_eq!(spoiled(Synchronous::Off, older), Some(Outcome::Good));
}

#[test]
fn a_sound_structure_with_a_content_that_never_was_is_mixed() {
    let changed = |disk: &Disk, recording: &Recording, bytes: &mut Vec<u8>| {
        disk.load(&recording.log.cut(recording.log.events.len(), Keep::Everything));
        let uri = Stock.uri(disk, "x.db", &recording.workload.setting);
        Session::open(&uri).unwrap().run("UPDATE t SET body=x'00' WHERE id=(SELECT min(id) FROM t)").unwrap();
        *bytes = disk.cached().files.remove(&disk.path("x.db")).unwrap();
    };
    assert_eq!(spoiled(Synchronous::Full, changed), Some(Outcome::Mixed));
}

#[test]
fn a_page_of_noise_is_corrupt_and_a_file_that_is_none_too() {
    let page = |_: &Disk, _: &Recording, bytes: &mut Vec<u8>| bytes[3072..4096].fill(0x5a);
    assert!(matches!(spoiled(Synchronous::Full, page), Some(Outcome::Corrupt(_))));
    let header = |_: &Disk, _: &Recording, bytes: &mut Vec<u8>| bytes[..100].fill(0x5a);
    assert!(matches!(spoiled(Synchronous::Full, header), Some(Outcome::Corrupt(_))));
}

/// Stock SQLite, but it cries.
struct Crying;

impl Opener for Crying {
    fn name(&self) -> &str {
        "crying"
    }

    fn uri(&self, disk: &Disk, file: &str, setting: &Setting) -> String {
        Stock.uri(disk, file, setting)
    }

    fn alarm(&self, _: &Session) -> Option<String> {
        Some("wolf".to_owned())
    }
}

#[test]
fn an_alarm_is_false_if_stock_sqlite_finds_the_state_good() {
    let disk = Disk::lease();
    let recording = recording(Journal::Delete, Synchronous::Off, &disk);
    let mut judge = Judge::new(&recording, &Crying, &disk);
    judge.all(Lies::None, 4, SEED);
    let tally = &judge.tally;
    assert_eq!((tally.alarms, tally.undetected), (tally.states, 0));
    assert!(0 < tally.false_alarms && tally.false_alarms < tally.alarms, "{tally:?}");
}

#[test]
fn power_lost_again_during_recovery_leaves_what_the_first_recovery_found() {
    let (mut states, mut recoveries) = (0, 0);
    for journal in [Journal::Delete, Journal::Wal] {
        let disk = Disk::lease();
        let recording = recording(journal, Synchronous::Full, &disk);
        for (_, image) in unfinished(&recording, 8, SEED) {
            let Some(again) = record_recovery(&recording, &image, &Stock, &disk, Faults::default()) else { continue };
            let mut judge = Judge::new(&again, &Stock, &disk);
            judge.all(Lies::None, 10, SEED);
            assert_eq!(judge.tally.good, judge.tally.states, "{:?}", judge.tally.examples);
            (states, recoveries) = (states + judge.tally.states, recoveries + 1);
        }
    }
    println!("{states} states of {recoveries} recoveries, seed {SEED}");
    assert!(recoveries >= 8 && states > 100, "{recoveries} {states}");
}
