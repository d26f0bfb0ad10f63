//! Things that are used by one thread at a time, handed on in the order in which they were asked for.
//!
//! Invariant: a thing is with exactly one holder, or idle while nobody waits. Whoever comes later never passes a thread that
//! waits already.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Thread, ThreadId};

/// Up to a number of things, made when they are first needed.
#[derive(Debug)]
pub(super) struct Turns<T> {
    limit: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    idle: Vec<T>,
    /// The threads that hold one.
    holders: Vec<ThreadId>,
    waiting: VecDeque<Arc<Waiter<T>>>,
    /// Nobody gets one any more.
    closed: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    thread: Thread,
    /// What is handed on: the thing, or none if it must be made.
    handed: Mutex<Option<Option<T>>>,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This thread holds one already, and would wait for itself.
    Held,
    Closed,
}

/// A turn. Dropped, also while a panic unwinds, it goes to the next.
#[derive(Debug)]
pub(super) struct Held<'a, T> {
    turns: &'a Turns<T>,
    /// None if it has to be made.
    pub(super) thing: Option<T>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these that could panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Turns<T> {
    pub(super) fn new(limit: usize, idle: Vec<T>) -> Turns<T> {
        let state = State { idle, holders: Vec::new(), waiting: VecDeque::new(), closed: false };
        Turns { limit, state: Mutex::new(state) }
    }

    /// Waits for a turn.
    pub(super) fn take(&self) -> Result<Held<'_, T>, Refused> {
        let me = std::thread::current();
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.holders.contains(&me.id()) {
            return Err(Refused::Held);
        }
        if state.waiting.is_empty() && state.holders.len() < self.limit {
            state.holders.push(me.id());
            return Ok(Held { turns: self, thing: state.idle.pop() });
        }
        let waiter = Arc::new(Waiter { thread: me, handed: Mutex::new(None) });
        state.waiting.push_back(Arc::clone(&waiter));
        drop(state);
        loop {
            if let Some(thing) = lock(&waiter.handed).take() {
                return Ok(Held { turns: self, thing });
            }
            std::thread::park();
        }
    }

    /// Takes back everything that is idle and gives out nothing any more.
    pub(super) fn close(&self) -> Vec<T> {
        let mut state = lock(&self.state);
        state.closed = true;
        std::mem::take(&mut state.idle)
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let mut state = lock(&self.turns.state);
        // A turn may end on another thread than it began on only together with the value that borrows it, so the holder
        // is this one.
        let me = std::thread::current().id();
        if let Some(at) = state.holders.iter().position(|holder| *holder == me) {
            state.holders.swap_remove(at);
        }
        let thing = self.thing.take();
        match state.waiting.pop_front() {
            Some(next) => {
                state.holders.push(next.thread.id());
                *lock(&next.handed) = Some(thing);
                next.thread.unpark();
            }
            None => {
                if let Some(thing) = thing.filter(|_| !state.closed) {
                    state.idle.push(thing);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn turns_come_in_the_order_in_which_they_were_asked_for() {
        let turns = Turns::new(1, vec![Vec::new()]);
        std::thread::scope(|scope| {
            let first = turns.take().unwrap();
            for number in 0..20 {
                let turns = &turns;
                scope.spawn(move || turns.take().unwrap().thing.as_mut().unwrap().push(number));
                while turns.waiting() <= number {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(turns.close(), [(0..20).collect::<Vec<_>>()]);
    }

    #[test]
    fn a_thread_that_would_wait_for_itself_is_told() {
        let turns = Turns::new(1, vec![()]);
        let held = turns.take().unwrap();
        assert_eq!(turns.take().unwrap_err(), Refused::Held);
        drop(held);
        drop(turns.take().unwrap());
        turns.close();
        assert_eq!(turns.take().unwrap_err(), Refused::Closed);
    }

    #[test]
    fn a_thing_that_was_thrown_away_is_made_anew_by_the_next() {
        let turns = Turns::new(2, vec![1]);
        let mut held = turns.take().unwrap();
        assert_eq!(held.thing.take(), Some(1));
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(turns.take().unwrap().thing).unwrap());
            assert_eq!(receiver.recv().unwrap(), None, "there is room for two");
        });
        drop(held);
        assert_eq!(turns.take().unwrap().thing, None);
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let turns = Turns::new(1, vec![7]);
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _held = turns.take().unwrap();
                std::panic::resume_unwind(Box::new(()));
            });
            assert!(panicked.join().is_err());
        });
        assert_eq!(turns.take().unwrap().thing, Some(7));
    }
}
