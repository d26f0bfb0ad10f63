//! How each record changes what is known.

use super::{Checkpoint, Folded, Image, PageOf, PendingWal, Transaction};
use crate::guard::log::{Boot, Checkpointed, Done, Logged, Outcome, Pending, Record, Witness, Written};
use std::collections::BTreeMap;

impl Folded {
    /// Takes in the next record.
    pub fn add(&mut self, logged: &Logged) {
        self.last_sequence = logged.sequence;
        match &logged.record {
            Record::Written(written) => self.written(written, logged.sequence, logged.durable),
            Record::Done(done) => self.done(done),
            Record::Pending(pending) => self.pending(pending, logged.sequence),
            Record::Checkpointed(checkpointed) => self.checkpointed(checkpointed, logged.sequence),
            Record::WalSynced(synced) => {
                let frames = self.synced.entry(synced.salts).or_default();
                *frames = synced.frames.max(*frames);
            }
            Record::Halted(halted) => {
                self.on(halted.boot);
                if let Some(pending) = &mut self.pending {
                    pending.halted = true;
                }
                self.halts.push(halted.clone());
            }
            Record::Resumed => {
                self.halts.clear();
                self.alarm = None;
            }
            Record::Alarm(text) => self.alarm = Some(text.clone()),
            Record::Unknown(_) => {}
        }
    }

    /// Notes where a record was written. What a power cut left of the log may be less than what it left of the database.
    fn on(&mut self, boot: Boot) {
        if self.boot != boot {
            self.boot = boot;
            self.expected.clear();
        }
    }

    fn see(&mut self, witness: &Witness) {
        self.on(witness.boot);
        self.times.extend(witness.changed);
        self.witness = Some(*witness);
    }

    /// The database file before the guard writes to it. Where it is not as it was left, somebody else has written, or a copy
    /// was put in its place, which may have come to the same counter and the same salts.
    fn see_before(&mut self, before: &Witness) {
        let last = self.witness.and_then(|last| last.changed);
        if last.is_none() || last != before.changed {
            self.expected.clear();
            self.synced.clear();
            (self.pending, self.checkpoint, self.partial) = (None, None, None);
        }
        self.see(before);
    }

    fn written(&mut self, written: &Written, sequence: u64, durable: bool) {
        // A database in rollback mode has no WAL, and leaving WAL mode put all of it into the database.
        (self.pending, self.checkpoint, self.partial) = (None, None, None);
        self.counters.extend([written.counter_before, written.counter_after]);
        self.see_before(&written.before);
        let mut transaction = match self.transaction.take() {
            Some(open) if open.outcome.is_none() && open.nonce == written.nonce => open,
            before => {
                if !before.is_some_and(|before| before.leads_to(written.counter_before)) {
                    self.expected.clear();
                }
                // Pages that a commit cut off may come back without being written.
                self.expected.retain(|number, _| *number <= written.initial_pages);
                Transaction::begin(written)
            }
        };
        transaction.durable &= durable;
        transaction.last_sequence = sequence;
        transaction.exclusive |= written.exclusive;
        for entry in written.pages.iter() {
            let old = entry.old.map(|old| self.know(entry.page, old, sequence));
            let new = entry.new.map(|new| self.know(entry.page, new, sequence));
            let page = transaction.pages.entry(entry.page).or_insert_with(|| {
                if let (Some(old), Some(expected)) = (old, self.expected.get(&entry.page)) {
                    // Somebody else wrote it, or it was lost: either way the chain is broken.
                    if self.sums_of(old) != self.sums_of(*expected) {
                        self.expected.clear();
                    }
                }
                PageOf { before: old, written: Vec::new(), last_known: true, journaled: false }
            });
            page.written.extend(new);
            page.last_known = new.is_some();
            page.journaled |= entry.journaled;
            if entry.page == 1 {
                transaction.counter_after = written.counter_after;
            }
        }
        self.transaction = Some(transaction);
    }

    fn done(&mut self, done: &Done) {
        self.see(&done.witness);
        let Some(transaction) = self.transaction.as_mut().filter(|open| open.nonce == done.nonce) else {
            // The end of a transaction whose pages the log does not name.
            (self.transaction, self.expected) = (None, BTreeMap::new());
            return;
        };
        transaction.outcome = Some(done.outcome);
        for (number, page) in &transaction.pages {
            let left = match done.outcome {
                Outcome::Committed => page.after(),
                Outcome::RolledBack => page.before.filter(|_| page.journaled),
            };
            match left {
                Some(image) => self.expected.insert(*number, image),
                None => self.expected.remove(number),
            };
        }
    }

    fn pending(&mut self, pending: &Pending, sequence: u64) {
        self.wal_mode();
        self.see_before(&pending.witness);
        self.counters.insert(pending.counter);
        let page1 = pending.page1.iter().find(|entry| entry.page == 1).and_then(|entry| entry.new);
        self.pending = Some(PendingWal {
            generation: pending.generation,
            wal_synced: pending.wal_synced,
            counter: pending.counter,
            frames: pending.frames,
            page1_frame: pending.page1_frame,
            witness: pending.witness,
            page1: page1.map(|page1| self.know(1, page1, sequence)),
            halted: false,
        });
    }

    fn checkpointed(&mut self, written: &Checkpointed, sequence: u64) {
        self.wal_mode();
        self.see_before(&written.before);
        self.see(&written.witness);
        self.counters.insert(written.counter);
        let mut pages: BTreeMap<u32, Option<Image>> = BTreeMap::new();
        for entry in written.pages.iter() {
            if let Some(old) = entry.old {
                self.know(entry.page, old, sequence);
            }
            pages.insert(entry.page, entry.new.map(|new| self.know(entry.page, new, sequence)));
        }
        self.still_pending(written, &pages);
        let same = |generation| generation == written.generation;
        let mut expected = self.partial.take().filter(|(of, _)| same(*of)).map(|(_, pages)| pages).unwrap_or_default();
        if written.complete {
            if let Some(before) = self.checkpoint.take().filter(|before| same(before.generation)) {
                // What the partial ones wrote has been taken out of it already.
                expected.extend(before.expected);
            }
        } else if let Some(before) = &mut self.checkpoint {
            before.expected.retain(|number, _| !pages.contains_key(number));
        }
        for (number, image) in pages {
            match image {
                Some(image) => expected.insert(number, image),
                None => expected.remove(&number),
            };
        }
        if written.complete {
            let (generation, witness, counter) = (written.generation, written.witness, written.counter);
            self.checkpoint = Some(Checkpoint { generation, witness, counter, expected });
        } else {
            self.partial = Some((written.generation, expected));
        }
    }

    /// What a checkpoint leaves of the WAL that must not be missing.
    fn still_pending(&mut self, written: &Checkpointed, pages: &BTreeMap<u32, Option<Image>>) {
        let Some(mut pending) = self.pending.take() else { return };
        // Another generation can only be checkpointed after this one was, and a power cut may have taken of its commits.
        let other = pending.generation != written.generation || pending.witness.boot != written.witness.boot;
        if written.complete || other {
            return;
        }
        pending.witness = written.witness;
        pending.counter = written.counter;
        if let Some(page1) = pages.get(&1) {
            (pending.page1, pending.page1_frame) = (*page1, 0);
        }
        self.pending = Some(pending);
    }

    fn wal_mode(&mut self) {
        self.transaction = None;
        self.expected.clear();
    }
}
