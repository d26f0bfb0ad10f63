//! The inodes that the kernel knows.
//!
//! Invariant: from its first LOOKUP to its last FORGET an inode is pinned by an `O_PATH` descriptor,
//! so it stays reachable after its name is gone and the backing filesystem cannot reuse its number.

use rustix::fs::{CWD, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The protocol's number of the root directory.
pub(super) const ROOT: u64 = 1;

#[derive(Debug)]
struct Node {
    fd: Arc<OwnedFd>,
    /// The name it was last known by; rules by name go by this.
    name: OsString,
    lookups: u64,
}

#[derive(Debug)]
pub(super) struct Inodes {
    root: (u64, u64),
    nodes: Mutex<HashMap<u64, Node>>,
    /// Devices below the backing directory other than its own, in the order of discovery.
    devices: Mutex<Vec<u64>>,
}

impl Inodes {
    pub(super) fn new(backing: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, backing, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let root = Node { fd: Arc::new(fd), name: OsString::new(), lookups: 1 };
        Ok(Self {
            root: (stat.st_dev, stat.st_ino),
            nodes: Mutex::new(HashMap::from([(ROOT, root)])),
            devices: Mutex::default(),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<u64, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number shown to the kernel: the backing file's own, but for the root, for a file whose
    /// number is the root's, and for files of other devices mounted below.
    pub(super) fn number(&self, device: u64, inode: u64) -> u64 {
        if (device, inode) == self.root {
            ROOT
        } else if device != self.root.0 {
            let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
            let index = devices.iter().position(|known| *known == device).unwrap_or_else(|| {
                devices.push(device);
                devices.len() - 1
            });
            inode ^ ((index as u64 + 1) << 48)
        } else if inode == ROOT {
            u64::MAX
        } else {
            inode
        }
    }

    pub(super) fn number_of(&self, stat: &Stat) -> u64 {
        self.number(stat.st_dev, stat.st_ino)
    }

    /// A descriptor for paths and attributes of a known inode.
    pub(super) fn fd(&self, node: u64) -> io::Result<Arc<OwnedFd>> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        self.nodes().get(&node).map(|known| known.fd.clone()).ok_or_else(stale)
    }

    pub(super) fn name(&self, node: u64) -> OsString {
        self.nodes().get(&node).map(|known| known.name.clone()).unwrap_or_default()
    }

    /// Opens the inode itself again, whatever has become of its name.
    pub(super) fn open(&self, node: u64, flags: OFlags) -> io::Result<OwnedFd> {
        let fd = self.fd(node)?;
        Ok(rustix::fs::openat(CWD, magic_link(&fd), flags | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Counts one more reference of the kernel to the inode behind the `O_PATH` descriptor `fd`.
    pub(super) fn remember(&self, fd: OwnedFd, name: &OsStr) -> io::Result<(u64, Stat)> {
        let stat = rustix::fs::fstat(&fd)?;
        let number = self.number_of(&stat);
        let mut nodes = self.nodes();
        let node = nodes.entry(number).or_insert_with(|| Node { fd: Arc::new(fd), name: OsString::new(), lookups: 0 });
        node.lookups += 1;
        node.name = name.to_owned();
        Ok((number, stat))
    }

    /// Notes the name that a known inode has now.
    pub(super) fn renamed(&self, node: u64, name: &OsStr) {
        if let Some(known) = self.nodes().get_mut(&node) {
            known.name = name.to_owned();
        }
    }

    pub(super) fn forget(&self, node: u64, lookups: u64) {
        if node == ROOT {
            return;
        }
        let mut nodes = self.nodes();
        if let Some(known) = nodes.get_mut(&node) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                nodes.remove(&node);
            }
        }
    }
}

/// The path under which the inode behind a descriptor can be named in another call.
pub(super) fn magic_link(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_collide_with_the_root_or_across_devices() {
        let inodes = Inodes::new(Path::new("/")).expect("the root directory opens");
        let (device, inode) = inodes.root;
        assert_eq!(inodes.number(device, inode), ROOT);
        assert_eq!(inodes.number(device, 777), 777);
        let other = inodes.number(device + 1, 777);
        assert_ne!(other, 777);
        assert_ne!(other, inodes.number(device + 2, 777));
        assert_eq!(other, inodes.number(device + 1, 777), "stable");
        let low = Inodes { root: (device, 5), ..inodes };
        assert_ne!(low.number(device, 1), ROOT);
    }
}
