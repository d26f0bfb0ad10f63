//! What all connections of this process to one database share: whether it is halted, and the guard's record.
//!
//! Invariant: two connections to the same file have the same [`Shared`] for as long as one of them lives, by whatever names
//! they opened it. It goes with the last of them; the next open begins anew, with what the record says. A forked child has
//! none of them: they are its parent's.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::guard::keeper::Keeper;
use crate::lock::fork::PerProcess;
use crate::sync::Health;
use crate::sync::directory::Directory;

/// What makes a database the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Device and inode.
    Inode(u64, u64),
    /// A name in another VFS than the operating system's.
    Name(String, PathBuf),
}

impl Identity {
    /// Of an open file of the operating system, if device and inode are known; else by its name.
    pub(crate) fn of(path: &Path, base: &str, inode: Option<(u64, u64)>) -> Identity {
        match inode {
            Some((device, inode)) => Identity::Inode(device, inode),
            None => Identity::Name(base.to_owned(), path.to_owned()),
        }
    }
}

/// One database, as far as this process has it open.
pub(crate) struct Shared {
    identity: Identity,
    /// Its directory, where it is one of the operating system's and may be read.
    directory: Mutex<Option<Arc<Directory>>>,
    pub(crate) health: Health,
    keeper: Mutex<Keeper>,
    /// Whether the keeper records pages: asked for each page.
    pub(crate) records: AtomicBool,
    /// The salts of the last WAL generation whose frames this process has seen in the database, synced.
    synced_generation: Mutex<Option<[u32; 2]>>,
    /// Damage that was proven.
    alarms: Mutex<Vec<String>>,
    /// See [`Shared::wal_end`].
    wal_end: Mutex<([u32; 2], u64)>,
    /// Whether the record has been judged: see [`crate::guard::keeper::Judged`].
    pub(crate) judged: AtomicU8,
}

/// Those that are open, and how many connections each has.
static OPEN: PerProcess<Vec<(Arc<Shared>, usize)>> = PerProcess::new(|_| Vec::new());

impl Shared {
    /// The one of this identity, or a new one with what `begin` makes.
    ///
    /// # Errors
    /// What `begin` answers.
    pub(crate) fn of<E>(
        identity: Identity,
        begin: impl FnOnce() -> Result<(Keeper, Option<Directory>), E>,
    ) -> Result<Arc<Shared>, E> {
        let mut open = OPEN.lock();
        if let Some((shared, connections)) = open.iter_mut().find(|(shared, _)| shared.identity == identity) {
            *connections += 1;
            return Ok(Arc::clone(shared));
        }
        let (keeper, directory) = begin()?;
        let shared = Arc::new(Shared {
            identity,
            directory: Mutex::new(directory.map(Arc::new)),
            health: Health::default(),
            records: AtomicBool::new(keeper.is_on()),
            keeper: Mutex::new(keeper),
            synced_generation: Mutex::default(),
            alarms: Mutex::default(),
            wal_end: Mutex::default(),
            judged: AtomicU8::new(0),
        });
        open.push((Arc::clone(&shared), 1));
        Ok(shared)
    }

    /// A connection that had it from [`Shared::of`] is closed. With the last one the record is over, even if somebody still
    /// holds a reference for a moment.
    pub(crate) fn leave(&self) {
        let last = {
            let mut open = OPEN.lock();
            let Some(index) = open.iter().position(|(shared, _)| std::ptr::eq(Arc::as_ptr(shared), self)) else {
                return;
            };
            let left = open.get_mut(index).map_or(0, |(_, connections)| {
                *connections = connections.saturating_sub(1);
                *connections
            });
            // Its last reference may be this one, so it is not dropped under the mutex.
            (left == 0).then(|| open.swap_remove(index))
        };
        if last.is_some() {
            self.keeper().close();
        }
    }

    /// Its directory, where it is one of the operating system's and may be read.
    pub(crate) fn directory(&self) -> Option<Arc<Directory>> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes what is not needed for the database to work, because a descriptor is wanted; `false` if there was nothing.
    pub(crate) fn spare_descriptors(&self) -> bool {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// The guard's record. Nothing that calls SQLite may run while it is held.
    pub(crate) fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last generation of the log to which this process has committed, and where the last of those frames begins; 0
    /// without one.
    pub(crate) fn wal_end(&self) -> ([u32; 2], u64) {
        *self.wal_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame at `at` has been committed.
    pub(crate) fn committed(&self, salts: [u32; 2], at: u64) {
        let mut end = self.wal_end.lock().unwrap_or_else(PoisonError::into_inner);
        *end = (salts, if end.0 == salts { end.1.max(at) } else { at });
    }

    /// The log has been deleted or made empty: nothing of it is needed any more.
    pub(crate) fn log_emptied(&self) {
        *self.wal_end.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    /// Remembers an alarm for the reports of all connections.
    pub(crate) fn alarm(&self, text: String) {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// The alarms, and why everything has stopped if it has.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner).clone();
        alarms.into_iter().chain(self.health.why()).collect()
    }

    /// Remembers that all frames of this generation are in the database and on disk.
    pub(crate) fn generation_synced(&self, salts: [u32; 2]) {
        *self.synced_generation.lock().unwrap_or_else(PoisonError::into_inner) = Some(salts);
    }

    pub(crate) fn is_generation_synced(&self, salts: [u32; 2]) -> bool {
        *self.synced_generation.lock().unwrap_or_else(PoisonError::into_inner) == Some(salts)
    }
}
