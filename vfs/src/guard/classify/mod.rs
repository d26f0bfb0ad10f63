//! What a log proves about the files beside it.
//!
//! Invariant: an alarm is raised only if no honest disk and no SQLite without this guard can have left the files as they
//! are. Where that is nearly so, there is a note. Three facts carry every proof:
//!
//! - *Each commit in rollback mode changes the change counter* by one, except a second one of a connection that stays in
//!   EXCLUSIVE locking mode. So a counter that is still that from before an unfinished transaction excludes every commit
//!   since. The counter after it excludes nothing: SQLite without the guard may have rolled the transaction back and
//!   repeated a part of it, which brings the same counter, the same page 1 and some of the same pages.
//! - *A journal or WAL that is there* has not been used up: SQLite removes a hot journal before anybody can write, and
//!   starts a new generation of the WAL only once the one before it is in the database.
//! - *The time of change* of the database file stays as it was only if nobody wrote, as long as the host runs. After a
//!   power cut it may be an earlier one, because fdatasync does not write it; but where a journal or WAL has been removed
//!   for good, the change of the database before that is on disk too. It never lies later than the last write. So a time
//!   that the log has seen is evidence where no journal or WAL stands in place, and any other time is none, not even an
//!   earlier one: clocks go back.
//!
//! What follows from them:
//!
//! | what | proof |
//! |---|---|
//! | journal missing or that of another transaction | counter as before the transaction; one of its journaled pages (not page 1) new, one old; none unknown; not in EXCLUSIVE locking mode, unless the transaction itself would have changed the counter; the file last changed within a second of the log, else it may be a copy in which the same was done up to the same counter |
//! | super-journal missing | the transaction's own journal is still there, and its pages are mixed |
//! | database replaced under a hot journal | a counter that neither the log nor this transaction can explain, and most pages unknown |
//! | torn or lost pages after a commit | something could be lost; counter of that commit; time of change known to the log; not all pages old, which is what a journal leaves that came back after a power cut |
//! | the same, after a checkpoint | another generation of the WAL began, by the log, before anybody wrote; or the WAL is gone and the file unchanged since it was last seen |
//! | WAL missing or another one | the file unchanged since before its commits; or page 1 is still that before a commit of page 1 that was synced |
//! | database replaced under a WAL | page 1 is unknown and its counter lies outside what this WAL can have written |
//! | WAL damaged | fewer frames than were committed, the rest is there and cannot be reached; the file last changed when the log saw it, else both may be an older copy |
//!
//! One thing is taken for granted: SQLite without the guard does not begin, write to free pages and roll back within the
//! tick of the clock (4 to 10 ms) in which the guard saw a transaction end, with no write afterwards. Neither counter nor
//! time would show it, and its free pages would have to hold an earlier image to be taken for lost.
//!
//! Only pages that the journal holds count for the first three: SQLite does not journal a page that was free before, and
//! leaves it as it is when it rolls back. Pages after the end of the database are never missed, since a commit cuts the
//! file off after its journal is gone. A transaction of which the log's tail may have been lost is not judged.

mod compare;
mod finding;
mod finished;
mod seen;
mod unfinished;
mod wal;

pub use finding::{Alarm, AlarmKind, Counts, Finding, Protector, State};
pub use seen::{DatabasePages, HotJournal, Journal, Observation, PageNow, Wal, WalSeen};

use super::images::Folded;
use super::log::End;
use std::collections::BTreeMap;

/// Compares what the log says with what the files hold.
pub fn classify(log: &Folded, seen: &Observation, pages: &mut dyn DatabasePages) -> Finding {
    let mut case =
        Case { log, seen, pages, read: BTreeMap::new(), states: BTreeMap::new(), finding: Finding::default() };
    if let End::NotUnderstood { .. } = log.end {
        case.finding.note(format!("The guard's log ends at {}. Nothing is concluded from it.", log.end));
    } else if seen.page_size != log.header.page_size {
        case.finding.note("The page size is not the one in the guard's log. Nothing is concluded from it.");
    } else {
        case.rollback_mode();
        case.wal_mode();
    }
    if seen.thorough {
        case.rest();
    }
    let mut finding = case.finding;
    finding.pages = case.states.into_iter().collect();
    finding
}

/// One comparison in progress.
struct Case<'a> {
    log: &'a Folded,
    seen: &'a Observation,
    pages: &'a mut dyn DatabasePages,
    read: BTreeMap<u32, PageNow>,
    states: BTreeMap<u32, State>,
    finding: Finding,
}

impl Case<'_> {
    /// Whether this host has run without a break since the log was last written to, so that nothing of it can be lost.
    fn unbroken(&self) -> bool {
        !self.seen.shared && self.seen.boot == self.log.boot
    }

    /// Whether anything that was written can have been lost at all.
    fn can_tear(&self) -> bool {
        !self.unbroken() || !self.log.halts.is_empty()
    }

    /// Whether the file was last changed when the log says that somebody saw it.
    fn time_is_known(&self) -> bool {
        self.seen.changed.is_some_and(|time| self.log.times.contains(&time))
    }

    /// Whether a journal is there that SQLite would act on, or that could not be read.
    fn journal_in_the_way(&self) -> bool {
        matches!(self.seen.journal, Journal::Hot(_) | Journal::Garbage | Journal::Unread)
    }

    /// States for the pages that nothing was concluded about.
    fn rest(&mut self) {
        for number in self.log.pages() {
            if !self.states.contains_key(&number) {
                let state = self.repaired_by(number).unwrap_or(State::NotJudged);
                self.states.insert(number, state);
            }
        }
    }

    /// What will write this page again at the next open.
    fn repaired_by(&self, number: u32) -> Option<State> {
        match (&self.seen.journal, &self.seen.wal) {
            (Journal::Hot(hot), _) if !hot.super_journal_missing && hot.covers.contains(&number) => {
                Some(State::ToBeRepaired(Protector::Journal))
            }
            (_, Wal::Log(wal)) if wal.pages.contains(&number) => Some(State::ToBeRepaired(Protector::Wal)),
            _ => None,
        }
    }
}
