//! Holding requests back: a server that does not answer.

use super::control::Control;
use super::counters::Op;
use super::wire::Request;

/// Which requests are held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// All of them (but FORGET, which nobody waits for).
    All,
    /// Those of one kind.
    Op(Op),
    /// Those of one kind, for files whose name ends with the suffix.
    Named(Op, String),
}

impl From<Op> for Hold {
    fn from(op: Op) -> Self {
        Hold::Op(op)
    }
}

/// Releases its hold when dropped.
#[derive(Debug)]
#[must_use = "the hold ends when the guard is dropped"]
pub struct HoldGuard {
    server: &'static Control,
    mount: u64,
    hold: u64,
}

impl HoldGuard {
    pub(super) fn new(server: &'static Control, mount: u64, hold: u64) -> Self {
        Self { server, mount, hold }
    }

    /// Lets the requests go.
    pub fn release(self) {}
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        // After the mount is gone there is nothing left to release.
        let _gone = self.server.ask::<()>(&Request::Release { mount: self.mount, hold: self.hold });
    }
}
