//! A read transaction for as long as something is looked at.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::error::{Detail, Error};

/// The main database of a connection as a file; empty if it has none.
pub(crate) fn path_of(connection: &Connection) -> Result<PathBuf, Error> {
    let found = || {
        let mut statement = connection.prepare("PRAGMA database_list")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let (ValueRef::Text(b"main"), ValueRef::Text(file)) = (row.get_ref(1)?, row.get_ref(2)?) {
                return Ok(PathBuf::from(OsStr::from_bytes(file)));
            }
        }
        Ok(PathBuf::new())
    };
    found().map_err(|error| Detail::of_statement(Path::new(""), &error).into())
}

/// A read transaction on the main database: the one that the connection is in, or one of its own that ends with it.
pub(crate) struct ReadTransaction<'c> {
    connection: &'c Connection,
    path: &'c Path,
    own: bool,
}

impl<'c> ReadTransaction<'c> {
    pub(crate) fn begin(connection: &'c Connection, path: &'c Path) -> Result<ReadTransaction<'c>, Error> {
        let mut transaction = ReadTransaction { connection, path, own: connection.is_autocommit() };
        transaction.enter()?;
        Ok(transaction)
    }

    fn enter(&mut self) -> Result<(), Error> {
        let entered = || {
            if self.own {
                self.connection.execute_batch("BEGIN")?;
            }
            // Takes the lock, and reads no schema, which may be what is damaged.
            self.connection.query_row("PRAGMA main.schema_version", [], |_| Ok(()))
        };
        match entered() {
            Ok(()) => Ok(()),
            Err(error) => {
                let detail = Detail::of_statement(self.path, &error);
                match Error::from(detail) {
                    // For the check to find.
                    Error::Corrupt(_) | Error::NotADatabase(_) => Ok(()),
                    error => Err(error),
                }
            }
        }
    }

    /// Ends it and begins another, if it is its own.
    pub(crate) fn renew(&mut self) -> Result<(), Error> {
        if !self.own {
            return Ok(());
        }
        self.end();
        self.enter()
    }

    fn end(&self) {
        if self.own && !self.connection.is_autocommit() {
            // Nothing was written; a failure leaves it open, and the next statement says so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

impl Drop for ReadTransaction<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
