//! The shared database for programs on [`tokio`]: SQLite blocks, so closures run on tokio's threads for blocking work.

use std::path::Path;
use std::sync::Arc;

use hardened_vfs::Report;
use rusqlite::{Connection, Transaction};
use tokio::task::spawn_blocking;

use crate::{Closed, Database, Error, Options};

/// A [`Database`] whose methods can be awaited. Clones are of the same database.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let db = hardened_sqlite::AsyncDatabase::open(&path).await?;
/// db.write(|tx| tx.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")).await?;
/// let n: i64 = db.read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).await?;
/// assert_eq!(n, 1);
/// db.close().await
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A future that is dropped does not stop its closure once that has begun: the transaction goes to its end.
///
/// # Panics
/// Its methods panic outside a runtime of tokio's, and when the closure panics.
#[derive(Clone, Debug)]
pub struct AsyncDatabase(Arc<Database>);

/// What the closure answers; its panic goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and nobody waits for an answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}

impl AsyncDatabase {
    /// Opens a database with the default [`Options`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<AsyncDatabase, Error> {
        Options::new().open_async(path).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = Arc::clone(&self.0);
        blocking(move || work(&database)).await
    }

    /// [`Database::write`].
    ///
    /// # Errors
    /// As there.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.with(|database| database.write(work)).await
    }

    /// [`Database::read`].
    ///
    /// # Errors
    /// As there.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.with(|database| database.read(work)).await
    }

    /// [`Database::with_writer`].
    ///
    /// # Errors
    /// As there.
    pub async fn with_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.with(|database| database.with_writer(work)).await
    }

    /// [`Database::report`].
    ///
    /// # Errors
    /// None, so far.
    pub async fn report(&self) -> Result<Report, Error> {
        self.with(|database| Ok(database.report())).await
    }

    /// The database itself.
    pub fn database(&self) -> &Database {
        &self.0
    }

    /// [`Database::close`], if this is the last clone; otherwise it drops this one.
    ///
    /// # Errors
    /// As there.
    pub async fn close(self) -> Result<Closed, Error> {
        blocking(move || match Arc::try_unwrap(self.0) {
            Ok(database) => database.close(),
            Err(_) => Ok(Closed::not_last()),
        })
        .await
    }
}

impl Options {
    /// [`Options::open`] for programs on tokio.
    ///
    /// # Errors
    /// As there.
    pub async fn open_async(&self, path: impl AsRef<Path>) -> Result<AsyncDatabase, Error> {
        let (options, path) = (self.clone(), path.as_ref().to_owned());
        blocking(move || options.open(path)).await.map(|database| AsyncDatabase(Arc::new(database)))
    }
}
