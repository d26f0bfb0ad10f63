//! One transaction in rollback mode, from its first record to its end.

use super::Image;
use crate::guard::log::{Outcome, Written};
use std::collections::BTreeMap;

/// A transaction in rollback mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The nonce in the first header of its journal.
    pub nonce: u32,
    /// Size of the database in pages before.
    pub initial_pages: u32,
    /// Change counter before.
    pub counter_before: u32,
    /// Change counter after; that before if page 1 was not written.
    pub counter_after: u32,
    /// Whether the connection was in EXCLUSIVE locking mode, or may have been.
    pub exclusive: bool,
    /// Whether the log was synced after each of its records and before the pages were written.
    pub durable: bool,
    /// The last record that names its pages.
    pub last_sequence: u64,
    /// How it ended, if that is known.
    pub outcome: Option<Outcome>,
    /// Its pages.
    pub pages: BTreeMap<u32, PageOf>,
}

/// A page of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf {
    /// The image before the transaction, if known.
    pub before: Option<Image>,
    /// The images that were written, in order; the last is the one that a commit leaves.
    pub written: Vec<Image>,
    /// Whether the last write's image is known.
    pub last_known: bool,
    /// Whether rolling back restores the image before.
    pub journaled: bool,
}

impl Transaction {
    pub(super) fn begin(written: &Written) -> Transaction {
        Transaction {
            nonce: written.nonce,
            initial_pages: written.initial_pages,
            counter_before: written.counter_before,
            counter_after: written.counter_before,
            exclusive: false,
            durable: true,
            last_sequence: 0,
            outcome: None,
            pages: BTreeMap::new(),
        }
    }

    /// Whether nothing can have been committed between its end and a transaction that began with this counter: it left
    /// that counter, and no commit behind it left the counter alone and is lost from the log.
    pub(super) fn leads_to(&self, counter: u32) -> bool {
        let all_count = self.durable || !self.exclusive;
        match self.outcome {
            Some(Outcome::Committed) => self.counter_after == counter && all_count,
            Some(Outcome::RolledBack) => self.counter_before == counter && all_count,
            None => false,
        }
    }

    /// Whether its commit changes the counter, so that a transaction after it would show.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.counter_after != self.counter_before
    }
}

impl PageOf {
    /// The image that a commit leaves.
    #[must_use]
    pub fn after(&self) -> Option<Image> {
        self.written.last().copied().filter(|_| self.last_known)
    }
}
