//! A database in WAL mode: is the WAL there that holds its latest commits, and is it whole?

use super::{AlarmKind, Case, PageNow, Wal, WalSeen};
use crate::guard::images::PendingWal;
use crate::guard::log::Generation;

impl Case<'_> {
    /// Everything about a database that was in WAL mode at the end of the log.
    pub(super) fn wal_mode(&mut self) {
        let (log, seen) = (self.log, self.seen);
        if let Some(checkpoint) = &log.checkpoint {
            self.after_checkpoint(checkpoint);
        }
        match &seen.wal {
            Wal::Unread => self.finding.note("The WAL could not be read. Nothing is concluded from it."),
            Wal::Log(wal) => {
                self.damaged(wal);
                match &log.pending {
                    Some(pending) if pending.generation.salts == wal.generation.salts => self.paired(pending, wal),
                    Some(pending) => self.other(pending, Some(wal)),
                    None => {}
                }
            }
            Wal::Absent | Wal::Empty | Wal::BadHeader => {
                if let Some(pending) = &log.pending {
                    self.finding.keep_wal = seen.wal == Wal::BadHeader;
                    self.other(pending, None);
                }
            }
        }
    }

    /// The WAL is not there, or it is another one.
    fn other(&mut self, pending: &PendingWal, wal: Option<&WalSeen>) {
        let ahead = wal.and_then(|wal| generations_ahead(pending.generation, wal.generation));
        if ahead.is_some_and(|ahead| ahead > 0) {
            // A later generation of the same WAL: the one that was pending has been checkpointed.
            return;
        }
        let (kind, what) = match wal {
            None if self.seen.wal == Wal::BadHeader => (AlarmKind::WalMissing, "is gone or its header is damaged"),
            None => (AlarmKind::WalMissing, "is gone"),
            Some(_) if ahead.is_some() => (AlarmKind::WalOlder, "has been replaced by an older one"),
            Some(wal) if wal.generation.sequence < pending.generation.sequence => {
                (AlarmKind::WalOlder, "has been replaced by an older or a new one")
            }
            Some(_) => (AlarmKind::WalMispaired, "has been replaced by another one"),
        };
        let doubt = if pending.halted {
            Some("a sync failed, and SQLite may have taken these commits back")
        } else if self.journal_in_the_way() {
            Some("a transaction that the guard did not see was not finished")
        } else if !(self.unwritten_since(pending) || self.synced_and_not_checkpointed(pending)) {
            Some("SQLite without the guard may have checkpointed it")
        } else {
            None
        };
        let [a, b] = pending.generation.salts;
        if let Some(doubt) = doubt {
            self.finding.note(format!("The WAL with salts {a:08x} {b:08x} {what}; {doubt}, so this proves nothing."));
            return;
        }
        let text = format!(
            "The WAL that holds the latest commits of this database (salts {a:08x} {b:08x}, {} committed frames) {what}, and \
             what it held has not been written to the database. Opening the database shows an older state, and writing to \
             it makes the loss final. Put the WAL back beside the database before anything opens it; otherwise restore a \
             backup.",
            pending.frames
        );
        self.finding.alarm(kind, Vec::new(), text);
    }

    /// Whether the database file has not been written since before the WAL's commits, on a host that has run since. A
    /// checkpoint, anybody's, would have written it.
    fn unwritten_since(&mut self, pending: &PendingWal) -> bool {
        let witness = &pending.witness;
        self.ran_since(pending)
            && witness.settled
            && witness.changed.is_some()
            && witness.changed == self.seen.changed
            && self.seen.counter == Some(pending.counter)
            && (pending.page1.is_none() || self.page1_as_before(pending))
    }

    /// Whether the WAL held, on disk, a commit of page 1 that the database does not have. Only where the WAL's file itself
    /// has been removed or replaced: then the time of change is on disk as well, and a checkpoint would show in it.
    fn synced_and_not_checkpointed(&mut self, pending: &PendingWal) -> bool {
        let synced = self.log.synced.get(&pending.generation.salts).copied().unwrap_or(0);
        pending.wal_synced
            && pending.page1_frame > 0
            && synced >= pending.page1_frame
            && self.seen.wal != Wal::BadHeader
            && self.seen.counter == Some(pending.counter)
            && self.time_is_known()
            && self.page1_as_before(pending)
    }

    /// Whether this host has run without a break since the commits, so that the WAL still has all of them.
    fn ran_since(&self, pending: &PendingWal) -> bool {
        !self.seen.shared && self.seen.boot == pending.witness.boot
    }

    fn page1_as_before(&mut self, pending: &PendingWal) -> bool {
        let PageNow::Image(now) = self.now(1) else { return false };
        pending.page1.is_some_and(|page1| self.log.sums_of(page1) == now.as_slice())
    }

    /// The WAL is the one that should be there; is the database?
    fn paired(&mut self, pending: &PendingWal, wal: &WalSeen) {
        let PageNow::Image(now) = self.now(1) else { return };
        let log = self.log;
        let known = log.chain(1).iter().any(|image| log.sums_of(*image) == now.as_slice());
        if known || pending.page1.is_none() || wal.page1.contains(&now) {
            return;
        }
        // The first page 1 of a WAL has the counter after that of the database, or the same if it was checkpointed
        // before; two more are left for what copying a database may add.
        let outside = match (self.seen.counter, wal.page1_counters) {
            (Some(counter), Some((first, last))) => {
                let before = distance(first, counter) < -2;
                let behind = distance(last, counter) > 1;
                before || (behind && self.ran_since(pending))
            }
            // Nothing in this WAL has page 1, so no checkpoint of it can have changed that, and no frame can have got lost.
            // An older copy of both files has fewer of them.
            (Some(_), None) => self.unbroken() && wal.committed_frames >= pending.frames,
            _ => false,
        };
        if !outside || self.journal_in_the_way() {
            self.finding
                .note("Page 1 of the database holds neither what the guard's log knows nor what the WAL holds.");
            return;
        }
        let text = format!(
            "The WAL beside the database belongs to another file: page 1 holds neither what was there when the WAL's commits \
             were made nor what they wrote, and its change counter {} cannot have led to this WAL. Reading the database \
             would mix the two. If this file was put there on purpose, move the WAL away; otherwise bring the original file \
             back.",
            self.seen.counter.unwrap_or(0)
        );
        self.finding.alarm(AlarmKind::DatabaseReplaced, vec![1], text);
    }

    /// Whether the WAL ends early.
    fn damaged(&mut self, wal: &WalSeen) {
        let recorded = match &self.log.pending {
            Some(pending) if pending.generation == wal.generation && self.ran_since(pending) && !pending.halted => {
                pending.frames
            }
            _ => 0,
        };
        // The index is as old as the last commit only as long as the host runs, and as nobody has made it anew: SQLite does
        // so before it reads, and then it says what the log says.
        let indexed = if self.unbroken() && self.log.halts.is_empty() { wal.visible_frames } else { 0 };
        let synced = self.log.synced.get(&wal.generation.salts).copied().unwrap_or(0);
        let known = recorded.max(indexed).max(synced);
        let missing = known.saturating_sub(wal.committed_frames);
        let [a, b] = wal.generation.salts;
        let sound = indexed > 0 && missing == 0 && !wal.index_recovered;
        self.finding.keep_wal = wal.unreachable_commits > 0 && !sound;
        // Frames that a killed writer or a power cut left behind the last commit look the same. An older copy of database
        // and WAL has fewer frames, hardly ever more behind them, and came at a time that the log does not know.
        let all_there = wal.valid_frames + wal.unreachable_frames + 8 >= known;
        if missing > 0 && wal.unreachable_commits > 0 && all_there && self.time_is_known() {
            let text = format!(
                "The WAL (salts {a:08x} {b:08x}) is damaged after frame {}: {missing} frames that had been committed, with {} \
                 commits among those that can be told, cannot be read any more. SQLite will show the database without \
                 them and write over them. Copy the WAL first.",
                wal.valid_frames, wal.unreachable_commits
            );
            self.finding.alarm(AlarmKind::WalDamaged, Vec::new(), text);
        } else if self.finding.keep_wal {
            self.finding.note(format!(
                "Behind frame {} of the WAL (salts {a:08x} {b:08x}) are {} more of the same generation, with {} commits, that \
                 SQLite cannot reach: after a power cut, or where a commit has failed, that is as it should be; otherwise \
                 the frame after it is damaged.",
                wal.valid_frames, wal.unreachable_frames, wal.unreachable_commits
            ));
        } else if missing > 0 {
            self.finding.note(format!(
                "The WAL (salts {a:08x} {b:08x}) has {missing} committed frames less than the guard's log knows."
            ));
        }
    }
}

/// How many generations `other` lies ahead of `one`, if both are of the same WAL: each adds one to the first salt, while a new
/// WAL draws it. The number in the header tells nothing: each connection counts the generations that it has begun itself.
fn generations_ahead(one: Generation, other: Generation) -> Option<i32> {
    // Beyond that a drawn salt is as likely.
    const SAME: i32 = 1 << 16;
    let ahead = distance(one.salts[0], other.salts[0]);
    (ahead != 0 && (-SAME..=SAME).contains(&ahead)).then_some(ahead)
}

/// How far `to` lies ahead of `from`, for numbers that wrap.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}
