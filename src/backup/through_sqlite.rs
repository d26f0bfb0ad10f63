//! A copy by SQLite's backup API (<https://www.sqlite.org/backup.html>): works on any VFS and filesystem, page by page.
//!
//! When somebody else writes meanwhile SQLite begins anew by itself, so after some time that is not waited for any longer: a
//! read transaction keeps writers out until it is done.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::Method;
use super::snapshot::{Copied, unmark};
use super::staged::Staged;
use crate::beside::directory_of;
use crate::error::{Detail, Error};
use crate::health::ReadTransaction;
use crate::health::pace::Pace;
use crate::progress::Stage;

/// Pages of one step.
const STEP: i32 = 256;

/// How long locks of others are waited for without getting on.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often SQLite may begin anew.
const ROUNDS: u32 = 3;

pub(super) fn copy(
    connection: &Connection,
    path: &Path,
    staged: &Staged,
    pace: &mut Pace<'_, '_>,
) -> Result<Copied, Error> {
    let failed = |error: &rusqlite::Error| Error::from(Detail::of_statement(path, error));
    let number = |pragma: &str| -> Result<u64, Error> {
        let sql = format!("PRAGMA main.{pragma}");
        let number = connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(|error| failed(&error))?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    let size = number("page_size")?.saturating_mul(number("page_count")?);
    staged.room(directory_of(staged.path()), size.saturating_add(size / 50))?;
    staged.set_aside(directory_of(staged.path()), size)?;
    // SQLite takes a file of zeros for no database.
    staged.file().set_len(0).map_err(|error| staged.failed(&error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let uri = crate::uri::plain(staged.path());
    let mut copy = Connection::open_with_flags_and_vfs(uri, flags, "unix").map_err(|error| failed(&error))?;
    // Nobody else has it, and until it is synced it is nothing.
    copy.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").map_err(|error| failed(&error))?;
    let restarts = steps(connection, path, &mut copy, pace)?;
    copy.close().map_err(|(_, error)| failed(&error))?;
    unmark(path, staged)?;
    Ok(Copied { method: Method::Sqlite, restarts })
}

fn steps(connection: &Connection, path: &Path, copy: &mut Connection, pace: &mut Pace<'_, '_>) -> Result<u32, Error> {
    let failed = |error: &rusqlite::Error| Error::from(Detail::of_statement(path, error));
    let backup = Backup::new(connection, copy).map_err(|error| failed(&error))?;
    let (mut restarts, mut left, mut since, mut transaction) = (0, i32::MAX, Instant::now(), None);
    loop {
        let step = backup.step(STEP).map_err(|error| failed(&error))?;
        let progress = backup.progress();
        let (all, remaining) = (progress.pagecount.max(0), progress.remaining.max(0));
        pace.go_on(path, Stage::Copy, (all - remaining) as u64, all as u64)?;
        match step {
            StepResult::Done => break,
            StepResult::More => {
                since = Instant::now();
                if remaining > left {
                    restarts += 1;
                }
                left = remaining;
                if restarts >= ROUNDS && transaction.is_none() {
                    transaction = Some(ReadTransaction::begin(connection, path)?);
                }
            }
            _ if since.elapsed() > PATIENCE => {
                let cause = "others hold locks on it all the time".to_owned();
                return Err(Detail::of(path, ffi::SQLITE_BUSY, cause).into());
            }
            // Locked: the step has waited for the busy timeout already.
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    drop(backup);
    drop(transaction);
    Ok(restarts)
}
