//! The disks of the guest: what is on each, who writes there, and what a power cut may take.
//!
//! Invariant: an acknowledgement is a write to the disk that it is about, sent after COMMIT has returned and without a
//! flush. So the log of the disk has it in its place, and it makes nothing durable that COMMIT has left to chance.

use std::fs::{File, OpenOptions};
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::workload::{Event, Task, write};

/// What holds after the power was cut, besides an intact database with the rows of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Every acknowledged commit is there.
    Every,
    /// An end of them may be missing: with `synchronous=NORMAL` a WAL is flushed before a checkpoint only.
    Beginning,
    /// Nothing: for comparison.
    None,
}

/// A disk of the guest.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The filesystem, a hyphen and more; the serial number of the disk, so at most 20 characters.
    pub(crate) name: &'static str,
    /// What follows `app.db` in the URI.
    pub(crate) parameters: &'static str,
    /// Run by the writer after its open.
    pub(crate) pragmas: &'static str,
    pub(crate) promise: Promise,
}

const fn kind(name: &'static str, parameters: &'static str, pragmas: &'static str, promise: Promise) -> Kind {
    Kind { name, parameters, pragmas, promise }
}

const LOCAL: &str = "?vfs=hardened";
const NETWORK: &str = "?vfs=hardened&fs=network";
/// The guard's record is on disk before the pages that it is about.
const STRICT: &str = "?vfs=hardened&fs=network&guard=strict";
/// Checkpoints come often, so that a short run has many.
const FULL: &str = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 60";
const OFF: &str = "PRAGMA journal_mode = delete; PRAGMA synchronous = OFF";

pub(crate) static KINDS: [Kind; 7] = [
    kind("ext4-wal-full", LOCAL, FULL, Promise::Every),
    kind("ext4-wal", LOCAL, "PRAGMA wal_autocheckpoint = 60", Promise::Beginning),
    kind("ext4-delete", NETWORK, "", Promise::Every),
    kind("ext4-delete-extra", STRICT, "PRAGMA synchronous = EXTRA", Promise::Every),
    kind("xfs-wal-full", LOCAL, FULL, Promise::Every),
    kind("btrfs-wal-full", LOCAL, FULL, Promise::Every),
    kind("ext4-stock-off", "", OFF, Promise::None),
];

impl Kind {
    pub(crate) fn filesystem(&self) -> &'static str {
        self.name.split('-').next().unwrap()
    }

    /// The database below `directory`, opened as its writer opens it.
    pub(crate) fn uri(&self, directory: &Path) -> String {
        format!("file:{}/app.db{}", directory.display(), self.parameters)
    }

    /// How many transactions there may be where `acknowledged` are.
    pub(crate) fn bounds(&self, acknowledged: u32) -> RangeInclusive<u32> {
        let least = match self.promise {
            Promise::Every => acknowledged,
            Promise::Beginning | Promise::None => 0,
        };
        least..=acknowledged + 1
    }
}

/// The disk, of which the filesystem takes the beginning. From 512 MiB on mkfs.ext4 formats as it does large disks.
pub(crate) const SIZE: u64 = 640 << 20;
pub(crate) const FILESYSTEM: u64 = 600 << 20;
/// Where on the disk acknowledgements are written, one over the other.
pub(crate) const ACKNOWLEDGEMENT: u64 = SIZE - 4096;
const MAGIC: &[u8; 8] = b"commited";

/// What O_DIRECT can write.
#[repr(align(4096))]
struct Block([u8; 4096]);

fn acknowledge(device: &File, seq: u32) {
    let mut block = Block([0; 4096]);
    block.0[..8].copy_from_slice(MAGIC);
    block.0[8..12].copy_from_slice(&seq.to_le_bytes());
    device.write_all_at(&block.0, ACKNOWLEDGEMENT).unwrap();
}

/// The transaction that the block at [`ACKNOWLEDGEMENT`] acknowledges.
pub(crate) fn acknowledged(block: &[u8]) -> Option<u32> {
    let seq = block.strip_prefix(MAGIC)?.first_chunk()?;
    Some(u32::from_le_bytes(*seq))
}

/// Turns this process into a writer of the guest if the environment says so (`tests/netlab/power-cut`).
pub(crate) fn is_writer() -> bool {
    let Ok(name) = std::env::var("HARDENED_POWERCUT_DISK") else { return false };
    let text = |name| std::env::var(format!("HARDENED_POWERCUT_{name}")).unwrap();
    let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
    let device = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
        .open(text("DEVICE"))
        .unwrap();
    let uri = kind.uri(Path::new(&text("AT")));
    let task = Task { uri, pragmas: kind.pragmas.to_owned(), writer: 0, seed: text("SEED").parse().unwrap() };
    // Past what the test harness has printed without an end of line.
    println!();
    write(&task, |event| {
        if let Event::Commit(seq) = event {
            acknowledge(&device, seq);
            println!("commit {name} {seq}");
        }
        true
    })
    .unwrap();
    true
}
