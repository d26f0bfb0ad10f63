//! A backup before an application begins to change things: check, then back up, in that order.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Backup, BackupReport};
use crate::error::Error;
use crate::health::pace::Pace;
use crate::health::{Health, examine};
use crate::progress::Watch;

/// What [`before_open`] has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BeforeOpen {
    /// The database is sound and backed up, or has not changed since it was.
    BackedUp {
        /// What the check of the database has found.
        health: Health,
        /// What the backup has done.
        report: Box<BackupReport>,
    },
    /// The database is damaged. No backup was made, and none was moved: the last good one is where it was.
    Damaged(Health),
    /// There is nothing in the database yet.
    Empty,
}

impl Backup {
    /// Checks the database, as [`Backup::verify`] says, and backs it up if that finds nothing that damages data.
    ///
    /// # Errors
    /// As [`crate::check()`] and [`Backup::run`].
    pub fn run_if_sound(&self, connection: &Connection, watch: Option<&mut Watch<'_>>) -> Result<BeforeOpen, Error> {
        let mut pace = Pace::new(watch);
        let pages = connection.query_row("PRAGMA main.page_count", [], |row| row.get::<_, i64>(0));
        let tables = connection.query_row("SELECT count(*) FROM main.sqlite_master", [], |row| row.get::<_, i64>(0));
        // A file that was created a moment ago, or has a page for its journal mode only.
        if matches!((pages, tables), (Ok(0 | 1), Ok(0))) {
            return Ok(BeforeOpen::Empty);
        }
        let health = examine(connection, self.check, &mut pace)?;
        if !health.is_sound() {
            return Ok(BeforeOpen::Damaged(health));
        }
        let report = Box::new(self.make(connection, &mut pace)?);
        Ok(BeforeOpen::BackedUp { health, report })
    }
}

/// [`Backup::run_if_sound`] on a connection that was opened a moment ago, before the application gets it.
///
/// # Errors
/// As [`crate::check()`] and [`Backup::run`].
pub fn before_open(connection: &Connection, backup: &Backup) -> Result<BeforeOpen, Error> {
    backup.run_if_sound(connection, None)
}
