//! The database as of one commit, copied while others write.
//!
//! In WAL mode a read transaction is enough: what it holds off, and what must be laid over the copy, says `log`. In rollback
//! mode the read transaction keeps the file as it is, and writers out. So it is given up and taken again after a while, and if
//! nobody has committed in between, what was copied still counts; if somebody has, the copy is gone through again from the
//! start and only what differs is written. The last round is not interrupted any more.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hardened_vfs::Report;
use hardened_vfs::checksum::sum;
use rusqlite::{Connection, ffi};

use super::copy::Copier;
use super::log::Log;
use super::staged::Staged;
use super::{Method, through_sqlite};
use crate::beside::{Beside, identity_of};
use crate::error::{Detail, Error};
use crate::health::ReadTransaction;
use crate::health::pace::Pace;
use crate::progress::Stage;

/// After so many rounds that a commit has spoiled writers wait.
const ROUNDS: u32 = 3;

/// How long a writer is waited for that was let in.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was copied, and how.
pub(super) struct Copied {
    pub(super) method: Method,
    pub(super) restarts: u32,
}

/// Whether the connection keeps all others out, and with it what it knows of the log.
pub(crate) fn is_alone(connection: &Connection) -> bool {
    let mode = connection.query_row("PRAGMA main.locking_mode", [], |row| row.get::<_, String>(0));
    mode.is_ok_and(|mode| mode == "exclusive")
}

/// Whether the file of this name is the one that the connection has open.
pub(crate) fn is_the_open_one(report: &Report, file: &Beside, path: &Path) -> Result<(), Error> {
    match report.identity {
        Some(open) if open == file.identity() => Ok(()),
        Some(_) => Err(moved(path)),
        None => {
            let cause = "its file can only be read through its own VFS".to_owned();
            Err(Detail::of(path, ffi::SQLITE_ERROR, cause).into())
        }
    }
}

fn moved(path: &Path) -> Error {
    let cause = "the file of this name is not the one that is open".to_owned();
    let hint = Some("close the database and open it again".to_owned());
    Detail { hint, ..Detail::of(path, ffi::SQLITE_READONLY_DBMOVED, cause) }.into()
}

/// Copies the main database of `connection` as it is committed.
pub(super) fn take(
    connection: &Connection,
    path: &Path,
    staged: &Staged,
    pace: &mut Pace<'_, '_>,
) -> Result<Copied, Error> {
    if !connection.is_autocommit() {
        let cause = "the connection is within a transaction".to_owned();
        let hint = Some("commit it or roll it back first, or use another connection".to_owned());
        return Err(Detail { hint, ..Detail::of(path, ffi::SQLITE_BUSY, cause) }.into());
    }
    let report = crate::report(connection).ok();
    let report = report.filter(|report| {
        cfg!(target_os = "linux") && report.identity.is_some() && report.verdict.class == "local" && !is_nolock(report)
    });
    match report {
        Some(report) => match (Source { connection, path, report }).take(staged, pace) {
            // Such as a log that only SQLite can read. If that is not it, SQLite says so.
            Err(Error::Sqlite(_)) => through_sqlite::copy(connection, path, staged, pace),
            taken => taken,
        },
        None => through_sqlite::copy(connection, path, staged, pace),
    }
}

/// Nobody keeps writers away then.
fn is_nolock(report: &Report) -> bool {
    report.access == "nolock"
}

struct Source<'c> {
    connection: &'c Connection,
    path: &'c Path,
    report: Report,
}

impl Source<'_> {
    fn take(&self, staged: &Staged, pace: &mut Pace<'_, '_>) -> Result<Copied, Error> {
        let mut transaction = ReadTransaction::begin(self.connection, self.path)?;
        let file = Beside::open(self.path).map_err(|error| self.unreadable(&error))?;
        is_the_open_one(&self.report, &file, self.path)?;
        let mode = self.connection.query_row("PRAGMA main.journal_mode", [], |row| row.get::<_, String>(0));
        let mode = mode.map_err(|error| Detail::of_statement(self.path, &error))?;
        let copied = if mode == "wal" {
            self.take_with_log(&file, staged, pace)
        } else {
            self.take_in_rounds(&mut transaction, &file, staged, pace)
        }?;
        if identity_of(self.path).ok() != Some(file.identity()) {
            return Err(moved(self.path));
        }
        drop(file);
        drop(transaction);
        Ok(copied)
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        Error::of_file(self.path, "it cannot be read", error)
    }

    fn take_with_log(&self, file: &Beside, staged: &Staged, pace: &mut Pace<'_, '_>) -> Result<Copied, Error> {
        let alone = is_alone(self.connection);
        let mut copier = Copier::new(self.path, file, staged, None)?;
        while !copier.is_done() {
            copier.step(pace)?;
        }
        // After the database: what a checkpoint has written meanwhile is in the log too.
        let mut log = Log::of(self.path, alone)?;
        for _ in 0..ROUNDS {
            let Some(laid) = &log else { break };
            if lay_over(laid, staged, self.path, pace)? {
                break;
            }
            // Begun anew while it was read: then it held nothing that the database has not, which no checkpoint writes to
            // until this transaction ends.
            lay_back(laid, file, staged).map_err(|error| self.unreadable(&error))?;
            log = Log::of(self.path, alone)?;
        }
        if log.as_ref().is_some_and(|log| !log.stands().unwrap_or(false)) {
            let cause = "the log does not come to rest".to_owned();
            return Err(Detail::of(self.path, ffi::SQLITE_BUSY, cause).into());
        }
        let page_count = log.as_ref().map(|log| log.page_count);
        finish(self.path, staged, page_count, log.as_ref())?;
        Ok(Copied { method: copier.method(), restarts: 0 })
    }

    fn take_in_rounds(
        &self,
        transaction: &mut ReadTransaction<'_>,
        file: &Beside,
        staged: &Staged,
        pace: &mut Pace<'_, '_>,
    ) -> Result<Copied, Error> {
        let longest = self.longest();
        let (mut round, mut before) = (0, self.state(file)?);
        let mut copier = Copier::new(self.path, file, staged, None)?;
        let mut since = Instant::now();
        while !copier.is_done() {
            copier.step(pace)?;
            if copier.is_done() || round >= ROUNDS || since.elapsed() < longest {
                continue;
            }
            self.renew(transaction)?;
            since = Instant::now();
            let now = self.state(file)?;
            if now != before {
                (round, before) = (round + 1, now);
                copier = Copier::new(self.path, file, staged, Some(copier.method()))?;
            }
        }
        finish(self.path, staged, None, None)?;
        Ok(Copied { method: copier.method(), restarts: round })
    }

    /// Lets writers in, and waits until they are done.
    fn renew(&self, transaction: &mut ReadTransaction<'_>) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            match transaction.renew() {
                Err(Error::Busy(_)) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
                renewed => return renewed,
            }
        }
    }

    /// How long writers may be kept waiting: a quarter of what this connection itself would wait, within reason.
    fn longest(&self) -> Duration {
        let timeout = Duration::from_millis(u64::from(self.report.busy_timeout.unwrap_or(0)));
        (timeout / 4).clamp(Duration::from_millis(50), Duration::from_millis(500))
    }

    /// What no commit leaves as it was: the change counter, and what follows it that SQLite looks at itself.
    fn state(&self, file: &Beside) -> Result<([u8; 100], u64, i64), Error> {
        let mut header = [0; 100];
        file.read_at(&mut header, 0).map_err(|error| self.unreadable(&error))?;
        let size = file.size().map_err(|error| self.unreadable(&error))?;
        let version = self.connection.query_row("PRAGMA main.data_version", [], |row| row.get(0));
        Ok((header, size, version.map_err(|error| Detail::of_statement(self.path, &error))?))
    }
}

/// Writes the pages of the log over the copy; whether it was the same log all the time.
fn lay_over(log: &Log, staged: &Staged, path: &Path, pace: &mut Pace<'_, '_>) -> Result<bool, Error> {
    let mut page = vec![0; log.page_size() as usize];
    let unreadable = |error: &std::io::Error| Error::of_file(path, "its log cannot be read", error);
    let sealed = match has_sums(log, staged, &mut page) {
        Ok(sealed) => sealed,
        Err(_) if !log.stands().map_err(|error| unreadable(&error))? => return Ok(false),
        Err(error) => return Err(unreadable(&error)),
    };
    let (pages, size) = (log.numbers(), u64::from(log.page_size()));
    let total = u64::from(log.page_count);
    let apart = pages.len() as u64;
    for (done, number) in pages.enumerate() {
        match log.page(number, &mut page) {
            Ok(()) => {}
            Err(_) if !log.stands().map_err(|error| unreadable(&error))? => return Ok(false),
            Err(error) => return Err(unreadable(&error)),
        }
        if sealed {
            seal(&mut page);
        }
        staged.file().write_all_at(&page, u64::from(number - 1) * size).map_err(|error| staged.failed(&error))?;
        pace.go_on(path, Stage::Copy, total.saturating_sub(apart - done as u64), total)?;
    }
    log.stands().map_err(|error| unreadable(&error))
}

/// Writes what the database has over the pages of the log.
fn lay_back(log: &Log, file: &Beside, staged: &Staged) -> std::io::Result<()> {
    let (mut page, size) = (vec![0; log.page_size() as usize], u64::from(log.page_size()));
    for number in log.numbers() {
        let at = u64::from(number - 1) * size;
        if file.read_at(&mut page, at)? == page.len() {
            staged.file().write_all_at(&page, at)?;
        }
    }
    Ok(())
}

/// Whether pages have checksums, which frames of the log carry none of.
fn has_sums(log: &Log, staged: &Staged, page: &mut [u8]) -> std::io::Result<bool> {
    if log.has(1) {
        log.page(1, page)?;
    } else {
        staged.file().read_exact_at(page, 0)?;
    }
    Ok(page.get(20).copied() == Some(sum::SIZE as u8))
}

fn seal(page: &mut [u8]) {
    let sum = sum::of(page);
    let start = page.len().saturating_sub(sum::SIZE);
    if let Some(place) = page.get_mut(start..) {
        place.copy_from_slice(&sum);
    }
}

/// Gives the copy its length, and the mark of a database without a log: it has none.
fn finish(path: &Path, staged: &Staged, page_count: Option<u32>, log: Option<&Log>) -> Result<(), Error> {
    if let (Some(count), Some(log)) = (page_count, log) {
        let length = u64::from(count) * u64::from(log.page_size());
        staged.file().set_len(length).map_err(|error| staged.failed(&error))?;
    }
    unmark(path, staged)
}

/// Writes the mark of rollback mode into page 1 of a copy.
pub(super) fn unmark(path: &Path, staged: &Staged) -> Result<(), Error> {
    let failed = |error: &std::io::Error| staged.failed(error);
    let not_a_database = |cause: String| Error::from(Detail::of(path, ffi::SQLITE_NOTADB, cause));
    if staged.size()? == 0 {
        return Err(not_a_database("it is empty, and no backup is made of nothing".to_owned()));
    }
    let mut start = [0; 100];
    let read = staged.file().read_at(&mut start, 0).map_err(|error| failed(&error))?;
    let header = hardened_vfs::format::database::Header::parse(start.get(..read).unwrap_or_default())
        .map_err(|error| not_a_database(error.to_string()))?;
    if header.write_version == 1 && header.read_version == 1 {
        return Ok(());
    }
    let mut page = vec![0; header.page_size as usize];
    staged.file().read_exact_at(&mut page, 0).map_err(|error| failed(&error))?;
    // A wrong sum would be made right.
    let damaged = usize::from(header.reserved) == sum::SIZE && !sum::holds(&page);
    if let Some(versions) = page.get_mut(18..20) {
        versions.copy_from_slice(&[1, 1]);
    }
    if usize::from(header.reserved) == sum::SIZE && !damaged {
        seal(&mut page);
    }
    staged.file().write_all_at(&page, 0).map_err(|error| failed(&error))
}
