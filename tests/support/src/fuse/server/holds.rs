//! The requests that are held back.
//!
//! Invariant: a request waits exactly as long as some hold matches it and the mount is not closing;
//! [`Holds::held`] counts those that wait now.

use crate::fuse::counters::Op;
use crate::fuse::hold::Hold;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

fn hold_covers(hold: &Hold, op: Op, named: impl Fn(&str) -> bool) -> bool {
    match hold {
        Hold::All => true,
        Hold::Op(kind) => *kind == op,
        Hold::Named(kind, suffix) => *kind == op && named(suffix),
    }
}

#[derive(Debug, Default)]
struct State {
    holds: Vec<(u64, Hold)>,
    next: u64,
    held: usize,
    closed: bool,
}

impl State {
    fn covers(&self, op: Op, named: impl Fn(&str) -> bool) -> bool {
        !self.closed && self.holds.iter().any(|(_, hold)| hold_covers(hold, op, &named))
    }
}

/// The holds of a mount.
#[derive(Debug, Default)]
pub(super) struct Holds {
    state: Mutex<State>,
    changed: Condvar,
}

impl Holds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, hold: Hold) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.holds.push((id, hold));
        id
    }

    pub(super) fn remove(&self, id: u64) {
        self.state().holds.retain(|(other, _)| *other != id);
        self.changed.notify_all();
    }

    pub(super) fn covers(&self, op: Op, named: impl Fn(&str) -> bool) -> bool {
        self.state().covers(op, named)
    }

    /// Blocks the calling thread while a hold matches the request.
    pub(super) fn wait(&self, op: Op, named: impl Fn(&str) -> bool) {
        let mut state = self.state();
        if !state.covers(op, &named) {
            return;
        }
        state.held += 1;
        self.changed.notify_all();
        while state.covers(op, &named) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held -= 1;
        self.changed.notify_all();
    }

    pub(super) fn held(&self) -> usize {
        self.state().held
    }

    pub(super) fn wait_held(&self, n: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        while state.held < n {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Lets everything go, now and from now on.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}
