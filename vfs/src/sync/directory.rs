//! The directory of a database: a name that was made or removed is there, or gone, for good only once it is synced.
//!
//! The handle is opened with the database and kept: an error of the kernel's writing back is reported to every handle that
//! was open when it happened, and to none that was opened after another had heard of it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory(File);

impl Directory {
    /// Opens the directory of `file`; `None` where that is not allowed: writing in a directory does not take reading it.
    ///
    /// # Errors
    /// If there is no descriptor for it.
    pub(crate) fn of(file: &Path) -> io::Result<Option<Directory>> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        match File::open(parent.unwrap_or(Path::new("."))) {
            Ok(directory) => Directory::open(directory, false).map(Some),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// One that is open already. Another descriptor is known to be free (`spare`), or it is tried.
    ///
    /// # Errors
    /// If no other descriptor is to be had.
    pub(crate) fn open(directory: File, spare: bool) -> io::Result<Directory> {
        // This one is given up when descriptors run out, and the first read may take two: of the log and its index.
        if !spare {
            drop(directory.try_clone()?);
        }
        Ok(Directory(directory))
    }

    /// Syncs it. Filesystems that do not know the operation have nothing to sync.
    ///
    /// # Errors
    /// What the filesystem answers if names may not be on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.0) {
            Err(Errno::INTR) => self.sync(),
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::BADF | Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
