//! Takes rows out of a damaged database into a new one.
//!
//! The damaged files are only read, page by page, without SQLite; the new database is written by SQLite alone. So nothing of
//! the damage is carried over but values.
//!
//! Invariants: any bytes can be salvaged, without a panic and in bounded time and memory. Each page is in one place: in a table,
//! in an index, or nowhere. Each cell of a page with rows that is in no index ends in its table or in `lost_and_found`; nothing
//! that can be read is dropped in silence. Index entries are not read, indexes are built anew.
//!
//! The rooms: `image` reads pages (with the log over them), `header` finds out page size and encoding, `page`, `record` and
//! `payload` take them apart, `map` finds the pages of each tree, `schema` and `layout` say what rows mean, `rows` reads them,
//! `fill` puts them into tables, `adopt` finds the table of pages that have lost theirs, `lost` keeps the rest, `output` is the
//! new database.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::ffi;

use crate::error::{Detail, Error};
use crate::progress::{Progress, Stage, Watch};

mod adopt;
mod bind;
mod fill;
mod find;
pub(crate) mod header;
pub(crate) mod image;
mod layout;
mod lost;
pub(crate) mod map;
mod output;
pub(crate) mod page;
pub(crate) mod payload;
mod rebuild;
pub(crate) mod record;
mod report;
mod rows;
pub(crate) mod schema;

pub use report::{LostObject, Salvaged, SavedTable};

use fill::Fill;
use find::Found;
use image::{Image, Reader};
use output::Output;

/// How a damaged database is salvaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    ignore_freelist: bool,
}

impl Salvage {
    /// The defaults: also pages on the list of free pages are searched for rows, as damage may have put them there.
    #[must_use]
    pub fn new() -> Salvage {
        Salvage::default()
    }

    /// Leaves out what is on the list of free pages: rows that were deleted, as far as the list is right.
    #[must_use]
    pub fn ignore_freelist(mut self, yes: bool) -> Salvage {
        self.ignore_freelist = yes;
        self
    }

    /// Takes what can be read out of the database `from` (and of its log `from-wal`, if there is one) into the new database
    /// `to`, which must not exist. A rollback journal is not looked at. Neither file may be in use: it is read as it is.
    ///
    /// The new database has no indexes, views or triggers missing that could be made, the page size, encoding, auto_vacuum
    /// mode, `user_version` and `application_id` of the old one, and it is not synced to disk.
    ///
    /// ```
    /// use hardened_sqlite::Salvage;
    /// # let directory = tempfile::tempdir()?;
    /// # let (damaged, new) = (directory.path().join("damaged.db"), directory.path().join("new.db"));
    /// # let connection = hardened_sqlite::rusqlite::Connection::open(&damaged)?;
    /// # connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1), (2)")?;
    /// # drop(connection);
    /// let salvaged = Salvage::new().run(&damaged, &new, &mut |_| std::ops::ControlFlow::Continue(()))?;
    /// assert_eq!(salvaged.rows(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error`] if a file cannot be read or the new one not be written; however damaged the old one is is no error. What there
    /// is of the new one then is worth nothing.
    pub fn run(self, from: &Path, to: &Path, watch: &mut Watch<'_>) -> Result<Salvaged, Error> {
        if to.symlink_metadata().is_ok() {
            return Err(Error::of_file(to, "salvage into it", &io::ErrorKind::AlreadyExists.into()));
        }
        let mut log = from.as_os_str().to_owned();
        log.push("-wal");
        let mut image =
            Image::open(from, Some(Path::new(&log))).map_err(|error| Error::of_file(from, "read it", &error))?;
        let header = header::read(&mut image).map_err(|error| Error::of_file(from, "read it", &error))?;
        self.run_on(&image, header, to, watch).map_err(|failure| failure.into_error(from, to))
    }

    fn run_on(
        self,
        pages: &dyn image::Pages,
        mut header: header::Header,
        to: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<Salvaged, Failure> {
        let reader = Reader::new(pages, header.reserved);
        let count = reader.count();
        let mut found = Found::search(&reader, &mut header, &mut |page| tell(watch, page, count * 2))?;
        let output = Output::create(to, &header)?;
        let mut report = Salvaged {
            pages: count,
            header_damaged: !header.sound,
            schema_damaged: found.schema_damaged,
            ..Salvaged::default()
        };
        let mut fill = Fill::new(&output, header.encoding, &mut report, &mut found, &reader);
        fill.create_tables()?;
        fill.find_trees()?;
        fill.tables(&mut |pages| tell(watch, count + pages, count * 2))?;
        fill.others(self.ignore_freelist)?;
        fill.create_the_rest()?;
        fill.end();
        output.finish(&header)?;
        Ok(report)
    }
}

fn tell(watch: &mut Watch<'_>, done: u32, total: u32) -> Result<(), Failure> {
    match watch(Progress::new(Stage::Salvage, u64::from(done), u64::from(total))) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Failure::Stopped),
    }
}

/// Why there is no new database.
#[derive(Debug)]
enum Failure {
    /// The damaged file cannot be read.
    Read(io::Error),
    /// The new one cannot be written.
    Write(rusqlite::Error),
    /// The user said so.
    Stopped,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Read(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Write(error)
    }
}

impl Failure {
    fn into_error(self, from: &Path, to: &Path) -> Error {
        match self {
            Failure::Read(error) => Error::of_file(from, "read it", &error),
            Failure::Write(error) => Error::from(Detail::of_statement(to, &error)),
            Failure::Stopped => {
                let cause = "stopped before everything was salvaged".to_owned();
                Error::Cancelled(Detail::of(from, ffi::SQLITE_INTERRUPT, cause))
            }
        }
    }
}
