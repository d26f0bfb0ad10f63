//! Syncs: what is not on disk yet, in which order it has to get there, and what follows when it does not.
//!
//! The order that holds under any `PRAGMA synchronous`: the journal's bytes are synced before the first database page of
//! the transaction is written; the database is synced before its journal is deleted, truncated or zeroed; the WAL is synced
//! before a checkpoint writes pages; the database is synced before a WAL generation ends.
//!
//! A sync that fails is healed or halts the database. After a failed sync the kernel may have dropped the bytes, or keep
//! them as if they had been written, and the next sync succeeds without writing them; so that success proves nothing. What
//! proves is writing again, from content that still has the checksums taken when it was first written, and syncing that.
//! Where this does not succeed everything on that database stops, in this process for as long as anybody has it open, and
//! in others as soon as they want to make something durable.

pub(crate) mod directory;
pub(crate) mod ledger;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether a database may still be written to by this process.
#[derive(Debug, Default)]
pub(crate) struct Health {
    halted: AtomicBool,
    why: Mutex<Option<String>>,
}

impl Health {
    /// Whether everything has stopped.
    #[inline]
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Stops everything; `false` if it was stopped already.
    pub(crate) fn halt(&self, why: String) -> bool {
        let mut story = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        let first = story.is_none();
        if first {
            *story = Some(why);
        }
        self.halted.store(true, Ordering::Release);
        first
    }

    /// Why everything has stopped.
    pub(crate) fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
