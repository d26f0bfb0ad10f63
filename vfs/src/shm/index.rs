//! The -shm file of one connection: opened, locked, mapped and deleted as stock SQLite does it.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use libsqlite3_sys as ffi;

use super::Place;
use super::locks::{IndexLocks, READERS, SWITCH, is_checkpoint, writes};
use super::regions::Regions;
use crate::journal_file::Access;
use crate::lock::Bytes;
use crate::lock::ofd::Handle;

/// SQLITE_READONLY_CANTINIT, which older bindings do not name.
const READONLY_CANTINIT: c_int = ffi::SQLITE_READONLY | (5 << 8);

/// So long after the open the index is made as if it had been made then. Later the database is asked once more who may read it.
const FRESH: Duration = Duration::from_secs(1);

/// The WAL-index of a connection.
#[derive(Debug)]
pub(crate) struct Index {
    place: Place,
    lost: Arc<AtomicBool>,
    file: RefCell<File>,
}

#[derive(Debug)]
enum File {
    /// SQLite has not asked for it, or it was unmapped.
    Closed,
    /// The filesystem does not know locks of an open file description: the base does it all.
    Base,
    Open(Box<Opened>),
}

#[derive(Debug)]
struct Opened {
    /// Unmapped before the handle goes, and with it the switch.
    regions: Regions,
    locks: IndexLocks,
    read_only: bool,
    /// The switch is not held yet: on a file that may not be written somebody else has to begin.
    unlocked: bool,
    handle: Handle,
}

impl Index {
    pub(crate) fn new(place: Place, lost: Arc<AtomicBool>) -> Index {
        Index { place, lost, file: RefCell::new(File::Closed) }
    }

    /// Whether the calls go here; otherwise to the base.
    pub(crate) fn is_ours(&self) -> bool {
        // A forked child asks too, and may find it borrowed by a thread that it does not have.
        self.file.try_borrow().map_or(true, |file| !matches!(*file, File::Base))
    }

    /// Why its handle cannot be used any more, if that is so.
    pub(crate) fn handle_lost(&self) -> Option<io::Error> {
        match &*self.file.borrow() {
            File::Open(opened) => opened.handle.fd().err(),
            _ => None,
        }
    }

    /// The -shm file.
    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Device and inode of the -shm file in use.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        match &*self.file.borrow() {
            File::Open(opened) => Some(opened.handle.identity()),
            _ => None,
        }
    }

    /// Whether the file was cut off under the mapping.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether the file is as long as it was; if not, it is lost.
    pub(crate) fn is_whole(&self) -> bool {
        match &*self.file.borrow() {
            File::Open(opened) => opened.is_whole(),
            _ => true,
        }
    }

    /// Whether other connections have the same file mapped: then nobody is alone with the database, whatever the locks on
    /// that say.
    pub(crate) fn is_shared(&self) -> bool {
        self.asks(|handle| handle.taken(SWITCH))
    }

    /// Whether other connections read the database.
    pub(crate) fn has_readers(&self) -> bool {
        self.asks(|handle| handle.taken(READERS))
    }

    /// Whether this connection reads the database, or has begun a checkpoint.
    pub(crate) fn reads_or_checkpoints(&self) -> bool {
        // A file that is borrowed is just being mapped.
        self.file.try_borrow().is_ok_and(|file| match &*file {
            File::Open(opened) => opened.locks.reads_or_checkpoints(),
            _ => true,
        })
    }

    fn asks(&self, question: impl FnOnce(&Handle) -> io::Result<bool>) -> bool {
        match &*self.file.borrow() {
            File::Open(opened) => question(&opened.handle).unwrap_or(false),
            _ => false,
        }
    }

    /// xShmMap: the code, and the address of the region. Afterwards [`Index::is_ours`] may say no.
    pub(crate) fn map(&self, region: c_int, size: c_int, extend: bool) -> (c_int, *mut c_void) {
        let nothing = std::ptr::null_mut();
        if self.is_dead() {
            return (ffi::SQLITE_IOERR_SHMMAP, nothing);
        }
        let mut file = self.file.borrow_mut();
        if matches!(*file, File::Closed) {
            match self.open() {
                Ok(opened) => *file = opened,
                Err(code) => return (code, nothing),
            }
        }
        let File::Open(opened) = &mut *file else { return (ffi::SQLITE_IOERR_SHMMAP, nothing) };
        if opened.unlocked {
            match begin(&opened.handle, opened.read_only) {
                Ok((ffi::SQLITE_OK, _)) => opened.unlocked = false,
                Ok((code, _)) => return (code, nothing),
                Err(_) => return (ffi::SQLITE_IOERR_LOCK, nothing),
            }
        }
        let (Ok(region), Ok(size)) = (usize::try_from(region), usize::try_from(size)) else {
            return (ffi::SQLITE_IOERR_SHMMAP, nothing);
        };
        match opened.regions.get(&opened.handle, opened.read_only, region, size, extend) {
            Ok(address) if opened.read_only => (ffi::SQLITE_READONLY, address),
            Ok(address) => (ffi::SQLITE_OK, address),
            Err(code) => (code, nothing),
        }
    }

    fn open(&self) -> Result<File, c_int> {
        let fresh = self.place.fresh.as_ref().filter(|(_, since, _)| since.elapsed() < FRESH);
        let (identity, may) = match fresh {
            Some((identity, _, may)) => (*identity, *may),
            None => {
                let found = std::fs::metadata(&self.place.database).map_err(|_| ffi::SQLITE_IOERR_FSTAT)?;
                ((found.dev(), found.ino()), Access::of(&found))
            }
        };
        let path = self.path();
        let mut handle = Err(io::ErrorKind::PermissionDenied.into());
        if !self.place.read_only {
            handle = Handle::beside(path, false, Some(may.mode & 0o777), identity);
        }
        let read_only = handle.is_err();
        if read_only {
            handle = Handle::beside(path, true, None, identity);
        }
        let handle = handle.map_err(|_| ffi::SQLITE_CANTOPEN)?;
        let (owner, group) = (may.user, may.group);
        let others = handle.owner() != Some((owner, group));
        if let (true, Ok(fd)) = (others && rustix::process::geteuid().is_root(), handle.fd()) {
            // Otherwise the owner of the database could not open it.
            let _ =
                rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(owner)), Some(rustix::fs::Gid::from_raw(group)));
        }
        let (unlocked, emptied) = match begin(&handle, read_only) {
            Ok((ffi::SQLITE_OK, emptied)) => (false, emptied),
            Ok((READONLY_CANTINIT, _)) => (true, false),
            Ok((code, _)) => return Err(code),
            Err(error) if is_unknown(&error) => return Ok(File::Base),
            Err(_) => return Err(ffi::SQLITE_IOERR_LOCK),
        };
        let regions = Regions::new(Arc::clone(&self.lost), emptied);
        Ok(File::Open(Box::new(Opened { regions, locks: IndexLocks::default(), read_only, unlocked, handle })))
    }

    /// xShmLock, by a connection that has the database `alone`, or not; `None` if it goes to the base. Nothing here panics.
    #[inline]
    pub(crate) fn lock(&self, offset: c_int, n: c_int, flags: c_int, alone: bool) -> Option<c_int> {
        let Ok(file) = self.file.try_borrow() else { return Some(ffi::SQLITE_IOERR_SHMLOCK) };
        let opened = match &*file {
            File::Open(opened) => opened,
            File::Closed => return Some(ffi::SQLITE_IOERR_SHMLOCK),
            File::Base => return None,
        };
        if flags & ffi::SQLITE_SHM_UNLOCK == 0 {
            if self.is_dead() {
                return Some(ffi::SQLITE_IOERR_SHMMAP);
            }
            if flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 {
                // What a checkpoint does not find in the index is gone with the log.
                if is_checkpoint(offset, n, flags) && !opened.is_whole() {
                    return Some(ffi::SQLITE_IOERR_SHMMAP);
                }
                // Before anything is mapped the index is about to be made, and the handle is looked at when it is mapped.
                if writes(offset, n, flags) && opened.regions.is_mapped() && opened.handle.verify().is_err() {
                    return Some(ffi::SQLITE_IOERR_SHMLOCK);
                }
            }
        }
        let salts = || if alone { None } else { opened.regions.salts() };
        Some(opened.locks.change(&opened.handle, offset, n, flags, salts))
    }

    /// xShmBarrier; `false` if it is the base's.
    #[inline]
    pub(crate) fn barrier(&self) -> bool {
        if let Ok(file) = self.file.try_borrow() {
            match &*file {
                File::Open(opened) => {
                    let _waits_on = opened.locks.settle(&opened.handle);
                }
                File::Base => return false,
                File::Closed => {}
            }
        }
        fence(Ordering::SeqCst);
        true
    }

    /// xShmUnmap.
    pub(crate) fn unmap(&self, delete: bool) -> c_int {
        let mut file = self.file.borrow_mut();
        if let File::Open(opened) = &*file {
            if delete {
                self.delete(opened);
            }
            *file = File::Closed;
        }
        ffi::SQLITE_OK
    }

    /// SQLite asks for it when it is alone with the database. Others who use the file, or another file under its name, show
    /// that it is not.
    fn delete(&self, opened: &Opened) {
        let alone = !opened.read_only && opened.handle.take(SWITCH, true).unwrap_or(false);
        let named = std::fs::symlink_metadata(self.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == opened.handle.identity());
        if alone && named {
            let _ = std::fs::remove_file(self.path());
        }
    }
}

impl Opened {
    fn is_whole(&self) -> bool {
        self.regions.are_whole(&self.handle)
    }
}

/// Takes the dead-man switch, and tells whether it has emptied the file. Whoever is alone does: what is in it may be from before a
/// crash. Who comes while somebody does that is BUSY and not next in line, since the other may die before it is done.
fn begin(handle: &Handle, read_only: bool) -> io::Result<(c_int, bool)> {
    let mut emptied = false;
    match handle.held(SWITCH)? {
        Some(true) => return Ok((ffi::SQLITE_BUSY, false)),
        Some(false) => {}
        None if read_only => return Ok((READONLY_CANTINIT, false)),
        None => {
            if !handle.take(SWITCH, true)? {
                return Ok((ffi::SQLITE_BUSY, false));
            }
            // Stock leaves three bytes too, to tell an honest cut from any other.
            if rustix::fs::ftruncate(handle.fd()?, 3).is_err() {
                return Ok((ffi::SQLITE_IOERR_SHMOPEN, false));
            }
            emptied = true;
        }
    }
    Ok((if handle.take(SWITCH, false)? { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }, emptied))
}

/// Whether a filesystem or kernel does not have this kind of lock at all.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}
