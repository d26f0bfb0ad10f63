//! Faults of the filesystem: which request, and what it does instead of its work.

use super::control::Control;
use super::counters::Op;
use super::wire::Request;
use crate::rule::Times;

/// What happens instead of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Fails with this error number and does nothing. Mind that the kernel takes `ENOSYS` for "this
    /// filesystem has no such request" and sends some kinds no more.
    Errno(i32),
    /// Fails with `ENOSPC` and does nothing.
    Enospc,
    /// A write reports success and writes nothing.
    DropWrite,
    /// A write reports success, but only its first sectors of 512 bytes reach the file.
    TearWrite {
        /// How many sectors do.
        keep_sectors: usize,
    },
    /// A write writes and reports at most this many bytes.
    ShortWrite(usize),
    /// A lock request reports success and locks nothing.
    GrantLock,
}

/// A fault rule. [`Fault::on`] and the methods fill in the usual values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of request.
    pub on: Op,
    /// Only files whose name ends with this (`"-wal"`, `"test.db"`).
    pub name: Option<String>,
    /// How many matching requests pass unharmed first.
    pub skip: u64,
    /// How often it strikes then.
    pub times: Times,
    /// What it does.
    pub what: What,
}

impl Fault {
    /// Every request of this kind fails with `EIO`.
    pub fn on(op: Op) -> Self {
        Self { on: op, name: None, skip: 0, times: Times::Forever, what: What::Errno(libc::EIO) }
    }

    /// Only files whose name ends with `suffix`.
    pub fn name(mut self, suffix: &str) -> Self {
        self.name = Some(suffix.to_owned());
        self
    }

    /// Lets `n` matching requests pass first.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// Strikes `n` times.
    pub fn times(mut self, n: u64) -> Self {
        self.times = Times::N(n);
        self
    }

    /// What it does.
    pub fn what(mut self, what: What) -> Self {
        self.what = what;
        self
    }

    /// Fails with this error number.
    pub fn errno(self, errno: i32) -> Self {
        self.what(What::Errno(errno))
    }

    /// # Panics
    /// If it changes the data of a write but is for another kind of request.
    pub(super) fn check(&self) {
        let Fault { on, what, .. } = self;
        let needs_write = matches!(what, What::DropWrite | What::TearWrite { .. } | What::ShortWrite(_));
        assert!(!needs_write || *on == Op::Write, "{what:?} needs Op::Write, not {on}");
    }
}

/// Tells what a fault has done; it stays readable after the fault was cleared and the mount dropped.
#[derive(Debug, Clone)]
pub struct FaultHandle {
    server: &'static Control,
    fault: u64,
}

impl FaultHandle {
    pub(super) fn new(server: &'static Control, fault: u64) -> Self {
        Self { server, fault }
    }

    fn counts(&self) -> (u64, u64) {
        self.server.must(&Request::Struck { fault: self.fault })
    }

    /// How often the fault has struck.
    pub fn seen(&self) -> u64 {
        self.counts().0
    }

    /// How many requests it has matched, including those it let pass.
    pub fn matched(&self) -> u64 {
        self.counts().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "needs Op::Write")]
    fn a_torn_read_is_refused() {
        Fault::on(Op::Read).what(What::TearWrite { keep_sectors: 1 }).check();
    }
}
