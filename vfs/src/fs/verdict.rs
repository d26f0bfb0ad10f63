//! What was decided about one filesystem.

use std::fmt;
use std::path::PathBuf;

/// The kinds of filesystem, from the one WAL was made for to the one nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// One kernel owns the disk: shared memory and locks work for everybody who can reach the file.
    Local,
    /// Served by a user-space process: other routes to the same bytes share neither page cache nor locks.
    Fuse,
    /// Shared between a host and its virtual machines or containers.
    VmShared,
    /// A cluster filesystem: one disk, several kernels.
    Cluster,
    /// A network filesystem.
    Network,
    /// Not on any list.
    Unknown,
}

impl Class {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Local => "local",
            Class::Fuse => "fuse",
            Class::VmShared => "vm-shared",
            Class::Cluster => "cluster",
            Class::Network => "network",
            Class::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom a byte-range lock taken here is seen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockReach {
    /// Everybody who can open the file.
    Everybody,
    /// Only processes of this host that use the same mount.
    ThisMount,
    /// It depends on the server or the daemon behind the mount.
    Unknown,
}

impl LockReach {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            LockReach::Everybody => "everybody",
            LockReach::ThisMount => "this mount only",
            LockReach::Unknown => "unknown",
        }
    }
}

/// Where the facts came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The statmount system call (Linux 6.8).
    Statmount,
    /// /proc/self/mountinfo.
    MountTable,
    /// The magic number of statfs. 9p, FUSE and overlays lie there, so it proves less.
    Statfs,
    /// The user said so (`fs=` or `policy=`).
    Override,
    /// Another VFS does the file I/O; the path says nothing about where the bytes go.
    BaseVfs,
    /// This system has no probe, or the probe found nothing.
    Nothing,
}

impl Source {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Source::Statmount => "statmount",
            Source::MountTable => "mountinfo",
            Source::Statfs => "statfs",
            Source::Override => "override",
            Source::BaseVfs => "base VFS",
            Source::Nothing => "nothing",
        }
    }
}

/// What is known about the place of a database, and whether WAL is safe there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The kind of filesystem.
    pub class: Class,
    /// Whether WAL may be used.
    pub wal: bool,
    /// The name of the filesystem as the kernel calls it, with the FUSE subtype: `ext4`, `nfs4`, `fuse.sshfs`.
    pub filesystem: String,
    /// What is mounted: a device, `server:/export`, `//server/share`.
    pub source: Option<String>,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
    /// The mount options that matter for SQLite.
    pub options: Vec<String>,
    /// Whom locks are seen by.
    pub locks: LockReach,
    /// One sentence: why.
    pub reason: String,
    /// What else the user should know.
    pub warnings: Vec<String>,
    /// Where the facts came from.
    pub from: Source,
}

impl Verdict {
    /// Whether it is a mount of SMB.
    pub(crate) fn speaks_smb(&self) -> bool {
        matches!(self.filesystem.as_str(), "cifs" | "smb3" | "smbfs")
    }

    /// Whether it is a mount of SMB whose locks go to the server.
    pub(crate) fn is_smb(&self) -> bool {
        self.speaks_smb() && self.locks == LockReach::Everybody
    }

    /// The verdict of somebody who knows nothing: not WAL.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Verdict {
            class: Class::Unknown,
            wal: false,
            filesystem: "unknown".into(),
            source: None,
            mount_point: None,
            options: Vec::new(),
            locks: LockReach::Unknown,
            reason: reason.into(),
            warnings: Vec::new(),
            from: Source::Nothing,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.filesystem, self.class)?;
        if let Some(point) = &self.mount_point {
            write!(f, " at {}", point.display())?;
        }
        if let Some(source) = &self.source {
            write!(f, " from {source}")?;
        }
        write!(f, ": {}", self.reason)
    }
}
