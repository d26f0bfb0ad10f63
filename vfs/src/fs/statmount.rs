//! The answer of statmount(2), parsed. Layout: struct statmount of linux/mount.h.
//!
//! The system call itself is in `shim::statmount`, because it has no safe wrapper.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{MountFacts, Source};

const SB_BASIC: u64 = 0x1;
const MNT_BASIC: u64 = 0x2;
const MNT_POINT: u64 = 0x10;
const FS_TYPE: u64 = 0x20;
const MNT_OPTS: u64 = 0x80;
const FS_SUBTYPE: u64 = 0x100;
const SB_SOURCE: u64 = 0x200;
const SUPPORTED_MASK: u64 = 0x1000;

/// What is asked for.
pub(crate) const WANTED: u64 =
    SB_BASIC | MNT_BASIC | MNT_POINT | FS_TYPE | MNT_OPTS | FS_SUBTYPE | SB_SOURCE | SUPPORTED_MASK;

/// Where the strings begin.
const STRINGS: usize = 512;

const SB_RDONLY: u32 = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// Reads the answer in `buffer`: the facts, whether the kernel knows how to tell options, subtype and source at all (an
/// absent string is only then an empty one), and the mount id as the mount table has it. `None` if even the filesystem's
/// name is missing.
pub fn parse(buffer: &[u8]) -> Option<(MountFacts, bool, u64)> {
    let mask = u64_at(buffer, 8)?;
    if mask & FS_TYPE == 0 {
        return None;
    }
    let string = |flag: u64, offset: usize| -> Option<&[u8]> {
        if mask & flag == 0 {
            return None;
        }
        let start = STRINGS.checked_add(u32_at(buffer, offset)? as usize)?;
        let tail = buffer.get(start..)?;
        let end = tail.iter().position(|byte| *byte == 0)?;
        tail.get(..end)
    };
    // Of all the strings only the options are escaped.
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let mut facts = MountFacts::nothing();
    facts.from = Source::Statmount;
    facts.set_name(&lossy(string(FS_TYPE, 36)?));
    if let Some(subtype) = string(FS_SUBTYPE, 120).filter(|subtype| !subtype.is_empty()) {
        facts.subtype = Some(lossy(subtype));
    }
    facts.source = string(SB_SOURCE, 124).map(lossy);
    facts.mount_point = string(MNT_POINT, 108)
        .filter(|point| !point.is_empty())
        .map(|point| PathBuf::from(OsString::from_vec(point.to_vec())));
    if let Some(options) = string(MNT_OPTS, 4) {
        facts.set_options(options);
    }
    if mask & SB_BASIC != 0 {
        facts.magic = u64_at(buffer, 24);
    }
    let filesystem_ro = mask & SB_BASIC != 0 && u32_at(buffer, 32)? & SB_RDONLY != 0;
    let mount_ro = mask & MNT_BASIC != 0 && u64_at(buffer, 64)? & MOUNT_ATTR_RDONLY != 0;
    if (filesystem_ro || mount_ro) && !facts.has("ro") {
        facts.options.push("ro".into());
    }
    let needed = MNT_OPTS | SB_SOURCE | FS_SUBTYPE;
    let told_all = mask & SUPPORTED_MASK != 0 && u64_at(buffer, 144)? & needed == needed;
    let old_id = if mask & MNT_BASIC != 0 { u64::from(u32_at(buffer, 56)?) } else { 0 };
    Some((facts, told_all, old_id))
}

fn u32_at(buffer: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(buffer.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(buffer: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(buffer.get(offset..offset + 8)?.try_into().ok()?))
}
