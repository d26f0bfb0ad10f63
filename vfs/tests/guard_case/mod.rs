//! A log and the files beside it, made by hand. Pages of 1024 bytes, described by what their two sectors sum up to.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several tests")]

use hardened_vfs::guard::classify::{
    AlarmKind, Finding, HotJournal, Journal, Observation, PageNow, State, Wal, WalSeen, classify,
};
use hardened_vfs::guard::images::Folded;
use hardened_vfs::guard::log::*;
use hardened_vfs::guard::sums::Sums;
use std::collections::BTreeSet;

pub(crate) type Page = [u32; 2];
pub(crate) const PAGE_SIZE: u32 = 1024;
pub(crate) const BOOT: Boot = [1; 16];
pub(crate) const LATER: Boot = [2; 16];

pub(crate) fn time(seconds: i64) -> Time {
    Time { seconds, nanoseconds: 7 }
}

/// The database, five pages long, last changed at this time and seen well after it.
pub(crate) fn witness(seconds: i64) -> Witness {
    Witness { boot: BOOT, changed: Some(time(seconds)), settled: true, file_size: 5 * 1024 }
}

pub(crate) fn push(record: &mut Written, page: u32, old: Option<Page>, new: Option<Page>, journaled: bool) {
    let (old, new) = (old.as_ref().map(|old| &old[..]), new.as_ref().map(|new| &new[..]));
    record.pages.push(Entry { page, old, new, journaled });
}

pub(crate) fn written(nonce: u32, before: u32, after: u32, pages: &[(u32, Page, Page)]) -> Written {
    written_at(90, nonce, before, after, pages)
}

/// Journaled pages of a transaction that found the database last changed at `seconds`.
pub(crate) fn written_at(seconds: i64, nonce: u32, before: u32, after: u32, pages: &[(u32, Page, Page)]) -> Written {
    let mut record = Written {
        before: witness(seconds),
        nonce,
        initial_pages: 5,
        counter_before: before,
        counter_after: after,
        exclusive: false,
        pages: Pages::new(PAGE_SIZE),
    };
    for (page, old, new) in pages {
        push(&mut record, *page, Some(*old), Some(*new), true);
    }
    record
}

pub(crate) fn done(nonce: u32, outcome: Outcome, seconds: i64) -> Done {
    Done { nonce, outcome, witness: witness(seconds) }
}

pub(crate) fn images(pages: &[(u32, Option<Page>, Page)]) -> Pages {
    let mut all = Pages::new(PAGE_SIZE);
    for (page, old, new) in pages {
        all.push(Entry { page: *page, old: old.as_ref().map(|old| &old[..]), new: Some(&new[..]), journaled: false });
    }
    all
}

pub(crate) struct Case {
    pub(crate) log: Vec<u8>,
    encoder: Encoder,
    pub(crate) pages: Vec<Page>,
    pub(crate) unreadable: Vec<u32>,
    pub(crate) seen: Observation,
}

impl Case {
    /// An empty log beside these pages, on the host that began it.
    pub(crate) fn new(pages: Vec<Page>) -> Case {
        let header = Header { page_size: PAGE_SIZE, boot: BOOT, epoch: 5 };
        let seen = Observation {
            page_size: PAGE_SIZE,
            counter: Some(pages[0][0]),
            page_count: Some(pages.len() as u32),
            journal: Journal::Absent,
            wal: Wal::Absent,
            boot: BOOT,
            shared: false,
            changed: None,
            log_changed: None,
            thorough: false,
        };
        Case { log: header.encode().to_vec(), encoder: Encoder::new(&header), pages, unreadable: Vec::new(), seen }
    }

    pub(crate) fn append(&mut self, durable: bool, body: &impl Body) {
        self.encoder.append(&mut self.log, durable, body).unwrap();
    }

    pub(crate) fn now(&self, number: u32) -> PageNow {
        match self.pages.get(number as usize - 1) {
            _ if self.unreadable.contains(&number) => PageNow::Unread,
            Some(page) => PageNow::Image(Sums::from(&page[..])),
            None => PageNow::Beyond,
        }
    }

    pub(crate) fn look(&self) -> Finding {
        classify(&Folded::read(&self.log).unwrap(), &self.seen, &mut |number| self.now(number))
    }

    /// How many pages were asked for.
    pub(crate) fn reads(&self) -> usize {
        let mut reads = 0;
        let mut pages = |number| {
            reads += 1;
            self.now(number)
        };
        classify(&Folded::read(&self.log).unwrap(), &self.seen, &mut pages);
        reads
    }

    pub(crate) fn alarms(&self) -> Vec<AlarmKind> {
        self.look().alarms.iter().map(|alarm| alarm.kind).collect()
    }

    /// How many notes there are; no alarm.
    pub(crate) fn quiet(&self) -> usize {
        let finding = self.look();
        assert!(finding.alarms.is_empty(), "{finding:#?}");
        finding.notes.len()
    }

    pub(crate) fn state(&self, page: u32) -> State {
        self.look().pages.into_iter().find(|(number, _)| *number == page).unwrap().1
    }

    pub(crate) fn hot(&self, nonce: u32, covers: &[u32]) -> Journal {
        Journal::Hot(HotJournal {
            nonce,
            initial_pages: 5,
            covers: covers.iter().copied().collect(),
            super_journal_missing: false,
        })
    }

    pub(crate) fn hot_without_super_journal(&self, nonce: u32, covers: &[u32]) -> Journal {
        let covers = covers.iter().copied().collect();
        Journal::Hot(HotJournal { nonce, initial_pages: 5, covers, super_journal_missing: true })
    }

    /// A WAL of a later generation than any in the tests, with this many frames of pages that no test names.
    pub(crate) fn wal(&self, frames: u64) -> Wal {
        Wal::Log(WalSeen {
            generation: Generation { salts: [9, 9], sequence: 40 },
            valid_frames: frames,
            committed_frames: frames,
            unreachable_frames: 0,
            unreachable_commits: 0,
            visible_frames: 0,
            index_recovered: false,
            pages: BTreeSet::from([100]),
            page1: Vec::new(),
            page1_counters: None,
        })
    }
}

pub(crate) const OLD: Page = [1, 1];
pub(crate) const NEW: Page = [2, 2];

/// Transaction 7 writes pages 1, 3 and 4 and takes the counter from 10 to 11. The file is still all old.
pub(crate) fn transaction() -> Case {
    let page1 = ([10, 0], [11, 0]);
    let mut case = Case::new(vec![[10, 0], [9, 9], OLD, OLD, [9, 9]]);
    case.append(true, &written(7, 10, 11, &[(1, page1.0, page1.1), (3, OLD, NEW), (4, OLD, NEW)]));
    case.seen.changed = Some(time(100));
    case.seen.log_changed = Some(time(100));
    case
}

/// The same after its commit.
pub(crate) fn committed() -> Case {
    let mut case = transaction();
    case.pages = vec![[11, 0], [9, 9], NEW, NEW, [9, 9]];
    case.seen.counter = Some(11);
    case.append(false, &done(7, Outcome::Committed, 100));
    case
}

/// After the commit the power failed.
pub(crate) fn restarted() -> Case {
    let mut case = committed();
    case.seen.boot = LATER;
    case
}
