//! The descriptors of all our lock handles, so that a forked child can close its copies.
//!
//! The child may not allocate or wait for a mutex, so they stand in blocks of atomics that are never freed.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

const FREE: i32 = -1;
const SLOTS: usize = 128;

struct Block {
    slots: [AtomicI32; SLOTS],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Block {
        Block { slots: [const { AtomicI32::new(FREE) }; SLOTS], next: AtomicPtr::new(std::ptr::null_mut()) }
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

/// Has `fd` closed in forked children from now on.
pub(crate) fn register(fd: RawFd) {
    let swap = |slot: &AtomicI32| slot.compare_exchange(FREE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let mut last = &FIRST;
    for block in blocks() {
        if block.slots.iter().any(swap) {
            return;
        }
        last = block;
    }
    let fresh = Block::new();
    if let Some(slot) = fresh.slots.first() {
        slot.store(fd, Ordering::Relaxed);
    }
    let fresh = Box::into_raw(Box::new(fresh));
    loop {
        match last.next.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            // SAFETY: another thread has leaked a block of its own here.
            Err(other) => last = unsafe { &*other },
        }
    }
}

/// Forgets `fd`, which is about to be closed.
pub(crate) fn forget(fd: RawFd) {
    let swap = |slot: &AtomicI32| slot.compare_exchange(fd, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    blocks().any(|block| block.slots.iter().any(swap));
}

/// Closes all of them: in a forked child, before anything else runs there.
pub(super) fn close_inherited() {
    for block in blocks() {
        for slot in &block.slots {
            let fd = slot.swap(FREE, Ordering::AcqRel);
            if fd != FREE {
                // SAFETY: a descriptor of ours; whoever holds its number knows that it belongs to the parent and does not
                // use it again.
                unsafe { libc::close(fd) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(fd: RawFd) -> usize {
        blocks().flat_map(|block| &block.slots).filter(|slot| slot.load(Ordering::Relaxed) == fd).count()
    }

    #[test]
    fn more_handles_than_a_block_has_room_for_are_known_and_forgotten() {
        // Numbers that no descriptor has, so that a child forked by another test closes nothing.
        let numbers = || (1 << 28..).take(3 * SLOTS);
        numbers().for_each(register);
        assert!(numbers().all(|fd| known(fd) == 1));
        numbers().for_each(forget);
        assert!(numbers().all(|fd| known(fd) == 0));
    }
}
