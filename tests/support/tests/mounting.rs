//! A mount looks as it was told to, and nothing is left of it when it is dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use setup::{SOON, mounted, mountinfo, plain};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::fuse::{Hold, Mount, Op, Options};
use support::require;
use tempfile::TempDir;

/// Filesystem type and source of a mountinfo line.
fn kind(line: &str) -> (&str, &str) {
    let mut words = line.split_once(" - ").unwrap().1.split(' ');
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn mountinfo_shows_the_subtype_and_the_source() {
    let Some(bare) = plain() else { return };
    assert_eq!(kind(&mountinfo(bare.mount.path()).unwrap()), ("fuse", "fuse"));
    let named = mounted(|options| options.subtype("sshfs").source("me@host:/srv")).unwrap();
    let line = mountinfo(named.mount.path()).unwrap();
    assert_eq!(kind(&line), ("fuse.sshfs", "me@host:/srv"));
    let sub = mounted(|options| options.subtype("rclone")).unwrap();
    assert_eq!(kind(&mountinfo(sub.mount.path()).unwrap()), ("fuse.rclone", "rclone"));
}

#[test]
fn dropping_a_mount_leaves_nothing_in_mountinfo() {
    let Some(fs) = plain() else { return };
    let at = fs.mount.path().to_owned();
    assert!(mountinfo(&at).is_some());
    drop(fs.mount);
    assert_eq!(mountinfo(&at), None);
}

#[test]
fn a_mount_with_open_files_goes_all_the_same_and_the_files_fail() {
    let Some(fs) = plain() else { return };
    let at = fs.mount.path().to_owned();
    let file = File::create(fs.on("a")).unwrap();
    drop(fs.mount);
    assert_eq!(mountinfo(&at), None);
    let error = file.write_at(b"x", 0).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error}");
}

#[test]
fn a_mount_with_held_requests_lets_them_go_when_it_is_dropped() {
    let Some(fs) = plain() else { return };
    let at = fs.mount.path().to_owned();
    let file = File::create(fs.on("a")).unwrap();
    let _hold = fs.mount.hold(Hold::All);
    let stat = std::thread::spawn(move || file.metadata().map(drop));
    assert!(fs.mount.wait_held(1, SOON));
    drop(fs.mount);
    assert_eq!(mountinfo(&at), None);
    let _either_way = stat.join().unwrap();
}

#[test]
fn a_mount_with_a_waiting_lock_request_can_be_dropped() {
    let Some(fs) = mounted(|options| options.forward_locks(true)) else {
        return;
    };
    let at = fs.mount.path().to_owned();
    let open = || File::options().create(true).truncate(false).write(true).open(fs.on("a")).unwrap();
    let (one, two) = (open(), open());
    let lock = |file: &File, command| {
        // SAFETY: all zeroes is a valid flock; the file is open.
        unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_WRLCK as i16;
            libc::fcntl(file.as_raw_fd(), command, &lock)
        }
    };
    assert_eq!(lock(&one, libc::F_OFD_SETLK), 0);
    let waiting = std::thread::spawn(move || lock(&two, libc::F_OFD_SETLKW));
    assert!(fs.mount.wait_counted(Op::Setlk, 2, SOON));
    drop(fs.mount);
    assert_eq!(mountinfo(&at), None);
    assert_eq!(waiting.join().unwrap(), -1);
}

#[test]
fn a_mount_below_a_mount_that_is_dropped_stays() {
    let Some(lower) = plain() else { return };
    let backing = TempDir::new().unwrap();
    let upper = Mount::new(Options::new(backing.path()).subtype("upper"), lower.mount.path()).unwrap();
    assert_eq!(rustix::mount::unmount(upper.path(), rustix::mount::UnmountFlags::empty()), Ok(()));
    // The upper mount is gone already; dropping it must not take the one below it.
    drop(upper);
    assert_eq!(kind(&mountinfo(lower.mount.path()).unwrap()).0, "fuse");
}

#[test]
fn a_missing_directory_is_named_in_the_error() {
    if !require::root_and_fuse() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let backing = Mount::new(Options::new(&missing), dir.path()).unwrap_err();
    assert!(backing.to_string().contains("missing"), "{backing}");
    let at = Mount::new(Options::new(dir.path()), &missing).unwrap_err();
    assert!(at.to_string().contains("missing"), "{at}");
}

#[test]
fn mounts_of_a_process_that_is_killed_go_too() {
    const PLAY_DEAD: &str = "MOUNT_AND_WAIT_TO_BE_KILLED";
    if let Some(dir) = std::env::var_os(PLAY_DEAD) {
        let dir = Path::new(&dir);
        let mount = Mount::new(Options::new(dir), dir).unwrap();
        let _open = File::create(mount.path().join("a")).unwrap();
        std::io::stdout().write_all(b"!\n").unwrap();
        std::io::stdin().read_exact(&mut [0]).unwrap();
    }
    if !require::root_and_fuse() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["mounts_of_a_process_that_is_killed_go_too", "--exact", "--nocapture"])
        .env(PLAY_DEAD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).bytes();
    assert!(said.any(|byte| byte.unwrap() == b'!'));
    assert!(mountinfo(dir.path()).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel tells us when the mounts change.
    let mounts = File::open("/proc/self/mountinfo").unwrap();
    while mountinfo(dir.path()).is_some() {
        let mut poll = libc::pollfd { fd: mounts.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, SOON.as_millis() as i32) }, 1, "still mounted");
    }
}
