//! The state machine against a model of an SMB server: no upgrade, no downgrade, overlapping locks of one handle meet.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;

#[derive(Clone, Debug)]
struct Held {
    owner: u32,
    range: Range,
    exclusive: bool,
}

#[derive(Clone, Default)]
struct Server(Rc<RefCell<Vec<Held>>>, Rc<Cell<u32>>);

impl Server {
    /// The next `calls` locks fail, as on a connection that is being made again.
    fn fail(&self, calls: u32) {
        self.1.set(calls);
    }
}

struct Handle {
    server: Server,
    owner: u32,
}

fn overlap(a: Range, b: Range) -> bool {
    a.start < b.start + b.length && b.start < a.start + a.length
}

impl Bytes for Handle {
    fn take(&self, range: Range, exclusive: bool) -> io::Result<bool> {
        if let Some(left) = self.server.1.get().checked_sub(1) {
            self.server.1.set(left);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let mut held = self.server.0.borrow_mut();
        // Also one's own: that is what stock SQLite fails on.
        if held.iter().any(|other| overlap(other.range, range) && (other.exclusive || exclusive)) {
            return Ok(false);
        }
        held.push(Held { owner: self.owner, range, exclusive });
        Ok(true)
    }

    fn release(&self, range: Range) -> io::Result<()> {
        let inside = |other: &Held| other.range.start >= range.start && other.range.start < range.start + range.length;
        self.server.0.borrow_mut().retain(|held| held.owner != self.owner || !inside(held));
        Ok(())
    }

    fn taken(&self, range: Range) -> io::Result<bool> {
        let held = self.server.0.borrow();
        Ok(held.iter().any(|other| other.owner != self.owner && overlap(other.range, range)))
    }
}

const NONE: i32 = ffi::SQLITE_LOCK_NONE;
const SHARED_LEVEL: i32 = ffi::SQLITE_LOCK_SHARED;
const RESERVED_LEVEL: i32 = ffi::SQLITE_LOCK_RESERVED;
const EXCLUSIVE: i32 = ffi::SQLITE_LOCK_EXCLUSIVE;
const OK: i32 = ffi::SQLITE_OK;
const BUSY: i32 = ffi::SQLITE_BUSY;

fn clients<const N: usize>(upgrade: Upgrade) -> [Locks<Handle>; N] {
    let server = Server::default();
    let mut owner = 0;
    std::array::from_fn(|_| {
        owner += 1;
        Locks::new(Handle { server: server.clone(), owner }, upgrade)
    })
}

/// Connections for which their client uses one handle of the server.
fn one_handle<const N: usize>() -> [Locks<Handle>; N] {
    let server = Server::default();
    std::array::from_fn(|_| Locks::new(Handle { server: server.clone(), owner: 1 }, Upgrade::Apart))
}

const BOTH_WAYS: [Upgrade; 2] = [Upgrade::Stepwise, Upgrade::Apart];

#[test]
fn one_connection_reaches_exclusive_and_comes_back() {
    for upgrade in BOTH_WAYS {
        let [a] = clients(upgrade);
        for round in 0..3 {
            for level in [SHARED_LEVEL, RESERVED_LEVEL, EXCLUSIVE] {
                assert_eq!(a.lock(level), OK, "round {round} level {level}");
            }
            assert_eq!(a.unlock(SHARED_LEVEL), OK);
            assert_eq!(a.lock(EXCLUSIVE), OK, "straight from SHARED, as for a hot journal");
            assert_eq!(a.unlock(NONE), OK);
        }
        assert!(a.bytes.server.0.borrow().is_empty());
    }
}

#[test]
fn readers_share_and_a_writer_waits_for_them_and_keeps_new_ones_out() {
    readers_and_a_writer(clients(Upgrade::Stepwise), true);
    // There a question would be a lock.
    readers_and_a_writer(clients(Upgrade::Apart), false);
    readers_and_a_writer(one_handle(), false);
}

fn readers_and_a_writer([a, b, c]: [Locks<Handle>; 3], told: bool) {
    assert_eq!((a.lock(SHARED_LEVEL), b.lock(SHARED_LEVEL)), (OK, OK));
    assert_eq!((a.lock(RESERVED_LEVEL), b.lock(RESERVED_LEVEL)), (OK, BUSY));
    assert_eq!(b.reserved(), Ok(told));
    assert_eq!(a.lock(EXCLUSIVE), BUSY, "a reader is there");
    assert_eq!(c.lock(SHARED_LEVEL), BUSY, "PENDING keeps new readers out");
    assert_eq!(b.unlock(NONE), OK);
    assert_eq!(a.lock(EXCLUSIVE), OK);
    assert_eq!((b.lock(SHARED_LEVEL), b.reserved()), (BUSY, Ok(told)));
    assert_eq!(a.unlock(SHARED_LEVEL), OK);
    assert_eq!((b.lock(SHARED_LEVEL), b.reserved()), (OK, Ok(false)));
}

#[test]
fn a_writer_that_gives_up_at_pending_leaves_nothing_behind() {
    gives_up_at_pending(clients(Upgrade::Stepwise));
    gives_up_at_pending(clients(Upgrade::Apart));
    gives_up_at_pending(one_handle());
}

fn gives_up_at_pending([a, b]: [Locks<Handle>; 2]) {
    assert_eq!((a.lock(SHARED_LEVEL), b.lock(SHARED_LEVEL), a.lock(RESERVED_LEVEL)), (OK, OK, OK));
    assert_eq!(a.lock(EXCLUSIVE), BUSY);
    assert_eq!(a.unlock(SHARED_LEVEL), OK);
    assert_eq!(b.lock(RESERVED_LEVEL), OK, "RESERVED and PENDING are free again");
    assert_eq!(a.unlock(NONE), OK);
    assert_eq!(b.lock(EXCLUSIVE), OK);
}

#[test]
fn a_reader_that_lost_its_lock_on_the_way_up_has_it_again_before_anybody_may_write() {
    BOTH_WAYS.into_iter().for_each(|upgrade| lost_on_the_way_up(clients(upgrade)));
}

fn lost_on_the_way_up([a, b]: [Locks<Handle>; 2]) {
    let server = &a.bytes.server;
    assert_eq!((a.lock(SHARED_LEVEL), a.lock(RESERVED_LEVEL)), (OK, OK));
    // PENDING is taken; the exclusive lock and the one to go back to both fail.
    assert_eq!(a.bytes.take(PENDING, true).ok(), Some(true));
    a.level.set(ffi::SQLITE_LOCK_PENDING);
    server.fail(2);
    assert_eq!(a.lock(EXCLUSIVE), ffi::SQLITE_IOERR_LOCK);
    server.fail(1);
    assert_eq!(a.unlock(SHARED_LEVEL), ffi::SQLITE_IOERR_UNLOCK, "still without");
    assert_eq!(b.lock(SHARED_LEVEL), BUSY, "so nobody else may come");
    assert_eq!(a.unlock(SHARED_LEVEL), OK);
    assert_eq!((b.lock(SHARED_LEVEL), b.lock(RESERVED_LEVEL)), (OK, OK));
    assert_eq!(b.lock(EXCLUSIVE), BUSY, "the other one reads");
    assert_eq!((a.unlock(NONE), b.lock(EXCLUSIVE)), (OK, OK));
}

/// Every sequence of a few steps by three connections: never a writer beside a reader or another writer.
#[test]
fn no_interleaving_lets_two_in() {
    interleave(|| clients(Upgrade::Stepwise));
    interleave(|| clients(Upgrade::Apart));
    interleave(one_handle);
}

fn interleave(clients: impl Fn() -> [Locks<Handle>; 3]) {
    const STEPS: [(usize, i32, bool); 12] = [
        (0, SHARED_LEVEL, true),
        (0, RESERVED_LEVEL, true),
        (0, EXCLUSIVE, true),
        (0, NONE, false),
        (1, SHARED_LEVEL, true),
        (1, EXCLUSIVE, true),
        (1, SHARED_LEVEL, false),
        (1, NONE, false),
        (2, SHARED_LEVEL, true),
        (2, RESERVED_LEVEL, true),
        (2, EXCLUSIVE, true),
        (2, NONE, false),
    ];
    let mut runs = 0;
    for mut sequence in 0..STEPS.len().pow(5) {
        let clients: [Locks<Handle>; 3] = clients();
        for _ in 0..5 {
            let (who, level, up) = STEPS[sequence % STEPS.len()];
            sequence /= STEPS.len();
            let client = &clients[who];
            // SQLite's own order: SHARED first, RESERVED only from SHARED.
            if up && level > SHARED_LEVEL && client.level.get() == NONE {
                continue;
            }
            let code = if up { client.lock(level) } else { client.unlock(level) };
            assert!(code == OK || code == BUSY, "{code}");
            let levels = clients.each_ref().map(|client| client.level.get());
            let writers = levels.iter().filter(|level| **level == EXCLUSIVE).count();
            let present = levels.iter().filter(|level| **level >= SHARED_LEVEL).count();
            assert!(writers == 0 || present == 1, "{levels:?}");
            assert!(levels.iter().filter(|level| **level >= RESERVED_LEVEL).count() <= 1 || writers == 0, "{levels:?}");
        }
        runs += 1;
    }
    assert_eq!(runs, 12_usize.pow(5));
}
