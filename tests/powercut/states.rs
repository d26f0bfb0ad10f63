//! What a power cut may have left on a disk, and whether the database is as promised in each of these states.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use support::log_writes::{Disk, Entry, Log, Replay};
use support::mounts;

use crate::disks::{ACKNOWLEDGEMENT, Kind, acknowledged};
use crate::guest::Remains;
use crate::verdict::{Wrong, alarms, judge};
use crate::workload::{Rng, open};

/// What a program finds that opens a database after the cut.
pub(crate) struct Seen {
    /// How many transactions there are.
    pub(crate) there: Result<u32, Wrong>,
    pub(crate) alarms: Vec<String>,
}

/// Mounts the disk, which replays the filesystem's own journal, and opens the database there as `uri` says.
pub(crate) fn look(
    disk: &Disk,
    kind: &Kind,
    seed: u64,
    acknowledged: u32,
    directory: &Path,
    uri: impl Fn(&Path) -> String,
) -> Seen {
    let image = directory.join("state.img");
    // Another inode each time: the loop device of the one before may outlive its mount for a moment, and mount(8) would take
    // it again, with what it has cached, for the same file.
    let _nothing_yet = std::fs::remove_file(&image);
    disk.save(&image).unwrap();
    let mounted = mounts::loop_image(kind.filesystem(), &image).unwrap();
    let uri = uri(mounted.path());
    let judged = |db: &Connection| Ok(judge(db, seed, &[kind.bounds(acknowledged)])?[0]);
    match open(&uri) {
        Ok(db) => {
            let there = judged(&db);
            let alarms = if uri.contains("vfs=hardened") { alarms(&db) } else { Ok(Vec::new()) };
            Seen { there, alarms: alarms.unwrap_or_else(|wrong| vec![wrong.to_string()]) }
        }
        Err(error) => Seen { there: Err(error.into()), alarms: Vec::new() },
    }
}

/// After how many entries of the log each transaction was acknowledged, in order.
pub(crate) fn acknowledgements(log: &Log) -> Vec<usize> {
    let mut places = Vec::new();
    for (at, entry) in log.entries().iter().enumerate() {
        if entry.offset == ACKNOWLEDGEMENT && entry.length > 0 {
            let seq = acknowledged(&log.data(at).unwrap()).expect("an acknowledgement");
            assert_eq!(seq as usize, places.len() + 1, "acknowledgements come in order");
            places.push(at + 1);
        }
    }
    places
}

/// How many transactions are acknowledged by the first `n` entries.
pub(crate) fn acknowledged_at(places: &[usize], n: usize) -> u32 {
    places.partition_point(|place| *place <= n) as u32
}

/// Where the power goes, and of eight pieces left to chance how many survive.
type Point = (usize, u32);

/// Seeded points, in order: behind a flush, before one, and anywhere.
fn points(log: &Log, rng: &mut Rng, count: u32) -> Vec<Point> {
    let entries = log.entries();
    let mut points: Vec<Point> = (0..count)
        .map(|n| {
            let anywhere = rng.below(entries.len() as u32) as usize;
            let flush = entries[anywhere..].iter().position(|entry| entry.flush);
            let flush = flush.map_or(entries.len(), |more| anywhere + more);
            match n % 3 {
                0 => ((flush + 1).min(entries.len()), 8),
                1 => (flush, 1 + rng.below(7)),
                _ => (anywhere, [0, 1, 4, 7, 8][rng.below(5) as usize]),
            }
        })
        .collect();
    points.sort_unstable();
    points
}

/// What was seen of several states.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) states: u32,
    /// Those in which at least one commit was acknowledged.
    pub(crate) with_commits: u32,
    /// Pieces of writes left to chance, over all states.
    pub(crate) chances: usize,
    /// Sound databases in which not every acknowledged commit is there.
    pub(crate) behind: u32,
    pub(crate) alarmed: u32,
    pub(crate) wrong: BTreeMap<&'static str, u32>,
    /// What was wrong, and alarms, in words.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, acknowledged: u32, seen: Seen, about: impl Fn() -> String) {
        self.states += 1;
        self.with_commits += u32::from(acknowledged > 0);
        self.alarmed += u32::from(!seen.alarms.is_empty());
        match seen.there {
            Ok(there) => self.behind += u32::from(there < acknowledged),
            Err(wrong) => {
                *self.wrong.entry(wrong.kind()).or_default() += 1;
                self.failures.push(format!("{}: {wrong}", about()));
            }
        }
        self.failures.extend(seen.alarms.iter().map(|alarm| format!("{}: an alarm: {alarm}", about())));
    }

    pub(crate) fn all_wrong(&self) -> u32 {
        self.wrong.values().sum()
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        self.states += other.states;
        self.with_commits += other.with_commits;
        self.chances += other.chances;
        self.behind += other.behind;
        self.alarmed += other.alarmed;
        for (kind, count) in other.wrong {
            *self.wrong.entry(kind).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

/// Looks at the disk as it is, and at `count` other states that the power cut, or one at an earlier moment, may have left.
pub(crate) fn examine(remains: &Remains, seed: u64, count: u32, rng: &mut Rng, directory: &Path) -> Tally {
    let &Remains { kind, ref initial, ref image, ref log, heard } = remains;
    let log = Log::read(log).unwrap();
    let places = acknowledgements(&log);
    let mut tally = Tally::default();
    let mut see = |disk: &Disk, acknowledged, about: &str| {
        let seen = look(disk, kind, seed, acknowledged, directory, |at| kind.uri(at));
        tally.add(acknowledged, seen, || format!("{}, {acknowledged} acknowledged, {about}", kind.name));
    };
    let whole = places.len() as u32;
    assert!(heard <= whole, "{}: the console knows of commit {heard}, the log of {whole}", kind.name);
    let image = Disk::read(image).unwrap();
    let all = Replay::new(&log, initial.clone()).without(log.entries().len(), |_| false).unwrap();
    // What was under way when the emulator died, at most: else the log is not what the disk has seen.
    let differences = all.differences(&image);
    assert!(differences <= 512, "{}: {differences} blocks are not as the log says", kind.name);
    see(&image, whole, "everything kept");

    let mut chances = 0;
    let mut replay = Replay::new(&log, initial.clone());
    for (n, eighths) in points(&log, rng, count) {
        // A sector is what a disk writes at once, but xfs, btrfs and the superblock of ext4 count on more.
        let piece = if kind.filesystem() == "ext4" && rng.once_in(2) { 512 } else { 4096 };
        let size = |entry: &Entry| if entry.offset < 4096 { 4096 } else { piece };
        let (disk, pieces) = replay.cut(n, size, || rng.below(8) < eighths).unwrap();
        chances += pieces;
        let about = format!("{n} of {} writes, {eighths}/8 of {pieces} pieces of {piece} kept", log.entries().len());
        see(&disk, acknowledged_at(&places, n), &about);
    }
    tally.chances = chances;
    tally
}
