//! The descriptors of all our lock handles, so that a forked child can close its copies.
//!
//! The child may not allocate or wait for a mutex, so they stand in blocks of atomics that are never freed.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

const FREE: u64 = u64::MAX;
const SLOTS: usize = 128;

/// Set beside a descriptor that is being closed. A child that is forked in that moment may have a copy of it, or under its
/// number what another thread has opened since: it releases what locks it has there, as it may do with either, and closes nothing.
const CLOSING: u64 = 1 << 31;

struct Block {
    /// A descriptor, and above it the serial number of its registration.
    slots: [AtomicU64; SLOTS],
    next: AtomicPtr<Block>,
}

/// A descriptor that was registered. Somebody else may close the number, and a later handle of ours may get it: then the number is that
/// one's, and this registration is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    slot: &'static AtomicU64,
    content: u64,
}

impl Registered {
    /// The number.
    #[inline]
    pub(crate) fn fd(self) -> RawFd {
        fd_of(self.content)
    }

    /// Whether this is the same registration.
    pub(super) fn is(self, other: Registered) -> bool {
        self.content == other.content
    }

    /// Whether the number is still that of this registration, as far as this process has not given it to another one.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self.slot.load(Ordering::Acquire) == self.content
    }

    /// Closes the descriptor, unless it is not ours to close any more. Known until it is closed, so that no child that is
    /// forked meanwhile keeps a lock through it.
    pub(crate) fn close(self) {
        let closing = Registered { slot: self.slot, content: self.content | CLOSING };
        if self.slot.compare_exchange(self.content, closing.content, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: a descriptor that only the handle had, which is gone.
            unsafe { libc::close(self.fd()) };
            // In vain if another thread has registered the number since.
            closing.forget();
        }
    }

    /// Forgets the descriptor, whose number somebody else has closed; `false` if it was forgotten already.
    pub(crate) fn forget(self) -> bool {
        self.slot.compare_exchange(self.content, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The lower half.
fn fd_of(content: u64) -> RawFd {
    (content & !CLOSING) as u32 as RawFd
}

impl Block {
    const fn new() -> Block {
        Block { slots: [const { AtomicU64::new(FREE) }; SLOTS], next: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Block> {
        // SAFETY: null, or a block that `register` leaked.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST: Block = Block::new();

fn blocks() -> impl Iterator<Item = &'static Block> {
    std::iter::successors(Some(&FIRST), |block| block.next())
}

/// Has `fd` closed in forked children from now on. A registration of the same number before is gone: the kernel gives out
/// a number only once it was closed.
pub(crate) fn register(fd: RawFd) -> Registered {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let content = u64::from(serial) << 32 | u64::from(fd as u32);
    for slot in blocks().flat_map(|block| &block.slots) {
        let before = slot.load(Ordering::Acquire);
        if before != FREE && fd_of(before) == fd {
            let _gone = slot.compare_exchange(before, FREE, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    let swap = |slot: &AtomicU64| slot.compare_exchange(FREE, content, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let mut last = &FIRST;
    for block in blocks() {
        if let Some(slot) = block.slots.iter().find(|slot| swap(slot)) {
            return Registered { slot, content };
        }
        last = block;
    }
    // Never freed, so that a child can walk through them at any moment.
    let fresh: &'static Block = Box::leak(Box::new(Block::new()));
    let [slot, ..] = &fresh.slots;
    slot.store(content, Ordering::Relaxed);
    loop {
        let fresh = std::ptr::from_ref(fresh).cast_mut();
        match last.next.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Registered { slot, content },
            // SAFETY: another thread has leaked a block of its own here.
            Err(other) => last = unsafe { &*other },
        }
    }
}

/// Closes all of them: in a forked child, before anything else runs there.
pub(super) fn close_inherited() {
    for block in blocks() {
        for slot in &block.slots {
            let content = slot.swap(FREE, Ordering::AcqRel);
            if content == FREE {
                continue;
            }
            // SAFETY: a descriptor of ours; whoever holds its number knows that it belongs to the parent and does not use it
            // again. flock is a plain C structure that lives across the call; locks of an open file are ours alone.
            unsafe {
                if content & CLOSING == 0 {
                    libc::close(fd_of(content));
                } else {
                    let mut everything: libc::flock = std::mem::zeroed();
                    everything.l_type = libc::F_UNLCK as libc::c_short;
                    libc::fcntl(fd_of(content), libc::F_OFD_SETLK, &raw mut everything);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    fn known(fd: RawFd) -> usize {
        let holds =
            |slot: &&AtomicU64| slot.load(Ordering::Relaxed) != FREE && fd_of(slot.load(Ordering::Relaxed)) == fd;
        blocks().flat_map(|block| &block.slots).filter(holds).count()
    }

    #[test]
    fn more_handles_than_a_block_has_room_for_are_known_and_forgotten() {
        // Numbers that no descriptor has, so that a child forked by another test closes nothing.
        let numbers = || (1 << 28..).take(3 * SLOTS);
        let registered: Vec<Registered> = numbers().map(register).collect();
        assert!(numbers().all(|fd| known(fd) == 1));
        assert!(registered.iter().zip(numbers()).all(|(one, fd)| one.fd() == fd && one.is_current()));
        assert!(registered.iter().all(|one| one.forget() && !one.is_current()));
        assert!(numbers().all(|fd| known(fd) == 0));
    }

    #[test]
    fn a_number_that_is_registered_again_is_that_of_the_later_one() {
        let (first, second) = (register(1 << 29), register(1 << 29));
        assert_eq!(known(1 << 29), 1);
        assert!(!first.is_current() && second.is_current());
        assert!(!first.forget() && second.is_current());
        assert!(second.forget() && !second.forget());
    }

    /// Whether somebody else has a lock on the file, or else this descriptor has one from now on.
    fn is_locked(fd: RawFd) -> bool {
        // SAFETY: an open descriptor and a structure that lives across the call.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            (lock.l_type, lock.l_len) = (libc::F_WRLCK as libc::c_short, 1);
            libc::fcntl(fd, libc::F_OFD_SETLK, &raw mut lock) != 0
        }
    }

    #[test]
    fn a_child_that_is_forked_during_a_close_keeps_no_lock_and_closes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let closed = register(file.reopen().unwrap().into_raw_fd());
        assert!(!is_locked(closed.fd()) && is_locked(file.as_file().as_raw_fd()));
        // As `close` does before it closes.
        closed.slot.store(closed.content | CLOSING, Ordering::Release);
        // SAFETY: fcntl(2) on a number that is open or not.
        let is_open = || unsafe { libc::fcntl(closed.fd(), libc::F_GETFD) } >= 0;
        assert!(crate::lock::fork::in_child(is_open));
        assert!(!is_locked(file.as_file().as_raw_fd()));
        closed.slot.store(closed.content, Ordering::Release);
        closed.close();
        assert!(!is_open() && known(closed.fd()) == 0);
    }
}
