//! A WAL database on a filesystem where WAL is not safe becomes a rollback database, if nobody else has it open.
//!
//! In EXCLUSIVE locking mode SQLite needs no shared memory and begins by taking the exclusive lock, which meets the SHARED
//! lock that every other WAL connection holds (<https://www.sqlite.org/wal.html#noshm>). Being refused that lock changes
//! nothing on disk. The conversion runs on a connection of its own, before the application's is usable, so that it serves
//! ATTACH as well.

use std::ffi::CStr;

use libsqlite3_sys as ffi;

use super::connection::Owned;
use super::open::plainly;
use super::register::Registration;
use crate::main_file::{Access, MainFile};
use crate::policy::exclusive_lock_is_proof;
use crate::refusal::Refusal;
use crate::setup::{Sql, SqlError};

/// Takes the database out of WAL, or says why not.
pub(crate) fn to_rollback(registration: &Registration, name: &CStr, main: &MainFile) -> Result<(), Refusal> {
    let reason = main.policy().reason;
    let refuse = |why: &str| {
        let text = format!("it is a WAL database, {why}; {reason}");
        let mut refusal = Refusal::new(&main.path, ffi::SQLITE_CANTOPEN_DIRTYWAL, text);
        refusal.not_local = true;
        refusal
    };
    let by_hand = "move it to a local disk, or close it everywhere and open it there once";
    if main.access == Access::ReadOnly {
        return Err(
            refuse("and it cannot be converted because it was opened read-only").hint("open it once read-write")
        );
    }
    if !exclusive_lock_is_proof(&main.verdict) {
        let why = "and whether another host has it open cannot be seen, because this mount keeps its locks to itself";
        return Err(refuse(why).hint(by_hand));
    }
    if main.base == "unix-none" {
        let why = "and whether anybody has it open cannot be seen, because the base VFS `unix-none` takes no locks";
        return Err(refuse(why).hint(by_hand));
    }
    let outcome = plainly(main, || {
        let connection = Owned::open(&registration.api, name, registration.name())?;
        connection.busy_timeout(0);
        connection.value("PRAGMA locking_mode=EXCLUSIVE")?;
        connection.value("PRAGMA journal_mode=DELETE")
    });
    match outcome {
        Ok(Some(mode)) if mode == "delete" => Ok(()),
        Ok(mode) => Err(refuse(&format!("and stayed in journal_mode {}", mode.unwrap_or_default())).hint(by_hand)),
        Err(SqlError { code, .. }) if matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => {
            Err(refuse("and another connection has it open").hint("close it there and try again; nothing was changed"))
        }
        Err(SqlError { code, message }) => {
            Err(refuse(&format!("and converting it failed: {message} ({code})")).hint(by_hand))
        }
    }
}
