//! How far something is, on a terminal.

use std::io::{IsTerminal, stderr};
use std::ops::ControlFlow;

use hardened_sqlite::{Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error, if that is a terminal and a person reads the output; it goes when it is dropped.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// None for programs that read the output.
    pub(crate) fn new(json: bool) -> Bar {
        if json || !stderr().is_terminal() {
            return Bar(None);
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        // A template of ours, which is sound; without it the bar has its own.
        if let Ok(style) = ProgressStyle::with_template("{msg:<9} {wide_bar} {percent:>3} %  {eta}") {
            bar.set_style(style);
        }
        Bar(Some(bar))
    }

    /// Shows it, and goes on.
    pub(crate) fn show(&mut self, progress: Progress) -> ControlFlow<()> {
        let what = match progress.stage {
            Stage::Read => "reading",
            Stage::Check => "checking",
            Stage::Copy => "copying",
            Stage::Verify => "verifying",
            Stage::Salvage => "salvaging",
            _ => "working",
        };
        self.at(what, progress.done, progress.total);
        ControlFlow::Continue(())
    }

    /// Shows how much of what is done.
    pub(crate) fn at(&mut self, what: &'static str, done: u64, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Does what prints on the same terminal.
    pub(crate) fn hidden<T>(&mut self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
