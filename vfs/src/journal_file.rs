//! A rollback journal that is made and removed with each transaction, where every question to the filesystem is a round trip.
//!
//! SQLite's own VFS asks for the mode and owner of the database, for those of the journal it has made, gives it away though it has
//! the right owner, and opens the directory to sync it. Here the database's are known from its open, or asked for once where that is
//! cheap, the kernel's answer to the creation tells the journal's, and the directory is open already and synced by whoever orders
//! the syncs.
//!
//! Invariant: what is opened was empty, and nobody else writes to it: whoever makes a journal holds RESERVED. So its size is
//! known.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};

use crate::fresh;

/// Who may read and write a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Access {
    pub(crate) fn of(found: &Metadata) -> Access {
        Access { mode: found.mode(), user: found.uid(), group: found.gid() }
    }
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: File,
    size: u64,
}

impl JournalFile {
    /// Makes an empty one for the same people as the database. A client that answers from its cache (`new`) must not be believed that
    /// one which is there is empty.
    ///
    /// # Errors
    /// If it cannot be made, would get the number of a standard stream, or one is there that is not empty: whoever knows more
    /// about such a one must open it.
    pub(crate) fn create(path: &Path, like: Access, new: bool) -> io::Result<JournalFile> {
        let mode = like.mode & 0o777;
        let flags = libc::O_NOFOLLOW | if new { libc::O_EXCL } else { 0 };
        let mut options = File::options();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(mode).custom_flags(flags).open(path)?;
        if file.as_raw_fd() <= libc::STDERR_FILENO {
            // A message of anybody's would be written into it.
            return Err(io::ErrorKind::Unsupported.into());
        }
        // The answer to open() has told it.
        let known = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let found = rustix::fs::statx(&file, c"", known, StatxFlags::BASIC_STATS)?;
        if found.stx_size != 0 || found.stx_mode & libc::S_IFMT as u16 != libc::S_IFREG as u16 {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if u32::from(found.stx_mode) & 0o777 != mode {
            // The umask does not count.
            let _kept = file.set_permissions(Permissions::from_mode(mode));
        }
        if (found.stx_uid, found.stx_gid) != (like.user, like.group) && rustix::process::geteuid().is_root() {
            let _kept = std::os::unix::fs::fchown(&file, Some(like.user), Some(like.group));
        }
        Ok(JournalFile { file, size: 0 })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Also on the server when it is closed here.
    pub(crate) fn close_at_once(&self) {
        fresh::close_at_once(&self.file);
    }

    /// Reads what is there of these bytes: how many.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(crate) fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut have = 0;
        if at >= self.size {
            // SQLite looks for an old header behind its records.
            return Ok(0);
        }
        while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub(crate) fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        // Also a write that fails may have made it longer.
        self.size = self.size.max(at + bytes.len() as u64);
        self.file.write_all_at(bytes, at)
    }

    /// Cuts it off.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub(crate) fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Makes its content durable.
    ///
    /// # Errors
    /// Those of fdatasync(2).
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.file.sync_data() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.sync(),
            synced => synced,
        }
    }
}
