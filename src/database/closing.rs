//! The end: the log goes into the file, as far as others let it and within a limit.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::Shared;
use crate::error::Error;

/// What a close could not do. Nothing of that is lost: whoever opens the database next does the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Other handles of this process have the database open still.
    pub still_open: bool,
    /// Why there are commits in the -wal that are not in the file yet, if there are any.
    pub log_left: Option<String>,
}

impl Closed {
    pub(crate) fn not_last() -> Closed {
        Closed { still_open: true, log_left: None }
    }
}

/// Closes all connections.
pub(super) fn close(shared: &Shared) -> Result<Closed, Error> {
    if let Some(readers) = &shared.readers {
        drop(readers.close());
    }
    let mut closed = Closed { still_open: false, log_left: None };
    for connection in shared.writer.close() {
        if shared.readers.is_some() && !shared.options.read_only {
            closed.log_left =
                empty_log(&connection, shared.options.shared.close_limit, shared.options.vfs.busy_timeout);
        }
        connection.close().map_err(|(_, error)| shared.statement_failed(error))?;
    }
    Ok(closed)
}

/// Empties the log; why it could not be done.
fn empty_log(connection: &Connection, limit: Duration, busy_timeout: Duration) -> Option<String> {
    let began = Instant::now();
    let left = interrupted_after(connection, limit, || {
        let _as_before = connection.busy_timeout(busy_timeout.min(limit));
        let mut state = checkpoint(connection, "TRUNCATE");
        if !matches!(state, Ok(State { busy: false, .. })) {
            // Others read or write. What they do not need is copied all the same.
            state = checkpoint(connection, "PASSIVE");
        }
        state
    });
    let why = match left {
        Ok(State { frames, copied, .. }) if frames <= copied => return None,
        Ok(State { frames, copied, .. }) => {
            format!("{} of {frames} pages of its log are not in the file yet, since others use it", frames - copied)
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            // SQLite would try once more when the connection closes.
            let _best_effort = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            format!("emptying its log was given up after {:.1} s", began.elapsed().as_secs_f64())
        }
        Err(error) => format!("its log could not be emptied: {error}"),
    };
    Some(format!("{why}; nothing is lost, and whoever opens the database next does the rest"))
}

struct State {
    busy: bool,
    /// Pages in the log.
    frames: i64,
    copied: i64,
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<State> {
    connection.query_row(&format!("PRAGMA main.wal_checkpoint({mode})"), [], |row| {
        Ok(State { busy: row.get::<_, i64>(0)? != 0, frames: row.get(1)?, copied: row.get(2)? })
    })
}

/// Runs `work`, which SQLite is told to stop when it takes longer than `limit`.
fn interrupted_after<T>(connection: &Connection, limit: Duration, work: impl FnOnce() -> T) -> T {
    let handle = connection.get_interrupt_handle();
    std::thread::scope(|scope| {
        let (done, waits) = channel::<()>();
        let watch = move || {
            if waits.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
            }
        };
        // Without a thread there is no limit.
        let _watching = std::thread::Builder::new().name("hardened-close".into()).spawn_scoped(scope, watch);
        let value = work();
        drop(done);
        value
    })
}
