//! What stands beside a database, read from its bytes: the rollback journal, the log, and page 1.
//!
//! Invariant: nothing is taken for valid that SQLite would not take for valid, and no bytes are an error.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::classify::{HotJournal, Journal, Observation, Wal, WalSeen};
use super::images::Folded;
use super::log::{Boot, Generation, Time};
use super::sums::Sums;
use crate::format::{database, journal, wal, wal_index};
use crate::transaction::change_counter;

/// What is known about a database without looking into its files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) boot: Boot,
    /// Other hosts, or a server, may lose what is written while this host runs.
    pub(crate) shared: bool,
    pub(crate) changed: Option<Time>,
    /// The same of the record.
    pub(crate) log_changed: Option<Time>,
}

/// Puts together what was seen; `first` are the first hundred bytes of the database, if it has as many.
pub(crate) fn observation(
    log: &Folded,
    first: Option<&[u8]>,
    circumstances: Circumstances,
    look: impl FnOnce(u32) -> (Journal, Wal),
) -> Observation {
    let header = first.and_then(|first| database::Header::parse(first).ok());
    let page_size = header.as_ref().map_or(log.header.page_size, |header| header.page_size);
    let (journal, wal) = look(page_size);
    Observation {
        page_size,
        counter: first.and_then(change_counter),
        page_count: header.and_then(|header| header.trusted_page_count()),
        journal,
        wal,
        boot: circumstances.boot,
        shared: circumstances.shared,
        changed: circumstances.changed,
        log_changed: circumstances.log_changed,
        thorough: false,
    }
}

/// A journal of `size` bytes. `exists`: whether there is a file of this name.
pub(crate) fn journal(
    mut bytes: impl Read + Seek,
    size: u64,
    page_size: u32,
    exists: impl Fn(&[u8]) -> bool,
) -> io::Result<Journal> {
    let mut first = Vec::new();
    bytes.by_ref().take(journal::HEADER_SIZE as u64).read_to_end(&mut first)?;
    Ok(match journal::State::of(Some(size), &first) {
        journal::State::Absent => Journal::Absent,
        journal::State::Empty => Journal::Empty,
        journal::State::Zeroed => Journal::Zeroed,
        journal::State::Garbage(_) => Journal::Garbage,
        journal::State::Header(header) => {
            let named = super_journal(&mut bytes, size)?;
            Journal::Hot(HotJournal {
                nonce: header.nonce,
                initial_pages: header.initial_page_count,
                super_journal_missing: named.is_some_and(|name| !exists(&name)),
                covers: journal::pages(BufReader::new(bytes), size, page_size)?,
            })
        }
    })
}

/// The name of the super-journal at the end of a journal: name, length, checksum, magic
/// (<https://www.sqlite.org/fileformat2.html#the_rollback_journal>).
fn super_journal(bytes: &mut (impl Read + Seek), size: u64) -> io::Result<Option<Vec<u8>>> {
    const TAIL: u64 = 16;
    const LONGEST: u64 = 4096;
    let mut read = |at: u64, length: u64| {
        let mut read = Vec::new();
        bytes.seek(SeekFrom::Start(at))?;
        bytes.by_ref().take(length).read_to_end(&mut read).map(|_| read)
    };
    let Some(start) = size.checked_sub(TAIL) else { return Ok(None) };
    let tail = read(start, TAIL)?;
    let Some(tail) = tail.first_chunk::<16>() else { return Ok(None) };
    let field = |at: usize| u32::from_be_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
    let length = u64::from(field(0));
    let at = start.checked_sub(length).filter(|_| (1..LONGEST).contains(&length));
    let (Some(at), true) = (at, tail[8..] == journal::MAGIC) else { return Ok(None) };
    let name = read(at, length)?;
    // SQLite sums them up as C's char, which has a sign on some machines.
    let sum = |of: fn(u8) -> u32| name.iter().fold(0_u32, |sum, byte| sum.wrapping_add(of(*byte)));
    let sums = [sum(u32::from), sum(|byte| i32::from(byte as i8) as u32)];
    Ok(sums.contains(&field(4)).then_some(name))
}

/// A log of `size` bytes, and the first bytes of its index, if there are any.
pub(crate) fn wal(bytes: impl Read, size: u64, index: &[u8]) -> io::Result<Wal> {
    if size == 0 {
        return Ok(Wal::Empty);
    }
    let (mut pages, mut page1, mut counters) = (BTreeSet::new(), Vec::new(), Vec::new());
    // Of a transaction that has not been committed nothing is kept.
    let (mut open, mut open_page1, mut open_counters) = (Vec::new(), Vec::new(), Vec::new());
    let scan = wal::scan_frames(BufReader::with_capacity(1 << 16, bytes), |frame| {
        open.push(frame.page_number);
        if frame.page_number == 1 {
            open_page1.push(Sums::of(frame.page));
            open_counters.extend(change_counter(frame.page));
        }
        if frame.commit_size != 0 {
            pages.extend(open.drain(..));
            page1.append(&mut open_page1);
            counters.append(&mut open_counters);
        }
    })?;
    let Some(header) = scan.header else { return Ok(Wal::BadHeader) };
    let index = wal_index::Header::parse(index).filter(|index| index.salts == header.salts);
    Ok(Wal::Log(WalSeen {
        generation: Generation { salts: header.salts, sequence: header.checkpoint_sequence },
        valid_frames: scan.valid_frames,
        committed_frames: scan.committed_frames,
        unreachable_frames: scan.unreachable_frames,
        unreachable_commits: scan.unreachable_commits,
        visible_frames: index.map_or(0, |index| u64::from(index.frames)),
        index_recovered: index.is_some_and(|index| index.recovered),
        pages,
        page1,
        page1_counters: counters.first().copied().zip(counters.last().copied()),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Cursor;

    fn journal_with(tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(&journal::MAGIC);
        for (at, field) in [(8, 1_u32), (12, 77), (16, 9), (20, 512), (24, 1024)] {
            bytes[at..at + 4].copy_from_slice(&field.to_be_bytes());
        }
        bytes.extend([&5_u32.to_be_bytes()[..], &[1; 1024], &[0; 4], tail].concat());
        bytes
    }

    fn named(name: &[u8], sum: u32) -> Vec<u8> {
        let length = u32::try_from(name.len()).unwrap();
        [name, &length.to_be_bytes(), &sum.to_be_bytes(), &journal::MAGIC].concat()
    }

    fn hot(bytes: &[u8], there: &[u8]) -> HotJournal {
        match journal(Cursor::new(bytes), bytes.len() as u64, 4096, |name| name == there).unwrap() {
            Journal::Hot(hot) => hot,
            _ => unreachable!("no hot journal"),
        }
    }

    #[test]
    fn a_journal_tells_its_nonce_its_pages_and_whether_its_super_journal_is_gone() {
        let plain = hot(&journal_with(b""), b"");
        assert_eq!((plain.nonce, plain.initial_pages, plain.super_journal_missing), (77, 9, false));
        assert_eq!(plain.covers, BTreeSet::from([5]));
        for (name, sum) in [(&b"ab"[..], 97 + 98), (b"\xff", 255), (b"\xff", u32::MAX)] {
            let bytes = journal_with(&named(name, sum));
            assert!(!hot(&bytes, name).super_journal_missing, "{name:?} {sum}");
            assert!(hot(&bytes, b"another").super_journal_missing, "{name:?} {sum}");
        }
        assert!(!hot(&journal_with(&named(b"ab", 1)), b"").super_journal_missing, "a wrong checksum names nothing");
    }

    #[test]
    fn nothing_and_garbage_are_told_apart() {
        let seen = |bytes: &[u8]| journal(Cursor::new(bytes), bytes.len() as u64, 512, |_| false).unwrap();
        assert_eq!(seen(b""), Journal::Empty);
        assert_eq!(seen(&[0; 600]), Journal::Zeroed);
        assert_eq!(seen(&[7; 600]), Journal::Garbage);
        assert_eq!(wal(Cursor::new(b""), 0, &[]).unwrap(), Wal::Empty);
        assert_eq!(wal(Cursor::new([7; 600]), 600, &[]).unwrap(), Wal::BadHeader);
    }
}
