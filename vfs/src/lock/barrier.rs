//! Keeps neighbours from beginning to lock a database while descriptors of it are closed.
//!
//! Whoever takes the first lock on a database takes PENDING shared before it; connections of ours on network mounts only ask for it,
//! but their locks are those of the open file, which no close() drops. So while we have PENDING exclusively, who has no
//! lock gets none, and who has one is seen when the kernel is asked. A close() drops the POSIX locks of the process before the
//! locks of the open file that is closed (fcntl_locking(2)): a barrier goes with the last descriptor that is closed, and not too
//! early.
//!
//! That descriptor is opened for the purpose where it can be. A process that is just being started (vfork, posix_spawn) has a
//! copy of every descriptor until it has called exec(2), and others are BUSY as long as one of the barrier's: so it
//! must be started in the very moment of a close, and a child that never calls exec keeps none of a handle that was there before.
//!
//! Nobody waits long for the byte. Others are BUSY for some microseconds, or as long as the list of all locks is read. A process with
//! one thread has no neighbour that could act in between, and raises no barrier.

use std::fs::File;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::PENDING;
use super::handles::{self, Registered};
use super::streams;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raised {
    Yes,
    /// Nobody can act in between.
    Needless,
    /// Somebody else has the byte, who has a lock or is about to take one.
    Held,
    /// A descriptor for reading takes no such lock, nor do some filesystems; others keep it when its descriptor is closed.
    Never,
}

/// Who begins to read has PENDING for two calls only.
const TRIES: usize = 8;
/// A writer has it until its commit is on the disk. So long the last close in a process waits, since nobody may come after it who
/// would close what it keeps.
const PATIENCE: Duration = Duration::from_millis(20);
const NAP: Duration = Duration::from_millis(1);

/// Raises one on the database of `fd`.
pub(super) fn raise(fd: RawFd) -> Raised {
    match is_single() {
        true => Raised::Needless,
        false => take(fd, Duration::ZERO),
    }
}

/// Raises one on the database of `handle`, and tells the descriptor that has it if it is not the handle's: a `spare` one, or one
/// that is opened now. The `last` one of the process to be closed waits a little for somebody else's.
pub(super) fn raise_beside(
    handle: Registered,
    last: bool,
    spare: impl FnOnce() -> Option<Registered>,
) -> (Raised, Option<Registered>) {
    if is_single() {
        return (Raised::Needless, None);
    }
    let other = spare().or_else(|| open_again(handle.fd()));
    let patience = if last { PATIENCE } else { Duration::ZERO };
    (take(other.unwrap_or(handle).fd(), patience), other)
}

/// Takes down the one that was raised with `fd`.
pub(super) fn lower(fd: RawFd) {
    // It goes at the latest with the descriptor.
    let _ = set(fd, libc::F_UNLCK);
}

/// The same file once more. Not to be had without /proc, without a free descriptor, or as a user who may not write there any more.
fn open_again(fd: RawFd) -> Option<Registered> {
    streams::occupy();
    let file = File::options().read(true).write(true).open(format!("/proc/self/fd/{fd}")).ok()?;
    Some(handles::register(file.into_raw_fd()))
}

fn take(fd: RawFd, patience: Duration) -> Raised {
    let begun = Instant::now();
    for tried in 1.. {
        match set(fd, libc::F_WRLCK).map_err(|error| error.raw_os_error()) {
            Ok(()) => return Raised::Yes,
            Err(Some(libc::EAGAIN | libc::EACCES | libc::EINTR)) if tried < TRIES => std::thread::yield_now(),
            Err(Some(libc::EAGAIN | libc::EACCES | libc::EINTR)) if begun.elapsed() < patience => {
                std::thread::sleep(NAP)
            }
            Err(Some(libc::EAGAIN | libc::EACCES)) => break,
            Err(_) => return Raised::Never,
        }
    }
    Raised::Held
}

/// Whether this process has one thread only. Where /proc is another container's nobody knows.
fn is_single() -> bool {
    match told_by_the_c_library() {
        Some(single) => single,
        // A link for each thread, and two that every directory has.
        None => std::fs::metadata("/proc/self/task").is_ok_and(|tasks| tasks.nlink() == 3),
    }
}

/// The GNU C library knows it without a call, though it may take a process for one with threads whose threads have ended.
fn told_by_the_c_library() -> Option<bool> {
    static SINGLE: OnceLock<usize> = OnceLock::new();
    // SAFETY: a name of the C library's for a variable of this size, which is there as long as the process; threads may write to
    // it.
    unsafe {
        let address =
            *SINGLE.get_or_init(|| libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) as usize);
        (address != 0).then(|| (address as *const u8).read_volatile() != 0)
    }
}

fn set(fd: RawFd, kind: libc::c_int) -> std::io::Result<()> {
    // SAFETY: flock is a plain C structure for which all zeros is a value, and l_pid must be 0; it lives across the call.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = PENDING.start as libc::off_t;
        lock.l_len = PENDING.length as libc::off_t;
        match libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ofd::Handle;
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Begins to read as stock does, with a POSIX lock; whether it may.
    fn may_begin(file: &File) -> bool {
        let mut may = false;
        for kind in [libc::F_RDLCK, libc::F_UNLCK] {
            // SAFETY: an open descriptor and a structure that lives across the call.
            unsafe {
                let mut lock: libc::flock = std::mem::zeroed();
                (lock.l_type, lock.l_start, lock.l_len) = (kind as libc::c_short, PENDING.start as libc::off_t, 1);
                may |= libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut lock) == 0 && kind == libc::F_RDLCK;
            }
        }
        may
    }

    #[test]
    fn nobody_begins_to_read_while_files_are_closed_and_everybody_does_after_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let neighbour = file.reopen().unwrap();
        for others in 0..2 {
            // With another handle there, and without.
            let _others: Vec<Handle> = (0..others).map(|_| Handle::open(file.path(), false).unwrap()).collect();
            let (handle, theirs) = (Handle::open(file.path(), false).unwrap(), neighbour.try_clone().unwrap());
            assert!(may_begin(&neighbour));
            let base = Box::new(move || i32::from(may_begin(&theirs)));
            assert_eq!(handle.close_with(base), 0, "{others} others");
            assert!(may_begin(&neighbour));
        }
    }

    #[test]
    fn its_descriptor_never_has_the_number_of_a_standard_stream() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let high = super::super::fork::in_child(|| {
            // SAFETY: this process is a copy that writes no messages.
            unsafe { libc::close(libc::STDERR_FILENO) };
            open_again(file.as_file().as_raw_fd()).is_some_and(|again| again.fd() > libc::STDERR_FILENO)
        });
        assert!(high, "where it may be kept for long");
    }

    #[test]
    fn a_handle_for_reading_is_closed_without_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let neighbour = file.reopen().unwrap();
        let handle = Handle::open(file.path(), true).unwrap();
        assert_eq!(handle.close_with(Box::new(move || i32::from(may_begin(&neighbour)))), 1);
    }

    #[test]
    fn while_another_one_has_the_byte_few_files_are_kept_and_then_closed_all_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = file.reopen().unwrap();
        set(writer.as_raw_fd(), libc::F_WRLCK).unwrap();
        let closed = Arc::new(AtomicUsize::new(0));
        let close = || {
            let count = Arc::clone(&closed);
            let base = Box::new(move || i32::from(count.fetch_add(1, Ordering::Relaxed) > 99));
            assert_eq!(Handle::open(file.path(), false).unwrap().close_with(base), 0);
            closed.load(Ordering::Relaxed)
        };
        assert_eq!([(); 7].map(|()| close()), [0; 7]);
        assert_eq!(close(), 8, "more would be many");
        assert_eq!(close(), 8);
        set(writer.as_raw_fd(), libc::F_UNLCK).unwrap();
        assert_eq!(close(), 10, "with the next one");
    }
}
