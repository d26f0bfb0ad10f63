//! A disk that lies: it has reported writes of the database as flushed and loses them nevertheless, after SQLite has given
//! up what could replace them: a WAL that was begun anew after its checkpoint, or a journal that was deleted.
//!
//! Nobody can undo that. The question is who notices: SQLite itself, its integrity_check, or nobody.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use support::log_writes::{Entry, Log, Replay};
use support::{mounts, require};

use crate::disks::Kind;
use crate::guest::Remains;
use crate::states::{Tally, acknowledged_at, acknowledgements, look};
use crate::workload::Rng;

const BLOCK: u64 = 4096;

/// The blocks of the disk that hold the database, in the end. It grows and never moves.
fn blocks_of_database(image: &Path, kind: &Kind) -> BTreeSet<u64> {
    let mounted = mounts::loop_image(kind.filesystem(), image).unwrap();
    let mut filefrag = Command::new(require::find_program("filefrag").expect("filefrag, of e2fsprogs"));
    let output = filefrag.args(["-v", "-b4096"]).arg(mounted.path().join("app.db")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // "   0:        0..      12:      34816..     34828:     13:             last,eof"
    let extent = |line: &str| -> Option<Range<u64>> {
        let mut columns = line.split(':');
        columns.next()?.trim().parse::<u32>().ok()?;
        let (from, to) = columns.nth(1)?.split_once("..")?;
        Some(from.trim().parse().ok()?..to.trim().parse::<u64>().ok()? + 1)
    };
    let blocks: BTreeSet<u64> = text.lines().filter_map(extent).flatten().collect();
    assert!(!blocks.is_empty(), "no extents in {text}");
    blocks
}

/// After which entries the WAL was begun anew, found by its header: a magic number, the version of the format, and a salt
/// that nobody has seen before.
fn resets_of_wal(log: &Log) -> Vec<usize> {
    let (mut salts, mut resets) = (BTreeSet::new(), Vec::new());
    for (at, entry) in log.entries().iter().enumerate() {
        if entry.length == 0 || entry.offset % BLOCK != 0 {
            continue;
        }
        for block in log.data(at).unwrap().chunks(BLOCK as usize) {
            let is_header = block[..3] == [0x37, 0x7f, 0x06] && block[4..8] == 3_007_000_u32.to_be_bytes();
            if is_header && salts.insert(block[16..24].to_vec()) {
                resets.push(at);
            }
        }
    }
    resets
}

/// A lie: writes of the database in this window are lost, and the power goes in that one.
struct Lie {
    lost: Range<usize>,
    cut: Range<usize>,
}

fn lies(log: &Log, acknowledgements: &[usize]) -> Vec<Lie> {
    let end = log.entries().len();
    let resets = resets_of_wal(log);
    if resets.is_empty() {
        // One transaction is lost; the deletion of its journal is durable when the next one is.
        let lie = |of: &[usize]| Lie { lost: of[0]..of[1], cut: of[2]..of[3] };
        return acknowledgements.windows(4).map(lie).collect();
    }
    let ends: Vec<usize> = resets.iter().copied().chain([end]).collect();
    ends.windows(3).map(|of| Lie { lost: of[0]..of[1], cut: of[1]..of[2] }).collect()
}

/// The same `count` lies for stock SQLite and for `hardened`.
pub(crate) fn examine(remains: &Remains, seed: u64, count: u32, rng: &mut Rng, directory: &Path) -> [Tally; 2] {
    let kind = remains.kind;
    let log = Log::read(&remains.log).unwrap();
    let places = acknowledgements(&log);
    let all = lies(&log, &places);
    assert!(!all.is_empty(), "{}: the log has nothing to lie about", kind.name);
    let database = blocks_of_database(&remains.image, kind);
    let of_database = |entry: &Entry| entry.length > 0 && database.contains(&(entry.offset / BLOCK));
    let mut tallies = [Tally::default(), Tally::default()];
    for _ in 0..count {
        let Lie { lost, cut } = &all[rng.below(all.len() as u32) as usize];
        let some = rng.once_in(2);
        let lost: BTreeSet<usize> =
            lost.clone().filter(|at| of_database(&log.entries()[*at]) && !(some && rng.once_in(2))).collect();
        let n = cut.start + rng.below(cut.len() as u32) as usize;
        // Behind a flush, so that nothing but the lie is wrong.
        let n =
            log.entries()[n..].iter().position(|entry| entry.flush).map_or(log.entries().len(), |more| n + more + 1);
        let acknowledged = acknowledged_at(&places, n);
        let disk = Replay::new(&log, remains.initial.clone()).without(n, |at| lost.contains(&at)).unwrap();
        let stock = |at: &Path| format!("file:{}/app.db", at.display());
        let hardened = |at: &Path| kind.uri(at);
        let uris: [&dyn Fn(&Path) -> String; 2] = [&stock, &hardened];
        for (tally, uri) in tallies.iter_mut().zip(uris) {
            let seen = look(&disk, kind, seed, acknowledged, directory, uri);
            tally.add(acknowledged, seen, || format!("{}, {} writes lost", kind.name, lost.len()));
        }
    }
    tallies
}
