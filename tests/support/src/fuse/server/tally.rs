//! The live counters of a mount.

use crate::fuse::counters::{Counters, Op};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<BTreeMap<Op, u64>>,
    changed: Condvar,
}

impl Tally {
    pub(super) fn add(&self, op: Op) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(op).or_default() += 1;
        self.changed.notify_all();
    }

    pub(super) fn snapshot(&self) -> Counters {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(op, n)| (*op, *n)).collect()
    }

    /// Waits until at least `n` requests of kind `op` have arrived in all.
    pub(super) fn wait(&self, op: Op, n: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        while counts.get(&op).copied().unwrap_or(0) < n {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            counts = self.changed.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_keeps_only_what_arrived_in_between() {
        let tally = Tally::default();
        tally.add(Op::Lookup);
        let before = tally.snapshot();
        tally.add(Op::Write);
        tally.add(Op::Forget);
        let since = tally.snapshot() - before;
        assert_eq!((since.get(Op::Lookup), since.get(Op::Write)), (0, 1));
        assert_eq!(since.total(), 1, "FORGET is no round trip");
        assert_eq!(since.to_string(), "FORGET 1, WRITE 1");
    }

    #[test]
    fn waiting_for_a_count_that_does_not_come_ends_with_the_timeout() {
        let tally = Tally::default();
        assert!(tally.wait(Op::Read, 0, Duration::ZERO));
        assert!(!tally.wait(Op::Read, 1, Duration::from_millis(1)));
    }
}
