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
        if let Some(bar) = &self.0 {
            bar.set_message(match progress.stage {
                Stage::Read => "reading",
                Stage::Check => "checking",
                Stage::Copy => "copying",
                Stage::Verify => "verifying",
                Stage::Salvage => "salvaging",
                _ => "working",
            });
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
