//! Asks the kernel about an open directory or file. Thin: what the answers mean is decided elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, makedev, openat, openat2, statx};

use super::cache::MountKey;
use super::{MountFacts, MountTable, Source, statmount};
use crate::guard::log::Time;

/// STATX_MNT_ID_UNIQUE of Linux 6.8.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Which of the kernel's answers to use: all of them, but for tests of what an older kernel or a bare chroot gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources {
    pub(super) unique_ids: bool,
    pub(super) statmount: bool,
    pub(super) mount_table: bool,
}

pub(super) const ALL: Sources = Sources { unique_ids: true, statmount: true, mount_table: true };

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mount: MountKey,
    pub(crate) kind: rustix::fs::FileType,
}

/// All that one look at a file tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) seen: Seen,
    /// Whether something is mounted at its name, if the kernel tells.
    pub(crate) is_mounted: Option<bool>,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) size: u64,
    /// Its time of change. No call sets it, and a file that gets the number of one that was removed has a later one.
    pub(crate) changed: Time,
}

/// STATX_ATTR_MOUNT_ROOT of Linux 5.8.
const MOUNT_ROOT: u64 = 0x2000;

/// Looks at a name in `at`, or at `at` itself if the name is empty.
pub(crate) fn look(at: BorrowedFd<'_>, name: &Path, flags: AtFlags) -> io::Result<Found> {
    let want = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | MNT_ID_UNIQUE;
    let stat = statx(at, name, flags, want)?;
    let told = stat.stx_attributes_mask.bits() & MOUNT_ROOT != 0;
    Ok(Found {
        seen: seen(&stat, None, ALL),
        is_mounted: told.then_some(stat.stx_attributes.bits() & MOUNT_ROOT != 0),
        identity: (makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
        mode: stat.stx_mode.into(),
        user: stat.stx_uid,
        group: stat.stx_gid,
        size: stat.stx_size,
        changed: Time { seconds: stat.stx_ctime.tv_sec, nanoseconds: stat.stx_ctime.tv_nsec },
    })
}

/// A directory to which the kernel knows the whole way already, without links: nobody has to answer for that. `None` also where the
/// kernel is too old to be asked so (Linux 5.12), or where it is forbidden.
pub(super) fn known_directory(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let only = ResolveFlags::CACHED | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, flags, Mode::empty(), only).ok()
}

/// O_PATH: needs no permission on the file, drops no lock when closed, and on the root of a mount does not ask the server.
pub(super) fn open_path(at: BorrowedFd<'_>, name: &Path, directory: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if directory {
        flags |= OFlags::DIRECTORY;
    }
    Ok(openat(at, name, flags, Mode::empty())?)
}

pub(super) fn see(fd: BorrowedFd<'_>, sources: Sources) -> io::Result<Seen> {
    let stat = statx_of(fd, Path::new(""), AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, sources)?;
    Ok(seen(&stat, Some(fd), sources))
}

/// By name, following links: one system call, for names whose place is known already.
pub(super) fn see_path(path: &Path) -> io::Result<Seen> {
    let stat = statx_of(CWD, path, AtFlags::STATX_DONT_SYNC, ALL)?;
    Ok(seen(&stat, None, ALL))
}

/// By name, not following a link at its end.
pub(super) fn see_name(path: &Path) -> io::Result<Seen> {
    let stat = statx_of(CWD, path, AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW, ALL)?;
    Ok(seen(&stat, None, ALL))
}

fn statx_of(at: BorrowedFd<'_>, path: &Path, flags: AtFlags, sources: Sources) -> io::Result<rustix::fs::Statx> {
    let mut want = StatxFlags::TYPE | StatxFlags::MNT_ID;
    if sources.unique_ids {
        want |= MNT_ID_UNIQUE;
    }
    Ok(statx(at, path, flags, want)?)
}

fn seen(stat: &rustix::fs::Statx, fd: Option<BorrowedFd<'_>>, sources: Sources) -> Seen {
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let mask = StatxFlags::from_bits_retain(stat.stx_mask);
    let mount = if sources.unique_ids && mask.contains(MNT_ID_UNIQUE) {
        MountKey::Unique(stat.stx_mnt_id)
    } else if mask.contains(StatxFlags::MNT_ID) {
        MountKey::Reused(stat.stx_mnt_id, device)
    } else if let Some(id) = fd.and_then(fdinfo_mount_id) {
        MountKey::Reused(id, device)
    } else {
        MountKey::Device(device)
    };
    Seen { mount, kind: rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)) }
}

/// Linux before 5.8 tells the mount id only here.
fn fdinfo_mount_id(fd: BorrowedFd<'_>) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// What the kernel knows about the mount without asking a server.
pub(super) fn facts(fd: BorrowedFd<'_>, key: MountKey, sources: Sources) -> Option<MountFacts> {
    let mut found = None;
    let mut table_id = match key {
        MountKey::Reused(id, _) => Some(id),
        _ => None,
    };
    if let (MountKey::Unique(id), true) = (key, sources.statmount) {
        if let Some((facts, told_all, old_id)) = by_statmount(id) {
            if told_all || !sources.mount_table {
                return Some(facts);
            }
            table_id = Some(old_id);
            found = Some(facts);
        }
    }
    if !sources.mount_table {
        return found;
    }
    if table_id.is_none() {
        let plain = Sources { unique_ids: false, ..sources };
        if let Ok(Seen { mount: MountKey::Reused(id, _), .. }) = see(fd, plain) {
            table_id = Some(id);
        }
    }
    match (read_table().as_ref().and_then(|table| Some(table.by_id(table_id?)?.facts.clone())), found) {
        (Some(listed), Some(mut asked)) => {
            // Kernels before 6.15 tell the type but not the rest.
            asked.subtype = asked.subtype.or(listed.subtype);
            asked.source = asked.source.or(listed.source);
            if asked.options.len() < listed.options.len() {
                asked.options = listed.options;
            }
            Some(asked)
        }
        (listed, asked) => listed.or(asked),
    }
}

fn read_table() -> Option<MountTable> {
    std::fs::read("/proc/self/mountinfo").ok().map(|text| MountTable::parse(&text))
}

fn by_statmount(id: u64) -> Option<(MountFacts, bool, u64)> {
    let mut buffer = vec![0_u8; 4096];
    loop {
        match crate::shim::statmount::statmount(id, statmount::WANTED, &mut buffer) {
            Ok(()) => return statmount::parse(&buffer),
            // EOVERFLOW: the strings did not fit (overlays list all their layers).
            Err(error) if error.raw_os_error() == Some(libc::EOVERFLOW) && buffer.len() < 1 << 20 => {
                buffer.resize(buffer.len() * 4, 0);
            }
            Err(_) => return None,
        }
    }
}

/// The last resort, and one that asks the server: only inside a lane.
pub(super) fn facts_by_magic(fd: BorrowedFd<'_>) -> MountFacts {
    let mut facts = MountFacts::nothing();
    if let Ok(stat) = rustix::fs::fstatfs(fd) {
        // f_type is signed and of different width from one architecture to the next.
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        let magic = stat.f_type as u64;
        facts.magic = Some(magic);
        facts.from = Source::Statfs;
    }
    facts
}

/// Where the walk along an absolute or a relative path begins.
pub(super) fn start(absolute: bool) -> io::Result<OwnedFd> {
    open_path(CWD.as_fd(), Path::new(if absolute { "/" } else { "." }), true)
}

/// The first Windows Subsystem for Linux says "Microsoft" and not "WSL2".
pub(super) fn is_wsl1() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| release.contains("Microsoft") && !release.contains("WSL2"))
}
