//! Between the kernel's `stat` and the attributes of the FUSE protocol.

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{Stat, Timespec, UTIME_NOW, UTIME_OMIT};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kind of a file, from its mode.
pub(super) fn kind(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// The kind of a directory entry; `None` where the backing filesystem does not say.
pub(super) fn entry_kind(kind: rustix::fs::FileType) -> Option<FileType> {
    use rustix::fs::FileType as Known;
    Some(match kind {
        Known::RegularFile => FileType::RegularFile,
        Known::Directory => FileType::Directory,
        Known::Symlink => FileType::Symlink,
        Known::Fifo => FileType::NamedPipe,
        Known::Socket => FileType::Socket,
        Known::CharacterDevice => FileType::CharDevice,
        Known::BlockDevice => FileType::BlockDevice,
        _ => return None,
    })
}

pub(super) fn attr(node: u64, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(node),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec as u32),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec as u32),
        crtime: UNIX_EPOCH,
        kind: kind(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

fn time(seconds: i64, nanos: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    base + Duration::from_nanos(u64::from(nanos))
}

/// A time to set, as `utimensat` wants it.
pub(super) fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
        Some(TimeOrNow::SpecificTime(at)) => match at.duration_since(UNIX_EPOCH) {
            Ok(after) => Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() },
            Err(before) => {
                let before = before.duration();
                let nanos = i64::from(before.subsec_nanos());
                // The nanoseconds of a timespec count upwards, before 1970 too.
                let (borrow, nanos) = if nanos == 0 { (0, 0) } else { (1, 1_000_000_000 - nanos) };
                Timespec { tv_sec: -(before.as_secs() as i64) - borrow, tv_nsec: nanos }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_epoch_survive_the_round_trip() {
        for (seconds, nanos) in [(0, 0), (1, 5), (-1, 0), (-2, 999_999_999), (-1, 1)] {
            let spec = timespec(Some(TimeOrNow::SpecificTime(time(seconds, nanos))));
            assert_eq!((spec.tv_sec, spec.tv_nsec), (seconds, i64::from(nanos)));
        }
    }
}
