//! Files that may not be closed now.
//!
//! close() drops all POSIX locks that the process has on the inode (fcntl_locking(2)), also those of a stock connection
//! beside us, of this SQLite library or of another. So before a handle of ours or a base file is closed, the kernel is asked
//! who has locks there. While a neighbour of this process does, the files are kept: handles for the next connection, base
//! files until a later open or close finds the locks gone.
//!
//! Between the question and the close a neighbour may take its lock; nothing but the kernel could rule that out.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::RawFd;

use super::fork::PerProcess;
use super::handles;

/// Device and inode.
pub(crate) type Identity = (u64, u64);

/// Closes a base file.
pub(crate) type Close = Box<dyn FnOnce() -> i32 + Send>;

/// Who has locks on an inode, besides the handle that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbours {
    Nobody,
    /// POSIX locks of this process.
    Ours,
    /// The kernel tells only of the first lock, and that one is not such.
    Unknown,
}

/// What is kept of an inode, and how many handles are in use on it.
#[derive(Default)]
struct Kept {
    used: usize,
    /// With whether they were opened for reading only: such take no exclusive locks.
    handles: Vec<(RawFd, bool)>,
    bases: Vec<Close>,
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.handles.is_empty() && self.bases.is_empty()
    }

    /// What can be closed.
    fn all(&mut self) -> Files {
        Files { handles: self.handles.drain(..).map(|(fd, _)| fd).collect(), bases: std::mem::take(&mut self.bases) }
    }
}

/// As long as a connection of ours is open on an inode whose locks are not all told, this many base files are kept before the
/// list of all locks is read; and this many at most, of all inodes, while neighbours hold locks.
const FEW: usize = 8;
const MOST: usize = 512;

static KEPT: PerProcess<HashMap<Identity, Kept>> = PerProcess::new(|_| HashMap::new());

/// Files that are closed after the table was left, because closing a base file takes mutexes of SQLite's.
#[derive(Default)]
struct Files {
    handles: Vec<RawFd>,
    bases: Vec<Close>,
}

impl Files {
    fn close(self) {
        for fd in self.handles {
            close(fd);
        }
        for base in self.bases {
            base();
        }
    }
}

fn close(fd: RawFd) {
    handles::forget(fd);
    // SAFETY: a descriptor that only the handle had, which is gone.
    unsafe { libc::close(fd) };
}

/// Counts a handle that is now in use.
pub(super) fn joined(identity: Identity) {
    KEPT.lock().entry(identity).or_default().used += 1;
}

/// A handle that was kept, now in use again.
pub(super) fn take(identity: Identity, read_only: bool) -> Option<RawFd> {
    let mut table = KEPT.lock();
    let kept = table.get_mut(&identity)?;
    let index = kept.handles.iter().position(|(_, only)| *only == read_only)?;
    kept.used += 1;
    Some(kept.handles.swap_remove(index).0)
}

/// Whether anything is kept.
pub(super) fn anything() -> bool {
    KEPT.lock().values().any(|kept| !kept.is_empty())
}

/// A handle that was lost, with the base file of its connection. The code of the base's xClose.
pub(super) fn left(identity: Identity, base: Option<Close>) -> i32 {
    {
        let mut table = KEPT.lock();
        let kept = table.entry(identity).or_default();
        kept.used = kept.used.saturating_sub(1);
        if kept.used == 0 && kept.is_empty() {
            table.remove(&identity);
        }
    }
    base.map_or(libsqlite3_sys::SQLITE_OK, |base| close_alone(Some(identity), base))
}

/// A handle that is not used any more and holds no locks, with the base file of its connection, if it has one: closed or kept.
/// The code of the base's xClose.
pub(super) fn leave(identity: Identity, fd: RawFd, read_only: bool, base: Option<Close>) -> i32 {
    let neighbours = ask(fd);
    let (mut files, mut code) = (Files::default(), libsqlite3_sys::SQLITE_OK);
    let base = {
        let mut table = KEPT.lock();
        let total: usize = table.values().map(|kept| kept.bases.len()).sum();
        let kept = table.entry(identity).or_default();
        kept.used = kept.used.saturating_sub(1);
        let closing = match neighbours {
            Neighbours::Nobody => true,
            Neighbours::Ours => false,
            // Handles are used again, so only the files of the base can become many.
            Neighbours::Unknown if base.is_none() => false,
            Neighbours::Unknown if kept.used > 0 && kept.bases.len() < FEW => false,
            Neighbours::Unknown => !listed(identity, fd),
        };
        let base = if closing {
            files = kept.all();
            files.handles.push(fd);
            base
        } else {
            kept.handles.push((fd, read_only));
            match base {
                Some(base) if total < MOST => {
                    kept.bases.push(base);
                    None
                }
                base => base,
            }
        };
        if kept.used == 0 && kept.is_empty() {
            table.remove(&identity);
        }
        base
    };
    if let Some(base) = base {
        code = base();
    }
    files.close();
    sweep();
    code
}

/// Closes a base file without a handle beside it.
pub(crate) fn close_alone(identity: Option<Identity>, base: Close) -> i32 {
    match identity {
        Some(identity) if listed(identity, -1) => {
            let mut table = KEPT.lock();
            if table.values().map(|kept| kept.bases.len()).sum::<usize>() < MOST {
                table.entry(identity).or_default().bases.push(base);
                return libsqlite3_sys::SQLITE_OK;
            }
            drop(table);
            base()
        }
        _ => base(),
    }
}

/// Closes a second number of a handle, or keeps it.
pub(super) fn close_double(identity: Option<Identity>, fd: RawFd) {
    // A child must not keep the locks of the handle.
    handles::register(fd);
    close_alone(
        identity,
        Box::new(move || {
            close(fd);
            libsqlite3_sys::SQLITE_OK
        }),
    );
}

/// Closes what is kept of inodes that no connection uses and on which nobody has locks any more.
pub(super) fn sweep() {
    let mut files = Files::default();
    {
        let mut table = KEPT.lock();
        if table.values().all(|kept| kept.used > 0) {
            return;
        }
        table.retain(|identity, kept| {
            if kept.used > 0 {
                return true;
            }
            let free = match kept.handles.first() {
                Some((fd, _)) => ask(*fd) == Neighbours::Nobody || !listed(*identity, *fd),
                None => !listed(*identity, -1),
            };
            if free {
                let mut all = kept.all();
                files.handles.append(&mut all.handles);
                files.bases.append(&mut all.bases);
            }
            !free
        });
    }
    files.close();
}

/// Asks with a handle who else has locks on its inode.
fn ask(fd: RawFd) -> Neighbours {
    match first(fd) {
        Ok(None) => Neighbours::Nobody,
        Ok(Some(pid)) if u32::try_from(pid) == Ok(std::process::id()) => Neighbours::Ours,
        Ok(Some(_)) | Err(_) => Neighbours::Unknown,
    }
}

/// The process whose lock is the first on the inode of `fd`, besides those of `fd` itself; -1 for a lock of an open file.
pub(super) fn first(fd: RawFd) -> io::Result<Option<i32>> {
    // SAFETY: flock is a plain C structure for which all zeros is a value, here the whole file; it lives across the call.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        if libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid))
    }
}

/// Whether the kernel's list of all locks may have a POSIX one of this process on the inode; also if it cannot be read, unless
/// for want of a descriptor: then to keep one more open would help nobody.
fn listed(identity: Identity, fd: RawFd) -> bool {
    let (mut text, pid) = (Vec::new(), std::process::id());
    if let Err(error) = std::fs::File::open("/proc/locks").and_then(|mut list| list.read_to_end(&mut text)) {
        return !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    }
    // A /proc of another container numbers processes differently.
    let same = std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == pid.to_string().as_str());
    let inode = exact(fd).then_some(identity.1);
    !same || has_lock(&String::from_utf8_lossy(&text), pid, inode)
}

/// Whether the list has a POSIX lock of `pid` on this inode, or on any if it is not known how the list calls it.
fn has_lock(list: &str, pid: u32, inode: Option<u64>) -> bool {
    // 1: POSIX  ADVISORY  READ  1234 fe:00:12075022 1073741826 1073742335
    list.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().filter(|field| *field != "->").collect();
        let [_, "POSIX", _, _, owner, file, ..] = fields.as_slice() else { return false };
        let number = file.rsplit(':').next().and_then(|number| number.parse::<u64>().ok());
        owner.parse() == Ok(pid) && inode.is_none_or(|inode| number.is_none_or(|number| number == inode))
    })
}

/// Whether the kernel's own number of an inode, which stands in the list, is the one that stat(2) tells.
fn exact(fd: RawFd) -> bool {
    // ext, XFS, Btrfs, tmpfs, F2FS, ZFS: not FUSE and not overlays.
    const KNOWN: [u32; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1];
    // SAFETY: statfs is a plain C structure that lives across the call; a number that is no descriptor is an error.
    unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        libc::fstatfs(fd, &raw mut found) == 0 && KNOWN.contains(&(found.f_type as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_locks_is_searched_for_posix_locks_of_this_process_on_this_inode() {
        let list = "1: FLOCK  ADVISORY  WRITE 7 fe:00:5 0 EOF\n\
                    2: OFDLCK ADVISORY  READ -1 fe:00:5 1073741826 1073742335\n\
                    3: POSIX  ADVISORY  READ 8 fe:00:5 1073741826 1073742335\n\
                    3: -> POSIX  ADVISORY  WRITE 9 fe:00:5 1073741826 1073742335\n\
                    4: POSIX  ADVISORY  READ 7 fe:00:6 0 EOF\n";
        for (pid, inode, found) in [
            (7, Some(5), false),
            (7, Some(6), true),
            (7, None, true),
            (8, Some(5), true),
            (8, Some(6), false),
            (9, Some(5), true),
            (1, None, false),
        ] {
            assert_eq!(has_lock(list, pid, inode), found, "{pid} {inode:?}");
        }
    }
}
