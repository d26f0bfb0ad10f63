use super::super::{RESERVED, SHARED};
use super::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One at a time: what is kept belongs to the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    fork::watch();
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn two_handles_of_one_process_meet_and_no_other_close_drops_a_lock() {
    let _turn = turn();
    let file = tempfile::NamedTempFile::new().unwrap();
    let (a, b) = (Handle::open(file.path(), false).unwrap(), Handle::open(file.path(), false).unwrap());
    assert!(a.take(RESERVED, true).unwrap());
    assert!(!b.take(RESERVED, true).unwrap());
    drop(File::open(file.path()).unwrap());
    assert!(b.taken(RESERVED).unwrap());
    assert!(a.take(SHARED, false).unwrap() && b.take(SHARED, false).unwrap());
    drop(a);
    assert!(b.take(RESERVED, true).unwrap());
}

/// What a stock connection holds while it reads.
fn read_lock(file: &File) {
    // SAFETY: an open descriptor and a structure that lives across the call.
    let code = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_RDLCK as libc::c_short;
        lock.l_start = SHARED.start as libc::off_t;
        lock.l_len = SHARED.length as libc::off_t;
        libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut lock)
    };
    assert_eq!(code, 0);
}

#[test]
fn a_number_that_was_closed_and_is_that_of_a_later_handle_is_left_to_that_one() {
    let _turn = turn();
    let file = tempfile::NamedTempFile::new().unwrap();
    let old = Handle::open(file.path(), false).unwrap();
    assert!(old.take(SHARED, false).unwrap());
    let number = old.fd().unwrap().as_raw_fd();
    // What a program does by mistake; the number may be given to another test, unless it is taken at once.
    let double = File::options().read(true).write(true).open(file.path()).unwrap();
    // SAFETY: an open descriptor takes the place of another one.
    assert_eq!(unsafe { libc::dup3(double.as_raw_fd(), number, libc::O_CLOEXEC) }, number);
    let new = Handle::of(handles::register(number), old.identity(), Manner::plain(false), None);
    parked::joined(old.identity(), None, Manner::plain(false));
    assert!(new.take(RESERVED, true).unwrap());
    assert!(old.release(EVERYTHING).is_err() && old.verify().is_err() && old.stat().is_none());
    drop(old);
    assert_eq!(new.fd().unwrap().as_raw_fd(), number);
    assert!(new.verify().is_ok(), "not closed");
    let observer = Handle::open(file.path(), false).unwrap();
    assert!(observer.taken(RESERVED).unwrap(), "not released");
}

#[test]
fn a_handle_is_not_closed_while_neighbours_and_other_processes_have_locks() {
    let _turn = turn();
    let file = tempfile::NamedTempFile::new().unwrap();
    // The lock of another process is the first one that the kernel tells of.
    let (mut ready, mut done) = ([0; 2], [0; 2]);
    // SAFETY: arrays of two; the child reads, locks, writes, reads and leaves with _exit.
    let child = unsafe {
        assert_eq!((libc::pipe(ready.as_mut_ptr()), libc::pipe(done.as_mut_ptr())), (0, 0));
        let child = libc::fork();
        if child == 0 {
            let other = File::options().read(true).open(file.path());
            if let Ok(other) = &other {
                read_lock(other);
            }
            let mut byte = 0_u8;
            libc::write(ready[1], (&raw const byte).cast(), 1);
            libc::read(done[0], (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
        let mut byte = 0_u8;
        assert_eq!(libc::read(ready[0], (&raw mut byte).cast(), 1), 1);
        child
    };
    let stock = File::options().read(true).write(true).open(file.path()).unwrap();
    read_lock(&stock);
    drop(Handle::open(file.path(), false).unwrap());
    // SAFETY: lets the child go and waits for it.
    unsafe {
        assert_eq!(libc::write(done[1], (&raw const child).cast(), 1), 1);
        assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child);
    }
    let observer = Handle::open(file.path(), false).unwrap();
    assert!(observer.taken(SHARED).unwrap(), "closing would have dropped the neighbour's lock");
}

#[test]
fn a_handle_that_was_kept_serves_only_its_own_kind_and_process() {
    let _turn = turn();
    let file = tempfile::NamedTempFile::new().unwrap();
    let stock = File::options().read(true).write(true).open(file.path()).unwrap();
    read_lock(&stock);
    for read_only in [true, false] {
        drop(Handle::open(file.path(), read_only).unwrap());
    }
    let mine = Handle::open(file.path(), false).unwrap();
    assert!(mine.take(RESERVED, true).unwrap(), "of the two the one that can write");
    drop(mine);
    // Both would take the handle that was kept.
    let theirs = fork::in_child(|| {
        Handle::open(file.path(), false).is_ok_and(|theirs| {
            let taken = theirs.take(RESERVED, true).unwrap_or(false);
            std::mem::forget(theirs);
            taken
        })
    });
    assert!(theirs, "free, so the child gets it; it ended with the child");
    let mine = Handle::open(file.path(), false).unwrap();
    assert!(mine.take(RESERVED, true).unwrap());
    let theirs = fork::in_child(|| {
        Handle::open(file.path(), false).is_ok_and(|theirs| theirs.take(RESERVED, true).unwrap_or(false))
    });
    assert!(!theirs, "mine");
}

#[test]
fn a_handle_is_not_closed_while_a_neighbour_has_posix_locks_on_the_file() {
    let _turn = turn();
    let file = tempfile::NamedTempFile::new().unwrap();
    let stock = File::options().read(true).write(true).open(file.path()).unwrap();
    read_lock(&stock);
    let observer = Handle::open(file.path(), false).unwrap();
    assert!(observer.taken(SHARED).unwrap());
    drop(Handle::open(file.path(), false).unwrap());
    assert!(observer.taken(SHARED).unwrap(), "closing would have dropped the neighbour's lock");
}
