//! What the kind of a filesystem says about locks on it.

use std::os::fd::RawFd;

use crate::fs::{Class, class_of};

/// The magic number of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u32);

/// Filesystems whose inodes have the same number in the kernel's list and for stat(2): ext, XFS, Btrfs, tmpfs, F2FS, ZFS; not
/// overlays.
const EXACT: [u32; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1];
const FUSE: u32 = 0x6573_5546;
const SMB: [u32; 2] = [0xff53_4d42, 0xfe53_4d42];
/// NFS, SMB, 9p: their clients release the lock of an open file when it is closed for the last time.
const RELEASED: [u32; 4] = [0x6969, SMB[0], SMB[1], 0x0102_1997];

impl Kind {
    /// That of the filesystem of an open file.
    pub(super) fn of(fd: RawFd) -> Option<Kind> {
        // SAFETY: statfs is a plain C structure that lives across the call; a number that is no descriptor is an error.
        unsafe {
            let mut found: libc::statfs = std::mem::zeroed();
            (libc::fstatfs(fd, &raw mut found) == 0).then_some(Kind(found.f_type as u32))
        }
    }

    /// That with this magic number.
    pub(super) fn of_magic(magic: u64) -> Kind {
        Kind(magic as u32)
    }

    /// FUSE. Where its server keeps the locks they are in no list of the kernel's, and no question tells whose they are.
    pub(super) fn is_fuse(self) -> bool {
        self.0 == FUSE
    }

    /// Whether the kernel's list of locks has the inode numbers of stat(2).
    pub(super) fn lists_inodes(self) -> bool {
        EXACT.contains(&self.0)
    }

    /// SMB. There a question about a lock is one for a moment, which stops who reads or writes what is asked about.
    pub(super) fn is_smb(self) -> bool {
        SMB.contains(&self.0)
    }

    /// Whether the locks are this kernel's own, so that no server is asked.
    pub(super) fn is_local(self) -> bool {
        class_of(u64::from(self.0)) == Some(Class::Local)
    }

    /// Whether the lock of an open file goes with its last descriptor, without having been released. To FUSE the kernel says
    /// nothing of it then, and a server may keep it for good; of others nothing is known.
    pub(super) fn drops_at_close(self) -> bool {
        self.is_local() || RELEASED.contains(&self.0)
    }
}
