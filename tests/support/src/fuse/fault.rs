//! Faults of the filesystem: which request, and what it does instead of its work.

use super::counters::Op;
use crate::rule::{FaultHandle, Rule, Rules, Times};

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
}

/// The fault rules of a mount.
pub(super) type Faults = Rules<Op, What>;

pub(super) fn add(faults: &Faults, fault: Fault) -> FaultHandle {
    let Fault { on, name, skip, times, what } = fault;
    let needs_write = matches!(what, What::DropWrite | What::TearWrite { .. } | What::ShortWrite(_));
    assert!(!needs_write || on == Op::Write, "{what:?} needs Op::Write, not {on}");
    faults.add(Rule { on, name, skip, times, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "needs Op::Write")]
    fn a_torn_read_is_refused() {
        add(&Faults::default(), Fault::on(Op::Read).what(What::TearWrite { keep_sectors: 1 }));
    }
}
