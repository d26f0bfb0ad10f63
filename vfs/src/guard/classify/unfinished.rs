//! A transaction in rollback mode of which the log has no end: is what protects it there, and is it the right one?

use super::compare::{Side, Sides};
use super::finding::list;
use super::{AlarmKind, Case, HotJournal, Journal, PageNow, State, Wal};
use crate::guard::images::Transaction;
use crate::guard::log::Time;

impl Case<'_> {
    /// Everything about a database that was in rollback mode at the end of the log.
    pub(super) fn rollback_mode(&mut self) {
        let log = self.log;
        let Some(transaction) = &log.transaction else { return };
        if matches!(&self.seen.wal, Wal::Log(wal) if wal.committed_frames > 0) {
            self.finding
                .note("Somebody without the guard has put the database into WAL mode. Its pages are not judged.");
            return;
        }
        let seen = self.seen;
        match &seen.journal {
            Journal::Unread => self.finding.note("The journal could not be read. The pages are not judged."),
            Journal::Hot(hot) if hot.nonce == transaction.nonce && !hot.super_journal_missing => {
                self.protected(transaction, hot);
            }
            Journal::Hot(hot) if hot.nonce == transaction.nonce => {
                if transaction.outcome.is_none() {
                    self.super_journal_missing(transaction);
                } else {
                    self.after_commit(transaction);
                }
            }
            journal if transaction.outcome.is_none() => self.unprotected(transaction, journal),
            // A transaction that the log does not know was in progress, and it may have written any page that was free.
            Journal::Hot(_) | Journal::Garbage => {
                self.finding.note("A transaction that the guard did not see was not finished.");
            }
            _ => self.after_commit(transaction),
        }
    }

    /// The journal of the last transaction is there and will be rolled back.
    fn protected(&mut self, transaction: &Transaction, hot: &HotJournal) {
        for number in transaction.pages.keys().filter(|number| hot.covers.contains(number)) {
            self.states.insert(*number, State::ToBeRepaired(super::Protector::Journal));
        }
        if self.replaced(transaction) {
            return;
        }
        self.beside_a_journal(transaction, hot);
    }

    /// Whether the file under a hot journal is another one.
    fn replaced(&mut self, transaction: &Transaction) -> bool {
        let Some(counter) = self.seen.counter else {
            self.finding.note("A journal lies beside an empty database. SQLite will delete it.");
            return false;
        };
        // Nobody can have committed since, so the counter is that before or the transaction's own: one more, or two with
        // the one that turns a copied WAL database into a rollback one. The log may lack its last record.
        let own = [0, 1, 2].map(|more| transaction.counter_before.wrapping_add(more));
        if own.contains(&counter) || transaction.counter_after == counter || self.log.counters.contains(&counter) {
            return false;
        }
        let sides = self.sides(transaction, |_| false);
        let foreign = sides.of(&[Side::Foreign]);
        if foreign.len() < 2 || foreign.len() * 2 <= sides.len() {
            self.finding.note(format!(
                "The database has change counter {counter}, which neither the guard's log nor the journal beside it explains."
            ));
            return false;
        }
        let text = format!(
            "The journal beside the database belongs to another file: {} of the {} pages that its transaction wrote hold \
             neither what was there before nor what was written, and the change counter is {counter} instead of {}. \
             Rolling the journal back would overwrite pages of the file that is there now. If this file was put there on \
             purpose, move the journal away; otherwise bring the original file back.",
            foreign.len(),
            sides.len(),
            transaction.counter_before
        );
        self.finding.alarm(AlarmKind::DatabaseReplaced, foreign, text);
        true
    }

    /// The journal is there, but SQLite will delete it, since the super-journal that it names is gone.
    fn super_journal_missing(&mut self, transaction: &Transaction) {
        let sides = self.sides(transaction, |_| false);
        self.record(&sides);
        // The journal would be gone if anybody had opened the database since, so these are the pages as they were left.
        if !half_done(&sides) {
            return;
        }
        let known = [transaction.counter_before, transaction.counter_after].map(Some).contains(&self.seen.counter);
        if !known || sides.any(&[Side::Foreign]) || !(transaction.durable || self.unbroken()) {
            self.finding.note("A journal names a super-journal that is gone, and not all of its pages are written.");
            return;
        }
        self.missing(AlarmKind::ProtectorMissing, &sides, "the super-journal that its journal names is gone");
    }

    /// The journal is gone, of no use, or that of another transaction.
    fn unprotected(&mut self, transaction: &Transaction, journal: &Journal) {
        let (kind, what) = match journal {
            Journal::Hot(hot) if !hot.super_journal_missing => {
                (AlarmKind::ProtectorMispaired, "the journal beside it is that of another transaction")
            }
            Journal::Hot(_) => (AlarmKind::ProtectorMissing, "the journal beside it is that of another transaction"),
            Journal::Garbage => (AlarmKind::ProtectorMissing, "its journal is damaged"),
            Journal::Empty | Journal::Zeroed => (AlarmKind::ProtectorMissing, "its journal has been emptied"),
            Journal::Absent | Journal::Unread => (AlarmKind::ProtectorMissing, "its journal is gone"),
        };
        let covered = |number: u32| matches!(journal, Journal::Hot(hot) if hot.covers.contains(&number));
        let sides = self.sides(transaction, covered);
        self.record(&sides);
        if !half_done(&sides) {
            return;
        }
        let touched = sides.of(&[Side::New, Side::Partial]);
        let doubt =
            if self.seen.counter != Some(transaction.counter_before) || touched.iter().all(|number| *number == 1) {
                Some("SQLite without the guard may have rolled it back and written since")
            } else if !self.written_with_the_log(transaction) {
                Some("the file was changed at another time than the transaction wrote it, and may be a copy")
            } else if transaction.exclusive && !transaction.counts() {
                Some("in EXCLUSIVE locking mode it may have been committed without a new change counter")
            } else if sides.any(&[Side::Foreign]) || !self.others_intact(transaction, covered) {
                Some("other pages have been written by somebody else")
            } else {
                None
            };
        match doubt {
            None => self.missing(kind, &sides, what),
            Some(doubt) => self.finding.note(format!(
                "Of the last transaction {} is in the database and {} is not; {doubt}, so this proves nothing.",
                list(&touched),
                list(&sides.of(&[Side::Old, Side::Partial]))
            )),
        }
    }

    /// Whether the file was last changed by the transaction, as far as times tell. Its pages are written right after the
    /// record that names them, which is the last of the log. After a restart the clock may be where it was before, and
    /// only the very time that was seen before the transaction will do, which a power cut often leaves.
    fn written_with_the_log(&self, transaction: &Transaction) -> bool {
        let (Some(changed), Some(log)) = (self.seen.changed, self.seen.log_changed) else { return false };
        let nanoseconds = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
        let near = (nanoseconds(changed) - nanoseconds(log)).abs() <= 1_000_000_000;
        transaction.last_sequence == self.log.last_sequence
            && (self.time_is_known() || (near && self.seen.boot == self.log.boot))
    }

    /// Whether the pages of the transactions before hold what these left, as far as the file goes: a commit may have cut it.
    fn others_intact(&mut self, transaction: &Transaction, skip: impl Fn(u32) -> bool) -> bool {
        let log = self.log;
        let others =
            log.expected.iter().filter(|(number, _)| !transaction.pages.contains_key(number) && !skip(**number));
        others.into_iter().all(|(number, image)| {
            let cut = self.now(*number) == PageNow::Beyond;
            cut || matches!(self.judge(*number, *image), State::IntactNew | State::NotJudged)
        })
    }

    fn missing(&mut self, kind: AlarmKind, sides: &Sides, what: &str) {
        let (new, old) = (sides.of(&[Side::New, Side::Partial]), sides.of(&[Side::Old, Side::Partial]));
        let text = format!(
            "The last transaction was not finished and {what}: {} of it reached the database at least in part, {} did not or \
             not wholly, and nobody has committed since. Such a file is usually corrupt, though it can be opened. Put the journal of \
             that transaction back beside the database if it still exists; otherwise restore a backup, or recover what is \
             readable into a new file.",
            list(&new),
            list(&old)
        );
        let mut pages = [new, old].concat();
        pages.sort_unstable();
        pages.dedup();
        self.finding.alarm(kind, pages, text);
    }

    fn record(&mut self, sides: &Sides) {
        for (number, side) in sides.iter() {
            let state = match side {
                Side::New => State::IntactNew,
                Side::Old => State::IntactOld,
                Side::Foreign => State::Foreign,
                Side::Partial => {
                    match self.log.transaction.as_ref().and_then(|last| last.pages.get(&number)?.after()) {
                        Some(after) => self.judge(number, after),
                        None => State::NotJudged,
                    }
                }
            };
            self.states.insert(number, state);
        }
    }
}

/// Whether a part of the transaction is there and a part is not.
fn half_done(sides: &Sides) -> bool {
    sides.any(&[Side::New, Side::Partial]) && sides.any(&[Side::Old, Side::Partial])
}
