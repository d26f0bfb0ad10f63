//! /proc/self/mountinfo, parsed. Format: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{MountFacts, Source};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount id (it may be used again after an unmount).
    pub id: u64,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// The facts about it.
    pub facts: MountFacts,
}

/// The mounts of this process, in the order the kernel gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Parses the table. A line that is not understood is left out: one odd mount must not blind us to the others.
    ///
    /// ```
    /// let table = hardened_vfs::fs::MountTable::parse(
    ///     b"36 35 98:0 / /mnt/a\\040b rw,noatime - ext4 /dev/sda1 rw\n");
    /// assert_eq!(table.covering("/mnt/a b/x.db".as_ref()).unwrap().id, 36);
    /// ```
    pub fn parse(text: &[u8]) -> Self {
        MountTable { mounts: text.split(|byte| *byte == b'\n').filter_map(parse_line).collect() }
    }

    /// The mount with this id.
    pub fn by_id(&self, id: u64) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// The mount that covers `path` by its name alone: the longest mount point that is a prefix, and of equal ones the
    /// last, because a later mount hides an earlier one. Symbolic links are not followed.
    pub fn covering(&self, path: &Path) -> Option<&Mount> {
        let mut best: Option<&Mount> = None;
        let mut depth = 0;
        for mount in &self.mounts {
            let point = match &mount.facts.mount_point {
                Some(point) if path.starts_with(point) => point,
                _ => continue,
            };
            let components = point.components().count();
            if components >= depth {
                best = Some(mount);
                depth = components;
            }
        }
        best
    }

    /// All mounts.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.mounts.iter()
    }
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // Optional fields of any number, up to a lone dash.
    let dash = line.windows(3).position(|window| window == b" - ")?;
    let mut fields = line.get(..dash)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let id = number(fields.next()?)?;
    fields.next()?; // parent
    let mut device = fields.next()?.split(|byte| *byte == b':');
    let device = (u32::try_from(number(device.next()?)?).ok()?, u32::try_from(number(device.next()?)?).ok()?);
    fields.next()?; // root of the mount within its filesystem
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let mount_options = fields.next()?;
    // The source may be empty.
    let mut fields = line.get(dash + 3..)?.split(|byte| *byte == b' ');
    let fs_type = text(&unescape(fields.next()?));
    let source = text(&unescape(fields.next()?));
    let super_options = fields.next().unwrap_or_default();

    let mut facts = MountFacts::nothing();
    facts.set_name(&fs_type);
    facts.source = Some(source);
    facts.mount_point = Some(point);
    facts.set_options(super_options);
    for option in split_options(mount_options) {
        if !facts.options.contains(&option) {
            facts.options.push(option);
        }
    }
    facts.from = Source::MountTable;
    Some(Mount { id, device, facts })
}

/// Splits an option string at the commas that are not escaped, and undoes the escapes.
pub(super) fn split_options(text: &[u8]) -> Vec<String> {
    let mut options = Vec::new();
    let mut current = Vec::new();
    let mut escaped = false;
    for byte in text {
        match (escaped, byte) {
            (false, b',') => {
                options.push(std::mem::take(&mut current));
                continue;
            }
            (false, b'\\') => escaped = true,
            _ => escaped = false,
        }
        current.push(*byte);
    }
    options.push(current);
    options.iter().filter(|option| !option.is_empty()).map(|option| self::text(&unescape(option))).collect()
}

/// Undoes `\040` and overlayfs' `\,` and `\\`.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            [next @ (b',' | b'\\' | b':'), after @ ..] => {
                out.push(*next);
                rest = after;
            }
            _ => out.push(b'\\'),
        }
    }
    out
}

fn text(bytes: &[u8]) -> String {
    std::ffi::OsStr::from_bytes(bytes).to_string_lossy().into_owned()
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}
