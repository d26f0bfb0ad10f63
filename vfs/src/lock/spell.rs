//! What a connection has lately had of the database, for those that share the time with others.
//!
//! A spell is the time in which it writes one transaction after another, with no pause in which others come in by themselves.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// As long as SQLite's busy handler sleeps at most: a pause as long lets others in by itself.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Who lets more time pass before he tries again does not wait.
pub(super) const GIVEN_UP: Duration = Duration::from_millis(400);

/// The transactions of one connection, by the clock.
#[derive(Debug)]
pub(super) struct Spell {
    refusals: Cell<u32>,
    refused: Cell<Option<Instant>>,
    /// Its last transaction only read: so SHARED is all it waits for.
    reads: Cell<bool>,
    /// RESERVED was asked for in this transaction, and had.
    asked: Cell<bool>,
    wrote: Cell<bool>,
    /// When this transaction began.
    entered: Cell<Option<Instant>>,
    /// When its spell as a writer began.
    began: Cell<Option<Instant>>,
    /// When its last transaction that wrote ended, and how long that took.
    ended: Cell<Option<Instant>>,
    lasted: Cell<Duration>,
}

impl Default for Spell {
    fn default() -> Spell {
        Spell {
            refusals: Cell::default(),
            refused: Cell::default(),
            reads: Cell::new(true),
            asked: Cell::default(),
            wrote: Cell::default(),
            entered: Cell::default(),
            began: Cell::default(),
            ended: Cell::default(),
            lasted: Cell::default(),
        }
    }
}

impl Spell {
    /// Whether SHARED is all it waits for.
    pub(super) fn reads(&self) -> bool {
        self.reads.get()
    }

    /// RESERVED is asked for.
    pub(super) fn asks(&self) {
        self.asked.set(true);
    }

    /// SHARED was had: whether that is all it waits for.
    pub(super) fn enters(&self) -> bool {
        self.entered.set(Some(Instant::now()));
        self.reads()
    }

    /// RESERVED was had: whether a new spell has begun with it.
    pub(super) fn writes(&self) -> bool {
        self.wrote.set(true);
        let entered = self.entered.get().unwrap_or_else(Instant::now);
        let begins = self.began.get().is_none() || self.ended.get().is_none_or(|ended| entered - ended >= PAUSE);
        if begins {
            self.began.set(Some(entered));
        }
        begins
    }

    /// Everything is given back: whether what it had was what it wanted. Who was refused RESERVED has not had its turn.
    pub(super) fn leaves(&self) -> bool {
        let (asked, wrote) = (self.asked.take(), self.wrote.take());
        self.reads.set(!asked);
        if wrote {
            let now = Instant::now();
            self.ended.set(Some(now));
            self.lasted.set(self.entered.get().map_or(Duration::ZERO, |entered| now - entered));
        }
        wrote || !asked
    }

    /// How long the spell lasts by now; none if it is over.
    pub(super) fn had(&self) -> Option<Duration> {
        let (ended, began) = (self.ended.get()?, self.began.get()?);
        (ended.elapsed() < PAUSE).then(|| began.elapsed())
    }

    /// It stands back, and waits itself if it still wants to write.
    pub(super) fn stands_back(&self) {
        self.began.set(None);
        self.refusals.set(1);
    }

    /// How long somebody that is let in may take to come: one who sleeps has to read before it asks for RESERVED.
    pub(super) fn patience(&self) -> Duration {
        PAUSE + PAUSE / 5 + self.lasted.get()
    }

    /// It was refused a lock: whether more than once, which is not chance any more.
    pub(super) fn is_refused(&self, now: Instant) -> bool {
        self.refused.set(Some(now));
        self.refusals.set(self.refusals.get().saturating_add(1));
        self.refusals.get() > 1
    }

    /// It has had what it was refused before.
    pub(super) fn is_served(&self) {
        self.refusals.set(0);
        self.refused.set(None);
    }

    /// Whether it has not tried again for long.
    pub(super) fn has_given_up(&self) -> bool {
        self.refused.get().is_some_and(|refused| refused.elapsed() > GIVEN_UP)
    }
}
