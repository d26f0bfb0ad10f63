//! Answers of statmount(2), made by hand after linux/mount.h.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::{MountFacts, Source, parse_statmount};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SB_BASIC: u64 = 1 << 0;
const MNT_BASIC: u64 = 1 << 1;
const MNT_POINT: u64 = 1 << 4;
const FS_TYPE: u64 = 1 << 5;
const MNT_OPTS: u64 = 1 << 7;
const FS_SUBTYPE: u64 = 1 << 8;
const SB_SOURCE: u64 = 1 << 9;
const SUPPORTED_MASK: u64 = 1 << 12;

/// Offsets of the fields of struct statmount.
const MASK: usize = 8;
const MAGIC: usize = 24;
const SB_FLAGS: usize = 32;
const FS_TYPE_AT: usize = 36;
const OLD_ID: usize = 56;
const MOUNT_ATTR: usize = 64;
const SUPPORTED: usize = 144;
const STRINGS: usize = 512;

const STRING_FIELDS: [(u64, usize); 5] =
    [(FS_TYPE, FS_TYPE_AT), (MNT_OPTS, 4), (MNT_POINT, 108), (FS_SUBTYPE, 120), (SB_SOURCE, 124)];

/// An answer under construction.
#[derive(Clone)]
struct Answer(Vec<u8>);

impl Answer {
    fn new() -> Answer {
        // The kernel keeps the first string empty.
        Answer(vec![0; STRINGS + 1])
    }

    fn u32(mut self, at: usize, value: u32) -> Answer {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Answer {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn mask(self, flags: u64) -> Answer {
        let mask = u64::from_ne_bytes(self.0[MASK..MASK + 8].try_into().unwrap());
        self.u64(MASK, mask | flags)
    }

    fn string(self, flag: u64, text: &[u8]) -> Answer {
        let field = STRING_FIELDS.iter().find(|(known, _)| *known == flag).unwrap().1;
        let offset = u32::try_from(self.0.len() - STRINGS).unwrap();
        let mut answer = self.mask(flag).u32(field, offset);
        answer.0.extend_from_slice(text);
        answer.0.push(0);
        answer
    }

    fn facts(&self) -> MountFacts {
        parse_statmount(&self.0).unwrap().0
    }
}

/// What Linux 6.15 tells about a mount of NFS.
fn full() -> Answer {
    Answer::new()
        .mask(SB_BASIC | MNT_BASIC | SUPPORTED_MASK)
        .u64(MAGIC, 0x6969)
        .u32(OLD_ID, 77)
        .u64(SUPPORTED, 0x7fff)
        .string(FS_TYPE, b"nfs4")
        .string(MNT_OPTS, b"vers=4.2,hard,local_lock=none,addr=10.0.0.2")
        .string(MNT_POINT, b"/srv/db")
        .string(FS_SUBTYPE, b"")
        .string(SB_SOURCE, b"srv:/export")
}

#[test]
fn a_full_answer_tells_everything() {
    let (facts, told_all, old_id) = parse_statmount(&full().0).unwrap();
    assert_eq!((told_all, old_id), (true, 77));
    assert_eq!(
        facts,
        MountFacts {
            fs_type: Some("nfs4".into()),
            subtype: None,
            source: Some("srv:/export".into()),
            mount_point: Some("/srv/db".into()),
            options: ["vers=4.2", "hard", "local_lock=none", "addr=10.0.0.2"].map(String::from).to_vec(),
            magic: Some(0x6969),
            from: Source::Statmount,
        }
    );
}

#[test]
fn linux_6_8_tells_neither_options_nor_subtype_nor_source_and_is_known_not_to() {
    let old = Answer::new()
        .mask(SB_BASIC | MNT_BASIC)
        .u64(MAGIC, 0x6573_5546)
        .u32(OLD_ID, 5)
        .string(FS_TYPE, b"fuse")
        .string(MNT_POINT, b"/mnt");
    let (facts, told_all, old_id) = parse_statmount(&old.0).unwrap();
    assert_eq!((told_all, old_id), (false, 5));
    assert_eq!((facts.name().as_deref(), facts.subtype, facts.source), (Some("fuse"), None, None));
    assert_eq!(facts.options, Vec::<String>::new());
    assert_eq!(facts.magic, Some(0x6573_5546));
}

#[test]
fn only_a_kernel_that_supports_all_of_options_subtype_and_source_has_told_all() {
    let needed = MNT_OPTS | FS_SUBTYPE | SB_SOURCE;
    for (supported, told_all) in [
        (needed, true),
        (u64::MAX, true),
        (0, false),
        (needed & !MNT_OPTS, false),
        (needed & !FS_SUBTYPE, false),
        (needed & !SB_SOURCE, false),
    ] {
        assert_eq!(parse_statmount(&full().u64(SUPPORTED, supported).0).unwrap().1, told_all, "{supported:#x}");
    }
    // The field means nothing unless its own flag is set.
    let mask = SB_BASIC | FS_TYPE;
    assert!(!parse_statmount(&full().u64(MASK, mask).0).unwrap().1);
}

#[test]
fn a_string_counts_only_if_its_flag_is_set() {
    for (flag, _) in STRING_FIELDS {
        let mask = SB_BASIC | MNT_BASIC | SUPPORTED_MASK | FS_TYPE | MNT_OPTS | MNT_POINT | FS_SUBTYPE | SB_SOURCE;
        let answer = full().string(FS_SUBTYPE, b"sub").u64(MASK, mask & !flag);
        let Some((facts, ..)) = parse_statmount(&answer.0) else {
            assert_eq!(flag, FS_TYPE, "only the name is indispensable");
            continue;
        };
        assert_ne!(flag, FS_TYPE);
        assert_eq!(facts.options.is_empty(), flag == MNT_OPTS);
        assert_eq!(facts.mount_point.is_none(), flag == MNT_POINT);
        assert_eq!(facts.subtype.is_none(), flag == FS_SUBTYPE);
        assert_eq!(facts.source.is_none(), flag == SB_SOURCE);
    }
    let bare = parse_statmount(&full().u64(MASK, FS_TYPE).0).unwrap();
    assert_eq!((bare.0.magic, bare.2), (None, 0), "no magic number and no old id without their flags");
}

#[test]
fn a_fuse_subtype_joins_the_name() {
    let fuse = Answer::new().string(FS_TYPE, b"fuse").string(FS_SUBTYPE, b"sshfs").facts();
    assert_eq!((fuse.fs_type.as_deref(), fuse.subtype.as_deref()), (Some("fuse"), Some("sshfs")));
    assert_eq!(fuse.name().as_deref(), Some("fuse.sshfs"));
    let bare = Answer::new().string(FS_TYPE, b"fuse").string(FS_SUBTYPE, b"").facts();
    assert_eq!((bare.subtype.as_deref(), bare.name().as_deref()), (None, Some("fuse")));
}

#[test]
fn only_the_options_are_escaped_in_an_answer() {
    let facts = Answer::new()
        .string(FS_TYPE, b"overlay")
        .string(MNT_OPTS, b"lowerdir=/l,upperdir=/a\\134\\054b\\040c,workdir=/w")
        .string(MNT_POINT, b"/mnt/a\\040b c\xff")
        .string(SB_SOURCE, b"over\\054lay")
        .facts();
    assert_eq!(facts.options, ["lowerdir=/l", "upperdir=/a,b c", "workdir=/w"]);
    assert_eq!(facts.mount_point.unwrap().as_os_str().as_bytes(), b"/mnt/a\\040b c\xff");
    assert_eq!(facts.source.as_deref(), Some("over\\054lay"));
}

#[test]
fn a_mount_point_out_of_reach_is_not_known() {
    let facts = Answer::new().string(FS_TYPE, b"ext4").string(MNT_POINT, b"").facts();
    assert_eq!(facts.mount_point, None);
    let facts = Answer::new().string(FS_TYPE, b"ext4").string(MNT_POINT, b"/").facts();
    assert_eq!(facts.mount_point.as_deref(), Some(Path::new("/")));
}

#[test]
fn read_only_is_told_by_the_filesystem_or_the_mount_and_once() {
    let ro = |answer: Answer| answer.facts().options.iter().filter(|option| *option == "ro").count();
    assert_eq!(ro(full()), 0);
    assert_eq!(ro(full().u32(SB_FLAGS, 1)), 1);
    assert_eq!(ro(full().u64(MOUNT_ATTR, 1)), 1);
    assert_eq!(ro(full().u32(SB_FLAGS, 1).u64(MOUNT_ATTR, 1)), 1);
    // Other flags are not it: synchronous, nosuid.
    assert_eq!(ro(full().u32(SB_FLAGS, 16).u64(MOUNT_ATTR, 2)), 0);
    assert_eq!(ro(full().u32(SB_FLAGS, 1).u64(MOUNT_ATTR, 1).u64(MASK, FS_TYPE)), 0);
    assert_eq!(ro(Answer::new().string(FS_TYPE, b"tmpfs").string(MNT_OPTS, b"ro").mask(SB_BASIC).u32(SB_FLAGS, 1)), 1);
}

#[test]
fn a_string_outside_the_buffer_or_without_an_end_is_left_out() {
    let end = u32::try_from(full().0.len() - STRINGS).unwrap();
    for (flag, field) in STRING_FIELDS {
        for offset in [end, end + 1, 1 << 20, u32::MAX - 511, u32::MAX] {
            match parse_statmount(&full().u32(field, offset).0) {
                None => assert_eq!(flag, FS_TYPE),
                Some((facts, ..)) => {
                    let missing = match flag {
                        MNT_OPTS => facts.options.is_empty(),
                        MNT_POINT => facts.mount_point.is_none(),
                        FS_SUBTYPE => facts.subtype.is_none(),
                        SB_SOURCE => facts.source.is_none(),
                        _ => false,
                    };
                    assert!(missing, "{flag:#x} at {offset}: {facts:?}");
                }
            }
        }
    }
    let mut open = full();
    assert_eq!(open.0.pop(), Some(0));
    assert_eq!(open.facts().source, None, "the last string has lost its end");
    assert_eq!(open.facts().mount_point.as_deref(), Some(Path::new("/srv/db")));
}

#[test]
fn an_answer_cut_short_anywhere_is_parsed_or_refused_but_never_believed_further() {
    let whole = full();
    let (all, ..) = parse_statmount(&whole.0).unwrap();
    for length in 0..whole.0.len() {
        let parsed = parse_statmount(&whole.0[..length]);
        if length <= STRINGS + "\0nfs4".len() {
            assert!(parsed.is_none(), "{length}");
            continue;
        }
        let (facts, ..) = parsed.unwrap();
        assert_eq!(facts.fs_type, all.fs_type);
        assert!(facts.options.is_empty() || facts.options == all.options, "{length}: {facts:?}");
        assert!(facts.mount_point.is_none() || facts.mount_point == all.mount_point, "{length}: {facts:?}");
        assert_eq!(facts.source, None, "{length}");
    }
    assert_eq!(parse_statmount(&[]), None);
    assert_eq!(parse_statmount(&[0xff; 600]), None, "every offset is out of range");
}
