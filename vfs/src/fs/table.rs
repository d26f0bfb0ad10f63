//! What is known about filesystems by their names.
//!
//! An allowlist: a name that is not here is unknown, and unknown is not WAL. Names as /proc/self/mountinfo writes them.

use super::{Class, LockReach};

/// What is known about one filesystem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) class: Class,
    pub(super) wal: bool,
    pub(super) locks: LockReach,
    /// Ends the sentence "NAME ...".
    pub(super) why: &'static str,
}

const LOCAL: Entry =
    Entry { class: Class::Local, wal: true, locks: LockReach::Everybody, why: "is a local filesystem of this kernel" };

const NFS: Entry = Entry {
    class: Class::Network,
    wal: false,
    locks: LockReach::Everybody,
    why: "is a network filesystem: other hosts do not share the memory of the WAL-index",
};
const NETWORK: Entry = Entry { locks: LockReach::Unknown, ..NFS };
const CLUSTER: Entry = Entry {
    class: Class::Cluster,
    wal: false,
    locks: LockReach::Unknown,
    why: "is a cluster filesystem: other hosts do not share the memory of the WAL-index",
};
const VM: Entry = Entry {
    class: Class::VmShared,
    wal: false,
    locks: LockReach::Unknown,
    why: "is shared between a host and its guests, which do not share the memory of the WAL-index",
};
const FUSE: Entry = Entry {
    class: Class::Fuse,
    wal: false,
    locks: LockReach::ThisMount,
    why: "is served by a user-space process: another route to the same files shares neither memory nor locks",
};
const OBJECT_STORE: Entry = Entry {
    why: "keeps files in an object store or behind a file-transfer protocol, without locks between clients and \
          without durable partial writes",
    ..FUSE
};
const FRAGILE: Entry = Entry {
    class: Class::Local,
    wal: false,
    locks: LockReach::Everybody,
    why: "is local but foreign to this kernel: shared memory on it has failed",
};
const STACKED: Entry = Entry { why: "is a layer over another local filesystem", ..LOCAL };

/// Looks a name up, with its subtype (`fuse.sshfs`).
pub(super) fn by_name(name: &str) -> Option<Entry> {
    let entry = match name {
        "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "f2fs" | "bcachefs" | "zfs" | "jfs" | "reiserfs" | "nilfs2"
        | "ubifs" | "tmpfs" | "ramfs" => LOCAL,
        "overlay" | "ecryptfs" | "shiftfs" => STACKED,
        "ntfs" | "ntfs3" | "exfat" | "vfat" | "msdos" | "hfs" | "hfsplus" | "udf" => FRAGILE,
        "nfs" | "nfs4" => NFS,
        "cifs" | "smb3" | "smbfs" | "ncpfs" | "ncp" | "afs" | "kafs" | "auristorfs" | "coda" | "ceph" | "davfs"
        | "edenfs" => NETWORK,
        "lustre" | "gpfs" | "beegfs" | "fhgfs" | "orangefs" | "pvfs2" | "ocfs2" | "gfs" | "gfs2" | "panfs" | "acfs"
        | "vxfs" | "ibrix" | "snfs" | "glusterfs" | "fuse.glusterfs" | "fuse.ceph" | "fuse.ceph-fuse"
        | "fuse.juicefs" | "fuse.moosefs" | "fuse.mfs" | "fuse.lizardfs" | "fuse.beegfs" => CLUSTER,
        "9p" | "v9fs" | "virtiofs" | "fuse.virtiofs" | "fakeowner" | "grpcfuse" | "fuse.grpcfuse" | "fuse.osxfs"
        | "vboxsf" | "vmhgfs" | "fuse.vmhgfs-fuse" | "prl_fs" | "fuse.prl_fsd" | "hostfs" | "drvfs" | "wslfs"
        | "lxfs" => VM,
        "fuse.s3fs"
        | "fuse.gcsfuse"
        | "fuse.goofys"
        | "fuse.mount-s3"
        | "fuse.rclone"
        | "fuse.blobfuse"
        | "fuse.blobfuse2"
        | "fuse.geesefs"
        | "fuse.seaweedfs"
        | "fuse.davfs"
        | "fuse.davfs2"
        | "fuse.curlftpfs"
        | "fuse.google-drive-ocamlfuse"
        | "fuse.onedriver"
        | "fuse.gvfsd-fuse"
        | "fuse.portal" => OBJECT_STORE,
        "autofs" => Entry {
            class: Class::Unknown,
            wal: false,
            locks: LockReach::Unknown,
            why: "has not mounted anything here yet, so nobody knows what the files will be on",
        },
        _ if name == "fuse" || name == "fuseblk" || name.starts_with("fuse.") || name.starts_with("fuseblk.") => FUSE,
        _ => return None,
    };
    Some(entry)
}

/// The class of what has this magic number.
#[cfg(target_os = "linux")]
pub(crate) fn class_of(magic: u64) -> Option<Class> {
    by_magic(magic).and_then(by_name).map(|entry| entry.class)
}

/// The name behind a superblock's magic number, for systems where neither statmount nor the mount table can be read.
/// FUSE, 9p and overlays lie about theirs, which is why a name from here proves less.
pub(super) fn by_magic(magic: u64) -> Option<&'static str> {
    // Some architectures sign-extend f_type.
    Some(match magic & 0xffff_ffff {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0xF2F5_2010 => "f2fs",
        0xCA45_1A4E => "bcachefs",
        0x2FC1_2FC1 => "zfs",
        0x3153_464A => "jfs",
        0x5265_4973 => "reiserfs",
        0x3434 => "nilfs2",
        0x2405_1905 => "ubifs",
        0x0102_1994 => "tmpfs",
        0x8584_58F6 => "ramfs",
        0x794C_7630 => "overlay",
        0xF15F => "ecryptfs",
        0x7366_746E => "ntfs3",
        0x2011_BAB0 => "exfat",
        0x4D44 => "vfat",
        0x482B => "hfsplus",
        0x6969 => "nfs",
        0xFF53_4D42 => "cifs",
        0xFE53_4D42 => "smb3",
        0x517B => "smbfs",
        0x564C => "ncpfs",
        0x5346_414F => "afs",
        0x6B41_4653 => "kafs",
        0x7375_7245 => "coda",
        0x00C3_6400 => "ceph",
        0x0102_1997 => "9p",
        0x0BD0_0BD0 => "lustre",
        0x4750_4653 => "gpfs",
        0x1983_0326 => "beegfs",
        0x2003_0528 => "orangefs",
        0x7461_636F => "ocfs2",
        0x0116_1970 => "gfs2",
        0xAAD7_AAEA => "panfs",
        0x6163_6673 => "acfs",
        0xA501_FCF5 => "vxfs",
        0x0131_11A8 => "ibrix",
        0xBEEF_DEAD => "snfs",
        0x786F_4256 => "vboxsf",
        0xBACB_ACBC => "vmhgfs",
        0x7C7C_6673 => "prl_fs",
        0x00C0_FFEE => "hostfs",
        0x5346_4846 => "wslfs",
        0x6573_5546 => "fuse",
        0x0187 => "autofs",
        _ => return None,
    })
}
