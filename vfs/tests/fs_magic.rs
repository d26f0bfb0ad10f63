//! The verdict where only the magic number of the superblock can be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::LockReach::{Everybody, ThisMount, Unknown as UnknownReach};
use hardened_vfs::fs::{Class, Facts, MountFacts, Source, Verdict, decide};

fn by_magic(magic: Option<u64>) -> Verdict {
    decide(&Facts::of(MountFacts { magic, from: Source::Statfs, ..MountFacts::nothing() }))
}

/// As an architecture with a signed 32-bit `f_type` gives it.
fn sign_extended(magic: u32) -> u64 {
    i64::from(magic.cast_signed()).cast_unsigned()
}

/// From linux/magic.h and statfs(2).
const LOCAL: [(u32, &str); 12] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x2FC1_2FC1, "zfs"),
    (0x3153_464A, "jfs"),
    (0x5265_4973, "reiserfs"),
    (0x3434, "nilfs2"),
    (0x2405_1905, "ubifs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58F6, "ramfs"),
];

const OTHER: [(u32, &str, Class); 22] = [
    (0x7366_746E, "ntfs3", Class::Local),
    (0x2011_BAB0, "exfat", Class::Local),
    (0x4D44, "vfat", Class::Local),
    (0x482B, "hfsplus", Class::Local),
    (0x6969, "nfs", Class::Network),
    (0xFF53_4D42, "cifs", Class::Network),
    (0xFE53_4D42, "smb3", Class::Network),
    (0x517B, "smbfs", Class::Network),
    (0x5346_414F, "afs", Class::Network),
    (0x7375_7245, "coda", Class::Network),
    (0x00C3_6400, "ceph", Class::Network),
    (0x0BD0_0BD0, "lustre", Class::Cluster),
    (0x4750_4653, "gpfs", Class::Cluster),
    (0x1983_0326, "beegfs", Class::Cluster),
    (0x7461_636F, "ocfs2", Class::Cluster),
    (0x0116_1970, "gfs2", Class::Cluster),
    (0x0102_1997, "9p", Class::VmShared),
    (0x786F_4256, "vboxsf", Class::VmShared),
    (0xBACB_ACBC, "vmhgfs", Class::VmShared),
    (0x5346_4846, "wslfs", Class::VmShared),
    (0x6573_5546, "fuse", Class::Fuse),
    (0x0187, "autofs", Class::Unknown),
];

#[test]
fn a_local_magic_number_gives_wal_and_says_how_little_is_known() {
    for (magic, name) in LOCAL {
        for magic in [u64::from(magic), sign_extended(magic)] {
            let verdict = by_magic(Some(magic));
            assert_eq!((verdict.class, verdict.wal, verdict.locks), (Class::Local, true, Everybody), "{magic:#x}");
            assert_eq!((verdict.filesystem.as_str(), verdict.from), (name, Source::Statfs));
            assert!(verdict.reason.starts_with(name), "{verdict}");
            assert_eq!(verdict.warnings.len(), 1, "{verdict:?}");
            assert!(verdict.warnings[0].contains("only the magic number"), "{verdict:?}");
        }
    }
}

#[test]
fn every_other_known_magic_number_gives_its_class_and_no_wal() {
    for (magic, name, class) in OTHER {
        for magic in [u64::from(magic), sign_extended(magic)] {
            let verdict = by_magic(Some(magic));
            assert_eq!((verdict.class, verdict.wal), (class, false), "{magic:#x}");
            assert_eq!(verdict.filesystem, name);
            assert!(!verdict.reason.is_empty() && verdict.warnings.is_empty(), "{verdict:?}");
            if class == Class::Fuse {
                assert_eq!(verdict.locks, ThisMount);
            }
        }
    }
}

#[test]
fn a_layer_known_only_by_its_magic_number_is_unknown() {
    for (magic, name) in [(0x794C_7630, "overlay"), (0xF15F, "ecryptfs")] {
        let verdict = by_magic(Some(magic));
        assert_eq!((verdict.class, verdict.wal), (Class::Unknown, false));
        assert!(verdict.reason.contains(name) && verdict.reason.contains("could not be seen"), "{verdict}");
        assert_eq!(verdict.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_magic_number_that_is_not_listed_is_named_and_gives_no_wal() {
    for magic in [0, 1, 0x9FA0, 0x7371_7368, 0xEF52, 0xEF54, 0x0102_1995, u64::MAX, 0x2FC1_2FC1_0000_0000] {
        let verdict = by_magic(Some(magic));
        assert_eq!((verdict.class, verdict.wal, verdict.locks), (Class::Unknown, false, UnknownReach), "{magic:#x}");
        assert!(verdict.reason.contains(&format!("{magic:#x}")), "{verdict}");
        assert_eq!(verdict.from, Source::Statfs);
    }
    let nothing = by_magic(None);
    assert_eq!((nothing.class, nothing.wal), (Class::Unknown, false));
    assert!(nothing.reason.contains("told nothing"), "{nothing}");
}

#[test]
fn the_name_counts_more_than_the_magic_number() {
    // A 9p server reports its own ext4.
    for (name, class) in [("9p", Class::VmShared), ("fuse", Class::Fuse), ("zzzfs", Class::Unknown)] {
        let facts = MountFacts {
            fs_type: Some(name.into()),
            magic: Some(0xEF53),
            from: Source::Statmount,
            ..MountFacts::nothing()
        };
        let verdict = decide(&Facts::of(facts));
        assert_eq!((verdict.class, verdict.wal, verdict.filesystem.as_str()), (class, false, name));
    }
}
