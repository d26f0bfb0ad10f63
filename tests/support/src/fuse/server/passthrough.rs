//! The filesystem's work: every request done on the backing directory.
//!
//! Invariant: files are reached through descriptors (`O_PATH` per inode, one more per open file),
//! never by remembered paths, so renames and unlinks cannot redirect a request.

use super::attr::{attr, entry_kind, kind, timespec};
use super::handles::{Entry, Handles};
use super::inodes::{Inodes, magic_link};
use super::lock_calls::Locks;
use super::traffic::{Subject, Traffic};
use crate::fuse::fault::What;
use fuser::{FileAttr, TimeOrNow};
use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, StatVfs, Timestamps, Uid,
};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

const SECTOR: usize = 512;

/// Who asks; new files belong to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The attributes that a SETATTR changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
}

#[derive(Debug)]
pub(super) struct Passthrough {
    pub(super) inodes: Inodes,
    pub(super) handles: Handles,
    pub(super) locks: Option<Locks>,
    pub(super) traffic: Traffic,
    pub(super) cache: Duration,
    pub(super) direct_io: bool,
}

fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// Of the client's flags those that mean something to the backing file: appending is the kernel's
/// work (each WRITE has an offset), and `O_DIRECT` would make demands on our buffers.
fn open_flags(client: i32) -> OFlags {
    let keep = libc::O_ACCMODE | libc::O_TRUNC | libc::O_SYNC | libc::O_DSYNC;
    OFlags::from_bits_retain((client & keep) as u32)
}

impl Passthrough {
    pub(super) fn is_named(&self, subject: &Subject, suffix: &str) -> bool {
        subject.is_named(suffix, |node| self.inodes.name(node))
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.inodes.fd(parent)?, name, flags, Mode::empty())?;
        let (node, stat) = self.inodes.remember(fd, name)?;
        Ok(attr(node, &stat))
    }

    pub(super) fn getattr(&self, node: u64) -> io::Result<FileAttr> {
        Ok(attr(node, &rustix::fs::fstat(&*self.inodes.fd(node)?)?))
    }

    pub(super) fn setattr(&self, node: u64, change: &Change, handle: Option<u64>) -> io::Result<FileAttr> {
        let fd = self.inodes.fd(node)?;
        let path = magic_link(&fd);
        if let Some(mode) = change.mode {
            rustix::fs::chmodat(CWD, &path, bits(mode), AtFlags::empty())?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            rustix::fs::chownat(&*fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = change.size {
            match handle {
                Some(handle) => rustix::fs::ftruncate(&self.handles.get(handle)?.fd, size)?,
                None => rustix::fs::ftruncate(self.inodes.open(node, OFlags::WRONLY)?, size)?,
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps { last_access: timespec(change.atime), last_modification: timespec(change.mtime) };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        self.getattr(node)
    }

    pub(super) fn readlink(&self, node: u64) -> io::Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&*self.inodes.fd(node)?, "", Vec::new())?;
        Ok(target.into_bytes())
    }

    /// Gives a new file the mode and owner that were asked for: our own umask has interfered with
    /// the one, and the kernel has made us the other.
    fn settle(&self, fd: &OwnedFd, mode: u32, caller: Caller) -> io::Result<()> {
        let stat = rustix::fs::fstat(fd)?;
        if (stat.st_uid, stat.st_gid) != (caller.uid, caller.gid) {
            let (uid, gid) = (Uid::from_raw(caller.uid), Gid::from_raw(caller.gid));
            rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        let symlink = kind(stat.st_mode) == fuser::FileType::Symlink;
        if !symlink && stat.st_mode & 0o7777 != mode & 0o7777 {
            rustix::fs::chmodat(CWD, magic_link(fd), bits(mode), AtFlags::empty())?;
        }
        Ok(())
    }

    /// The entry of a file that was made just now.
    fn made(&self, dir: &OwnedFd, name: &OsStr, mode: u32, by: Caller) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        self.settle(&fd, mode, by)?;
        let (node, stat) = self.inodes.remember(fd, name)?;
        Ok(attr(node, &stat))
    }

    pub(super) fn mknod(&self, parent: u64, name: &OsStr, mode: u32, device: u32, by: Caller) -> io::Result<FileAttr> {
        let dir = self.inodes.fd(parent)?;
        let kind = FileType::from_raw_mode(mode);
        rustix::fs::mknodat(&*dir, name, kind, bits(mode), device.into())?;
        self.made(&dir, name, mode, by)
    }

    pub(super) fn mkdir(&self, parent: u64, name: &OsStr, mode: u32, by: Caller) -> io::Result<FileAttr> {
        let dir = self.inodes.fd(parent)?;
        rustix::fs::mkdirat(&*dir, name, bits(mode))?;
        self.made(&dir, name, mode, by)
    }

    pub(super) fn symlink(&self, parent: u64, name: &OsStr, target: &Path, by: Caller) -> io::Result<FileAttr> {
        let dir = self.inodes.fd(parent)?;
        rustix::fs::symlinkat(target, &*dir, name)?;
        self.made(&dir, name, 0o777, by)
    }

    pub(super) fn link(&self, node: u64, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let (fd, dir) = (self.inodes.fd(node)?, self.inodes.fd(parent)?);
        rustix::fs::linkat(CWD, magic_link(&fd), &*dir, name, AtFlags::SYMLINK_FOLLOW)?;
        self.lookup(parent, name)
    }

    pub(super) fn remove(&self, parent: u64, name: &OsStr, flags: AtFlags) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&*self.inodes.fd(parent)?, name, flags)?)
    }

    pub(super) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), flags: u32) -> io::Result<()> {
        let (old, new) = (self.inodes.fd(from.0)?, self.inodes.fd(to.0)?);
        let flags = RenameFlags::from_bits_retain(flags);
        rustix::fs::renameat_with(&*old, from.1, &*new, to.1, flags)?;
        for (dir, name) in [(&old, from.1), (&new, to.1)] {
            // Only an exchange leaves something under the old name.
            if let Ok(stat) = rustix::fs::statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                self.inodes.renamed(self.inodes.number_of(&stat), name);
            }
        }
        Ok(())
    }

    pub(super) fn open(&self, node: u64, flags: i32) -> io::Result<u64> {
        Ok(self.handles.add(self.inodes.open(node, open_flags(flags))?))
    }

    pub(super) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
        by: Caller,
    ) -> io::Result<(FileAttr, u64)> {
        let dir = self.inodes.fd(parent)?;
        let wanted = open_flags(flags) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = wanted | OFlags::CREATE | OFlags::EXCL;
        let fd = match rustix::fs::openat(&*dir, name, create, bits(mode)) {
            Ok(fd) => {
                self.settle(&fd, mode, by)?;
                fd
            }
            // Another client was faster. The file is theirs, so its mode stays.
            Err(rustix::io::Errno::EXIST) if flags & libc::O_EXCL == 0 => {
                rustix::fs::openat(&*dir, name, wanted, Mode::empty())?
            }
            Err(error) => return Err(error.into()),
        };
        let pin = OFlags::PATH | OFlags::CLOEXEC;
        let path = rustix::fs::openat(CWD, magic_link(&fd), pin, Mode::empty())?;
        let (node, stat) = self.inodes.remember(path, name)?;
        Ok((attr(node, &stat), self.handles.add(fd)))
    }

    pub(super) fn read(&self, handle: u64, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let handle = self.handles.get(handle)?;
        let mut data = vec![0; size as usize];
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pread(&handle.fd, &mut data[done..], offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        data.truncate(done);
        Ok(data)
    }

    pub(super) fn write(&self, handle: u64, offset: u64, data: &[u8], fault: Option<What>) -> io::Result<u32> {
        let handle = self.handles.get(handle)?;
        let reaches = match fault {
            Some(What::DropWrite) => 0,
            Some(What::TearWrite { keep_sectors }) => keep_sectors.saturating_mul(SECTOR),
            Some(What::ShortWrite(bytes)) => bytes,
            _ => data.len(),
        };
        let written = write_all(&handle.fd, &data[..reaches.min(data.len())], offset)?;
        let lies = matches!(fault, Some(What::DropWrite | What::TearWrite { .. }));
        Ok(if lies { data.len() } else { written } as u32)
    }

    pub(super) fn sync(&self, handle: u64, data_only: bool) -> io::Result<()> {
        let handle = self.handles.get(handle)?;
        if data_only {
            rustix::fs::fdatasync(&handle.fd)?;
        } else {
            rustix::fs::fsync(&handle.fd)?;
        }
        Ok(())
    }

    pub(super) fn fallocate(&self, handle: u64, offset: u64, length: u64, mode: i32) -> io::Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        Ok(rustix::fs::fallocate(&self.handles.get(handle)?.fd, mode, offset, length)?)
    }

    pub(super) fn lseek(&self, handle: u64, offset: i64, whence: i32) -> io::Result<i64> {
        let start = u64::try_from(offset).map_err(|_| errno(libc::ENXIO))?;
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(start),
            libc::SEEK_HOLE => SeekFrom::Hole(start),
            _ => return Err(errno(libc::EINVAL)),
        };
        Ok(rustix::fs::seek(&self.handles.get(handle)?.fd, to)? as i64)
    }

    pub(super) fn opendir(&self, node: u64) -> io::Result<u64> {
        Ok(self.handles.add(self.inodes.open(node, OFlags::RDONLY | OFlags::DIRECTORY)?))
    }

    /// The entries from the `offset`th on.
    pub(super) fn readdir(&self, handle: u64, offset: u64) -> io::Result<Vec<Entry>> {
        let handle = self.handles.get(handle)?;
        let mut listing = handle.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 {
            *listing = self.list(&handle.fd)?;
        }
        let from = listing.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(listing[from..].to_vec())
    }

    fn list(&self, fd: &OwnedFd) -> io::Result<Vec<Entry>> {
        let device = rustix::fs::fstat(fd)?.st_dev as u64;
        let mut entries = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let kind = match entry_kind(entry.file_type()) {
                Some(kind) => kind,
                None => {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    kind(rustix::fs::statat(fd, entry.file_name(), flags)?.st_mode)
                }
            };
            let node = self.inodes.number(device, entry.ino());
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            entries.push(Entry { node, kind, name });
        }
        Ok(entries)
    }

    pub(super) fn statfs(&self, node: u64) -> io::Result<StatVfs> {
        Ok(rustix::fs::fstatvfs(&*self.inodes.fd(node)?)?)
    }

    pub(super) fn access(&self, node: u64, mask: i32, by: Caller) -> io::Result<()> {
        let attr = self.getattr(node)?;
        let mode = i32::from(attr.perm);
        let granted = match by {
            // Root may do anything but execute what nobody may.
            Caller { uid: 0, .. } => {
                let any_x = mode & 0o111 != 0 || attr.kind == fuser::FileType::Directory;
                libc::R_OK | libc::W_OK | if any_x { libc::X_OK } else { 0 }
            }
            Caller { uid, .. } if uid == attr.uid => mode >> 6,
            Caller { gid, .. } if gid == attr.gid => mode >> 3,
            _ => mode,
        };
        if mask & !granted & 0o7 == 0 { Ok(()) } else { Err(errno(libc::EACCES)) }
    }
}

/// Writes everything, or what fits before an error.
fn write_all(fd: impl AsFd, data: &[u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(fd.as_fd(), &data[done..], offset + done as u64) {
            Ok(n) => done += n,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}
