#![allow(clippy::unwrap_used)]

use super::{DISCARD, Disk, FLUSH, FUA, Log, MAGIC, MARK, Replay};
use std::io::{ErrorKind, Write};
use std::path::Path;
use tempfile::NamedTempFile;

const SECTOR: usize = 512;

/// A log, made by hand: `(sector, flags, data)`.
fn log(entries: &[(u64, u64, &[u8])]) -> NamedTempFile {
    let mut bytes = sector(&[MAGIC, 1, entries.len() as u64, SECTOR as u64]);
    for (at, flags, data) in entries {
        let sectors = if flags & MARK != 0 { 0 } else { data.len() / SECTOR };
        bytes.extend(sector(&[*at, sectors as u64, *flags, 0]));
        if flags & (DISCARD | MARK) == 0 {
            bytes.extend(*data);
        }
    }
    file(&bytes)
}

fn sector(numbers: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.resize(SECTOR, 0);
    bytes
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(entries: &[(u64, u64, &[u8])]) -> Log {
    Log::read(log(entries).path()).unwrap()
}

const A: &[u8] = &[b'a'; SECTOR];
const B: &[u8] = &[b'b'; SECTOR];
const C: &[u8] = &[b'c'; 2 * SECTOR];

/// The first letter of each of the first four sectors.
fn letters(disk: &Disk) -> String {
    let image = NamedTempFile::new().unwrap();
    disk.save(image.path()).unwrap();
    let bytes = std::fs::read(image.path()).unwrap();
    (0..4).map(|n| if bytes[n * SECTOR] == 0 { '.' } else { char::from(bytes[n * SECTOR]) }).collect()
}

#[test]
fn entries_have_their_place_their_data_and_their_flags() {
    let log = read(&[(1, 0, A), (0, FLUSH, &[]), (2, FUA, C), (0, MARK, &[]), (0, DISCARD, C), (3, 0, B)]);
    let seen: Vec<_> = log.entries().iter().map(|e| (e.offset, e.length, e.flush, e.fua)).collect();
    let wanted = [
        (512, 512, false, false),
        (0, 0, true, false),
        (1024, 1024, false, true),
        (0, 0, false, false),
        (0, 0, false, false),
        (1536, 512, false, false),
    ];
    assert_eq!(seen, wanted);
    assert_eq!((log.data(0).unwrap(), log.data(2).unwrap(), log.data(5).unwrap()), (A.into(), C.into(), B.into()));
}

#[test]
fn a_log_whose_writer_was_killed_ends_with_its_last_whole_entry() {
    let whole = std::fs::read(log(&[(0, 0, A), (1, 0, C)]).path()).unwrap();
    let entries = |bytes: &[u8]| Log::read(file(bytes).path()).unwrap().entries().len();
    assert_eq!(entries(&whole), 2);
    assert_eq!(entries(&whole[..whole.len() - 1]), 1, "its data are cut off");
    assert_eq!(entries(&whole[..3 * SECTOR]), 1, "it is not there");
    let mut hole = whole.clone();
    hole[3 * SECTOR..4 * SECTOR].fill(0);
    assert_eq!(entries(&hole), 1, "it was never written");
    let mut fewer = whole;
    fewer[16] = 1;
    assert_eq!(entries(&fewer), 1, "the superblock does not count it yet");
}

#[test]
fn what_is_no_log_is_an_error() {
    let refused = |numbers: &[u64]| Log::read(file(&sector(numbers)).path()).unwrap_err().kind();
    assert_eq!(refused(&[MAGIC + 1, 1, 0, 512]), ErrorKind::InvalidData);
    assert_eq!(refused(&[MAGIC, 2, 0, 512]), ErrorKind::InvalidData);
    assert_eq!(refused(&[MAGIC, 1, 0, 500]), ErrorKind::InvalidData);
    assert_eq!(Log::read(Path::new("/nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
    let strange = log(&[(0, 1 << 20, A)]);
    assert_eq!(Log::read(strange.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    let vast = [sector(&[MAGIC, 1, 1, 512]), sector(&[u64::MAX, 1, 0, 0])].concat();
    assert_eq!(Log::read(file(&vast).path()).unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn only_what_came_after_the_last_flush_is_left_to_chance() {
    let log = read(&[(0, 0, A), (0, FLUSH, &[]), (1, 0, B), (2, FUA, A), (2, 0, C), (0, FLUSH, &[])]);
    assert_eq!((0..=6).map(|n| log.durable(n)).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1, 5]);
    assert_eq!(log.volatile(1, |_| 4096), [(0, 0..512)]);
    assert_eq!(log.volatile(5, |_| 4096), [(2, 0..512), (4, 0..1024)], "what was written through stays");
    assert_eq!(log.volatile(5, |_| 512), [(2, 0..512), (4, 0..512), (4, 512..1024)]);
    assert_eq!(log.volatile(6, |_| 512), []);
}

#[test]
fn a_write_with_a_flush_in_front_is_itself_left_to_chance() {
    let log = read(&[(0, 0, A), (1, FLUSH, B)]);
    assert_eq!(log.volatile(2, |_| 4096), [(1, 0..512)]);
}

#[test]
fn a_piece_does_not_cross_a_multiple_of_its_size() {
    let log = read(&[(7, 0, C)]);
    assert_eq!(log.volatile(1, |_| 4096), [(0, 0..512), (0, 512..1024)]);
}

#[test]
fn a_replay_keeps_what_is_durable_and_what_chance_leaves() {
    let log = read(&[(0, 0, A), (0, FLUSH, &[]), (0, 0, B), (1, FUA, A), (2, 0, C), (0, FLUSH, &[]), (0, 0, A)]);
    let cut = |n, kept: &[bool]| {
        let mut kept = kept.iter();
        let mut replay = Replay::new(&log, Disk::new(8 * SECTOR as u64));
        let (disk, pieces) = replay.cut(n, |_| 512, || *kept.next().unwrap()).unwrap();
        assert_eq!(kept.next(), None, "{pieces} pieces");
        letters(&disk)
    };
    assert_eq!(cut(0, &[]), "....");
    assert_eq!(cut(1, &[false]), "....");
    assert_eq!(cut(2, &[]), "a...");
    assert_eq!(cut(5, &[false, false, false]), "aa..");
    assert_eq!(cut(5, &[true, false, true]), "ba.c");
    assert_eq!(cut(6, &[]), "bacc");
    assert_eq!(cut(7, &[true]), "aacc");
    // The same, one after the other.
    let mut replay = Replay::new(&log, Disk::new(8 * SECTOR as u64));
    let seen: Vec<_> = [1, 2, 5, 6, 7].map(|n| letters(&replay.cut(n, |_| 512, || false).unwrap().0)).into();
    assert_eq!(seen, ["....", "a...", "aa..", "bacc", "bacc"]);
}

#[test]
fn a_lie_loses_what_was_flushed() {
    let log = read(&[(0, 0, A), (0, FLUSH, &[]), (1, 0, B), (0, FLUSH, &[])]);
    let mut replay = Replay::new(&log, Disk::new(8 * SECTOR as u64));
    assert_eq!(letters(&replay.without(4, |entry| entry == 0).unwrap()), ".b..");
}

#[test]
fn an_image_is_read_as_it_was_written() {
    let mut disk = Disk::new(1 << 20);
    disk.write(4000, &[7; 9000]);
    disk.write(500_000, &[8]);
    let image = NamedTempFile::new().unwrap();
    disk.save(image.path()).unwrap();
    assert_eq!(image.as_file().metadata().unwrap().len(), 1 << 20);
    assert_eq!(Disk::read(image.path()).unwrap(), disk);
    disk.write(500_000, &[0]);
    assert_ne!(Disk::read(image.path()).unwrap(), disk);
    assert_eq!(Disk::read(image.path()).unwrap().differences(&disk), 1);
    disk.write(4000, &[0; 9000]);
    assert_eq!(disk, Disk::new(1 << 20), "blocks of zeros are as if never written");
}
