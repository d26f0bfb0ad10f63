//! What happens to a request before the filesystem does its work: count, wait, fault.

use super::holds::Holds;
use super::tally::Tally;
use crate::fuse::counters::Op;
use crate::fuse::fault::What;
use crate::rule::Rules;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The file that a request is about, as far as a rule by name is concerned.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A file known by its inode; its name is looked up only if a rule asks for it.
    Node(u64),
    /// A name in a directory.
    Name(OsString),
    /// A rename, which matches by either name.
    Names(OsString, OsString),
}

impl Subject {
    /// Whether the name ends with `suffix`; `name_of` finds the name of an inode.
    pub(super) fn is_named(&self, suffix: &str, name_of: impl Fn(u64) -> OsString) -> bool {
        let ends = |name: &OsStr| name.as_bytes().ends_with(suffix.as_bytes());
        match self {
            Subject::Node(node) => ends(&name_of(*node)),
            Subject::Name(name) => ends(name),
            Subject::Names(old, new) => ends(old) || ends(new),
        }
    }
}

/// Counters, holds, latency and faults of one mount.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) tally: Tally,
    pub(super) holds: Holds,
    pub(super) faults: Rules<Op, What>,
    latency_nanos: AtomicU64,
}

impl Traffic {
    pub(super) fn set_latency(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_nanos.store(nanos, Ordering::SeqCst);
    }

    pub(super) fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency_nanos.load(Ordering::SeqCst))
    }

    /// Sleeps for what is left of the latency of a request that arrived then.
    pub(super) fn delay(&self, arrived: Instant) {
        let left = self.latency().saturating_sub(arrived.elapsed());
        if !left.is_zero() {
            sharpen_timer();
            std::thread::sleep(left);
        }
    }
}

/// The default timer slack of 50 microseconds would be half of a short latency.
fn sharpen_timer() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and changes the calling thread only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}
