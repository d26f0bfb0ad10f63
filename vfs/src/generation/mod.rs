//! Whether the open files are still those that their names lead to.
//!
//! A database that was renamed or replaced, a -wal that another process has unlinked, a -shm that was made anew: whoever
//! opens the database by its name from then on works with other files, and what is still written to the old ones is lost or
//! mixed with the new ones. That generation is dead.
//!
//! Invariant: [`Generation::check`] answers that all is well only if each name has led to its file at a moment within the
//! call, or if no name in the directory has changed since one. The directory's own time of change tells; a time that is
//! too young to tell two changes apart proves nothing, and then each name is looked at.

pub(crate) mod manifest;

use std::ffi::{CString, OsString};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::Stat;

use crate::fs::Class;
use crate::guard::log::Time;
use crate::journal_file::Access;

/// Device and inode.
pub(crate) type Identity = (u64, u64);

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

/// The files whose names matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Database,
    Wal,
    SharedMemory,
}

impl Which {
    const ALL: [Which; 3] = [Which::Database, Which::Wal, Which::SharedMemory];

    fn suffix(self) -> &'static str {
        match self {
            Which::Database => "",
            Which::Wal => "-wal",
            Which::SharedMemory => "-shm",
        }
    }

    /// Its name beside this database.
    pub(crate) fn path(self, database: &Path) -> PathBuf {
        let mut path = OsString::from(database);
        path.push(self.suffix());
        path.into()
    }

    fn words(self) -> &'static str {
        match self {
            Which::Database => "the database",
            Which::Wal => "its -wal",
            Which::SharedMemory => "its -shm",
        }
    }
}

/// A name that does not lead to the open file any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) which: Which,
    /// There is another file of that name now.
    pub(crate) replaced: bool,
}

/// What has moved, in words.
pub(crate) fn describe(moved: &[Moved]) -> String {
    let one = |moved: &Moved| {
        let what = if moved.replaced { "is another file now" } else { "has been renamed or removed" };
        format!("{} {what}", moved.which.words())
    };
    moved.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a connection writes, each with a look at the names before its first write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Transaction,
    Checkpoint,
}

/// The files that one connection has open.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    names: Mutex<Names>,
    /// Whether the names were found right for the transaction and the checkpoint that are being written.
    looked: [AtomicBool; 2],
}

#[derive(Debug, Default)]
struct Names {
    open: [Option<Identity>; 3],
    /// Who may read and write the database, as far as is known.
    access: Option<Access>,
    /// The name of the directory, once it was looked at.
    directory: Option<CString>,
    /// The directory when all names were last found right, if no later change in it can look the same.
    checked: Option<(Identity, Time)>,
}

impl Generation {
    /// Remembers a file that has just been opened by its name.
    pub(crate) fn opened(&self, which: Which, database: &Path) {
        if let Ok(found) = std::fs::metadata(which.path(database)) {
            self.is(which, Some(identity(&found)));
            if which == Which::Database {
                let access = Access::of(&found);
                self.names.lock().unwrap_or_else(PoisonError::into_inner).access = Some(access);
            }
        }
    }

    /// Remembers the database by what an open handle of it has told.
    pub(crate) fn is_database(&self, identity: Identity, access: Access) {
        self.is(Which::Database, Some(identity));
        self.names.lock().unwrap_or_else(PoisonError::into_inner).access = Some(access);
    }

    /// The database as it is known now, with this moment: to be asked for when it has just been opened.
    pub(crate) fn seen(&self) -> Option<(Identity, Instant, Access)> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        Some((names.open[Which::Database as usize]?, Instant::now(), names.access?))
    }

    /// Who may read and write the database.
    pub(crate) fn access(&self) -> Option<Access> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).access
    }

    /// The file of this name is not open any more.
    pub(crate) fn closed(&self, which: Which) {
        self.is(which, None);
    }

    /// What is open under this name.
    pub(crate) fn is(&self, which: Which, identity: Option<Identity>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.open[which as usize] = identity;
        names.checked = None;
    }

    /// The file that is known under this name.
    pub(crate) fn identity(&self, which: Which) -> Option<Identity> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).open[which as usize]
    }

    /// Whether the names were found right for the work that goes on.
    pub(crate) fn has_looked(&self, work: Work) -> bool {
        self.looked[work as usize].load(Ordering::Relaxed)
    }

    /// They were found right.
    pub(crate) fn looked(&self, work: Work) {
        self.looked[work as usize].store(true, Ordering::Relaxed);
    }

    /// The work is over, and the next one needs a look of its own.
    pub(crate) fn over(&self, work: Work) {
        self.looked[work as usize].store(false, Ordering::Relaxed);
    }

    /// Whether the name of the database leads to the open file, by one request at most, which also tells who may read and write
    /// it. `false` if that is not known.
    pub(crate) fn is_in_place(&self, database: &Path, class: Class) -> bool {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        // Following the name is what tells; the attributes of what is found there need not be fresh for that. Not so on NFS,
        // where a file that is gone is only noticed when its attributes are asked for.
        let (flags, wanted) = match class {
            Class::Fuse => (AtFlags::STATX_DONT_SYNC, StatxFlags::INO),
            _ => (AtFlags::empty(), StatxFlags::BASIC_STATS),
        };
        let Ok(found) = statx(CWD, database, flags, wanted) else { return false };
        let identity = (makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let is = names.open[Which::Database as usize] == Some(identity);
        if is
            && StatxFlags::from_bits_retain(found.stx_mask)
                .contains(StatxFlags::MODE | StatxFlags::UID | StatxFlags::GID)
        {
            // Somebody may have changed them since.
            let access = Access { mode: found.stx_mode.into(), user: found.stx_uid, group: found.stx_gid };
            names.access = Some(access);
        }
        is
    }

    /// Which names have moved, by one look at the directory where that is enough. A name that cannot be looked at proves
    /// nothing.
    pub(crate) fn check(&self, database: &Path) -> Vec<Moved> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the names: what changes after this look shows at the next.
        let directory = names.directory.get_or_insert_with(|| directory_of(database)).as_c_str();
        let directory = rustix::fs::stat(directory).ok().map(|found| seen(&found));
        if directory.is_some() && names.checked == directory {
            return Vec::new();
        }
        let moved: Vec<Moved> =
            Which::ALL.into_iter().filter_map(|which| look(which, names.open[which as usize]?, database)).collect();
        names.checked = directory.filter(|(_, changed)| moved.is_empty() && changed.lies_back());
        moved
    }
}

fn directory_of(database: &Path) -> CString {
    let directory = database.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = directory.map_or(&b"."[..], |directory| directory.as_os_str().as_bytes());
    // A path comes from a C string.
    CString::new(name).unwrap_or_default()
}

#[allow(clippy::unnecessary_cast)]
fn seen(found: &Stat) -> (Identity, Time) {
    let nanoseconds = u32::try_from(found.st_ctime_nsec).unwrap_or(0);
    ((found.st_dev as u64, found.st_ino as u64), Time { seconds: found.st_ctime as i64, nanoseconds })
}

fn look(which: Which, open: Identity, database: &Path) -> Option<Moved> {
    match std::fs::metadata(which.path(database)) {
        Ok(found) => (identity(&found) != open).then_some(Moved { which, replaced: true }),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Some(Moved { which, replaced: false })
        }
        Err(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
