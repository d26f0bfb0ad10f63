//! The guard's record looked at from outside, by a process that has no connection to the database.

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::beside::{self, Circumstances};
use super::classify::{self, Finding, Journal, PageNow, Wal};
use super::images::Folded;
use super::log::Time;
use super::sums::Sums;
use super::{SUFFIX, boot_id};
use crate::format::wal_index;

/// What the record says, and how the files compare with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examined {
    /// Records that could be read.
    pub records: u64,
    /// What is concluded from them now.
    pub finding: Finding,
    /// An alarm that was raised at an open and that nobody has lifted.
    pub alarm: Option<String>,
    /// Failed syncs that nobody has lifted.
    pub halts: Vec<String>,
}

/// The name of the sidecar of a database.
///
/// ```
/// assert_eq!(hardened_vfs::guard::sidecar("app.db".as_ref()), std::path::Path::new("app.db-guard"));
/// ```
#[must_use]
pub fn sidecar(database: &Path) -> PathBuf {
    suffixed(database, SUFFIX)
}

fn suffixed(database: &Path, suffix: &str) -> PathBuf {
    let name = [database.as_os_str().as_bytes(), suffix.as_bytes()].concat();
    std::ffi::OsString::from_vec(name).into()
}

/// Compares the record of a database with its files; `None` if it has none. `shared`: it is not on a local filesystem.
///
/// Files are opened and closed: in a process with a connection to the database that would drop the connection's locks.
///
/// # Errors
/// What the filesystem answers, and a record that is of a later version or not a record.
pub fn examine(database: &Path, shared: bool) -> io::Result<Option<Examined>> {
    let record = match std::fs::read(sidecar(database)) {
        Ok(record) => record,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if record.is_empty() {
        return Ok(None);
    }
    let log = Folded::read(&record).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let file = File::open(database)?;
    let mut first = [0; 100];
    let first = file.read_exact_at(&mut first, 0).is_ok().then_some(&first[..]);
    let log_changed = std::fs::metadata(sidecar(database)).ok().map(|found| Time::of_change(&found));
    let changed = Some(Time::of_change(&file.metadata()?));
    let circumstances = Circumstances { boot: boot_id(), shared, changed, log_changed };
    let seen = beside::observation(&log, first, circumstances, |page_size| {
        let journal = journal(&suffixed(database, "-journal"), page_size).unwrap_or(Journal::Unread);
        (journal, wal(database).unwrap_or(Wal::Unread))
    });
    let size = log.header.page_size;
    let mut page = |number: u32| {
        let mut page = vec![0; size as usize];
        match file.read_exact_at(&mut page, u64::from(number.saturating_sub(1)) * u64::from(size)) {
            Ok(()) => PageNow::Image(Sums::of(&page)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => PageNow::Beyond,
            Err(_) => PageNow::Unread,
        }
    };
    let finding = classify::classify(&log, &seen, &mut page);
    let halts = log.halts.iter().map(|halt| halt.message.clone()).collect();
    Ok(Some(Examined { records: log.last_sequence, finding, alarm: log.alarm.clone(), halts }))
}

fn opened(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let size = file.metadata()?.len();
            Ok(Some((file, size)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn journal(path: &Path, page_size: u32) -> io::Result<Journal> {
    let Some((file, size)) = opened(path)? else { return Ok(Journal::Absent) };
    let exists = |name: &[u8]| Path::new(std::ffi::OsStr::from_bytes(name)).exists();
    beside::journal(file, size, page_size, exists)
}

fn wal(database: &Path) -> io::Result<Wal> {
    let mut index = [0; wal_index::HEADER_SIZE];
    if let Some((file, _)) = opened(&suffixed(database, "-shm"))? {
        let _shorter = file.read_exact_at(&mut index, 0);
    }
    match opened(&suffixed(database, "-wal"))? {
        Some((file, size)) => beside::wal(file, size, &index),
        None => Ok(Wal::Absent),
    }
}
