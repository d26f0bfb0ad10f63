//! What holds for every table, every name and every combination of facts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::{Facts, MountFacts, MountTable, Source, SyncFolder, decide, parse_statmount};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn seeded() -> ProptestConfig {
    let seed = 0x0000_00f5_0bad_cafe;
    println!("seed {seed:#x}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, cases: 512, ..Default::default() }
}

/// The only names that may ever get WAL.
const ALLOWED: [&str; 17] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "jfs", "reiserfs", "nilfs2", "ubifs", "tmpfs",
    "ramfs", "overlay", "ecryptfs", "shiftfs",
];

const OTHERS: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "ntfs3", "autofs", "lustre", "9p", "fuse", "fuse.sshfs", "fuse.s3fs", "zzzfs"];

const SOME_OPTIONS: [&str; 12] = [
    "rw",
    "ro",
    "nolock",
    "soft",
    "local_lock=all",
    "nobrl",
    "nobarrier",
    "volatile",
    "upperdir=/u",
    "vers=4.2",
    "noflock",
    "cache=5",
];

/// Names: any, and those that are almost on the list.
fn name() -> impl Strategy<Value = String> {
    let listed = || select([&ALLOWED[..], &OTHERS[..]].concat());
    prop_oneof![
        "[a-zA-Z0-9._+-]{0,12}",
        "\\PC{0,8}",
        listed().prop_map(str::to_owned),
        listed().prop_map(str::to_uppercase),
        (listed(), "[a-z0-9. \\-/]{1,3}").prop_map(|(name, more)| name.to_owned() + &more),
        ("[a-z0-9. \\-/]{1,5}", listed()).prop_map(|(more, name)| more + name),
        (listed(), any::<prop::sample::Index>()).prop_map(|(name, at)| {
            let mut name = name.to_owned();
            name.remove(at.index(name.len()));
            name
        }),
    ]
}

fn facts() -> impl Strategy<Value = MountFacts> {
    let name = select([&ALLOWED[..], &OTHERS[..]].concat());
    let from = select(vec![Source::Statmount, Source::MountTable, Source::Statfs]);
    let magic = select(vec![None, Some(0xEF53), Some(0x794C_7630), Some(0x6969), Some(1)]);
    let by_name = (prop::option::weighted(0.9, name), vec(select(&SOME_OPTIONS[..]), 0..4));
    (by_name, magic, from).prop_map(|((name, options), magic, from)| {
        let mut facts = MountFacts::nothing();
        if let Some(name) = name {
            let (kind, subtype) = name.split_once('.').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
            (facts.fs_type, facts.subtype) = (Some(kind.to_owned()), subtype.map(str::to_owned));
        }
        facts.options = options.into_iter().map(str::to_owned).collect();
        (facts.magic, facts.from) = (magic, from);
        facts
    })
}

/// Escapes as seq_escape does.
fn escape(bytes: &[u8], which: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        if which.contains(byte) {
            out.extend(format!("\\{byte:03o}").bytes());
        } else {
            out.push(*byte);
        }
    }
    out
}

/// A path of names with every byte that a name may have, the awkward ones often.
fn point() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => select(b" \t\n\\,#:-".to_vec()), 3 => b'a'..=b'z', 1 => 1..=255_u8];
    let byte = byte.prop_map(|byte| if byte == b'/' { b'_' } else { byte });
    vec(vec(byte, 1..8), 0..4).prop_map(|names| {
        let mut path: Vec<u8> = names.iter().flat_map(|name| [b"/", &name[..]].concat()).collect();
        if path.is_empty() {
            path.push(b'/');
        }
        path
    })
}

#[derive(Clone, Debug)]
struct Line {
    id: u64,
    point: Vec<u8>,
    fs: &'static str,
    source: Vec<u8>,
    options: Vec<(String, Vec<u8>)>,
    optional: &'static str,
    newer: bool,
}

fn line() -> impl Strategy<Value = Line> {
    let value = vec(prop_oneof![select(b" \t\n\\,#=".to_vec()), b'a'..=b'z', 1..=255_u8], 0..6);
    let options = vec(("[a-z]{2,6}", value), 0..4);
    let fs = select(vec!["ext4", "nfs4", "fuse.sshfs", "tmpfs"]);
    let optional = select(vec!["", " shared:1", " shared:1 master:2 propagate_from:3 unbindable"]);
    let source = vec(prop_oneof![select(b" \t\n\\#-".to_vec()), b'a'..=b'z', 1..=255_u8], 0..8);
    (any::<u64>(), point(), fs, source, options, optional, any::<bool>()).prop_map(
        |(id, point, fs, source, options, optional, newer)| Line { id, point, fs, source, options, optional, newer },
    )
}

impl Line {
    /// As the kernel writes it; `newer` kernels escape `#` too.
    fn text(&self) -> Vec<u8> {
        let field: &[u8] = if self.newer { b" \t\n\\#" } else { b" \t\n\\" };
        let mut text = format!("{} 1 8:1 / ", self.id).into_bytes();
        text.extend(escape(&self.point, field));
        text.extend(format!(" rw,relatime{} - {} ", self.optional, self.fs).bytes());
        text.extend(escape(&self.source, field));
        text.extend(b" rw");
        for (key, value) in &self.options {
            text.extend(format!(",{key}=").bytes());
            text.extend(escape(value, b", \t\n\\"));
        }
        text.push(b'\n');
        text
    }

    fn options(&self) -> Vec<String> {
        let own = self.options.iter().map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)));
        std::iter::once("rw".to_owned()).chain(own).chain(["relatime".to_owned()]).collect()
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn no_mount_table_makes_the_parser_panic(
        bytes in prop_oneof![vec(any::<u8>(), 0..400), vec(select(b"01:/ -.,=\\\n\xffafus\x00".to_vec()), 0..400)],
        path in point(),
    ) {
        let table = MountTable::parse(&bytes);
        let found = table.covering(Path::new(std::ffi::OsStr::from_bytes(&path)));
        prop_assert!(found.is_none_or(|mount| table.by_id(mount.id).is_some()));
        for mount in table.iter() {
            prop_assert!(!decide(&Facts::of(mount.facts.clone())).reason.is_empty());
        }
    }

    #[test]
    fn no_answer_of_statmount_makes_the_parser_panic(
        head in vec(any::<u8>(), 0..600),
        words in vec((0..40_usize, prop_oneof![0..80_u32, any::<u32>()]), 0..20),
        strings in vec(any::<u8>(), 0..100),
    ) {
        let mut answer = head;
        if let Some(mask) = answer.get_mut(8..16) {
            mask.copy_from_slice(&u64::MAX.to_ne_bytes());
        }
        for (at, word) in words {
            if let Some(field) = answer.get_mut(at * 4..at * 4 + 4) {
                field.copy_from_slice(&word.to_ne_bytes());
            }
        }
        answer.extend(strings);
        if let Some((facts, ..)) = parse_statmount(&answer) {
            prop_assert!(!decide(&Facts::of(facts)).reason.is_empty());
        }
    }

    #[test]
    fn a_name_that_is_not_on_the_allowlist_never_gets_wal(name in name(), magic in select(vec![None, Some(0xEF53)])) {
        let facts = MountFacts { fs_type: Some(name.clone()), magic, ..MountFacts::nothing() };
        let verdict = decide(&Facts::of(facts));
        prop_assert_eq!(verdict.wal, ALLOWED.contains(&name.as_str()), "{:?}", verdict);
        prop_assert_eq!(&verdict.filesystem, &name);

        let text = [b"1 0 0:1 / /mnt rw - ", &escape(name.as_bytes(), b" \t\n\\#")[..], b" src rw\n"].concat();
        let table = MountTable::parse(&text);
        let verdict = decide(&Facts::of(table.by_id(1).unwrap().facts.clone()));
        prop_assert_eq!(verdict.wal, ALLOWED.contains(&name.as_str()), "{:?}", verdict);
    }

    #[test]
    fn nothing_that_is_added_turns_wal_on_or_the_class_better(
        directory in facts(), file in facts(), under in prop::option::of(facts()),
    ) {
        let folder = SyncFolder { program: "Syncthing", root: "/s".into() };
        let plain = Facts { under, ..Facts::of(directory.clone()) };
        let alone = decide(&Facts::of(directory));
        let before = decide(&plain);
        let with_file = decide(&Facts { file: Some(file.clone()), ..plain.clone() });
        let with_folder = decide(&Facts { sync_folder: Some(folder.clone()), ..plain.clone() });
        let on_wsl1 = decide(&Facts { wsl1: true, ..plain.clone() });
        let all = decide(&Facts { file: Some(file), sync_folder: Some(folder), wsl1: true, ..plain });
        for after in [&before, &with_file, &with_folder, &on_wsl1, &all] {
            prop_assert!(alone.wal || !after.wal, "{:?}", after);
            prop_assert!(after.warnings.len() >= alone.warnings.len(), "{:?} lost a warning of {:?}", after, alone);
        }
        prop_assert!(!with_file.wal && !with_folder.wal && !on_wsl1.wal && !all.wal);
        prop_assert!(with_file.class >= before.class && on_wsl1.class >= before.class);
        prop_assert_eq!(with_folder.class, before.class);
        for after in [with_folder, with_file] {
            prop_assert!(after.warnings.len() > before.warnings.len(), "{:?} has no warning of its own", after);
        }
    }

    #[test]
    fn a_table_written_by_a_kernel_is_read_back_as_it_was(lines in vec(line(), 0..5)) {
        let text: Vec<u8> = lines.iter().flat_map(Line::text).collect();
        let table = MountTable::parse(&text);
        prop_assert_eq!(table.iter().count(), lines.len(), "{}", text.escape_ascii());
        for (mount, line) in table.iter().zip(&lines) {
            prop_assert_eq!(mount.id, line.id);
            prop_assert_eq!(mount.facts.mount_point.as_ref().unwrap().as_os_str().as_bytes(), &line.point[..]);
            prop_assert_eq!(mount.facts.name(), Some(line.fs.to_owned()));
            prop_assert_eq!(mount.facts.source.clone(), Some(String::from_utf8_lossy(&line.source).into_owned()));
            prop_assert_eq!(&mount.facts.options, &line.options());
        }
    }

    #[test]
    fn a_mount_point_covers_itself_and_what_is_in_it(lines in vec(line(), 1..5), at in any::<prop::sample::Index>()) {
        let text: Vec<u8> = lines.iter().flat_map(Line::text).collect();
        let table = MountTable::parse(&text);
        let own = Path::new(std::ffi::OsStr::from_bytes(&lines[at.index(lines.len())].point));
        for path in [own.to_owned(), own.join("x.db"), own.join("a/b")] {
            let found = table.covering(&path).unwrap().facts.mount_point.clone().unwrap();
            prop_assert!(path.starts_with(&found) && found.components().count() >= own.components().count());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..seeded() })]

    #[test]
    fn a_table_cut_anywhere_loses_only_its_last_line(lines in vec(line(), 1..5)) {
        let text: Vec<u8> = lines.iter().flat_map(Line::text).collect();
        let whole: Vec<_> = MountTable::parse(&text).iter().cloned().collect();
        for cut in 0..text.len() {
            let complete = text[..cut].iter().filter(|byte| **byte == b'\n').count();
            let parsed: Vec<_> = MountTable::parse(&text[..cut]).iter().cloned().collect();
            prop_assert_eq!(&parsed[..complete], &whole[..complete]);
            prop_assert!(parsed.len() <= complete + 1);
            // What is made of the rest has at least its name whole.
            if let Some(last) = parsed.get(complete) {
                prop_assert_eq!(last.facts.name(), whole[complete].facts.name());
                prop_assert_eq!(&last.facts.mount_point, &whole[complete].facts.mount_point);
            }
        }
    }
}
