//! What one connection has written and not yet made durable.
//!
//! SQLite calls the files of a connection one at a time, so there is one of these per main file, and its mutex is never
//! waited for.

use crate::combine::frame::Frame;
use crate::combine::run::Run;
use crate::format::wal::HEADER_SIZE;
use crate::guard::log::{Outcome, Witness};
use crate::guard::pages::Pages;
use crate::hold::Held;
use crate::sync::ledger::Ledger;
use crate::transaction::Transaction;
use crate::unsummed::Unsummed;

/// The state of a connection's files.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Pages on their way to the database.
    pub(crate) held: Held,
    pub(crate) database: Ledger,
    pub(crate) journal: Journal,
    pub(crate) wal: Wal,
    pub(crate) transaction: Transaction,
    /// The guard's record names pages of the transaction, and does not say yet that it has ended.
    pub(crate) recorded: bool,
    /// The transaction that has ended and of which the record does not say so yet.
    pub(crate) over: Option<(u32, Outcome)>,
}

/// The rollback journal.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) ledger: Ledger,
    /// Bytes on their way to the file.
    pub(crate) run: Run,
    /// Everything that the file holds is on disk: this connection has synced it and not written since.
    pub(crate) synced: bool,
    /// Its name may not be on disk.
    pub(crate) unnamed: bool,
    /// A transaction has ended with it, and that is on disk.
    pub(crate) ended: bool,
    /// Where the bytes of this transaction end.
    pub(crate) end: u64,
    /// Its header does not count its records: sizes of sector and page record.
    pub(crate) uncounted: Option<(u64, u64)>,
}

/// The write-ahead log.
#[derive(Debug, Default)]
pub(crate) struct Wal {
    /// Its name may not be on disk.
    pub(crate) unnamed: bool,
    /// Where the commit ends that has been written and is not told to other connections yet.
    pub(crate) commit_end: Option<u64>,
    /// The database and its page 1 as they were before that commit, if it is to be recorded.
    pub(crate) sight: Option<(Witness, Vec<u8>)>,
    /// The last frame of this transaction that holds page 1, by where it begins; 0 without one.
    pub(crate) page_1_end: u64,
    /// The same of what this connection has committed in the generation.
    pub(crate) page_1_committed: u64,
    /// The generation as far as this connection has seen it.
    pub(crate) salts: Option<[u32; 2]>,
    pub(crate) sequence: u32,
    /// The header of a generation that this connection has begun and not synced since.
    pub(crate) header: Option<[u8; HEADER_SIZE]>,
    /// The frame that is being appended.
    pub(crate) frame: Frame,
    /// The frames of this transaction that have no checksum yet.
    pub(crate) unsummed: Option<Unsummed>,
    /// A sync of this generation has failed, and was healed without what stood behind the committed frames: up to this size
    /// of the file the kernel may take bytes for written that are not.
    pub(crate) doubtful: Option<([u32; 2], u64)>,
    /// This connection has begun the generation, and nothing of it is committed.
    pub(crate) begun: bool,
    /// This connection has written to the log since it last synced it.
    pub(crate) wrote: bool,
    /// Whether the header of the generation is known to be on disk.
    pub(crate) header_synced: bool,
    /// This connection has synced the log for the checkpoint that is running.
    pub(crate) checkpoint_synced: bool,
    /// The pages that checkpoints have written to the database and not synced.
    pub(crate) backfilled: Pages,
    /// The database file before the first of them.
    pub(crate) untouched: Option<Witness>,
    /// Where pages are read into before they are overwritten.
    pub(crate) before: Vec<u8>,
}

impl Journal {
    /// What is known of the next one.
    pub(crate) fn closed(&mut self) {
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        *self = Journal { run, ..Journal::default() };
    }
}

impl Wal {
    /// A commit that was not made visible has not been made.
    pub(crate) fn forget_uncommitted(&mut self) {
        (self.commit_end, self.sight, self.page_1_end, self.unsummed) = (None, None, 0, None);
    }
}
