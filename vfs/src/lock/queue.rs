//! Turns of those who wait for a database on a mount where each request is a round trip.
//!
//! There a commit takes long, the writer that has committed asks again within microseconds, and SQLite's busy handler asks
//! every 100 ms: who waits would wait for ever. So who is refused twice takes a ticket, which is an exclusive lock on a byte
//! of its own far behind any database, in the order of coming; and a writer that has had its share of the time and finds a ticket
//! stands back: it calls the ticket, by a lock on another byte that belongs to it, and begins no transaction until somebody
//! else has begun one, or for a bounded time. Whoever sleeps in SQLite's busy handler watches that byte ([`Watch`]).
//!
//! Invariants: no lock of SQLite's own depends on these bytes, so a mistake here costs time and nothing else. Who has a ticket
//! never stands back, so nobody waits for somebody who waits for him. A ticket for which somebody has stood back in vain is
//! passed over for [`FORGET`]; who still tries renews his in time. The kernel drops the ticket of a process that dies.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libsqlite3_sys as ffi;

use super::spell::{PAUSE, Spell};
use super::watch::{Watch, Woke, pace};
use super::{BOTH, Bytes, PENDING, Range};

/// Larger than a database can be: on some servers a lock keeps others from writing.
pub(super) const FAR: i64 = 1 << 52;
/// Tickets, each of which has some bytes for those who renew it.
const TICKETS: Range = Range { start: FAR, length: 1 << 46 };
const BYTES: i64 = 16;
const END: i64 = TICKETS.start + TICKETS.length;
/// PENDING and tickets, and all between.
const ANYBODY: Range = Range { start: PENDING.start, length: END - PENDING.start };

/// How long the last one in the queue waits for those before him, about: less than a busy timeout of a second.
const ROUND: Duration = Duration::from_millis(400);
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
/// How long a ticket is passed over whose holder did not come.
pub(super) const FORGET: Duration = Duration::from_secs(5);
/// How old a ticket of somebody who still tries becomes.
const RENEWED: Duration = Duration::from_millis(300);
/// More than this are not counted.
const MANY: usize = 8;

/// One connection, as one that waits and as one that writes.
#[derive(Debug)]
pub(super) struct Queue {
    watch: Arc<Watch>,
    spell: Spell,
    ticket: Cell<Option<i64>>,
    /// When the ticket was taken, and when it was renewed.
    since: Cell<Option<Instant>>,
    renewed: Cell<Option<Instant>>,
    /// The filesystem knows no bytes so far behind the file.
    off: Cell<bool>,
    /// When SHARED was asked for last, and how long it took from there to RESERVED.
    came: Cell<Option<Instant>>,
    reading: Cell<Duration>,
    /// How long its turn as a writer may last, once others have been counted.
    share: Cell<Option<Duration>>,
    /// The ticket of somebody who did not come, and when that was.
    stale: Cell<Option<(i64, Instant)>>,
}

const fn one(at: i64) -> Range {
    Range { start: at, length: 1 }
}

const fn from(at: i64) -> Range {
    Range { start: at, length: END - at }
}

/// What is locked to call a ticket, however often it has been renewed.
pub(super) const fn call(ticket: i64) -> Range {
    Range { start: ticket - (ticket - TICKETS.start) % BYTES + TICKETS.length, length: BYTES }
}

impl Queue {
    pub(super) fn new(bytes: &impl Bytes) -> Queue {
        Queue {
            watch: Arc::new(Watch::new(bytes.descriptor())),
            spell: Spell::default(),
            ticket: Cell::default(),
            since: Cell::default(),
            renewed: Cell::default(),
            off: Cell::default(),
            came: Cell::default(),
            reading: Cell::default(),
            share: Cell::default(),
            stale: Cell::default(),
        }
    }

    /// Before SHARED: whether no writer keeps readers out. One question, which tells also whether anybody waits.
    pub(super) fn pass(&self, bytes: &impl Bytes) -> io::Result<bool> {
        if self.spell.has_given_up() {
            self.served(bytes);
        }
        self.came.set(Some(Instant::now()));
        if self.ticket.get().is_some() && !self.spell.reads() {
            return self.try_again(bytes);
        }
        if !self.off.get() {
            match bytes.exclusive(ANYBODY) {
                Ok(None) => return Ok(true),
                Ok(Some(found)) if found == PENDING.start => return Ok(false),
                // What goes wrong here is no reason not to go on.
                Ok(Some(found)) if found >= TICKETS.start && self.ticket.get().is_none() => {
                    let _ = self.give_way(bytes, found);
                }
                Ok(Some(_)) => {}
                Err(_) => {
                    let free = bytes.exclusive(PENDING)?.is_none();
                    self.off.set(true);
                    return Ok(free);
                }
            }
        }
        // Of all that is there the answer named one.
        Ok(bytes.exclusive(PENDING)?.is_none())
    }

    /// Before SHARED, by one that has a ticket and was refused RESERVED. The same statement tries again, so without RESERVED it
    /// has nothing to do but to be in the way of the one who writes; and who comes between two transactions of another's turn
    /// cuts that short. Where nobody calls, since whoever writes is a stock connection, that is the only way to have a turn.
    fn try_again(&self, bytes: &impl Bytes) -> io::Result<bool> {
        match self.watch.woke() {
            Woke::Slept if self.since.get().is_some_and(|since| since.elapsed() < ROUND + PAUSE) => {
                if bytes.exclusive(BOTH)?.is_some() {
                    return Ok(false);
                }
                std::thread::sleep((self.reading.get() * 2).min(PAUSE / 2));
                Ok(bytes.exclusive(BOTH)?.is_none())
            }
            _ => Ok(bytes.exclusive(PENDING)?.is_none()),
        }
    }

    /// After xLock.
    pub(super) fn tried(&self, bytes: &impl Bytes, wanted: i32, code: i32) {
        if wanted == ffi::SQLITE_LOCK_RESERVED {
            self.spell.asks();
            self.reading.set(self.came.get().map_or(Duration::ZERO, |came| came.elapsed()));
        }
        match (wanted, code) {
            (ffi::SQLITE_LOCK_SHARED, ffi::SQLITE_OK) => {
                let has_all = self.spell.enters();
                if has_all {
                    self.served(bytes);
                }
            }
            (ffi::SQLITE_LOCK_RESERVED, ffi::SQLITE_OK) => {
                self.served(bytes);
                if self.spell.writes() {
                    self.share.set(None);
                }
            }
            (ffi::SQLITE_LOCK_EXCLUSIVE, ffi::SQLITE_OK) => self.watch.had(),
            // PENDING is ours: only readers are in the way, and no new ones come.
            (ffi::SQLITE_LOCK_EXCLUSIVE, ffi::SQLITE_BUSY) => self.watch.for_readers(),
            (_, ffi::SQLITE_BUSY) => self.turned_away(bytes),
            _ => {}
        }
    }

    /// After xUnlock to NONE.
    pub(super) fn left(&self, bytes: &impl Bytes) {
        if self.spell.leaves() {
            self.served(bytes);
        }
    }

    /// Nobody watches the handle from here on.
    pub(super) fn close(&self) {
        self.watch.close();
    }

    fn served(&self, bytes: &impl Bytes) {
        self.spell.is_served();
        if let Some(ticket) = self.ticket.take() {
            self.watch.had();
            let _ = bytes.release(one(ticket));
        }
    }

    fn turned_away(&self, bytes: &impl Bytes) {
        if self.off.get() {
            return;
        }
        let now = Instant::now();
        let waits = self.spell.is_refused(now);
        match self.ticket.get() {
            None if waits => {
                self.ticket.set(enqueue(bytes).unwrap_or(None));
                self.since.set(Some(now));
                self.renewed.set(Some(now));
            }
            Some(ticket) if self.renewed.get().is_none_or(|renewed| now - renewed >= RENEWED) => {
                let next = ticket + 1;
                if (next - TICKETS.start) % BYTES != 0 && matches!(bytes.take(one(next), true), Ok(true)) {
                    let _ = bytes.release(one(ticket));
                    self.ticket.set(Some(next));
                    self.renewed.set(Some(now));
                }
            }
            _ => {}
        }
        if let Some(ticket) = self.ticket.get() {
            self.watch.for_turn(ticket);
        }
    }

    /// Stands back if it has had its share of the time and somebody waits; `found` is a ticket.
    fn give_way(&self, bytes: &impl Bytes, found: i64) -> io::Result<()> {
        let share = self.share.get().unwrap_or(SHORTEST);
        let Some(had) = self.spell.had().filter(|had| *had >= share) else { return Ok(()) };
        let passed_over = self.stale.get().filter(|(_, when)| when.elapsed() < FORGET).map(|(ticket, _)| ticket);
        let lowest = passed_over.map_or(TICKETS.start, |ticket| ticket + 1);
        if self.share.get().is_none() || found < lowest {
            let waiting = tickets(bytes, from(lowest))?;
            let share = (ROUND / u32::try_from(waiting.len()).unwrap_or(1).max(1)).max(SHORTEST);
            self.share.set(Some(share));
            if had < share || waiting.is_empty() {
                return Ok(());
            }
        }
        self.spell.stands_back();
        self.call_others(bytes, lowest)
    }

    /// Calls those that wait, one after another, until another writer is at work.
    fn call_others(&self, bytes: &impl Bytes, mut lowest: i64) -> io::Result<()> {
        for _ in 0..MANY {
            let Some(first) = lowest_ticket(bytes, lowest)? else { return Ok(()) };
            if !bytes.take(call(first), false)? {
                return Ok(());
            }
            let came = self.wait_for(bytes, first);
            bytes.release(call(first))?;
            match came? {
                Came::ToWrite => {
                    self.stale.set(None);
                    return Ok(());
                }
                Came::ToRead => {}
                Came::Nobody => self.stale.set(Some((first, Instant::now()))),
            }
            lowest = first + 1;
        }
        Ok(())
    }

    fn wait_for(&self, bytes: &impl Bytes, first: i64) -> io::Result<Came> {
        let until = Instant::now() + self.spell.patience();
        let mut step = pace(Duration::ZERO);
        while Instant::now() < until {
            std::thread::sleep(step);
            let asked = Instant::now();
            if bytes.exclusive(BOTH)?.is_some() {
                return Ok(Came::ToWrite);
            }
            if bytes.exclusive(one(first))?.is_none() {
                return Ok(Came::ToRead);
            }
            step = pace(asked.elapsed());
        }
        Ok(Came::Nobody)
    }
}

/// What came of standing back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    ToWrite,
    /// The ticket has been given back; maybe after a transaction already.
    ToRead,
    Nobody,
}

/// A ticket behind all others; none if there is none to be had. By the clock, so that a later one is the higher one also after
/// all have been given back; clocks of several hosts need not agree.
fn enqueue(bytes: &impl Bytes) -> io::Result<Option<i64>> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut at = TICKETS.start + i64::try_from(clock).unwrap_or(0) % (TICKETS.length / BYTES / 2) * BYTES;
    for _ in 0..MANY {
        match bytes.exclusive(from(at))? {
            // One that lies across is not ours to understand.
            Some(found) if (at..END - BYTES).contains(&found) => at += ((found - at) / BYTES + 1) * BYTES,
            Some(_) => return Ok(None),
            None if bytes.take(one(at), true)? => return Ok(Some(at)),
            None => at += BYTES,
        }
    }
    Ok(None)
}

/// The lowest ticket of somebody else from `lowest` on.
fn lowest_ticket(bytes: &impl Bytes, lowest: i64) -> io::Result<Option<i64>> {
    let (mut range, mut found) = (from(lowest), None);
    // Of several the kernel names any.
    while let Some(ticket) = bytes.exclusive(range)?.filter(|ticket| *ticket >= lowest) {
        found = Some(ticket);
        range.length = ticket - range.start;
        if range.length == 0 {
            break;
        }
    }
    Ok(found)
}

/// The tickets of others in a range, in no order.
fn tickets(bytes: &impl Bytes, range: Range) -> io::Result<Vec<i64>> {
    let (mut found, mut ranges) = (Vec::new(), vec![range]);
    while let Some(range) = ranges.pop() {
        if range.length <= 0 || found.len() >= MANY {
            continue;
        }
        let end = range.start + range.length;
        if let Some(ticket) = bytes.exclusive(range)?.filter(|ticket| (range.start..end).contains(ticket)) {
            found.push(ticket);
            ranges.push(Range { start: range.start, length: ticket - range.start });
            ranges.push(Range { start: ticket + 1, length: end - ticket - 1 });
        }
    }
    Ok(found)
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
