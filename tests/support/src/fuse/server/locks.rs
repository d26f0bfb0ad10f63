//! A byte-range lock table with POSIX semantics: an owner's locks never conflict with its own, a new
//! lock replaces what it overlaps, and part of a lock can be given up.
//!
//! Invariant: no two locks of different owners on one file overlap unless both are shared.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a blocked request looks whether its caller has been interrupted.
const INTERRUPT_CHECK: Duration = Duration::from_millis(20);

/// Who holds a lock: the kernel's owner number, which is unique within one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) client: u64,
    pub(super) number: u64,
}

/// A lock on the bytes from `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) owner: Owner,
    /// The handle it was taken through. An OFD lock goes with the RELEASE of that handle; the kernel
    /// sends no unlock for it.
    pub(super) handle: u64,
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) exclusive: bool,
}

impl Lock {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start <= end && start <= self.end
    }

    fn conflicts(&self, wanted: &Lock) -> bool {
        self.owner != wanted.owner && (self.exclusive || wanted.exclusive) && self.overlaps(wanted.start, wanted.end)
    }
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, Vec<Lock>>,
    closed: HashSet<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The lock table of a mount, or of several mounts of one backing directory.
#[derive(Debug, Clone, Default)]
pub(super) struct LockTable(Arc<Shared>);

impl LockTable {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ranges are locked now, on all files.
    pub(super) fn len(&self) -> usize {
        self.state().files.values().map(Vec::len).sum()
    }

    /// A lock that stands in the way of `wanted`.
    pub(super) fn conflict(&self, node: u64, wanted: &Lock) -> Option<Lock> {
        conflict(&self.state(), node, wanted)
    }

    /// Takes a lock if nothing stands in the way; `EAGAIN` otherwise.
    pub(super) fn try_lock(&self, node: u64, wanted: Lock) -> io::Result<()> {
        let mut state = self.state();
        if conflict(&state, node, &wanted).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        self.grant(&mut state, node, wanted);
        Ok(())
    }

    /// Takes a lock as soon as nothing stands in the way; `EINTR` when `interrupted` says so or the
    /// client is gone. Deadlocks are not looked for.
    pub(super) fn lock(&self, node: u64, wanted: Lock, interrupted: impl Fn() -> bool) -> io::Result<()> {
        let mut state = self.state();
        loop {
            // A client that is gone gets nothing, though its own locks may be out of the way now.
            let gone = state.closed.contains(&wanted.owner.client);
            if !gone && conflict(&state, node, &wanted).is_none() {
                break;
            }
            if gone || interrupted() {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            let wait = self.0.changed.wait_timeout(state, INTERRUPT_CHECK);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.grant(&mut state, node, wanted);
        Ok(())
    }

    fn grant(&self, state: &mut State, node: u64, wanted: Lock) {
        let locks = state.files.entry(node).or_default();
        cut(locks, wanted.owner, wanted.start, wanted.end);
        locks.push(wanted);
        // An exclusive lock may have become a shared one.
        self.0.changed.notify_all();
    }

    /// Gives up whatever the owner holds in the range.
    pub(super) fn unlock(&self, node: u64, owner: Owner, start: u64, end: u64) {
        self.edit(node, |locks| cut(locks, owner, start, end));
    }

    /// Gives up what was locked through a handle that is no more.
    pub(super) fn release_handle(&self, node: u64, client: u64, handle: u64) {
        self.edit(node, |locks| {
            locks.retain(|lock| (lock.owner.client, lock.handle) != (client, handle));
        });
    }

    fn edit(&self, node: u64, change: impl FnOnce(&mut Vec<Lock>)) {
        let mut state = self.state();
        if let Some(locks) = state.files.get_mut(&node) {
            change(locks);
            if locks.is_empty() {
                state.files.remove(&node);
            }
        }
        self.0.changed.notify_all();
    }

    /// Drops everything of a client that is gone and wakes its waiting requests.
    pub(super) fn close(&self, client: u64) {
        let mut state = self.state();
        state.closed.insert(client);
        for locks in state.files.values_mut() {
            locks.retain(|lock| lock.owner.client != client);
        }
        state.files.retain(|_, locks| !locks.is_empty());
        self.0.changed.notify_all();
    }
}

fn conflict(state: &State, node: u64, wanted: &Lock) -> Option<Lock> {
    state.files.get(&node)?.iter().find(|lock| lock.conflicts(wanted)).copied()
}

/// Removes the range from the owner's locks; what lies on either side of it stays.
fn cut(locks: &mut Vec<Lock>, owner: Owner, start: u64, end: u64) {
    let mut rest = Vec::with_capacity(locks.len() + 1);
    for lock in locks.drain(..) {
        if lock.owner != owner || !lock.overlaps(start, end) {
            rest.push(lock);
            continue;
        }
        if lock.start < start {
            rest.push(Lock { end: start - 1, ..lock });
        }
        if lock.end > end {
            rest.push(Lock { start: end + 1, ..lock });
        }
    }
    *locks = rest;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(number: u64, start: u64, end: u64, exclusive: bool) -> Lock {
        let owner = Owner { client: 1, number };
        Lock { owner, handle: number, pid: 0, start, end, exclusive }
    }

    #[test]
    fn a_hole_can_be_cut_into_a_lock() {
        let table = LockTable::default();
        table.try_lock(9, lock(1, 0, 99, true)).expect("free");
        table.unlock(9, Owner { client: 1, number: 1 }, 40, 49);
        assert_eq!(table.len(), 2);
        table.try_lock(9, lock(2, 40, 49, true)).expect("the hole is free");
        for taken in [39, 50] {
            assert!(table.conflict(9, &lock(2, taken, taken, false)).is_some(), "byte {taken}");
        }
    }

    #[test]
    fn shared_locks_coexist_and_an_exclusive_one_does_not() {
        let table = LockTable::default();
        table.try_lock(9, lock(1, 10, 10, false)).expect("free");
        table.try_lock(9, lock(2, 10, 10, false)).expect("shared");
        let error = table.try_lock(9, lock(1, 10, 10, true)).expect_err("owner 2 shares it");
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        table.release_handle(9, 1, 2);
        table.try_lock(9, lock(1, 10, 10, true)).expect("the upgrade");
        assert_eq!(table.len(), 1, "the upgrade replaced the shared lock");
    }

    #[test]
    fn a_blocked_request_ends_when_the_lock_is_free_and_when_it_is_interrupted() {
        let table = LockTable::default();
        table.try_lock(9, lock(1, 0, 0, true)).expect("free");
        let error = table.lock(9, lock(2, 0, 0, true), || true).expect_err("interrupted");
        assert_eq!(error.raw_os_error(), Some(libc::EINTR));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| table.lock(9, lock(2, 0, 0, true), || false));
            table.unlock(9, Owner { client: 1, number: 1 }, 0, u64::MAX);
            waiting.join().expect("no panic").expect("granted");
        });
        table.close(1);
        let error = table.lock(9, lock(2, 0, 0, true), || false).expect_err("the client is gone");
        assert_eq!(error.raw_os_error(), Some(libc::EINTR));
        assert_eq!(table.len(), 0);
    }
}
