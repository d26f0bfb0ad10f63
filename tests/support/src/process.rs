//! What a test does to a whole process: one of its own, a forked copy of it, another user.
//!
//! Invariant: a forked child never comes back into the test; it ends where its closure ends.

use rustix::process::{Pid, WaitOptions, waitpid};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};

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
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{test} is not the name of a test: {text}");
}

/// Forks, calls `child` with `value` in the child, and waits for its end. The parent keeps its own copy of `value`.
///
/// No other thread may use SQLite meanwhile: the child has no thread that would let go of a mutex which was held at the
/// fork. So the test must run [`alone`].
///
/// # Panics
/// If there is no child to be had.
pub fn fork<T>(value: T, child: impl FnOnce(T)) -> (T, ExitStatus) {
    // SAFETY: fork(2) takes nothing. What the child calls waits for no other thread; that is the caller's promise.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    let Some(pid) = Pid::from_raw(pid) else {
        let ran = catch_unwind(AssertUnwindSafe(|| child(value)));
        // SAFETY: ends the process at once; the exit handlers are the parent's.
        unsafe { libc::_exit(if ran.is_ok() { 0 } else { 101 }) }
    };
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty())).unwrap();
    let (_, status) = ended.expect("without WNOHANG there is an answer");
    (value, ExitStatus::from_raw(status.as_raw()))
}

/// Makes `uid` the user of this process, in all its threads, for good. rustix changes one thread only.
///
/// # Panics
/// If that is not permitted.
pub fn set_user(uid: u32) {
    // SAFETY: setuid(2) takes a number and touches no memory of ours.
    assert_eq!(unsafe { libc::setuid(uid) }, 0, "setuid: {}", std::io::Error::last_os_error());
}
