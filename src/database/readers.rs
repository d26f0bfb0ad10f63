//! Transactions that only read.
//!
//! In WAL mode each has a connection of its own from a pool, opened for reading only. In a rollback journal mode a reader
//! keeps the writer from its commit, so it takes the writer's turn, on a connection that is told not to write meanwhile.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::Shared;
use super::turns::{Held, Refused, Turns};
use super::writer::is_settled;
use crate::error::Error;

/// A connection of the pool. One that is stuck in a transaction does not go back.
struct Reading<'a>(Held<'a, Connection>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.0.thing.as_ref().is_some_and(|connection| !is_settled(connection)) {
            self.0.thing = None;
        }
    }
}

impl Shared {
    pub(super) fn read<T, E: From<Error>>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        self.is_mine()?;
        match &self.readers {
            Some(readers) => self.read_from(readers, |connection| self.one_moment(connection, work)),
            None => self.with_writer(|connection| {
                let _only = ReadOnly::on(connection).map_err(|error| self.statement_failed(error))?;
                self.one_moment(connection, work)
            }),
        }
    }

    /// Runs `work` on a connection that may read, outside a transaction.
    pub(super) fn with_reader<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.is_mine()?;
        match &self.readers {
            Some(readers) => self.read_from(readers, work),
            None => self.with_writer(work),
        }
    }

    fn read_from<T, E: From<Error>>(
        &self,
        readers: &Turns<Connection>,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut reading = match readers.take() {
            Ok(held) => Reading(held),
            // A read within a read. Waiting for one more of a full pool, each thread could wait for the others.
            Err(Refused::Held) => return work(&self.connect(&self.for_reading())?),
            Err(refused) => return Err(self.refused(refused).into()),
        };
        let connection = match reading.0.thing.take() {
            Some(connection) => connection,
            None => self.connect(&self.for_reading())?,
        };
        work(reading.0.thing.insert(connection))
    }

    fn for_reading(&self) -> crate::Options {
        self.options.clone().read_only(true)
    }

    /// Everything that `work` reads is of one moment.
    fn one_moment<T, E: From<Error>>(
        &self,
        connection: &Connection,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = Transaction::new_unchecked(connection, TransactionBehavior::Deferred);
        // Dropped at the end: there is nothing to commit.
        let transaction = begun.map_err(|error| self.statement_failed(error))?;
        work(&transaction)
    }
}

/// Keeps a connection from writing.
struct ReadOnly<'a>(&'a Connection);

impl<'a> ReadOnly<'a> {
    fn on(connection: &'a Connection) -> rusqlite::Result<ReadOnly<'a>> {
        connection.pragma_update(None, "query_only", true)?;
        Ok(ReadOnly(connection))
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.pragma_update(None, "query_only", false) {
            log::error!("the connection stays read-only: {error}");
        }
    }
}
