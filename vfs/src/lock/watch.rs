//! Sleeping in SQLite's busy handler until there is a reason to try again.
//!
//! SQLite sleeps through xSleep of the connection's VFS, on the thread whose lock was refused, and counts what it asked for
//! and not what has passed. So a sleep that ends early is made good by the next one, which does not end early: however often
//! somebody is woken in vain, its busy timeout is no shorter than without.
//!
//! Invariant: a descriptor is asked only while its connection has it open, whatever thread sleeps.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::queue::{ASIDE, TICKETS};
use super::{Range, SHARED, fork};

/// What the connection of a thread waits for.
#[derive(Debug)]
pub(super) struct Watch {
    /// None once it is closed.
    descriptor: Mutex<Option<i32>>,
    forks: u32,
    /// Its ticket, or 0 for one who waits for readers to go.
    ticket: AtomicI64,
    /// Readers are in nobody's way, so they need not be the first.
    reads: AtomicBool,
    /// The last ticket of those who did not come when somebody stood back.
    stale: AtomicI64,
    /// A sleep has just ended.
    woke: AtomicBool,
    /// By how much the last sleep was too short, in microseconds.
    owed: AtomicU64,
}

thread_local! {
    /// What this thread was refused last.
    static REFUSED: RefCell<Option<(Arc<Watch>, Instant)>> = const { RefCell::new(None) };
}

/// How long the first in the queue has before the others go.
const GRACE: Duration = Duration::from_millis(40);
/// Later, whoever sleeps does not do it for a lock.
const SOON: Duration = Duration::from_secs(1);

/// How long to sleep between two questions of which one takes `asking`.
pub(super) fn pace(asking: Duration) -> Duration {
    (asking * 4).clamp(Duration::from_millis(2), Duration::from_millis(100))
}

impl Watch {
    pub(super) fn new(descriptor: Option<i32>) -> Watch {
        Watch {
            descriptor: Mutex::new(descriptor),
            forks: fork::count(),
            ticket: AtomicI64::new(0),
            reads: AtomicBool::new(false),
            stale: AtomicI64::new(0),
            woke: AtomicBool::new(false),
            owed: AtomicU64::new(0),
        }
    }

    /// This thread has been refused, and has a ticket.
    pub(super) fn for_turn(self: &Arc<Self>, ticket: i64, reads: bool) {
        self.reads.store(reads, Ordering::Relaxed);
        self.refused(ticket);
    }

    /// This thread has PENDING and waits for SHARED to be given back.
    pub(super) fn for_readers(self: &Arc<Self>) {
        self.refused(0);
    }

    fn refused(self: &Arc<Self>, ticket: i64) {
        self.woke.store(false, Ordering::Relaxed);
        self.ticket.store(ticket, Ordering::Relaxed);
        // A thread that ends has no such place any more, and sleeps as long as it is told.
        let _ = REFUSED.try_with(|refused| refused.replace(Some((Arc::clone(self), Instant::now()))));
    }

    /// What was waited for has been had.
    pub(super) fn had(&self) {
        self.owed.store(0, Ordering::Relaxed);
        let _ = REFUSED.try_with(RefCell::take);
    }

    /// Whether SQLite has slept since it was refused, and now tries again; once.
    pub(super) fn woke(&self) -> bool {
        self.woke.swap(false, Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sleeps so long by `nap`, or until it is time to try again.
    fn sleep(&self, wanted: Duration, nap: impl Fn(Duration)) {
        let owed = Duration::from_micros(self.owed.swap(0, Ordering::Relaxed));
        let until = Instant::now() + wanted + owed;
        let (mut step, mut seen) = (pace(Duration::ZERO), None);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if !owed.is_zero() {
                nap(left);
                continue;
            }
            nap(left.min(step));
            let asked = Instant::now();
            if asked < until && self.may_go(&mut seen) {
                let left = until.saturating_duration_since(Instant::now());
                self.owed.store(u64::try_from(left.as_micros()).unwrap_or(0), Ordering::Relaxed);
                return;
            }
            step = pace(asked.elapsed());
        }
    }

    /// Whether to try now. `seen`: since when somebody stands back.
    fn may_go(&self, seen: &mut Option<Instant>) -> bool {
        let Ok(descriptor) = self.descriptor.try_lock() else { return false };
        let Some(fd) = descriptor.filter(|_| self.forks == fork::count()) else { return false };
        let ticket = self.ticket.load(Ordering::Relaxed);
        if ticket == 0 {
            return conflict(fd, SHARED, true).is_some_and(|found| found.is_none());
        }
        if !matches!(conflict(fd, ASIDE, true), Some(Some(_))) {
            *seen = None;
            return false;
        }
        let since = *seen.get_or_insert_with(Instant::now);
        let start = TICKETS.start.max(self.stale.load(Ordering::Relaxed) + 1);
        if self.reads.load(Ordering::Relaxed) || ticket <= start {
            return true;
        }
        match conflict(fd, Range { start, length: ticket - start }, false) {
            Some(Some(_)) if since.elapsed() < GRACE => false,
            Some(Some(first)) => {
                self.stale.store(first, Ordering::Relaxed);
                true
            }
            _ => true,
        }
    }
}

/// xSleep, by the base's `nap`, which takes microseconds.
pub(crate) fn sleep(microseconds: i32, nap: impl Fn(i32) -> i32) -> i32 {
    match REFUSED.try_with(RefCell::take).unwrap_or_default() {
        Some((watch, since)) if microseconds > 0 && since.elapsed() < SOON => {
            let wanted = Duration::from_micros(u64::try_from(microseconds).unwrap_or(0));
            watch.sleep(wanted, |time| {
                nap(i32::try_from(time.as_micros()).unwrap_or(i32::MAX).max(1));
            });
            watch.woke.store(true, Ordering::Relaxed);
            microseconds
        }
        _ => nap(microseconds),
    }
}

/// Whether somebody else's lock would be in the way of ours: its first byte. None where that cannot be told.
#[cfg(target_os = "linux")]
fn conflict(fd: i32, range: Range, exclusive: bool) -> Option<Option<i64>> {
    super::ofd::conflict(fd, range, exclusive).ok()
}

#[cfg(not(target_os = "linux"))]
fn conflict(_: i32, _: Range, _: bool) -> Option<Option<i64>> {
    None
}
