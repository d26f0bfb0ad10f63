//! Pages whose protector is rightly gone: do they still hold what was written?

use super::compare::Side;
use super::finding::list;
use super::{AlarmKind, Case, HotJournal, Journal, PageNow, State, Wal};
use crate::guard::images::{Checkpoint, Image, Transaction};
use crate::guard::log::{Generation, Outcome};

/// Pages that do not hold what is expected of them, and others that are foreign.
#[derive(Default)]
struct Judged {
    torn: Vec<u32>,
    lost: Vec<u32>,
    foreign: Vec<u32>,
}

impl Case<'_> {
    /// After the end of the last transaction, with no journal in the way.
    pub(super) fn after_commit(&mut self, transaction: &Transaction) {
        if !self.can_tear() && !self.seen.thorough {
            return;
        }
        let log = self.log;
        let judged = self.judge_all(log.expected.iter().map(|(number, image)| (*number, *image)));
        if judged.torn.is_empty() && judged.lost.is_empty() {
            return;
        }
        if transaction.outcome != Some(Outcome::Committed) {
            self.doubt(&judged, "the last transaction was rolled back");
            return;
        }
        let sides = self.sides(transaction, |_| false);
        if !sides.any(&[Side::New, Side::Partial]) {
            // Removing a journal is not durable at once: after a power cut it may be back, and be rolled back.
            for (number, side) in sides.iter() {
                if side == Side::Old {
                    self.states.insert(number, State::IntactOld);
                }
            }
            self.finding.note(
                "The last transaction that the guard saw is not in the database: its journal was rolled back, or an older copy \
                 was put there.",
            );
            return;
        }
        // An older page 1 that the log knows has an older counter.
        let older_page1 = judged.lost.contains(&1) || judged.torn.contains(&1);
        let without_page1 = sides.of(&[Side::New, Side::Partial]).iter().any(|number| *number != 1);
        let explained = self.seen.counter == Some(transaction.counter_after) || (older_page1 && without_page1);
        let doubt = if !self.can_tear() {
            Some("the host has not been restarted since")
        } else if !explained {
            Some("somebody without the guard has written since")
        } else if !self.time_is_known() {
            Some("the file was changed at a time that the guard does not know")
        } else if self.seen.journal == Journal::Zeroed {
            Some("a journal that was used again may have brought it")
        } else if !(transaction.durable || (transaction.counts() && !transaction.exclusive)) {
            Some("a later transaction in EXCLUSIVE locking mode may have been lost from the guard's log")
        } else if !judged.foreign.is_empty() {
            Some("other pages have been written by somebody else")
        } else {
            None
        };
        self.conclude(&judged, doubt);
    }

    /// While the journal of the last transaction waits to be rolled back: pages that it does not touch.
    pub(super) fn beside_a_journal(&mut self, transaction: &Transaction, hot: &HotJournal) {
        if !self.can_tear() && !self.seen.thorough {
            return;
        }
        let log = self.log;
        let untouched = |number: &u32| {
            *number <= hot.initial_pages && !hot.covers.contains(number) && !transaction.pages.contains_key(number)
        };
        let expected: Vec<(u32, Image)> = log
            .expected
            .iter()
            .filter(|(number, _)| untouched(number))
            .map(|(number, image)| (*number, *image))
            .collect();
        // The file may have been cut off by a commit before; which size it should have, page 1 does not say now.
        let present: Vec<(u32, Image)> =
            expected.into_iter().filter(|(number, _)| self.now(*number) != PageNow::Beyond).collect();
        let judged = self.judge_all(present.into_iter());
        let doubt = if !self.can_tear() {
            Some("the host has not been restarted since")
        } else if !(transaction.durable || self.unbroken()) {
            Some("what the unfinished transaction wrote may have been lost from the guard's log")
        } else if !judged.foreign.is_empty() {
            Some("other pages have been written by somebody else")
        } else {
            None
        };
        self.conclude(&judged, doubt);
    }

    /// After a checkpoint of a whole generation.
    pub(super) fn after_checkpoint(&mut self, checkpoint: &Checkpoint) {
        if !self.can_tear() && !self.seen.thorough {
            return;
        }
        let unseen = match &self.seen.wal {
            Wal::Unread => return,
            // Its frames are all still there and will be read instead of the pages.
            Wal::Log(wal) if wal.generation == checkpoint.generation => return,
            Wal::Log(wal) => !self.began_unwritten(checkpoint, wal.generation),
            Wal::Absent | Wal::Empty => !self.unchanged_since_last_seen(),
            Wal::BadHeader => true,
        };
        let judged = self.judge_all(checkpoint.expected.iter().map(|(number, image)| (*number, *image)));
        if judged.torn.is_empty() && judged.lost.is_empty() {
            return;
        }
        let older_page1 = judged.lost.contains(&1) || judged.torn.contains(&1);
        let explained = self.seen.counter == Some(checkpoint.counter) || older_page1;
        let doubt = if !self.can_tear() {
            Some("the host has not been restarted since")
        } else if self.journal_in_the_way() || unseen || !explained {
            Some("a checkpoint that the guard did not see may have written since")
        } else if !self.time_is_known() {
            Some("the file was changed at a time that the guard does not know")
        } else if !judged.foreign.is_empty() {
            Some("other pages have been written by somebody else")
        } else {
            None
        };
        self.conclude(&judged, doubt);
    }

    /// Whether the log itself shows that nobody had written to the database between the checkpoint and the first commit of
    /// the generation that is there. Since then only this WAL can have been written to the database.
    fn began_unwritten(&self, checkpoint: &Checkpoint, wal: Generation) -> bool {
        let Some(pending) = &self.log.pending else { return false };
        let (then, later) = (checkpoint.witness, pending.witness);
        pending.generation == wal
            && then.boot == later.boot
            && later.settled
            && later.changed.is_some()
            && then.changed == later.changed
    }

    /// Whether the database file is as it was when it was last seen, long enough after its last change.
    fn unchanged_since_last_seen(&self) -> bool {
        let last = self.log.witness.filter(|last| last.settled && last.changed.is_some());
        self.log.pending.is_none() && last.is_some_and(|last| last.changed == self.seen.changed)
    }

    fn judge_all(&mut self, expected: impl Iterator<Item = (u32, Image)>) -> Judged {
        let mut judged = Judged::default();
        for (number, image) in expected {
            let state = match self.repaired_by(number) {
                Some(repaired) => repaired,
                None if self.may_be_cut_off(number) && self.now(number) == PageNow::Beyond => State::NotJudged,
                None => self.judge(number, image),
            };
            match &state {
                State::Torn { .. } => judged.torn.push(number),
                State::Lost => judged.lost.push(number),
                State::Foreign => judged.foreign.push(number),
                _ => {}
            }
            self.states.insert(number, state);
        }
        judged
    }

    /// Whether the file may rightly end before this page.
    fn may_be_cut_off(&self, number: u32) -> bool {
        if matches!(&self.seen.wal, Wal::Log(wal) if wal.committed_frames > 0) {
            // Its checkpoint may have cut the file before page 1, or the record of it, was on disk.
            return true;
        }
        let needed = u64::from(number) * u64::from(self.log.header.page_size);
        let seen = self.log.witness.is_some_and(|last| needed <= last.file_size);
        !seen || self.seen.page_count.is_none_or(|count| number > count)
    }

    fn conclude(&mut self, judged: &Judged, doubt: Option<&str>) {
        if judged.torn.is_empty() && judged.lost.is_empty() {
            return;
        }
        let Some(doubt) = doubt else {
            let kinds = [(AlarmKind::Torn, &judged.torn), (AlarmKind::Lost, &judged.lost)];
            for (kind, pages) in kinds.into_iter().filter(|(_, pages)| !pages.is_empty()) {
                let (what, why) = match kind {
                    AlarmKind::Torn => ("only in part", "made of sectors of different times"),
                    _ => ("not at all", "as it was before, beside others that are newer"),
                };
                let text = format!(
                    "What was written to {} reached the disk {what}, although syncing it was reported as done: it is {why}. \
                     Such a file is usually corrupt, though it can be opened. Restore a backup, or recover what is readable \
                     into a new file, and do not trust this disk or its write cache.",
                    list(pages)
                );
                self.finding.alarm(kind, pages.clone(), text);
            }
            return;
        };
        self.doubt(judged, doubt);
    }

    fn doubt(&mut self, judged: &Judged, doubt: &str) {
        for (what, pages) in [("parts of different times", &judged.torn), ("an earlier image", &judged.lost)] {
            if !pages.is_empty() {
                self.finding.note(format!("{} hold {what}; {doubt}, so this proves nothing.", list(pages)));
            }
        }
    }
}
