//! A copy that is being made, under a name of its own.
//!
//! Invariant: the file is locked (flock(2)) as long as its maker lives, and its name says for which destination it is made. So a
//! file of such a name without a lock was left by a run that was killed, and the next one removes it.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::ffi;
use rustix::fs::{FlockOperation, flock};

use super::destination::Destination;
use crate::error::{Detail, Error};

/// How the names begin.
const PREFIX: &str = ".hardened-backup-";

/// How long another run may look through the directory or rotate.
const PATIENCE: Duration = Duration::from_secs(10);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A copy that is being made; removed when dropped.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    file: File,
    published: bool,
}

/// The beginning of the names of all copies for one destination: short, whatever its name is.
fn prefix(destination: &Path) -> String {
    // FNV-1a: the same in every version of this crate.
    let name = destination.file_name().unwrap_or_default().as_encoded_bytes();
    let hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{PREFIX}{hash:016x}-")
}

/// A name in the directory of the destination that nobody else uses.
pub(super) fn fresh_name(destination: &Destination) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    destination.directory.join(format!("{}{}-{number}", prefix(&destination.path), std::process::id()))
}

/// The directory, locked: one run at a time looks through it or renames in it.
pub(super) struct Turn {
    directory: File,
}

impl Turn {
    pub(super) fn take(destination: &Destination) -> Result<Turn, Error> {
        let path = &destination.directory;
        let directory = File::open(path).map_err(|error| Error::of_file(path, "it cannot be opened", &error))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Turn { directory }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let cause = "another backup into this directory does not come to an end".to_owned();
                    return Err(Detail::of(path, ffi::SQLITE_BUSY, cause).into());
                }
                // Some filesystems lock no directories; two runs that begin in the same moment are then not kept apart.
                Err(_) => return Ok(Turn { directory }),
            }
        }
    }

    /// Makes the names in the directory last.
    pub(super) fn sync(&self, path: &Path) -> Result<(), Error> {
        match self.directory.sync_all() {
            // Some filesystems sync no directories.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
            synced => synced.map_err(|error| Error::of_file(path, "its name cannot be synced", &error)),
        }
    }
}

impl Staged {
    /// Removes what killed runs have left of this destination, and begins a copy.
    pub(super) fn begin(destination: &Destination) -> Result<Staged, Error> {
        let _turn = Turn::take(destination)?;
        remove_leftovers(destination)?;
        let path = fresh_name(destination);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::of_file(&destination.path, "a copy cannot be created beside it", &error))?;
        // Where there are no such locks another run could remove it, and then the rename fails.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Staged { path, file, published: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn failed(&self, error: &io::Error) -> Error {
        Error::of_file(&self.path, "the copy cannot be written", error)
    }

    pub(super) fn size(&self) -> Result<u64, Error> {
        self.file.metadata().map(|found| found.len()).map_err(|error| self.failed(&error))
    }

    fn full(&self, directory: &Path, bytes: u64, why: &str) -> Error {
        let cause = format!("{bytes} bytes are needed in {}: {why}", directory.display());
        Error::NoSpace(Detail::of(&self.path, ffi::SQLITE_FULL, cause))
    }

    /// Whether so many bytes are free.
    pub(super) fn room(&self, directory: &Path, bytes: u64) -> Result<(), Error> {
        match fs2::available_space(directory) {
            Ok(free) if free < bytes => Err(self.full(directory, bytes, &format!("{free} are free"))),
            _ => Ok(()),
        }
    }

    /// Has room for the copy set aside, where that is possible.
    pub(super) fn set_aside(&self, directory: &Path, bytes: u64) -> Result<(), Error> {
        match fs2::FileExt::allocate(&self.file, bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(self.full(directory, bytes, &error.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Gives the copy the permissions of `source`, and its owner as far as that is allowed.
    pub(super) fn take_after(&self, source: &Path) -> Result<(), Error> {
        let Ok(found) = std::fs::metadata(source) else { return Ok(()) };
        let mine = self.file.metadata().map_err(|error| self.failed(&error))?;
        let mut mode = found.mode() & 0o777;
        let group = (found.gid() != mine.gid()).then_some(found.gid());
        let owner = (found.uid() != mine.uid()).then_some(found.uid());
        if owner.is_some() || group.is_some() {
            let both = std::os::unix::fs::fchown(&self.file, owner, group);
            if both.is_err() && group.is_some() && std::os::unix::fs::fchown(&self.file, None, group).is_err() {
                // What one group may do is not for another.
                mode &= !0o070;
            }
        }
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(|error| self.failed(&error))
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(|error| self.failed(&error))
    }

    /// Whether the file of this name has the same bytes.
    pub(super) fn is_identical(&self, other: &Path) -> Result<bool, Error> {
        let Ok(other) = crate::beside::Beside::open(other) else { return Ok(false) };
        let size = self.size()?;
        if other.size().ok() != Some(size) {
            return Ok(false);
        }
        let (mut mine, mut its, mut at) = (vec![0; 1 << 20], vec![0; 1 << 20], 0);
        while at < size {
            let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(mine.len());
            let (Some(mine), Some(its)) = (mine.get_mut(..length), its.get_mut(..length)) else { return Ok(false) };
            self.file.read_exact_at(mine, at).map_err(|error| self.failed(&error))?;
            if other.read_at(its, at).ok() != Some(length) || mine != its {
                return Ok(false);
            }
            at += length as u64;
        }
        Ok(true)
    }

    /// Gives the copy its name.
    pub(super) fn publish(mut self, name: &Path) -> Result<(), Error> {
        std::fs::rename(&self.path, name)
            .map_err(|error| Error::of_file(name, "the copy cannot be given its name", &error))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // The next run tries again.
            let _ = std::fs::remove_file(&self.path);
            for ending in ["-journal", "-wal", "-shm"] {
                let _ = std::fs::remove_file(crate::beside::with_ending(&self.path, ending));
            }
        }
    }
}

fn remove_leftovers(destination: &Destination) -> Result<(), Error> {
    let prefix = prefix(&destination.path);
    let directory = &destination.directory;
    let entries =
        std::fs::read_dir(directory).map_err(|error| Error::of_file(directory, "it cannot be listed", &error))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
        if !is_ours || !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let locked = match crate::beside::Beside::open(&path) {
            Ok(file) => match file.fd() {
                Ok(fd) => flock(fd, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK),
                Err(_) => true,
            },
            Err(_) => continue,
        };
        if locked {
            let cause = "another backup to this name is under way".to_owned();
            let hint = Some("wait for it, then try again".to_owned());
            return Err(Detail { hint, ..Detail::of(&destination.path, ffi::SQLITE_BUSY, cause) }.into());
        }
        let _ = std::fs::remove_file(&path);
    }
    Ok(())
}
