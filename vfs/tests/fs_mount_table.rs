//! The mount table: lines as kernels write them, and which mount covers a path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::{Mount, MountTable, Source};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const DESKTOP: &[u8] = b"\
22 27 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:26 / /dev/shm rw,nosuid,nodev shared:4 master:2 - tmpfs tmpfs rw,size=24684092k
40 27 0:50 /home /mnt/a rw,relatime - btrfs /dev/sda2 rw,ssd,space_cache=v2,subvolid=256,subvol=/@home/home
41 27 0:51 / /mnt/ab rw,relatime shared:31 master:2 propagate_from:3 unbindable - nfs4 [fd00::2]:/export rw,vers=4.2,hard,local_lock=none,addr=fd00::2
42 40 0:52 / /mnt/a/b/c rw,nosuid,nodev,relatime - fuse.sshfs me@host:/home rw,user_id=1000,group_id=1000
43 27 0:53 / /srv/win\\040share rw,relatime master:9 - cifs //nas/data\\040store rw,vers=3.1.1,unc=\\134\\134nas\\134data,nobrl
44 27 254:0 /srv/db /bind ro,relatime - ext4 /dev/vda rw,discard
";

fn covering<'t>(table: &'t MountTable, path: &str) -> Option<&'t Mount> {
    table.covering(Path::new(path))
}

fn one(line: &[u8]) -> Mount {
    let table = MountTable::parse(line);
    assert_eq!(table.iter().count(), 1, "{}", line.escape_ascii());
    table.iter().next().unwrap().clone()
}

#[test]
fn the_longest_mount_point_counts_by_whole_names() {
    let table = MountTable::parse(DESKTOP);
    for (path, id) in [
        ("/", 27),
        ("/x.db", 27),
        ("/mnt", 27),
        ("/mnt/a", 40),
        ("/mnt/a/x.db", 40),
        ("/mnt/ab/x.db", 41),
        ("/mnt/abc/x.db", 27),
        ("/mnt/a/b/x.db", 40),
        ("/mnt/a/b/cd", 40),
        ("/mnt/a/b/c/d/x.db", 42),
        ("/dev/shm/x.db", 30),
        ("/srv/win share/x.db", 43),
        ("/bind/x.db", 44),
    ] {
        assert_eq!(covering(&table, path).unwrap().id, id, "{path}");
    }
    assert_eq!(covering(&table, "x.db"), None);
    assert_eq!(covering(&MountTable::default(), "/x.db"), None);
}

#[test]
fn of_two_mounts_on_one_point_the_later_one_counts() {
    let table = MountTable::parse(
        b"50 1 0:1 / / rw - rootfs rootfs rw\n\
          51 50 8:1 / / rw - ext4 /dev/sda1 rw\n\
          60 51 0:60 / /mnt rw - nfs4 srv:/a rw\n\
          61 60 0:61 / /mnt rw - tmpfs tmpfs rw\n",
    );
    assert_eq!(covering(&table, "/x").unwrap().id, 51);
    let top = covering(&table, "/mnt/x").unwrap();
    assert_eq!((top.id, top.facts.fs_type.as_deref()), (61, Some("tmpfs")));
    assert_eq!(table.by_id(60).unwrap().facts.fs_type.as_deref(), Some("nfs4"));
    assert_eq!(table.by_id(62), None);
}

#[test]
fn the_fields_of_a_line_are_told_whatever_optional_fields_it_has() {
    let table = MountTable::parse(DESKTOP);
    assert_eq!(table.iter().map(|mount| mount.id).collect::<Vec<_>>(), [22, 27, 30, 40, 41, 42, 43, 44]);
    let nfs = table.by_id(41).unwrap();
    assert_eq!(nfs.device, (0, 51));
    assert_eq!(nfs.facts.from, Source::MountTable);
    assert_eq!(nfs.facts.magic, None);
    assert_eq!(nfs.facts.name().as_deref(), Some("nfs4"));
    assert_eq!(nfs.facts.source.as_deref(), Some("[fd00::2]:/export"));
    assert_eq!(nfs.facts.mount_point.as_deref(), Some(Path::new("/mnt/ab")));
    assert_eq!(nfs.facts.options, ["rw", "vers=4.2", "hard", "local_lock=none", "addr=fd00::2", "relatime"]);
    assert_eq!(
        (nfs.facts.option("vers"), nfs.facts.option("ver"), nfs.facts.option("hard")),
        (Some("4.2"), None, None)
    );
    assert!(nfs.facts.has("hard") && !nfs.facts.has("har") && !nfs.facts.has("vers"));

    let sshfs = &table.by_id(42).unwrap().facts;
    assert_eq!((sshfs.fs_type.as_deref(), sshfs.subtype.as_deref()), (Some("fuse"), Some("sshfs")));
    assert_eq!(sshfs.name().as_deref(), Some("fuse.sshfs"));
    let cifs = &table.by_id(43).unwrap().facts;
    assert_eq!(cifs.source.as_deref(), Some("//nas/data store"));
    assert_eq!(cifs.option("unc"), Some("\\\\nas\\data"));
    assert!(cifs.has("nobrl"));
    let btrfs = table.by_id(40).unwrap();
    assert_eq!(btrfs.facts.option("subvol"), Some("/@home/home"));
    // A bind mount may be read-only where the filesystem is not.
    let bind = table.by_id(44).unwrap();
    assert_eq!(bind.device, (254, 0));
    assert!(bind.facts.has("ro"));
}

#[test]
fn a_fuse_subtype_is_split_off_and_no_other_dot_is() {
    for (name, fs_type, subtype) in [
        ("fuse", "fuse", None),
        ("fuse.a.b", "fuse", Some("a.b")),
        ("fuseblk.ntfs-3g", "fuseblk", Some("ntfs-3g")),
        ("ext4.x", "ext4.x", None),
        ("fused.x", "fused.x", None),
    ] {
        let mount = one(format!("1 0 0:1 / / rw - {name} src rw\n").as_bytes());
        assert_eq!((mount.facts.fs_type.as_deref(), mount.facts.subtype.as_deref()), (Some(fs_type), subtype));
        assert_eq!(mount.facts.name().as_deref(), Some(name));
    }
}

#[test]
fn octal_escapes_are_undone_once_and_other_backslashes_stay() {
    for (written, read) in [
        (&b"/a\\040b"[..], &b"/a b"[..]),
        (b"/a\\011b\\012c", b"/a\tb\nc"),
        (b"/a\\134b", b"/a\\b"),
        (b"/a\\134040b", b"/a\\040b"),
        (b"/a\\134\\134", b"/a\\\\"),
        (b"/a\\043b", b"/a#b"),
        (b"/a\\377b", b"/a\xffb"),
        (b"/a\xfe\xc3b", b"/a\xfe\xc3b"),
        (b"/a\\400b", b"/a\\400b"),
        (b"/a\\08b", b"/a\\08b"),
        (b"/a\\04", b"/a\\04"),
        (b"/a\\", b"/a\\"),
    ] {
        let mount = one(&[b"1 0 0:1 / ", written, b" rw - tmpfs tmpfs rw\n"].concat());
        assert_eq!(mount.facts.mount_point.unwrap().as_os_str(), OsStr::from_bytes(read), "{}", written.escape_ascii());
    }
    let odd = one(b"1 0 0:1 / / rw - fuse.my\\040fs my\\040source\\043\\134 rw\n");
    assert_eq!(odd.facts.name().as_deref(), Some("fuse.my fs"));
    assert_eq!(odd.facts.source.as_deref(), Some("my source#\\"));
}

#[test]
fn a_comma_within_an_option_does_not_end_it() {
    let upper = |options: &[u8]| {
        let mount = one(&[b"1 0 0:1 / / rw - overlay overlay rw,lowerdir=/l,", options, b",workdir=/w\n"].concat());
        assert_eq!(mount.facts.option("workdir"), Some("/w"), "{}", options.escape_ascii());
        mount.facts.option("upperdir").unwrap().to_owned()
    };
    assert_eq!(upper(b"upperdir=/a\\,b"), "/a,b");
    assert_eq!(upper(b"upperdir=/a\\054b"), "/a,b");
    // What Linux 6 writes for `mount -o upperdir=/a\,b`: the escape is the overlay's own, and is itself escaped.
    assert_eq!(upper(b"upperdir=/a\\134\\054b"), "/a,b");
    assert_eq!(upper(b"upperdir=/a\\134\\134b"), "/a\\b");
    assert_eq!(upper(b"upperdir=/a\\134:b\\040c"), "/a:b c");
    assert_eq!(upper(b"upperdir=/a\\\\"), "/a\\");

    let other = one(b"1 0 0:1 / / rw - fuse.x x rw,upperdir=/a\\134\\054b,end\\134\n");
    assert_eq!(other.facts.options, ["rw", "upperdir=/a\\,b", "end\\"]);
}

#[test]
fn an_empty_source_shifts_nothing() {
    // mount("", "/srv/db", "overlay", ...): two spaces follow each other.
    let overlay = one(b"48 42 0:43 / /srv/db rw,relatime - overlay  rw,lowerdir=/l,upperdir=/nfs/u,workdir=/w\n");
    assert_eq!(overlay.facts.source.as_deref(), Some(""));
    assert_eq!(overlay.facts.option("upperdir"), Some("/nfs/u"));
    let fuse = one(b"48 42 0:43 / /srv/db rw,relatime shared:3 - fuse.odd  rw,user_id=0\n");
    assert_eq!((fuse.facts.source.as_deref(), fuse.facts.option("user_id")), (Some(""), Some("0")));
}

#[test]
fn a_line_that_is_not_understood_hides_no_other() {
    for odd in [
        &b""[..],
        b"\n",
        b"garbage",
        b"36 35",
        b"36 35 98:0 / /mnt rw,noatime",
        b"36 35 98:0 / /mnt rw,noatime - ext4",
        b"36 35 98 / /mnt rw - ext4 /dev/sda1 rw",
        b"x 35 98:0 / /mnt rw - ext4 /dev/sda1 rw",
        b"36 35 98:y / /mnt rw - ext4 /dev/sda1 rw",
        b"36 35 98:4294967296 / /mnt rw - ext4 /dev/sda1 rw",
        b"99999999999999999999 35 98:0 / /mnt rw - ext4 /dev/sda1 rw",
        b"- - - - - - -",
        b"\xff\xfe\x00",
    ] {
        let text = [b"1 0 8:1 / / rw - xfs /dev/sda1 rw\n", odd, b"\n7 1 0:2 / /tmp rw - tmpfs tmpfs rw\n"].concat();
        let ids: Vec<u64> = MountTable::parse(&text).iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [1, 7], "{}", odd.escape_ascii());
    }
}
