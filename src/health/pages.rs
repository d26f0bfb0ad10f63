//! Every page once, beside SQLite.
//!
//! Invariant: a page is found bad only as it stands in the snapshot of the read transaction. What a checkpoint was just
//! writing, or what the log has a newer version of, is none.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use hardened_vfs::checksum::sum;
use rusqlite::Connection;

use super::pace::{Pace, cancelled};
use super::shape::{self, Shape};
use super::{Finding, Kind, MOST, Seen, ahead, number};
use crate::backup::log::Log;
use crate::beside::Beside;
use crate::error::Error;
use crate::page_map::fixed;
use crate::progress::Stage;

/// How much is read at once; a multiple of every page size.
const PIECE: usize = 1 << 20;

/// The byte of page 1 that tells how many bytes of each page are not SQLite's.
const RESERVED: usize = 20;

/// How often a page is read again that seems wrong: somebody may have been writing it.
const LOOKS: usize = 3;

/// Why a page cannot be what was written.
#[derive(Clone, Copy)]
enum Wrong {
    Sum,
    Shape(&'static str),
    Missing,
}

/// The database file with the log laid over it.
struct Snapshot<'p> {
    path: &'p Path,
    file: Beside,
    log: Option<Log>,
    page_size: usize,
    count: u32,
    usable: usize,
    sums: bool,
    /// It has pointer maps.
    maps: bool,
    /// The leaves of the free list, once something depends on them.
    free: OnceCell<HashSet<u32>>,
}

/// How often it is begun anew because the log was.
const ROUNDS: usize = 20;

pub(super) fn look(connection: &Connection, path: &Path, pace: &mut Pace<'_, '_>) -> Result<Seen, Error> {
    let report = crate::report(connection)?;
    let page_size = number(connection, path, "page_size")? as usize;
    let mut last = None;
    for _ in 0..ROUNDS {
        let file = Beside::open(path).map_err(|error| Error::of_file(path, "it cannot be opened", &error))?;
        crate::backup::is_the_open_one(&report, &file, path)?;
        let wal = report.journal_mode.as_deref() == Some("wal");
        let log = match wal.then(|| Log::of(path, crate::backup::is_alone(connection))).transpose() {
            Ok(log) => log.flatten(),
            Err(Error::Corrupt(detail)) => {
                return Ok(Seen { findings: vec![Finding::new(Kind::Log, detail.cause)], ..Seen::default() });
            }
            Err(error) => return Err(error),
        };
        let (count, free) = (0, OnceCell::new());
        let mut snapshot =
            Snapshot { path, file, log, page_size, count, usable: page_size, sums: false, maps: false, free };
        let seen = snapshot.look(pace);
        // A log that the transaction does not need may have been begun anew.
        let stands = snapshot.log.as_ref().map_or(Ok(true), Log::stands);
        if matches!(seen, Err(Error::Cancelled(_))) || stands.map_err(|error| snapshot.unreadable(&error))? {
            return seen;
        }
        last = Some(seen);
    }
    last.unwrap_or_else(|| Ok(Seen::default()))
}

impl Snapshot<'_> {
    fn look(&mut self, pace: &mut Pace<'_, '_>) -> Result<Seen, Error> {
        if let Some(finding) = self.begin()? {
            return Ok(Seen { findings: vec![finding], ..Seen::default() });
        }
        let suspects = self.suspects(pace)?;
        let more = suspects.len() >= MOST;
        let findings = self.judged(suspects)?;
        Ok(Seen { pages: u64::from(self.count), checksums: self.sums, findings, more })
    }

    /// Reads page 1; what is wrong with it that leaves nothing to look at.
    fn begin(&mut self) -> Result<Option<Finding>, Error> {
        let mut first = vec![0; self.page_size];
        let size = self.file.size().map_err(|error| self.unreadable(&error))?;
        self.count = match &self.log {
            Some(log) => log.page_count,
            None => u32::try_from(size / self.page_size as u64).unwrap_or(u32::MAX),
        };
        if self.count == 0 {
            return Ok(None);
        }
        if !self.page(1, &mut first)? {
            return Ok(Some(Finding::new(Kind::NotADatabase, "page 1 is missing")));
        }
        if !first.starts_with(b"SQLite format 3\0") {
            return Ok(Some(Finding::new(Kind::NotADatabase, "page 1 does not begin as that of a database")));
        }
        let in_log = self.log.as_ref().is_some_and(|log| log.has(1));
        let mut sealed = first.clone();
        if let Some(reserved) = sealed.get_mut(RESERVED) {
            // With the one byte damaged that says whether there are sums, there would be none to tell.
            self.sums = *reserved == sum::SIZE as u8;
            *reserved = sum::SIZE as u8;
        }
        self.sums |= !in_log && sum::holds(&sealed);
        let reserved = if self.sums { sum::SIZE } else { usize::from(first.get(RESERVED).copied().unwrap_or(0)) };
        self.usable = self.page_size.saturating_sub(reserved);
        self.maps = first.get(52..56).is_some_and(|root| root != [0; 4]);
        if self.log.is_none() {
            let counted =
                first.get(28..32).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            // The number holds for the last change counter only.
            if counted != 0 && first.get(24..28) == first.get(92..96) {
                self.count = counted;
            }
        }
        Ok(None)
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        Error::of_file(self.path, "it cannot be read", error)
    }

    /// Reads a page, from the log or the database; whether it is there.
    fn page(&self, number: u32, into: &mut [u8]) -> Result<bool, Error> {
        match &self.log {
            Some(log) if log.has(number) => match log.page(number, into) {
                Ok(()) => Ok(true),
                Err(error) => Err(self.unreadable(&error)),
            },
            _ => {
                let at = u64::from(number.saturating_sub(1)) * self.page_size as u64;
                let read = self.file.read_at(into, at).map_err(|error| self.unreadable(&error))?;
                Ok(read == into.len())
            }
        }
    }

    fn is_in_log(&self, number: u32) -> bool {
        self.log.as_ref().is_some_and(|log| log.has(number))
    }

    fn wrong(&self, number: u32, page: &[u8]) -> Option<Wrong> {
        // Frames have a checksum of their own, which was verified.
        if self.sums && !self.is_in_log(number) && !sum::holds(page) {
            return Some(Wrong::Sum);
        }
        match shape::of(page, number, self.count, self.usable) {
            Shape::Impossible(why) if !self.holds_no_tree(number) => Some(Wrong::Shape(why)),
            _ => None,
        }
    }

    /// Whether any content is right there: on the page of the lock bytes, in a pointer map
    /// (<https://www.sqlite.org/fileformat2.html#pointer_map_or_ptrmap_pages>), on a free page.
    fn holds_no_tree(&self, number: u32) -> bool {
        number == fixed::lock_byte_page(self.page_size)
            || (self.maps && fixed::is_pointer_map(number, self.page_size, self.usable))
            || self.free.get_or_init(|| self.free_pages().unwrap_or_default()).contains(&number)
    }

    /// All pages that seem wrong at first sight, at most [`MOST`].
    fn suspects(&self, pace: &mut Pace<'_, '_>) -> Result<BTreeMap<u32, Wrong>, Error> {
        let (mut suspects, mut piece, mut done) = (BTreeMap::new(), vec![0; PIECE], 0_u32);
        ahead::expect_in_order(&self.file);
        let total = u64::from(self.count);
        while done < self.count && suspects.len() < MOST {
            if pace.tell(Stage::Check, u64::from(done), total).is_break() {
                return Err(cancelled(self.path));
            }
            let at = u64::from(done) * self.page_size as u64;
            let read = self.file.read_at(&mut piece, at).map_err(|error| self.unreadable(&error))?;
            let pages = piece.get(..read).unwrap_or_default().chunks_exact(self.page_size);
            let before = done;
            for page in pages {
                done += 1;
                if done > self.count {
                    break;
                }
                if let Some(wrong) = (!self.is_in_log(done)).then(|| self.wrong(done, page)).flatten() {
                    suspects.insert(done, wrong);
                }
            }
            if done == before || read < PIECE {
                break;
            }
        }
        let mut page = vec![0; self.page_size];
        for number in self.log.iter().flat_map(Log::numbers) {
            if !self.page(number, &mut page)? {
                suspects.insert(number, Wrong::Missing);
            } else if let Some(wrong) = self.wrong(number, &page) {
                suspects.insert(number, wrong);
            }
        }
        let missing = (done + 1..=self.count).filter(|number| !self.is_in_log(*number) && !self.holds_no_tree(*number));
        suspects.extend(missing.take(MOST).map(|number| (number, Wrong::Missing)));
        if pace.tell(Stage::Check, total, total).is_break() {
            return Err(cancelled(self.path));
        }
        Ok(suspects)
    }

    /// Which of them are wrong.
    fn judged(&self, suspects: BTreeMap<u32, Wrong>) -> Result<Vec<Finding>, Error> {
        let (mut findings, mut page) = (Vec::new(), vec![0; self.page_size]);
        for (number, first) in suspects {
            let mut wrong = Some(first);
            for _ in 0..LOOKS {
                wrong = if self.page(number, &mut page)? { self.wrong(number, &page) } else { Some(Wrong::Missing) };
                if wrong.is_none() {
                    break;
                }
                std::thread::yield_now();
            }
            let at = u64::from(number - 1) * self.page_size as u64;
            let place = format!("page {number} (at byte {at} of the file)");
            match wrong {
                None => {}
                Some(Wrong::Sum) => {
                    let message = format!("{place} is not what was written: its checksum is wrong");
                    findings.push(Finding::new(Kind::Checksum { page: number }, message));
                }
                Some(Wrong::Shape(why)) => {
                    findings.push(Finding::new(
                        Kind::Page { page: number },
                        format!("{place} is no page of a database: {why}"),
                    ));
                }
                Some(Wrong::Missing) => {
                    let message = format!("{place} is missing: the file ends before it");
                    findings.push(Finding::new(Kind::Page { page: number }, message));
                }
            }
        }
        Ok(findings)
    }

    /// The leaves of the free list, as far as it can be read. They have any content, or were never written.
    fn free_pages(&self) -> Result<HashSet<u32>, Error> {
        let (mut free, mut seen, mut page) = (HashSet::new(), HashSet::new(), vec![0; self.page_size]);
        let word = |page: &[u8], at: usize| {
            page.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        if !self.page(1, &mut page)? {
            return Ok(free);
        }
        let mut trunk = word(&page, 32);
        while trunk != 0 && trunk <= self.count && seen.insert(trunk) && self.page(trunk, &mut page)? {
            let leaves = (word(&page, 4) as usize).min(self.page_size / 4);
            free.extend((0..leaves).map(|leaf| word(&page, 8 + 4 * leaf)));
            trunk = word(&page, 0);
        }
        Ok(free)
    }
}
