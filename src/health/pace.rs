//! Progress, told a few times a second.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::ffi;

use crate::error::{Detail, Error};
use crate::progress::{Progress, Stage, Watch};

/// How often a watch is asked.
pub(crate) const EVERY: Duration = Duration::from_millis(100);

/// Tells a watch how far something is: the first and the last of each stage, and a few times a second between. What is
/// done never goes back within a stage.
pub(crate) struct Pace<'a, 'w> {
    watch: Option<&'a mut Watch<'w>>,
    /// A stage that stands for all others: what is done within something larger.
    all: Option<Stage>,
    stage: Option<Stage>,
    done: u64,
    told: Instant,
    cancelled: bool,
}

impl<'a, 'w> Pace<'a, 'w> {
    pub(crate) fn new(watch: Option<&'a mut Watch<'w>>) -> Pace<'a, 'w> {
        Pace { watch, all: None, stage: None, done: 0, told: Instant::now(), cancelled: false }
    }

    /// The same watch for something within, which is all one stage.
    pub(crate) fn within(&mut self, stage: Stage) -> Pace<'_, 'w> {
        let watch = self.watch.as_deref_mut();
        Pace { watch, all: Some(stage), stage: None, done: 0, told: Instant::now(), cancelled: self.cancelled }
    }

    /// Whether anybody listens.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Says how far it is; whether to go on.
    pub(crate) fn tell(&mut self, stage: Stage, done: u64, total: u64) -> ControlFlow<()> {
        let Some(watch) = self.watch.as_deref_mut() else { return ControlFlow::Continue(()) };
        let stage = self.all.unwrap_or(stage);
        let first = self.stage != Some(stage);
        if first {
            (self.stage, self.done) = (Some(stage), 0);
        }
        self.done = self.done.max(done);
        if !self.cancelled && (first || done >= total || self.told.elapsed() >= EVERY) {
            self.told = Instant::now();
            self.cancelled = watch(Progress::new(stage, self.done, total)).is_break();
        }
        if self.cancelled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// As [`Pace::tell`], with the error of a stop.
    pub(crate) fn go_on(&mut self, path: &Path, stage: Stage, done: u64, total: u64) -> Result<(), Error> {
        match self.tell(stage, done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(cancelled(path)),
        }
    }

    /// Whether it was told to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}

/// It was told to stop.
pub(crate) fn cancelled(path: &Path) -> Error {
    Detail::of(path, ffi::SQLITE_INTERRUPT, "stopped as it was told to".to_owned()).into()
}
