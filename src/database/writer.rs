//! Transactions on the one connection that writes.
//!
//! Invariant: a connection that goes back into line is outside any transaction; one that cannot be brought there is closed, and
//! the next turn opens a new one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};

use super::turns::Held;
use super::{Shared, cache};
use crate::error::{Detail, Error};

/// The writer's turn.
pub(super) struct Writing<'a> {
    held: Held<'a, Connection>,
}

impl Writing<'_> {
    fn connection(&self) -> Option<&Connection> {
        self.held.thing.as_ref()
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.connection().is_some_and(|connection| !is_settled(connection)) {
            log::warn!("a transaction could not be rolled back; its connection is closed");
            self.held.thing = None;
        }
    }
}

/// Whether the connection is outside a transaction, perhaps now.
pub(super) fn is_settled(connection: &Connection) -> bool {
    if connection.is_autocommit() {
        return true;
    }
    // Whether that worked is what the question after it tells.
    let _ = connection.execute_batch("ROLLBACK");
    connection.is_autocommit()
}

impl Shared {
    /// Waits for the writer's turn.
    pub(super) fn turn(&self) -> Result<Writing<'_>, Error> {
        self.is_mine()?;
        let mut held = self.writer.take().map_err(|refused| self.refused(refused))?;
        if held.thing.is_none() {
            held.thing = Some(self.connect(&self.options)?);
        }
        Ok(Writing { held })
    }

    /// One connection more to the same file.
    pub(super) fn connect(&self, options: &crate::Options) -> Result<Connection, Error> {
        let connection = crate::open::open_with(options, &self.path)?;
        if self.identity.is_some() && self.identity != cache::identity(&self.path) {
            let cause = "another file has taken the place of the open one";
            let hint = Some("close every handle of it and open it again, or put the file back".to_owned());
            return Err(Error::Moved(Detail { hint, ..self.detail(ffi::SQLITE_READONLY_DBMOVED, cause) }));
        }
        Ok(connection)
    }

    fn of<'a>(&self, writing: &'a Writing<'_>) -> Result<&'a Connection, Error> {
        writing.connection().ok_or_else(|| self.detail(ffi::SQLITE_MISUSE, "there is no connection").into())
    }

    pub(super) fn write<T, E: From<Error>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let writing = self.turn()?;
        let transaction = self.begin(self.of(&writing)?)?;
        let value = work(&transaction)?;
        self.commit(transaction)?;
        Ok(value)
    }

    pub(super) fn with_writer<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let writing = self.turn()?;
        work(self.of(&writing)?)
    }

    fn begin<'c>(&self, connection: &'c Connection) -> Result<Transaction<'c>, Error> {
        let mut patience = Patience::until(self.options.shared.patience);
        loop {
            match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
                Err(error) if is_busy(&error) && patience.wait() => {}
                begun => return begun.map_err(|error| self.statement_failed(error)),
            }
        }
    }

    /// Commits. In a rollback journal mode the readers of others may be in the way; the transaction then stays as it is and
    /// its end is tried again, not its work.
    fn commit(&self, transaction: Transaction<'_>) -> Result<(), Error> {
        let mut patience = Patience::until(self.options.shared.patience);
        loop {
            match transaction.execute_batch("COMMIT") {
                Err(error) if is_busy(&error) && !transaction.is_autocommit() && patience.wait() => {}
                // Dropped, it is rolled back if it is still there.
                ended => return ended.map_err(|error| self.statement_failed(error)),
            }
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code & 0xff == ffi::SQLITE_BUSY)
}

/// Waits a little longer each time and never twice as long as somebody else, until a deadline.
struct Patience {
    deadline: Instant,
    step: Duration,
}

impl Patience {
    fn until(limit: Duration) -> Patience {
        // What cannot be added is for ever, as far as anybody will see.
        let ever = Duration::from_secs(1 << 32);
        let deadline = Instant::now() + limit.min(ever);
        Patience { deadline, step: Duration::from_millis(2) }
    }

    /// `false` when the time is over.
    fn wait(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // Each of these is keyed anew.
        let random = RandomState::new().hash_one(()) % 1000;
        let pause = self.step.mul_f64(0.5 + random as f64 / 1000.0);
        std::thread::sleep(pause.min(left));
        self.step = (self.step * 2).min(Duration::from_millis(50));
        true
    }
}
