//! Turns on the locks of a real kernel.
#![allow(clippy::unwrap_used)]

use super::super::ofd::Handle;
use super::super::watch::sleep;
use super::super::{Locks, Upgrade};
use super::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const OK: i32 = ffi::SQLITE_OK;
const BUSY: i32 = ffi::SQLITE_BUSY;
const NONE: i32 = ffi::SQLITE_LOCK_NONE;
const SHARED: i32 = ffi::SQLITE_LOCK_SHARED;
const RESERVED: i32 = ffi::SQLITE_LOCK_RESERVED;
const EXCLUSIVE: i32 = ffi::SQLITE_LOCK_EXCLUSIVE;

type Connection = Locks<Handle>;

fn open(path: &Path) -> Connection {
    Locks::new(Handle::open(path, false).unwrap(), Upgrade::Atomic).in_turns()
}

/// As SQLite begins to write: without RESERVED it keeps nothing.
fn begin(file: &Connection) -> i32 {
    let code = match file.lock(SHARED) {
        OK => file.lock(RESERVED),
        code => code,
    };
    if code != OK {
        file.unlock(NONE);
    }
    code
}

fn ticket(file: &Connection) -> Option<i64> {
    file.queue.as_ref().unwrap().ticket.get()
}

fn nap(microseconds: i32) -> i32 {
    std::thread::sleep(Duration::from_micros(microseconds.unsigned_abs().into()));
    microseconds
}

/// A file, and a handle that is no connection's.
fn database() -> (tempfile::NamedTempFile, Handle) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let other = Handle::open(file.path(), false).unwrap();
    (file, other)
}

#[test]
fn who_is_refused_twice_takes_a_ticket_behind_those_that_wait_and_gives_it_back_after_his_turn() {
    let (database, other) = database();
    let [writer, a, b, c] = [(); 4].map(|()| open(database.path()));
    assert_eq!(begin(&writer), OK);
    for file in [&a, &b, &c] {
        assert_eq!((begin(file), ticket(file)), (BUSY, None), "once may be chance");
        assert_eq!(begin(file), BUSY);
    }
    let [first, second, third] = [&a, &b, &c].map(|file| ticket(file).unwrap());
    assert!(first < second && second < third, "{first} {second} {third}");
    assert_eq!(tickets(&other, TICKETS).unwrap().len(), 3);
    writer.unlock(NONE);
    assert_eq!((begin(&b), ticket(&b)), (OK, None), "a ticket is no duty to wait");
    assert_eq!(b.lock(EXCLUSIVE), OK);
    b.unlock(NONE);
    assert_eq!((a.lock(SHARED), ticket(&a)), (OK, Some(first)), "a writer waits for RESERVED");
    a.unlock(NONE);
    assert_eq!(ticket(&a), None, "but not after it has only read");
    drop(c);
    assert!(tickets(&other, TICKETS).unwrap().is_empty());
}

#[test]
fn a_reader_has_its_turn_with_shared() {
    let (database, _) = database();
    let [writer, reader] = [(); 2].map(|()| open(database.path()));
    assert_eq!((begin(&writer), writer.lock(EXCLUSIVE)), (OK, OK));
    assert_eq!([reader.lock(SHARED), reader.lock(SHARED)], [BUSY, BUSY]);
    assert!(ticket(&reader).is_some());
    writer.unlock(NONE);
    assert_eq!((reader.lock(SHARED), ticket(&reader)), (OK, None));
}

#[test]
fn a_writer_that_comes_again_at_once_stands_back_for_one_that_waits() {
    let (database, _) = database();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let file = open(database.path());
            let mut commits = 0_u32;
            while !done.load(Ordering::Relaxed) {
                if begin(&file) == OK {
                    nap(5_000);
                    assert_eq!(file.lock(EXCLUSIVE), OK);
                    commits += 1;
                }
                file.unlock(NONE);
            }
            commits
        });
        let waiter = open(database.path());
        // Where nobody stands back, a sleep of an hour ends after an hour.
        while begin(&waiter) != OK {
            sleep(if ticket(&waiter).is_some() { i32::MAX } else { 1_000 }, nap);
        }
        waiter.unlock(NONE);
        done.store(true, Ordering::Relaxed);
        busy.join().unwrap();
    });
}

#[test]
fn a_writer_stands_back_once_for_a_ticket_whose_holder_does_not_come() {
    let (database, other) = database();
    let file = open(database.path());
    let write_while = |go_on: &dyn Fn() -> bool| {
        while go_on() {
            assert_eq!((begin(&file), file.lock(EXCLUSIVE)), (OK, OK));
            file.unlock(NONE);
        }
    };
    let mine = TICKETS.start + 7 * BYTES;
    let stale = || file.queue.as_ref().unwrap().stale.get();
    assert!(other.take(one(mine), true).unwrap());
    write_while(&|| stale().is_none());
    let (ticket, marked) = stale().unwrap();
    assert_eq!(ticket, mine);
    write_while(&|| marked.elapsed() < 3 * ROUND);
    assert_eq!(stale(), Some((mine, marked)), "not again");
    // Renewed, it is somebody who still tries.
    assert!(other.take(one(mine + 1), true).unwrap());
    other.release(one(mine)).unwrap();
    write_while(&|| stale() == Some((mine, marked)));
    assert_eq!(stale().unwrap().0, mine + 1);
}

#[test]
fn a_busy_timeout_is_no_shorter_for_being_woken_in_vain() {
    let (database, other) = database();
    let [writer, waiter] = [(); 2].map(|()| open(database.path()));
    assert_eq!(begin(&writer), OK);
    assert_eq!([begin(&waiter), begin(&waiter)], [BUSY, BUSY]);
    assert!(other.take(call(ticket(&waiter).unwrap()), false).unwrap());
    let (began, mut asked, mut woken) = (Instant::now(), Duration::ZERO, 0);
    for tries in 0..8 {
        assert_eq!(begin(&waiter), BUSY);
        sleep(150_000, nap);
        asked += Duration::from_millis(150);
        let early = began.elapsed() < asked;
        assert!(!early || tries % 2 == 0, "every other sleep makes good for the one before");
        woken += u32::from(early);
    }
    assert!(woken > 0);
}
