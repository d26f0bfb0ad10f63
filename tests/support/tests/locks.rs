//! Locks forwarded to the filesystem conflict as POSIX locks do, whoever takes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use setup::{SOON, Setup, mounted, plain};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use support::fuse::{Fault, LockTable, Mount, Op, Options};
use support::require;
use tempfile::TempDir;

fn open(fs: &Setup) -> File {
    File::options().create(true).truncate(false).read(true).write(true).open(fs.on("a")).unwrap()
}

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    // SAFETY: all zeroes is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

/// A lock call; the error number or 0.
fn call(file: &File, command: i32, lock: &mut libc::flock) -> i32 {
    // SAFETY: an open file and a valid flock, which GETLK fills.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), command, lock) };
    if rc == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}

/// An OFD lock: two open files conflict, in one process too.
fn lock(file: &File, kind: i32, start: i64, len: i64) -> i32 {
    call(file, libc::F_OFD_SETLK, &mut range(kind, start, len))
}

#[test]
fn ofd_locks_of_two_open_files_conflict_by_byte_range() {
    let Some(fs) = mounted(|options| options.forward_locks(true)) else {
        return;
    };
    let (one, two) = (open(&fs), open(&fs));
    assert_eq!(lock(&one, libc::F_WRLCK, 100, 10), 0);
    assert_eq!(lock(&two, libc::F_RDLCK, 105, 1), libc::EAGAIN);
    assert_eq!(lock(&two, libc::F_WRLCK, 110, 1), 0);
    let mut found = range(libc::F_WRLCK, 0, 0);
    assert_eq!(call(&two, libc::F_OFD_GETLK, &mut found), 0);
    let answer = (i32::from(found.l_type), found.l_start, found.l_len);
    assert_eq!(answer, (libc::F_WRLCK, 100, 10));
    assert_eq!(lock(&one, libc::F_UNLCK, 104, 3), 0);
    assert_eq!(lock(&two, libc::F_RDLCK, 105, 1), 0);
    let counts = fs.mount.counters();
    assert_eq!((counts.get(Op::Setlk), counts.get(Op::Getlk)), (5, 1), "{counts}");
}

#[test]
fn shared_locks_do_not_conflict_and_closing_gives_them_up() {
    let table = LockTable::default();
    let Some(fs) = mounted(|options| options.lock_table(&table)) else {
        return;
    };
    let (one, two) = (open(&fs), open(&fs));
    assert_eq!(lock(&one, libc::F_RDLCK, 0, 0), 0);
    assert_eq!(lock(&two, libc::F_RDLCK, 0, 0), 0);
    assert_eq!(lock(&one, libc::F_WRLCK, 0, 0), libc::EAGAIN);
    drop(two);
    // An OFD lock ends with the RELEASE, which close does not wait for.
    assert_eq!(call(&one, libc::F_OFD_SETLKW, &mut range(libc::F_WRLCK, 0, 0)), 0);
    assert_eq!(table.len(), 1);
}

#[test]
fn without_forwarding_the_kernel_keeps_the_locks() {
    let Some(fs) = plain() else { return };
    let (one, two) = (open(&fs), open(&fs));
    assert_eq!(lock(&one, libc::F_WRLCK, 0, 1), 0);
    assert_eq!(lock(&two, libc::F_WRLCK, 0, 1), libc::EAGAIN);
    let counts = fs.mount.counters();
    assert_eq!((counts.get(Op::Setlk), counts.get(Op::Getlk)), (0, 0));
}

#[test]
fn another_process_sees_the_posix_locks_of_this_one_until_it_closes_the_file() {
    if !require::program("python3") {
        return;
    }
    let Some(fs) = mounted(|options| options.forward_locks(true)) else {
        return;
    };
    let other = || {
        let script = "import fcntl, sys\n\
            f = open(sys.argv[1], 'r+')\n\
            try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
            except OSError: sys.exit(3)\n";
        let status = Command::new("python3").args(["-c", script]).arg(fs.on("a")).status();
        status.unwrap().code().unwrap()
    };
    let (file, second) = (open(&fs), open(&fs));
    assert_eq!(call(&file, libc::F_SETLK, &mut range(libc::F_WRLCK, 0, 0)), 0);
    assert_eq!(other(), 3, "locked by us");
    drop(second);
    assert_eq!(other(), 0, "closing any descriptor of the file drops a process's locks");
}

#[test]
fn two_mounts_with_one_lock_table_are_two_clients_of_one_server() {
    let table = LockTable::default();
    let Some(here) = mounted(|options| options.lock_table(&table)) else {
        return;
    };
    let at = TempDir::new().unwrap();
    let there = Mount::new(Options::new(here.backing()).lock_table(&table), at.path()).unwrap();
    let one = open(&here);
    let two = File::options().read(true).write(true).open(there.path().join("a")).unwrap();
    assert_eq!(lock(&one, libc::F_WRLCK, 0, 1), 0);
    assert_eq!(lock(&two, libc::F_WRLCK, 0, 1), libc::EAGAIN);
    drop(here.mount);
    assert_eq!(lock(&two, libc::F_WRLCK, 0, 1), 0, "a dead client's locks are gone");
}

#[test]
fn a_blocked_lock_request_is_granted_when_the_range_is_free() {
    let Some(fs) = mounted(|options| options.forward_locks(true).threads(1)) else {
        return;
    };
    let (one, two) = (open(&fs), open(&fs));
    assert_eq!(lock(&one, libc::F_WRLCK, 0, 1), 0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(&two, libc::F_OFD_SETLKW, &mut range(libc::F_WRLCK, 0, 1)));
        assert!(fs.mount.wait_counted(Op::Setlk, 2, SOON));
        assert!(!waiting.is_finished());
        assert_eq!(lock(&one, libc::F_UNLCK, 0, 1), 0);
        assert_eq!(waiting.join().unwrap(), 0);
    });
}

extern "C" fn ignore(_signal: i32) {}

#[test]
fn a_blocked_lock_request_is_interrupted_by_a_signal() {
    let Some(fs) = mounted(|options| options.forward_locks(true)) else {
        return;
    };
    // SAFETY: a handler that does nothing, without SA_RESTART, so that the call returns EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let (one, two) = (open(&fs), open(&fs));
    assert_eq!(lock(&one, libc::F_WRLCK, 0, 1), 0);
    std::thread::scope(|scope| {
        let (send, thread) = std::sync::mpsc::channel();
        let waiting = scope.spawn(move || {
            // SAFETY: no arguments.
            send.send(unsafe { libc::pthread_self() }).unwrap();
            call(&two, libc::F_OFD_SETLKW, &mut range(libc::F_WRLCK, 0, 1))
        });
        assert!(fs.mount.wait_counted(Op::Setlk, 2, SOON));
        // SAFETY: the thread has not been joined.
        assert_eq!(unsafe { libc::pthread_kill(thread.recv().unwrap(), libc::SIGUSR1) }, 0);
        assert_eq!(waiting.join().unwrap(), libc::EINTR);
    });
}

#[test]
fn lock_requests_can_be_failed() {
    let Some(fs) = mounted(|options| options.forward_locks(true)) else {
        return;
    };
    let file = open(&fs);
    let fault = fs.mount.fault(Fault::on(Op::Setlk).errno(libc::ENOLCK).times(1));
    assert_eq!(lock(&file, libc::F_WRLCK, 0, 1), libc::ENOLCK);
    assert_eq!(lock(&file, libc::F_WRLCK, 0, 1), 0);
    assert_eq!(fault.seen(), 1);
}
