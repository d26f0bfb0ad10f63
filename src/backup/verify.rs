//! Looking at a copy before it counts.

use std::path::Path;

use hardened_vfs::Options;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::error::{Detail, Error};
use crate::health::pace::Pace;
use crate::health::{Check, Health, examine};
use crate::progress::Stage;

/// Opens a file that nobody changes, without locks, and with checksums if it has any.
pub(crate) fn open_unchanging(path: &Path) -> Result<Connection, Error> {
    register()?;
    let uri = format!("{}&immutable=1", crate::uri::of_all(path, &Options::default()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags_and_vfs(uri, flags, hardened_vfs::NAME)
        .map_err(|error| Detail::of_statement(path, &error).into())
}

/// Makes sure that there is the VFS; all options come in the URI.
pub(crate) fn register() -> Result<(), Error> {
    match hardened_vfs::register(Options::default()) {
        Ok(()) | Err(hardened_vfs::RegisterError::OtherOptions { .. }) => Ok(()),
        Err(error) => Err(Error::Register(error)),
    }
}

/// What a check of the copy finds, if that is nothing that damages data.
///
/// # Errors
/// [`Error::Corrupt`] otherwise.
pub(super) fn copy(path: &Path, check: Check, pace: &mut Pace<'_, '_>) -> Result<Health, Error> {
    let connection = open_unchanging(path)?;
    let health = examine(&connection, check, &mut pace.within(Stage::Verify))?;
    match health.findings.iter().find(|finding| !finding.is_harmless()) {
        None => Ok(health),
        Some(finding) => {
            let cause = format!("the copy is not sound, so it is not kept: {finding}");
            let hint = Some("check the database itself; the backups there are stay as they are".to_owned());
            Err(Detail { hint, ..Detail::of(path, ffi::SQLITE_CORRUPT, cause) }.into())
        }
    }
}
