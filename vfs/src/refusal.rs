//! Opens that were refused, and why.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::fork::PerProcess;

/// An open that failed, in words for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The database.
    pub path: PathBuf,
    /// The extended SQLite result code.
    pub code: i32,
    /// What was seen.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the database is on a filesystem that is not local.
    pub not_local: bool,
    /// Counts the refusals of this process, the first one being 1; 0 for one that was not recorded.
    pub number: u64,
}

impl Refusal {
    pub(crate) fn new(path: impl Into<PathBuf>, code: i32, reason: impl Into<String>) -> Self {
        Refusal { path: path.into(), code, reason: reason.into(), hint: None, not_local: false, number: 0 }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

static COUNT: AtomicU64 = AtomicU64::new(0);
static LAST: PerProcess<Option<Refusal>> = PerProcess::new(|_| None);

thread_local! {
    static MINE: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// The last open that this VFS refused in the process. A later success, on this thread or another, does not erase it.
pub fn last_refusal() -> Option<Refusal> {
    LAST.lock().clone()
}

/// The last one on this thread since [`forget_refusal_here`].
pub fn last_refusal_here() -> Option<Refusal> {
    MINE.with(|mine| mine.try_borrow().ok()?.clone())
}

/// Forgets this thread's last refusal, so that the next one can be told from it.
pub fn forget_refusal_here() {
    MINE.with(|mine| {
        if let Ok(mut mine) = mine.try_borrow_mut() {
            *mine = None;
        }
    });
}

/// Numbers the failures of the process, so that the later of two can be told.
pub fn next_failure_number() -> u64 {
    COUNT.fetch_add(1, Ordering::Relaxed) + 1
}

pub(crate) fn record(refusal: &mut Refusal) {
    refusal.number = next_failure_number();
    *LAST.lock() = Some(refusal.clone());
    MINE.with(|mine| {
        if let Ok(mut mine) = mine.try_borrow_mut() {
            *mine = Some(refusal.clone());
        }
    });
}
