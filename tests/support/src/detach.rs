//! Undoing a mount, and that mount only.
//!
//! Invariant: what is unmounted is the mount that was made, known by its id. If somebody else has
//! unmounted it, whatever lies below at the same path stays.

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::io;
use std::path::{Path, PathBuf};

/// A mount, by where it is and which it is.
#[derive(Debug)]
pub(crate) struct MountPoint {
    at: PathBuf,
    id: u64,
}

fn id_at(at: &Path) -> Result<u64, Errno> {
    // A FUSE server must not be asked: it may be one that does not answer.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statx(CWD, at, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

impl MountPoint {
    /// The mount that was made at `at` just now.
    pub(crate) fn new(at: PathBuf) -> io::Result<Self> {
        let id = id_at(&at)?;
        Ok(Self { at, id })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Unmounts; lazily if it is busy, and with `flags` then.
    pub(crate) fn detach(&self, flags: UnmountFlags) -> Result<(), Errno> {
        match id_at(&self.at) {
            Ok(id) if id == self.id => {}
            _ => return if self.is_mounted() { Err(Errno::BUSY) } else { Ok(()) },
        }
        let plain = rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW);
        plain.or_else(|_busy| {
            let lazily = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
            rustix::mount::unmount(&self.at, lazily | flags)
        })
    }

    /// Whether the mount is still there, perhaps below another.
    fn is_mounted(&self) -> bool {
        let id = self.id.to_string();
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        all.lines().any(|line| line.split(' ').next() == Some(&id))
    }
}
