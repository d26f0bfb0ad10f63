//! A database file read beside SQLite.
//!
//! Invariant: where closing a second handle would drop SQLite's own locks there is none to be had.

use std::io;
use std::path::Path;

/// A database file, open for reading.
#[cfg(target_os = "linux")]
pub(crate) use hardened_vfs::DatabaseFile as Beside;

/// No file of a database is opened beside SQLite here.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum Beside {}

#[cfg(not(target_os = "linux"))]
impl Beside {
    pub(crate) fn open(_: &Path) -> io::Result<Beside> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only on Linux can a database be read beside SQLite"))
    }

    pub(crate) fn alone(_: &Path) -> io::Result<Option<Beside>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn identity(&self) -> (u64, u64) {
        match *self {}
    }

    pub(crate) fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        match *self {}
    }

    pub(crate) fn is_locked(&self) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn fd(&self) -> io::Result<std::os::fd::BorrowedFd<'_>> {
        match *self {}
    }
}

/// `path` with `ending` after its name, as SQLite names the files beside a database.
pub(crate) fn with_ending(path: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The directory a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Device and inode of a file, links followed.
pub(crate) fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}
