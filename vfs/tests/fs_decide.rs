//! The verdict on every kind of mount, from lines as the kernel writes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::LockReach::{Everybody, ThisMount, Unknown as UnknownReach};
use hardened_vfs::fs::{Class, Facts, LockReach, MountFacts, MountTable, Source, SyncFolder, Verdict, decide};
use hardened_vfs::{Options, outlook};

/// The facts about a mount at /srv/db.
fn mounted(fs: &str, source: &str, options: &str) -> MountFacts {
    let line = format!("36 35 98:0 / /srv/db rw,relatime shared:7 - {fs} {source} {options}\n");
    MountTable::parse(line.as_bytes()).by_id(36).unwrap_or_else(|| panic!("not parsed: {line}")).facts.clone()
}

fn on(fs: &str, source: &str, options: &str) -> Verdict {
    decide(&Facts::of(mounted(fs, source, options)))
}

/// Checks class, WAL and locks, that there is a reason, and that each warning speaks of what it should.
fn check(verdict: &Verdict, class: Class, wal: bool, locks: LockReach, warnings: &[&str]) {
    assert_eq!((verdict.class, verdict.wal, verdict.locks), (class, wal, locks), "{verdict:?}");
    assert!(!verdict.reason.trim().is_empty(), "{verdict:?}");
    assert_eq!(verdict.warnings.len(), warnings.len(), "{verdict:?}");
    for (said, expected) in verdict.warnings.iter().zip(warnings) {
        assert!(said.contains(expected), "{said:?} does not speak of {expected:?}");
    }
}

#[test]
fn every_filesystem_on_the_allowlist_is_local_and_gets_wal() {
    for (fs, source, options) in [
        ("ext2", "/dev/sdb1", "rw"),
        ("ext3", "/dev/sdb1", "rw,data=ordered"),
        ("ext4", "/dev/nvme0n1p2", "rw,errors=remount-ro,stripe=32"),
        ("xfs", "/dev/mapper/vg-root", "rw,attr2,inode64,logbufs=8,noquota"),
        ("btrfs", "/dev/sda2", "rw,ssd,space_cache=v2,subvolid=256,subvol=/@home"),
        ("f2fs", "/dev/mmcblk0p3", "rw,lazytime,background_gc=on,discard"),
        ("bcachefs", "/dev/sda:/dev/sdb", "rw,compression=zstd"),
        ("zfs", "rpool/ROOT/ubuntu", "rw,xattr,posixacl"),
        ("jfs", "/dev/sdc1", "rw"),
        ("reiserfs", "/dev/sdc2", "rw"),
        ("nilfs2", "/dev/sdc3", "rw"),
        ("ubifs", "ubi0:rootfs", "rw,assert=read-only"),
        ("tmpfs", "tmpfs", "rw,size=1024k,mode=700"),
        ("ramfs", "none", "rw"),
    ] {
        let verdict = on(fs, source, options);
        check(&verdict, Class::Local, true, Everybody, &[]);
        assert_eq!((verdict.filesystem.as_str(), verdict.source.as_deref()), (fs, Some(source)));
        assert_eq!(verdict.mount_point.as_deref(), Some("/srv/db".as_ref()));
        // Of these only one matters: with it the time of a change may be forgotten in a crash.
        let kept: Vec<&str> = options.split(',').filter(|option| *option == "lazytime").collect();
        assert_eq!(
            (&verdict.options, verdict.from),
            (&kept.iter().map(|option| option.to_string()).collect(), Source::MountTable)
        );
        assert!(verdict.reason.starts_with(fs), "{verdict}");
    }
}

#[test]
fn the_source_of_a_local_filesystem_never_makes_it_a_network() {
    for (fs, source) in [
        ("zfs", "tank:pool/data"),
        ("zfs", "server:/export"),
        ("ext4", "//dev/sda1"),
        ("ext4", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"),
        ("ext4", "server:/export"),
        ("tmpfs", "//server/share"),
        ("btrfs", "nfs"),
    ] {
        check(&on(fs, source, "rw"), Class::Local, true, Everybody, &[]);
    }
}

#[test]
fn network_filesystems_are_network_whatever_their_options() {
    let nfs = |options| on("nfs4", "srv:/home", options);
    let hard = nfs("rw,vers=4.2,rsize=1048576,hard,proto=tcp,local_lock=none,addr=10.0.0.2");
    check(&hard, Class::Network, false, Everybody, &[]);
    assert_eq!(hard.options, ["vers=4.2", "hard", "local_lock=none"]);
    assert!(hard.reason.contains("nfs4 is a network filesystem"), "{hard}");

    let soft = nfs("rw,vers=4.1,soft,local_lock=none");
    check(&soft, Class::Network, false, Everybody, &["`soft`"]);
    assert_eq!(soft.options, ["vers=4.1", "soft", "local_lock=none"]);
    check(&nfs("rw,softerr,local_lock=flock"), Class::Network, false, Everybody, &["`softerr`"]);

    let v3 = on("nfs", "srv:/home", "rw,vers=3,noac,hard,nolock,local_lock=all,mountaddr=10.0.0.2");
    check(&v3, Class::Network, false, ThisMount, &["`nolock`"]);
    assert_eq!(v3.options, ["vers=3", "noac", "hard", "nolock", "local_lock=all"]);
    for value in ["posix", "all"] {
        let options = format!("rw,vers=3,hard,local_lock={value}");
        check(&on("nfs", "s:/", &options), Class::Network, false, ThisMount, &[&format!("`local_lock={value}`")]);
    }
    check(&nfs("rw,nolock,soft"), Class::Network, false, ThisMount, &["`nolock`", "`soft`"]);

    for fs in ["cifs", "smb3"] {
        let plain = on(fs, "//nas/db", "rw,vers=3.1.1,cache=strict,username=me,unix,mapposix");
        check(&plain, Class::Network, false, Everybody, &[]);
        assert_eq!(plain.options, ["vers=3.1.1", "cache=strict", "unix", "mapposix"]);
        check(&on(fs, "//nas/db", "rw,nobrl"), Class::Network, false, ThisMount, &["`nobrl`"]);
        check(&on(fs, "//nas/db", "rw,nolock"), Class::Network, false, ThisMount, &["`nolock`"]);
    }
    for fs in ["ncpfs", "ncp", "afs", "kafs", "auristorfs", "coda", "ceph", "davfs", "edenfs"] {
        check(&on(fs, "srv:/x", "rw"), Class::Network, false, UnknownReach, &[]);
    }
}

#[test]
fn a_database_may_be_converted_under_a_lock_only_if_the_lock_reaches_the_other_hosts() {
    for (fs, options, convertible) in [
        ("nfs4", "rw,vers=4.2,local_lock=none", true),
        ("nfs4", "rw,local_lock=flock", true),
        ("nfs", "rw,local_lock=posix", false),
        ("nfs", "rw,nolock", false),
        ("cifs", "rw", true),
        ("smb3", "rw,nobrl", false),
        ("lustre", "rw,localflock", false),
        ("ocfs2", "rw,localflocks", false),
    ] {
        let outlook = outlook(&Options::default(), &on(fs, "srv:/x", options));
        assert_eq!((outlook.wal, outlook.convertible), (false, convertible), "{fs} {options}");
    }
}

#[test]
fn cluster_and_vm_shared_filesystems_have_their_own_class() {
    for fs in [
        "lustre",
        "gpfs",
        "beegfs",
        "fhgfs",
        "orangefs",
        "pvfs2",
        "ocfs2",
        "gfs",
        "gfs2",
        "panfs",
        "acfs",
        "vxfs",
        "ibrix",
        "snfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.juicefs",
        "fuse.moosefs",
        "fuse.mfs",
        "fuse.lizardfs",
        "fuse.beegfs",
    ] {
        let verdict = on(fs, "store", "rw");
        check(&verdict, Class::Cluster, false, UnknownReach, &[]);
        assert_eq!(verdict.filesystem, fs);
    }
    let lustre = on("lustre", "10.0.0.1@tcp:/fs", "rw,noflock,lazystatfs");
    check(&lustre, Class::Cluster, false, ThisMount, &["`noflock`"]);
    assert_eq!(lustre.options, ["noflock"]);
    // As Linux 6.18 and GlusterFS 10.3 have it, whatever caches the client was told to have.
    for fs in ["glusterfs", "fuse.glusterfs"] {
        let gluster = on(fs, "server:/v", "rw,user_id=0,group_id=0,default_permissions,allow_other,max_read=131072");
        check(
            &gluster,
            Class::Cluster,
            false,
            UnknownReach,
            &["two clients of a GlusterFS volume must not open this database"],
        );
        assert!(gluster.warnings[0].contains("auto-invalidation=on,attribute-timeout=0,entry-timeout=0"), "{gluster}");
    }

    for fs in [
        "9p",
        "v9fs",
        "virtiofs",
        "fuse.virtiofs",
        "fakeowner",
        "grpcfuse",
        "fuse.grpcfuse",
        "fuse.osxfs",
        "vboxsf",
        "vmhgfs",
        "fuse.vmhgfs-fuse",
        "prl_fs",
        "fuse.prl_fsd",
        "hostfs",
        "drvfs",
        "wslfs",
        "lxfs",
    ] {
        let verdict = on(fs, "share", "rw");
        check(&verdict, Class::VmShared, false, UnknownReach, &[]);
        assert_eq!(verdict.filesystem, fs);
    }
    let nine = on("9p", "C:\\134", "rw,aname=drvfs;path=C:\\134,cache=5,access=client,msize=65536,trans=fd");
    check(&nine, Class::VmShared, false, UnknownReach, &[]);
    assert_eq!(nine.options, ["cache=5", "trans=fd"]);
}

#[test]
fn every_fuse_filesystem_is_fuse_whatever_it_calls_itself() {
    for fs in ["fuse", "fuseblk", "fuse.sshfs", "fuse.bindfs", "fuse.ext4", "fuse.tmpfs", "fuseblk.ntfs", "fuse.a.b"] {
        let verdict = on(fs, "me@host:/home", "rw,user_id=0,group_id=0,allow_other");
        check(&verdict, Class::Fuse, false, ThisMount, &[]);
        assert_eq!(verdict.filesystem, fs);
        assert!(verdict.reason.contains("user-space process"), "{verdict}");
    }
    for subtype in [
        "s3fs",
        "gcsfuse",
        "goofys",
        "mount-s3",
        "rclone",
        "blobfuse",
        "blobfuse2",
        "geesefs",
        "seaweedfs",
        "davfs",
        "davfs2",
        "curlftpfs",
        "google-drive-ocamlfuse",
        "onedriver",
        "gvfsd-fuse",
        "portal",
    ] {
        let verdict = on(&format!("fuse.{subtype}"), "bucket", "rw");
        check(&verdict, Class::Fuse, false, ThisMount, &[]);
        assert!(verdict.reason.contains("object store"), "{verdict}");
    }
}

#[test]
fn a_name_that_is_not_known_is_unknown_and_gets_no_wal() {
    for fs in [
        "",
        "zzzfs",
        "EXT4",
        "Xfs",
        "BTRFS",
        "TmpFS",
        "NFS4",
        "FUSE",
        "Overlay",
        "ext",
        "ext44",
        "ext4.x",
        "xfs2",
        "tmpfs.fuse",
        "fusectl",
        "fusex",
        "overlayfs",
        "aufs",
        "squashfs",
        "iso9660",
        "rootfs",
        "devtmpfs",
        "proc",
        "local",
        "none",
        "?",
        "ext4\\040",
        "\\012ext4",
    ] {
        let verdict = on(fs, "/dev/sda1", "rw");
        check(&verdict, Class::Unknown, false, UnknownReach, &[]);
        assert!(verdict.reason.contains("not on the list"), "{verdict}");
    }
}

#[test]
fn foreign_local_filesystems_are_local_without_wal_and_an_automount_point_is_unknown() {
    for fs in ["ntfs", "ntfs3", "exfat", "vfat", "msdos", "hfs", "hfsplus", "udf"] {
        let verdict = on(fs, "/dev/sdb1", "rw,uid=1000");
        check(&verdict, Class::Local, false, Everybody, &[]);
        assert!(verdict.reason.contains("shared memory on it has failed"), "{verdict}");
    }
    let autofs = on("autofs", "/etc/auto.nfs", "rw,fd=7,pgrp=1,timeout=300,minproto=5,maxproto=5,indirect");
    check(&autofs, Class::Unknown, false, UnknownReach, &[]);
    assert!(autofs.reason.contains("not mounted anything here yet"), "{autofs}");
}

#[test]
fn options_that_can_lose_data_are_kept_and_named() {
    let ext4 = |options| on("ext4", "/dev/sda1", options);
    for (options, kept, warnings) in [
        ("rw,nobarrier", vec!["nobarrier"], vec!["`nobarrier`"]),
        ("rw,barrier=0,norecovery", vec!["barrier=0", "norecovery"], vec!["`barrier=0`", "`norecovery`"]),
        ("rw,data=writeback", vec!["data=writeback"], vec![]),
        ("rw,data=ordered,barrier=1", vec![], vec![]),
        ("ro", vec!["ro"], vec![]),
    ] {
        let verdict = ext4(options);
        check(&verdict, Class::Local, true, Everybody, &warnings);
        assert_eq!(verdict.options, kept, "{options}");
    }
    for fs in ["ext3", "xfs", "btrfs"] {
        check(&on(fs, "/dev/sda1", "rw,nobarrier"), Class::Local, true, Everybody, &["`nobarrier`"]);
    }
    // The same words mean nothing elsewhere.
    check(&on("tmpfs", "tmpfs", "rw,nobarrier,nolock,soft"), Class::Local, true, Everybody, &[]);
    let overlay = on("overlay", "overlay", "rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile");
    check(&overlay, Class::Local, true, Everybody, &["`volatile`"]);
    assert_eq!(overlay.options, ["upperdir=/u", "volatile"]);
}

#[test]
fn a_layer_is_what_its_upper_layer_lies_on() {
    let layers = [
        mounted("overlay", "overlay", "rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile"),
        mounted("ecryptfs", "/home/.ecryptfs/me/.Private", "rw,ecryptfs_cipher=aes"),
    ];
    for layer in &layers {
        let name = layer.fs_type.as_deref().unwrap();
        let volatile: &[&str] = if name == "overlay" { &["`volatile`"] } else { &[] };
        let over = |under: Option<MountFacts>| decide(&Facts { under, ..Facts::of(layer.clone()) });
        check(&over(None), Class::Local, true, Everybody, volatile);
        check(&over(Some(mounted("ext4", "/dev/sda1", "rw"))), Class::Local, true, Everybody, volatile);
        let barrier = [volatile, &["`nobarrier`"]].concat();
        check(&over(Some(mounted("ext4", "/dev/sda1", "rw,nobarrier"))), Class::Local, true, Everybody, &barrier);

        for (fs, options, class, locks, warning) in [
            ("nfs4", "rw,vers=4.2,soft", Class::Network, Everybody, "`soft`"),
            ("nfs4", "rw,nolock", Class::Network, ThisMount, "`nolock`"),
            ("fuse.bindfs", "rw", Class::Fuse, ThisMount, ""),
            ("virtiofs", "rw", Class::VmShared, UnknownReach, ""),
            ("ntfs3", "rw", Class::Local, Everybody, ""),
            ("madeupfs", "rw", Class::Unknown, UnknownReach, ""),
        ] {
            let verdict = over(Some(mounted(fs, "srv:/x", options)));
            let warnings: Vec<&str> = volatile.iter().copied().chain([warning]).filter(|w| !w.is_empty()).collect();
            check(&verdict, class, false, locks, &warnings);
            assert_eq!((verdict.filesystem.as_str(), verdict.mount_point.as_deref()), (name, Some("/srv/db".as_ref())));
            assert!(verdict.reason.starts_with(&format!("{name} lies over {fs}, and {fs} is")), "{verdict}");
        }
    }
}

#[test]
fn the_worse_of_the_directory_and_a_file_mounted_on_its_own_counts() {
    let own = "mount of its own";
    let ext4 = || mounted("ext4", "/dev/sda1", "rw");
    let nfs = |options| mounted("nfs4", "srv:/home", options);
    let sshfs = || mounted("fuse.sshfs", "me@host:/", "rw");
    let both = |directory: MountFacts, file: MountFacts| decide(&Facts { file: Some(file), ..Facts::of(directory) });

    let local = both(ext4(), mounted("xfs", "/dev/sdb1", "rw"));
    check(&local, Class::Local, false, Everybody, &[own]);
    assert!(local.reason.contains("xfs") && local.reason.contains("ext4"), "{local}");

    for (directory, file, class, filesystem, locks, warnings) in [
        (ext4(), nfs("rw,hard"), Class::Network, "nfs4", Everybody, vec![own]),
        (nfs("rw,hard"), ext4(), Class::Network, "nfs4", Everybody, vec![own]),
        (nfs("rw"), sshfs(), Class::Network, "nfs4", ThisMount, vec![own]),
        (sshfs(), nfs("rw"), Class::Network, "nfs4", ThisMount, vec![own]),
        (mounted("ntfs3", "/dev/sdb1", "rw"), ext4(), Class::Local, "ntfs3", Everybody, vec![own]),
        (ext4(), mounted("ntfs3", "/dev/sdb1", "rw"), Class::Local, "ntfs3", Everybody, vec![own]),
        // The locks are on the file, the journal is in the directory: what breaks either is said.
        (mounted("cifs", "//nas/x", "rw"), nfs("rw,nolock"), Class::Network, "cifs", ThisMount, vec!["`nolock`", own]),
        (nfs("rw,soft"), mounted("zzzfs", "x", "rw"), Class::Unknown, "zzzfs", UnknownReach, vec!["`soft`", own]),
    ] {
        let verdict = both(directory, file);
        check(&verdict, class, false, locks, &warnings);
        assert_eq!(verdict.filesystem, filesystem, "{verdict}");
    }
}

#[test]
fn on_wsl_1_nothing_is_local() {
    let wsl1 = |fs, source| decide(&Facts { wsl1: true, ..Facts::of(mounted(fs, source, "rw")) });
    for fs in ["ext4", "tmpfs", "ntfs3", "overlay"] {
        let verdict = wsl1(fs, "rootfs");
        check(&verdict, Class::VmShared, false, Everybody, &[]);
        assert!(verdict.reason.contains("WSL 1"), "{verdict}");
    }
    check(&wsl1("nfs4", "srv:/x"), Class::Network, false, Everybody, &[]);
    check(&wsl1("drvfs", "C:"), Class::VmShared, false, UnknownReach, &[]);
}

#[test]
fn inside_a_sync_folder_there_is_no_wal_and_a_warning() {
    let folder = SyncFolder { program: "Dropbox", root: "/home/u/Dropbox".into() };
    let inside = |fs| decide(&Facts { sync_folder: Some(folder.clone()), ..Facts::of(mounted(fs, "x", "rw")) });
    let named = "inside the Dropbox folder /home/u/Dropbox";
    let local = inside("ext4");
    check(&local, Class::Local, false, Everybody, &[named]);
    assert!(local.reason.contains(named), "{local}");
    let network = inside("nfs4");
    check(&network, Class::Network, false, Everybody, &[named]);
    assert!(network.reason.contains("network filesystem"), "{network}");
}
