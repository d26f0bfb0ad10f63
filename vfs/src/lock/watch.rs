//! Sleeping in SQLite's busy handler until there is a reason to try again.
//!
//! SQLite sleeps through xSleep of the connection's VFS, on the thread whose lock was refused, and counts what it asked for
//! and not what has passed. So a sleep that ends early is made good by the next one, which does not end early: however often
//! somebody is woken in vain, its busy timeout is no shorter than without.
//!
//! Invariant: a descriptor is asked only while its connection has it open, whatever thread sleeps.

use std::cell::RefCell;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::queue::call;
use super::{Range, SHARED, fork};

/// What the connection of a thread waits for.
#[derive(Debug)]
pub(super) struct Watch {
    /// None once it is closed.
    descriptor: Mutex<Option<i32>>,
    forks: u32,
    /// Its ticket, or 0 for one who waits for readers to go.
    ticket: AtomicI64,
    /// How the last sleep ended, if it was the last thing that happened: a [`Woke`].
    woke: AtomicU8,
    /// By how much the last sleep was too short, in microseconds.
    owed: AtomicU64,
}

thread_local! {
    /// What this thread was refused last.
    static REFUSED: RefCell<Option<(Arc<Watch>, Instant)>> = const { RefCell::new(None) };
}

/// Later, whoever sleeps does not do it for a lock.
const SOON: Duration = Duration::from_secs(1);

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Woke {
    /// There was none.
    Awake,
    Slept,
    /// Early.
    Called,
}

/// How long to sleep between two questions of which one takes `asking`.
pub(super) fn pace(asking: Duration) -> Duration {
    (asking * 3).clamp(Duration::from_millis(2), Duration::from_millis(100))
}

impl Watch {
    pub(super) fn new(descriptor: Option<i32>) -> Watch {
        Watch {
            descriptor: Mutex::new(descriptor),
            forks: fork::count(),
            ticket: AtomicI64::new(0),
            woke: AtomicU8::new(Woke::Awake as u8),
            owed: AtomicU64::new(0),
        }
    }

    /// This thread has been refused, and has a ticket.
    pub(super) fn for_turn(self: &Arc<Self>, ticket: i64) {
        self.refused(ticket);
    }

    /// This thread has PENDING and waits for SHARED to be given back.
    pub(super) fn for_readers(self: &Arc<Self>) {
        self.refused(0);
    }

    fn refused(self: &Arc<Self>, ticket: i64) {
        self.woke.store(Woke::Awake as u8, Ordering::Relaxed);
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
    pub(super) fn woke(&self) -> Woke {
        match self.woke.swap(Woke::Awake as u8, Ordering::Relaxed) {
            woke if woke == Woke::Called as u8 => Woke::Called,
            woke if woke == Woke::Slept as u8 => Woke::Slept,
            _ => Woke::Awake,
        }
    }

    pub(super) fn close(&self) {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sleeps so long by `nap`, or until it is time to try again.
    fn sleep(&self, wanted: Duration, nap: impl Fn(Duration)) -> Woke {
        let owed = Duration::from_micros(self.owed.swap(0, Ordering::Relaxed));
        let until = Instant::now() + wanted + owed;
        let mut step = pace(Duration::ZERO);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woke::Slept;
            }
            if !owed.is_zero() {
                nap(left);
                continue;
            }
            nap(left.min(step));
            let asked = Instant::now();
            if asked < until && self.may_go() {
                let left = until.saturating_duration_since(Instant::now());
                self.owed.store(u64::try_from(left.as_micros()).unwrap_or(0), Ordering::Relaxed);
                return Woke::Called;
            }
            step = pace(asked.elapsed());
        }
    }

    /// Whether to try now.
    fn may_go(&self) -> bool {
        let Ok(descriptor) = self.descriptor.try_lock() else { return false };
        let Some(fd) = descriptor.filter(|_| self.forks == fork::count()) else { return false };
        match self.ticket.load(Ordering::Relaxed) {
            0 => is_locked(fd, SHARED) == Some(false),
            ticket => is_locked(fd, call(ticket)) == Some(true),
        }
    }
}

/// xSleep, by the base's `nap`, which takes microseconds.
pub(crate) fn sleep(microseconds: i32, nap: impl Fn(i32) -> i32) -> i32 {
    match REFUSED.try_with(RefCell::take).unwrap_or_default() {
        Some((watch, since)) if microseconds > 0 && since.elapsed() < SOON => {
            let wanted = Duration::from_micros(u64::try_from(microseconds).unwrap_or(0));
            let woke = watch.sleep(wanted, |time| {
                nap(i32::try_from(time.as_micros()).unwrap_or(i32::MAX).max(1));
            });
            watch.woke.store(woke as u8, Ordering::Relaxed);
            microseconds
        }
        _ => nap(microseconds),
    }
}

/// Whether somebody else has a lock there; none where that cannot be told. By the number alone: the handle is another thread's.
#[cfg(target_os = "linux")]
fn is_locked(fd: i32, range: Range) -> Option<bool> {
    // SAFETY: flock is a plain C structure for which all zeros is a value; it lives across the call. A number that is no
    // descriptor is an error.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = range.start as libc::off_t;
        lock.l_len = range.length as libc::off_t;
        let asked = libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) == 0;
        asked.then_some(lock.l_type != libc::F_UNLCK as libc::c_short)
    }
}

#[cfg(not(target_os = "linux"))]
fn is_locked(_: i32, _: Range) -> Option<bool> {
    None
}
