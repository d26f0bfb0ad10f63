//! Files that may not be closed now.
//!
//! close() drops all POSIX locks that the process has on the inode (fcntl_locking(2)), also those of a stock connection
//! beside us, of this SQLite library or of another. So before a handle of ours or a base file is closed, the kernel is asked
//! who has locks there. While a neighbour of this process does, the files are kept: handles for the next connection, base
//! files until a later open or close finds the locks gone.
//!
//! Between the question and the close a [`barrier`] keeps neighbours from taking a lock. A handle on a -shm is kept until its
//! database is closed: who has no lock there has none on its -shm.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::RawFd;

use super::barrier::{self, Raised};
use super::fork::PerProcess;
use super::handles::Registered;
use super::kind::Kind;
use super::manner::Manner;
use super::{ALL, Range};

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
    /// Whether a barrier can stand there.
    barred: bool,
    /// Nobody is asked about locks there.
    silent: bool,
    /// The database, if this is its -shm.
    database: Option<Identity>,
    /// With how they were opened.
    handles: Vec<(Registered, Manner)>,
    bases: Vec<Close>,
}

impl Kept {
    fn is_empty(&self) -> bool {
        self.handles.is_empty() && self.bases.is_empty()
    }

    /// What can be closed.
    fn all(&mut self) -> Files {
        Files {
            handles: self.handles.drain(..).map(|(handle, _)| handle).collect(),
            bases: std::mem::take(&mut self.bases),
        }
    }
}

/// As long as a connection of ours is open on an inode whose locks are not all told, this many base files are kept before the
/// list of all locks is read; and this many at most, of all inodes, while neighbours hold locks.
const FEW: usize = 8;
const MOST: usize = 512;

static KEPT: PerProcess<BTreeMap<Identity, Kept>> = PerProcess::new(|_| BTreeMap::new());

/// Files that are closed after the table was left, because closing a base file takes mutexes of SQLite's.
#[derive(Default)]
struct Files {
    handles: Vec<Registered>,
    bases: Vec<Close>,
}

impl Files {
    fn add(&mut self, mut more: Files) {
        self.handles.append(&mut more.handles);
        self.bases.append(&mut more.bases);
    }

    /// The handle at the end, which has the barrier, goes last.
    fn close(self) {
        for base in self.bases {
            base();
        }
        self.handles.into_iter().for_each(Registered::close);
    }
}

/// Counts a handle that is now in use, on such a filesystem.
pub(super) fn joined(identity: Identity, kind: Option<Kind>, manner: Manner) {
    let mut table = KEPT.lock();
    let kept = table.entry(identity).or_default();
    kept.used += 1;
    kept.barred = kind.is_some_and(Kind::drops_at_close) && !manner.apart;
    kept.silent = kind.is_some_and(Kind::is_smb);
}

/// A handle that was kept, now in use again.
pub(super) fn take(identity: Identity, manner: Manner) -> Option<Registered> {
    let mut table = KEPT.lock();
    let kept = table.get_mut(&identity)?;
    let index = kept.handles.iter().position(|(_, its)| *its == manner)?;
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

/// A handle on a database that is not used any more and holds no locks, with the base file of its connection, if it has one:
/// closed or kept. The code of the base's xClose.
pub(super) fn leave(identity: Identity, handle: Registered, manner: Manner, base: Option<Close>) -> i32 {
    let State { others, room, barred, silent } = state(identity);
    let stays = match ask(handle.fd(), silent) {
        Neighbours::Nobody => false,
        Neighbours::Ours => true,
        // Handles are used again, so only the files of the base can become many.
        Neighbours::Unknown => base.is_none() || (others && room),
    };
    let (closing, other) = match stays {
        true => (false, None),
        false => {
            let (raised, other) = match barred && !manner.read_only {
                true => barrier::raise_beside(handle, !others, || spare(identity)),
                false => (Raised::Never, None),
            };
            (may_close(identity, other.unwrap_or(handle).fd(), raised, (room, silent)), other)
        }
    };
    let (mut files, mut code) = (Files::default(), libsqlite3_sys::SQLITE_OK);
    let base = {
        let mut table = KEPT.lock();
        let total: usize = table.values().map(|kept| kept.bases.len()).sum();
        let kept = table.entry(identity).or_default();
        kept.used = kept.used.saturating_sub(1);
        let base = if closing {
            files = kept.all();
            files.add(indexes(&mut table, identity));
            files.handles.push(handle);
            files.handles.extend(other);
            base
        } else {
            kept.handles.push((handle, manner));
            kept.handles.extend(other.map(|other| (other, Manner::plain(false))));
            match base {
                Some(base) if total < MOST => {
                    kept.bases.push(base);
                    None
                }
                base => base,
            }
        };
        table.retain(|_, kept| kept.used > 0 || !kept.is_empty());
        base
    };
    if let Some(base) = base {
        code = base();
    }
    files.close();
    sweep(identity.0);
    code
}

/// A handle on the -shm of a database, not used any more and without locks: kept as long as the database is open here, unless it
/// was deleted.
pub(super) fn leave_index(identity: Identity, database: Identity, handle: Registered, read_only: bool) {
    let closing = is_deleted(handle.fd()) && ask(handle.fd(), false) == Neighbours::Nobody;
    {
        let mut table = KEPT.lock();
        let kept = table.entry(identity).or_default();
        kept.used = kept.used.saturating_sub(1);
        kept.database = Some(database);
        if !closing {
            kept.handles.push((handle, Manner::plain(read_only)));
        }
        if kept.used == 0 && kept.is_empty() {
            table.remove(&identity);
        }
    }
    if closing {
        handle.close();
    }
    sweep(identity.0);
}

/// Whether the file has no name any more. Nobody opens it then, and nobody was about to lock it: SQLite deletes a -shm when it has
/// the database for itself.
fn is_deleted(fd: RawFd) -> bool {
    // SAFETY: stat is a plain C structure that lives across the call; a number that is no descriptor is an error.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut found) == 0 && found.st_nlink == 0
    }
}

/// What is kept of the -shm of a database.
fn indexes(table: &mut BTreeMap<Identity, Kept>, database: Identity) -> Files {
    let mut files = Files::default();
    table.values_mut().filter(|kept| kept.database == Some(database)).for_each(|kept| files.add(kept.all()));
    files
}

/// What is known about an inode when a handle on it is to be closed.
struct State {
    /// Another connection has it open.
    others: bool,
    /// Few of its base files are kept.
    room: bool,
    barred: bool,
    silent: bool,
}

fn state(identity: Identity) -> State {
    match KEPT.lock().get(&identity) {
        Some(kept) => {
            State { others: kept.used > 1, room: kept.bases.len() < FEW, barred: kept.barred, silent: kept.silent }
        }
        None => State { others: false, room: true, barred: false, silent: false },
    }
}

/// A kept handle that can have a barrier, now nobody's.
fn spare(identity: Identity) -> Option<Registered> {
    let mut table = KEPT.lock();
    let kept = table.get_mut(&identity)?;
    let index = kept.handles.iter().position(|(_, manner)| *manner == Manner::plain(false))?;
    Some(kept.handles.swap_remove(index).0)
}

/// Whether descriptors of a database may be closed now, last of them `fd`, with which a barrier was to be raised. If not, it is
/// lowered. While somebody else keeps it from being raised the files are kept, as far as there is `room`.
fn may_close(identity: Identity, fd: RawFd, raised: Raised, (room, silent): (bool, bool)) -> bool {
    let free = match ask(fd, silent) {
        Neighbours::Ours => false,
        _ if raised == Raised::Held && room => false,
        Neighbours::Nobody => true,
        Neighbours::Unknown => !listed(identity, fd),
    };
    if !free && raised == Raised::Yes {
        barrier::lower(fd);
    }
    free
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

/// Keeps a second number of a handle until the handle is closed.
pub(super) fn keep_double(identity: Identity, handle: Registered) {
    let base: Close = Box::new(move || {
        handle.close();
        libsqlite3_sys::SQLITE_OK
    });
    KEPT.lock().entry(identity).or_default().bases.push(base);
}

/// Closes what is kept of inodes of a device that no connection uses and on which nobody has locks any more. Of the caller's
/// device only: the question may go to a server that does not answer, for which nobody on another filesystem may wait.
pub(super) fn sweep(device: u64) {
    let mut free = Vec::new();
    {
        let mut table = KEPT.lock();
        let unused = |(identity, kept): &(&Identity, &Kept)| identity.0 == device && kept.used == 0;
        let unused: Vec<Identity> = table.iter().filter(unused).map(|(identity, _)| *identity).collect();
        for identity in unused {
            let Some(kept) = table.get(&identity) else { continue };
            let (database, first) = (kept.database, kept.handles.first().map(|(handle, _)| handle.fd()));
            let goes = match (database, first) {
                // It goes with its database.
                (Some(database), Some(fd)) if table.contains_key(&database) && !is_deleted(fd) => false,
                // Deleted, or the base has the locks on the database and no barrier stands there.
                (Some(_), Some(fd)) => ask(fd, kept.silent) == Neighbours::Nobody || !listed(identity, fd),
                (None, Some(fd)) => {
                    let &Kept { barred, silent, .. } = kept;
                    let room = kept.bases.len() < FEW;
                    let raise = || if barred { barrier::raise(fd) } else { Raised::Never };
                    ask(fd, silent) != Neighbours::Ours && may_close(identity, fd, raise(), (room, silent))
                }
                (_, None) => !listed(identity, -1),
            };
            if goes {
                let mut files = table.get_mut(&identity).map(Kept::all).unwrap_or_default();
                files.add(indexes(&mut table, identity));
                // The one with the barrier.
                files.handles.sort_by_key(|handle| Some(handle.fd()) == first);
                free.push(files);
            }
        }
        table.retain(|_, kept| kept.used > 0 || !kept.is_empty());
    }
    free.into_iter().for_each(Files::close);
}

/// Asks with a handle who else has locks on its inode, unless that does harm.
fn ask(fd: RawFd, silent: bool) -> Neighbours {
    if silent {
        return Neighbours::Unknown;
    }
    match first(fd, DATA) {
        Ok(None) => Neighbours::Nobody,
        Ok(Some(pid)) if u32::try_from(pid) == Ok(std::process::id()) => Neighbours::Ours,
        Ok(Some(_)) | Err(_) => Neighbours::Unknown,
    }
}

/// Whether a descriptor that has just been opened may be closed again, or what a filesystem that knows no locks says.
pub(super) fn is_free(identity: Option<Identity>, fd: RawFd, kind: Option<Kind>) -> io::Result<bool> {
    if !kind.is_some_and(Kind::is_smb) {
        return Ok(first(fd, DATA)?.is_none());
    }
    // Whether there are locks at all.
    first(fd, FAR)?;
    Ok(identity.is_some_and(|identity| !listed(identity, fd)))
}

/// The data and SQLite's bytes. Those behind are not asked for: every connection of ours has a lock there.
pub(super) const DATA: Range = Range { start: 0, length: ALL.start + ALL.length };
/// What no file has.
const FAR: Range = Range { start: 1 << 62, length: 1 };

/// The process whose lock is the first in a range on the inode of `fd`, besides those of `fd` itself; -1 for a lock of an open
/// file, and for any that a server keeps.
pub(super) fn first(fd: RawFd, range: Range) -> io::Result<Option<i32>> {
    // SAFETY: flock is a plain C structure for which all zeros is a value; it lives across the call.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = range.start as libc::off_t;
        lock.l_len = range.length as libc::off_t;
        if libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid))
    }
}

/// Whether the kernel's list of all locks may have a POSIX one of this process on the inode; also if it cannot be read, unless
/// for want of a descriptor: then to keep one more open would help nobody.
fn listed(identity: Identity, fd: RawFd) -> bool {
    let pid = std::process::id();
    // A /proc of another container numbers processes differently.
    if !std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == pid.to_string().as_str()) {
        return true;
    }
    let kind = Kind::of(fd);
    if kind.is_some_and(Kind::is_fuse) {
        return true;
    }
    let inode = kind.filter(|kind| kind.lists_inodes()).map(|_| identity.1);
    match seen(|| list(File::open("/proc/locks")?), |list| has_lock(list, pid, inode)) {
        Ok(seen) => seen,
        Err(error) => !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)),
    }
}

/// How often a list that came in pieces is read before a lock that is not in it is taken for gone.
const LOOKS: usize = 8;

/// Whether a list shows a lock. Between two pieces locks may go, and as many that stay are passed over, so only a list that came
/// in one piece shows with one look that a lock is not there.
fn seen(mut list: impl FnMut() -> io::Result<(String, bool)>, has: impl Fn(&str) -> bool) -> io::Result<bool> {
    for _ in 0..LOOKS {
        let (text, whole) = list()?;
        if has(&text) {
            return Ok(true);
        }
        if whole {
            break;
        }
    }
    Ok(false)
}

/// Everything that `file` has, and whether it came in one piece.
fn list(mut file: impl Read) -> io::Result<(String, bool)> {
    let (mut text, mut piece, mut pieces) = (Vec::new(), [0; 1 << 14], 0);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((String::from_utf8_lossy(&text).into_owned(), pieces < 2)),
            Ok(length) => {
                text.extend_from_slice(piece.get(..length).unwrap_or_default());
                pieces += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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

    #[test]
    fn a_lock_that_a_list_in_pieces_has_passed_over_is_looked_for_again() {
        let (without, with) =
            ("1: FLOCK  ADVISORY  WRITE 7 fe:00:5 0 EOF\n", "2: POSIX  ADVISORY  READ 7 fe:00:5 0 EOF\n");
        let look = |lists: &[(&str, bool)]| {
            let mut lists = lists.iter().map(|(list, whole)| Ok(((*list).to_owned(), *whole)));
            seen(|| lists.next().unwrap_or_else(|| unreachable!()), |list| has_lock(list, 7, Some(5))).ok()
        };
        assert_eq!(look(&[(without, false), (without, false), (with, false)]), Some(true));
        assert_eq!(look(&[(without, true)]), Some(false));
        assert_eq!(look(&[(without, false); LOOKS]), Some(false));
    }

    #[test]
    fn a_list_tells_whether_it_came_in_one_piece() {
        let piece = |text: &'static str| text.as_bytes();
        assert_eq!(list(piece("abc")).ok(), Some(("abc".to_owned(), true)));
        assert_eq!(list(piece("abc").chain(piece("def"))).ok(), Some(("abcdef".to_owned(), false)));
        assert_eq!(list(piece("")).ok(), Some((String::new(), true)));
    }
}
