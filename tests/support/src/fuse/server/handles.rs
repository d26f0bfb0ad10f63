//! Open files and directories. Each OPEN has a backing descriptor of its own until its RELEASE.

use fuser::FileType;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One entry of a directory listing.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) node: u64,
    pub(super) kind: FileType,
    pub(super) name: OsString,
}

/// A file or directory that a client has open.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fd: OwnedFd,
    /// A directory's listing, taken when it is read from the start, so that offsets stay valid while
    /// entries come and go.
    pub(super) listing: Mutex<Vec<Entry>>,
}

#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Arc<Handle>>>,
    last: AtomicU64,
}

impl Handles {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, fd: OwnedFd) -> u64 {
        let id = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        self.open().insert(id, Arc::new(Handle { fd, listing: Mutex::default() }));
        id
    }

    pub(super) fn get(&self, id: u64) -> io::Result<Arc<Handle>> {
        self.open().get(&id).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    pub(super) fn remove(&self, id: u64) {
        // The descriptor is closed after the table is unlocked.
        let handle = self.open().remove(&id);
        drop(handle);
    }
}
