//! A lock table that mounts can share.

use super::control::control;
use super::wire::Request;
use std::sync::atomic::{AtomicU64, Ordering};

/// The byte-range lock table of a mount, or of several mounts of one backing directory. It lives in
/// the server.
#[derive(Debug, Clone)]
pub struct LockTable(u64);

impl Default for LockTable {
    /// A new, empty table.
    fn default() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

impl LockTable {
    pub(super) fn id(&self) -> u64 {
        self.0
    }

    /// How many ranges are locked now, on all files.
    pub fn len(&self) -> usize {
        control().must(&Request::Locked { table: self.0 })
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
