//! Power cuts while SQLite recovers from a power cut.

use super::disk::Disk;
use super::fault::Faults;
use super::ledger::Ledger;
use super::model::Event;
use super::opener::{Opener, recover};
use super::record::{Recording, record_open};
use super::workload::Promise;
use super::{Cut, Image, Lies, States};

/// Records how the state of a recording is opened, recovered, read and closed again. Everything in it is durable, so that
/// no second cut may show another transaction than the one that the first opening finds. None if that opening finds no
/// transaction, for then there is nothing to keep, or if recovering changes nothing.
pub fn record_recovery(
    recording: &Recording,
    image: &Image,
    opener: &dyn Opener,
    disk: &Disk,
    faults: Faults,
) -> Option<Recording> {
    let setting = &recording.workload.setting;
    let found = recover(opener, disk, setting, image);
    let content = found.content.filter(|_| found.damage.is_none() && found.alarm.is_none())?;
    let number = recording.ledger.find(content)?;
    let mut ledger = Ledger { boundaries: recording.ledger.boundaries[..=number].to_vec() };
    for boundary in &mut ledger.boundaries {
        boundary.acknowledged = None;
    }
    ledger.boundaries[number].acknowledged = Some(0);
    let (log, failures) = record_open(setting, opener, disk, || {
        disk.load(image);
        disk.record(faults);
    });
    if !log.events.iter().any(|event| matches!(event, Event::Write { .. } | Event::Truncate { .. })) {
        return None;
    }
    let mut workload = recording.workload.clone();
    workload.name += ", recovered";
    Some(Recording { workload, log, ledger, promise: Promise::EveryCommit, failures, live: Some(content) })
}

/// Records how the databases are opened, read and closed after the process of a recording died at an event, while the
/// machine went on with all that is in the cache. The ledger keeps what was acknowledged until then.
pub fn record_takeover(
    recording: &Recording,
    after: usize,
    opener: &dyn Opener,
    disk: &Disk,
    faults: Faults,
) -> Recording {
    let setting = &recording.workload.setting;
    let (log, failures) = record_open(setting, opener, disk, || disk.resume(&recording.log, after, faults));
    let mut recording = Recording { log, failures, live: None, ..recording.clone() };
    recording.workload.name += ", taken over";
    recording.ledger.boundaries.retain(|boundary| boundary.acknowledged.is_some_and(|event| event <= after));
    recording
}

/// Up to `most` states of a recording in which the next opening has to write, spread over it.
pub fn unfinished(recording: &Recording, most: usize, seed: u64) -> Vec<(Cut, Image)> {
    let leftover = |image: &Image| {
        let unfinished = |(name, bytes): (&String, &Vec<u8>)| {
            // A WAL is copied and deleted by the close; a journal with a header is played back.
            (name.ends_with("-wal") && bytes.len() > 32) || (name.ends_with("-journal") && bytes.first() == Some(&0xd9))
        };
        image.files.iter().any(unfinished)
    };
    let states = States::new(&recording.log, Lies::None, 1, seed);
    let found: Vec<_> = states.filter(|(_, image)| leftover(image)).collect();
    let step = (found.len() / most.max(1)).max(1);
    found.into_iter().step_by(step).take(most).collect()
}
