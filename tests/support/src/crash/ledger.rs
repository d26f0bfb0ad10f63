//! Which contents a database has gone through, and when a program was told so.
//!
//! Invariant: the contents come from a second database in memory that no fault reaches; what the damaged one says about
//! itself is never taken for the truth.

use super::model::{Event, Model};
use super::session::Content;
use super::states::Log;
use super::workload::Promise;

/// The content after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The content.
    pub content: Content,
    /// How many events there were when its COMMIT returned success; none if it failed, so that nobody may rely on it,
    /// although its frames may have reached the disk.
    pub acknowledged: Option<usize>,
}

/// All of them, beginning with what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// In order.
    pub boundaries: Vec<Boundary>,
}

impl Ledger {
    /// The number of the oldest boundary that a cut after so many events may show, for each number of events.
    pub fn required(&self, log: &Log, promise: Promise) -> Vec<usize> {
        let mut required = vec![0; log.events.len() + 1];
        // For WAL: what was acknowledged when the WAL was last synced.
        let mut model = Model::start(&log.start);
        let mut synced = 0;
        for (after, slot) in required.iter_mut().enumerate() {
            if let Some(event) = after.checked_sub(1).and_then(|last| log.events.get(last)) {
                if let Event::Sync { file } = event
                    && model.names.iter().any(|(name, number)| number == file && name.ends_with("-wal"))
                {
                    // The sync covers what was acknowledged before it was called.
                    synced = after - 1;
                }
                model.apply(event);
            }
            let until = match promise {
                Promise::EveryCommit => after,
                Promise::SyncedWal => synced,
                Promise::Nothing => 0,
            };
            let told = |boundary: &Boundary| boundary.acknowledged.is_some_and(|event| event <= until);
            *slot = self.boundaries.iter().rposition(told).unwrap_or(0);
        }
        required
    }

    /// The last boundary with this content.
    pub fn find(&self, content: Content) -> Option<usize> {
        self.boundaries.iter().rposition(|boundary| boundary.content == content)
    }
}
