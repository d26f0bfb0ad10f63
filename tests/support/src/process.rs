//! What a test does to a whole process: one of its own, a forked copy of it, another user.
//!
//! Invariant: a forked child never comes back into the test; it ends where its closure ends.

use crate::require::find_program;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// This test program once more, to run the test `test` alone and without a word kept back.
///
/// # Panics
/// If this program has no name.
pub fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// Runs `body` in a process of its own, for what the other tests of a program must not meet. To be called first and
/// last in the test `test`, which runs again there.
///
/// # Panics
/// If the test fails there, or there is no such test.
#[track_caller]
pub fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "HARDENED_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let output = again(test).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{test} is not the name of a test: {text}");
    println!("{text}");
}

/// Puts this program into `directory` under another name, for a guest: without debug information, if that can be taken off.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_of_this_program(directory: &Path, name: &str) -> PathBuf {
    let (this, copy) = (std::env::current_exe().unwrap(), directory.join(name));
    let stripped = find_program("strip")
        .is_some_and(|strip| Command::new(strip).arg("-o").arg(&copy).arg(&this).status().unwrap().success());
    if !stripped {
        std::fs::copy(&this, &copy).unwrap();
    }
    copy
}

/// How a child ends after its closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By `_exit`: no destructor and no exit handler runs.
    AtOnce,
    /// By `exit`, which runs exit handlers.
    Exit,
}

/// A child that runs.
#[derive(Debug)]
pub struct Forked(Pid);

/// Forks, and calls `child` with `value` in the child; the parent keeps its own copy of `value`.
///
/// No other thread may use SQLite meanwhile: the child has no thread that would let go of a mutex which was held at the
/// fork. So the test must run [`alone`].
///
/// # Panics
/// If there is no child to be had.
pub fn start<T>(value: T, end: End, child: impl FnOnce(T)) -> (T, Forked) {
    // SAFETY: fork(2) takes nothing. What the child calls waits for no other thread; that is the caller's promise.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if let Some(pid) = Pid::from_raw(pid) {
        return (value, Forked(pid));
    }
    let code = if catch_unwind(AssertUnwindSafe(|| child(value))).is_ok() { 0 } else { 101 };
    // SAFETY: both end the process.
    unsafe {
        match end {
            End::AtOnce => libc::_exit(code),
            End::Exit => libc::exit(code),
        }
    }
}

impl Forked {
    /// Waits for its end and says whether its closure came to its end.
    ///
    /// # Panics
    /// If it was killed, or is no child of this process.
    pub fn succeeded(self) -> bool {
        let ended = rustix::io::retry_on_intr(|| waitpid(Some(self.0), WaitOptions::empty())).unwrap();
        let (_, status) = ended.expect("without WNOHANG there is an answer");
        let code = status.exit_status();
        code.unwrap_or_else(|| panic!("the child was killed: {status:?}")) == 0
    }
}

/// A child that clone(2) made: no handler of fork(2) was told of it. It has copies of all descriptors, does nothing, and ends when
/// this is dropped.
#[derive(Debug)]
pub struct Unseen(Pid);

impl Unseen {
    /// Makes one.
    ///
    /// # Panics
    /// If there is no child to be had.
    #[must_use]
    pub fn start() -> Unseen {
        // SAFETY: clone(2) with a signal and nothing else is fork(2). The child makes two bare system calls, again and again.
        let child = unsafe {
            let child = libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), 0, 0, 0, 0);
            if child == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
            child
        };
        Unseen(i32::try_from(child).ok().and_then(Pid::from_raw).expect("a child"))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Replaces this process by a program that reads `input` to the end.
///
/// # Panics
/// If that program cannot be had.
pub fn become_cat(input: &impl AsRawFd) -> ! {
    let arguments = [c"cat".as_ptr(), std::ptr::null()];
    // SAFETY: open descriptors; C strings and a null at the end.
    unsafe {
        libc::dup2(input.as_raw_fd(), 0);
        libc::execvp(c"cat".as_ptr(), arguments.as_ptr());
    }
    panic!("exec: {}", std::io::Error::last_os_error());
}

/// Ends this process at once, as a crash does.
pub fn die() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

/// Puts /dev/null under the number of a descriptor, as code does that closes and opens a number which is not its own.
///
/// # Panics
/// If there is no such number.
pub fn reuse_descriptor(number: i32) {
    let null = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: two numbers; whoever owned the second one is what the test is about.
    let code = unsafe { libc::dup2(null.as_raw_fd(), number) };
    assert_eq!(code, number, "{}", std::io::Error::last_os_error());
}

/// Makes `uid` the user of this process, in all its threads, for good. rustix changes one thread only.
///
/// # Panics
/// If that is not permitted.
pub fn set_user(uid: u32) {
    // SAFETY: setuid(2) takes a number and touches no memory of ours.
    assert_eq!(unsafe { libc::setuid(uid) }, 0, "setuid: {}", std::io::Error::last_os_error());
}
