//! The file of the guard's record, beside the database.
//!
//! It is read and written through the base VFS, opened as a -wal is, so that it gets the owner and the mode of the
//! database and its name is made durable by its first sync. It is never followed through a link. Who else has it open is
//! told by a lock on it, taken on a handle of its own where the base is the operating system's: SHARED for as long as it is
//! open; whoever gets EXCLUSIVE is alone, and only somebody alone removes it. Of several who open it at once none is alone:
//! there JUDGING says who looks at what was left, and JUDGED that somebody has.

use std::ffi::{CStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use libsqlite3_sys as ffi;

use super::base::{self, BaseFile};
use super::vfs::path_of;
use super::{observe, witness};
use crate::fs::Class;
use crate::guard::SUFFIX;
use crate::guard::log::Time;
use crate::guard::store::{Company, Store};
#[cfg(target_os = "linux")]
use crate::lock::{Locks, Range, Upgrade, ofd};

/// Held exclusively by whoever judges the record while others have it open.
#[cfg(target_os = "linux")]
const JUDGING: Range = Range { start: 0x4000_0200, length: 1 };
/// Held, shared, by all who need not judge it any more.
#[cfg(target_os = "linux")]
const JUDGED: Range = Range { start: 0x4000_0201, length: 1 };

/// The sidecar of one database.
pub(crate) struct Sidecar {
    vfs: *mut ffi::sqlite3_vfs,
    /// As [`observe::name`] makes it.
    name: Vec<u8>,
    path: PathBuf,
    native: bool,
    class: Class,
    file: Option<BaseFile>,
    /// When it was last changed, as it was found. SQLite's unix VFS gives a -wal the owner of the database whenever root opens
    /// it, which is a change of its own.
    found: Option<Time>,
    #[cfg(target_os = "linux")]
    locks: Option<Locks<ofd::Handle>>,
}

// SAFETY: a registered VFS and its files may be called from any thread, one call at a time
// (https://www.sqlite.org/c3ref/vfs.html); the mutex around the keeper sees to that. The lock handle is a descriptor.
unsafe impl Send for Sidecar {}

impl Sidecar {
    /// The sidecar of the database `name` in `vfs`. Nothing is opened yet.
    pub(crate) fn of(vfs: *mut ffi::sqlite3_vfs, name: &CStr, native: bool, class: Class) -> Sidecar {
        // SAFETY: a C string.
        let name = observe::name(&unsafe { path_of(name.as_ptr()) }, SUFFIX);
        // SAFETY: the buffer holds a C string from byte 4 on.
        let path = unsafe { path_of(name[4..].as_ptr().cast()) };
        Sidecar {
            vfs,
            name,
            path,
            native,
            class,
            file: None,
            found: None,
            #[cfg(target_os = "linux")]
            locks: None,
        }
    }

    fn base_open(&self, flags: c_int) -> Result<BaseFile, c_int> {
        let flags = flags | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_NOFOLLOW;
        let mut got = 0;
        // SAFETY: a registered VFS, and a name that lives as long as the file.
        let file = unsafe { BaseFile::open(self.vfs, self.name[4..].as_ptr().cast(), flags, &raw mut got) }?;
        if got & ffi::SQLITE_OPEN_READONLY != 0 {
            file.close();
            return Err(ffi::SQLITE_READONLY);
        }
        Ok(file)
    }

    fn exists(&self) -> bool {
        // SAFETY: a registered VFS and a C string.
        unsafe { base::exists(self.vfs, self.name[4..].as_ptr().cast()) }
    }

    /// A link, or a second name of some other file, is nobody's sidecar.
    fn is_plain(&self) -> bool {
        !self.native || std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
    }

    /// Takes the lock that says that it is open.
    #[cfg(target_os = "linux")]
    fn join(&mut self) -> Result<(), c_int> {
        if !self.native {
            return Ok(());
        }
        for _ in 0..8 {
            let handle = ofd::Handle::open(&self.path, false).map_err(|_| ffi::SQLITE_CANTOPEN)?;
            let identity = handle.identity();
            // Step by step works everywhere, and who looks whether it is alone keeps others out meanwhile.
            let locks = Locks::new(handle, Upgrade::Stepwise);
            match locks.raise(ffi::SQLITE_LOCK_SHARED) {
                Ok(true) => {}
                Ok(false) => return Err(ffi::SQLITE_BUSY),
                // Locks do not work here: who else is there will not be known.
                Err(_) => return Ok(()),
            }
            // Whoever was alone may have removed it just before the lock.
            let found = std::fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
            if found.is_ok_and(|found| found == identity) {
                self.locks = Some(locks);
                return Ok(());
            }
        }
        Err(ffi::SQLITE_BUSY)
    }

    #[cfg(not(target_os = "linux"))]
    fn join(&mut self) -> Result<(), c_int> {
        Ok(())
    }

    /// Whoever creates it or adds to it has judged it, or there was nothing to judge.
    #[cfg(target_os = "linux")]
    fn begin(&self) -> Result<(), c_int> {
        let Some(locks) = &self.locks else { return Ok(()) };
        self.judged();
        // Of this one and somebody who judges, at least one sees the other.
        match locks.taken(JUDGING) {
            Ok(true) => Err(ffi::SQLITE_BUSY),
            _ => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn begin(&self) -> Result<(), c_int> {
        Ok(())
    }

    fn file(&self) -> Result<&BaseFile, c_int> {
        self.file.as_ref().ok_or(ffi::SQLITE_CANTOPEN)
    }
}

impl Store for Sidecar {
    fn open(&mut self, create: bool) -> Result<bool, i32> {
        if self.file.is_some() {
            return Ok(true);
        }
        if !self.exists() {
            if !create {
                return Ok(false);
            }
            // An empty file does not exist for SQLite, and a link to nowhere would be followed.
            if self.native && std::fs::symlink_metadata(&self.path).is_ok() && !self.is_plain() {
                return Err(ffi::SQLITE_CANTOPEN_SYMLINK);
            }
            self.base_open(ffi::SQLITE_OPEN_CREATE)?.close();
        }
        if !self.is_plain() {
            return Err(ffi::SQLITE_CANTOPEN_SYMLINK);
        }
        self.join()?;
        if create {
            if let Err(code) = self.begin() {
                self.close();
                return Err(code);
            }
        }
        if self.native {
            self.found = std::fs::symlink_metadata(&self.path).ok().map(|found| Time::of_change(&found));
        }
        self.file = Some(self.base_open(0)?);
        Ok(true)
    }

    fn size(&self) -> Result<u64, i32> {
        #[cfg(target_os = "linux")]
        if let Some(size) = self.locks.as_ref().and_then(|locks| locks.size(self.class)) {
            return Ok(size);
        }
        self.file()?.size()
    }

    fn changed(&self) -> Option<Time> {
        match self.native {
            true => self.found,
            false => witness::told_by(self.file.as_ref()?),
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), i32> {
        let at = i64::try_from(at).map_err(|_| ffi::SQLITE_IOERR_READ)?;
        match self.file()?.read_into(buffer, at) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), i32> {
        match self.file()?.write_from(bytes, at) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    fn truncate(&mut self) -> Result<(), i32> {
        match self.file()?.truncate(0) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    fn sync(&mut self) -> Result<(), i32> {
        match self.file()?.sync(ffi::SQLITE_SYNC_NORMAL) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    #[cfg(target_os = "linux")]
    fn company(&self) -> Company {
        if !self.native {
            // Nobody can be asked.
            return Company::Alone;
        }
        let Some(locks) = &self.locks else { return Company::Unknown };
        let code = locks.lock(ffi::SQLITE_LOCK_EXCLUSIVE);
        match code {
            ffi::SQLITE_OK => Company::Alone,
            ffi::SQLITE_BUSY => {
                locks.unlock(ffi::SQLITE_LOCK_SHARED);
                Company::Others
            }
            _ => Company::Unknown,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn company(&self) -> Company {
        Company::Unknown
    }

    #[cfg(target_os = "linux")]
    fn judge(&self) -> Result<Company, i32> {
        let company = self.company();
        let Some(locks) = self.locks.as_ref().filter(|_| company == Company::Others) else { return Ok(company) };
        match locks.take(JUDGING, true) {
            Ok(true) => {}
            Ok(false) => return Err(ffi::SQLITE_BUSY),
            Err(_) => return Ok(Company::Unknown),
        }
        match locks.taken(JUDGED) {
            Ok(false) => Ok(Company::Alone),
            Ok(true) => Ok(Company::Others),
            Err(_) => Ok(Company::Unknown),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn judge(&self) -> Result<Company, i32> {
        Ok(Company::Unknown)
    }

    fn judged(&self) {
        #[cfg(target_os = "linux")]
        if let Some(locks) = &self.locks {
            // Without locks nobody is told, and everybody judges.
            let _ = locks.take(JUDGED, false);
            let _ = locks.release(JUDGING);
        }
    }

    fn welcome(&self) {
        #[cfg(target_os = "linux")]
        if let Some(locks) = &self.locks {
            locks.unlock(ffi::SQLITE_LOCK_SHARED);
        }
    }

    fn turn(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(locks) = &self.locks {
            return locks.lock(ffi::SQLITE_LOCK_RESERVED) == ffi::SQLITE_OK;
        }
        true
    }

    fn remove(&mut self) {
        // SAFETY: a registered VFS and a C string. That it stays is no harm.
        unsafe {
            if let Some(delete) = (*self.vfs).xDelete {
                delete(self.vfs, self.name[4..].as_ptr().cast(), 0);
            }
        }
    }

    fn close(&mut self) {
        if let Some(file) = self.file.take() {
            file.close();
        }
        #[cfg(target_os = "linux")]
        drop(self.locks.take());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.path.as_os_str().as_bytes()))
    }
}
