//! How far something is that takes long, and how it is stopped.

use std::ops::ControlFlow;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The file is read ahead.
    Read,
    /// The database is checked.
    Check,
    /// Pages are copied.
    Copy,
    /// What was copied is checked.
    Verify,
    /// Rows are taken out of a damaged database.
    Salvage,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done now; stages follow one another.
    pub stage: Stage,
    /// How much of this stage is done: pages, unless the stage says otherwise.
    pub done: u64,
    /// How much there is, as far as is known now; never less than `done`.
    pub total: u64,
}

/// Is told how far something is, a few times a second at most, and says whether it goes on: [`ControlFlow::Break`] stops it
/// at the next chance, with an error and without a trace.
///
/// Any `FnMut(Progress) -> ControlFlow<()> + Send` is one. While SQLite is at work on the caller's thread it is called on
/// another.
pub type Watch<'a> = dyn FnMut(Progress) -> ControlFlow<()> + Send + 'a;

impl Progress {
    pub(crate) fn new(stage: Stage, done: u64, total: u64) -> Progress {
        Progress { stage, done, total: total.max(done) }
    }
}
