//! A process that is killed at any of its system calls, or for which any of them fails: strace(1) does it.
//!
//! Invariant: each run has a directory of its own, and is counted as hit only if strace says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::require;

const TASK: &str = "HARDENED_STRACE_TASK";

/// The system calls that change what is on disk, or open what is changed.
pub const CALLS: &str = "openat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,ftruncate,fallocate,copy_file_range,\
                         pwrite64,write,fsync,fdatasync,fchmod,fchown,ioctl,flock,chmod,fchmodat,mkdir,rmdir";

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The process gets SIGKILL as it makes it.
    Kill,
    /// It fails with ENOSPC, and so does every later one of its kind.
    Full,
}

/// In the test that is the process: what it is to do, and in which directory. `None` in any other run of that test.
#[must_use]
pub fn task() -> Option<(String, std::path::PathBuf)> {
    let task = std::env::var(TASK).ok()?;
    let (what, home) = task.split_once(' ')?;
    Some((what.to_owned(), home.into()))
}

/// To be called where the task begins: what was before does not count.
pub fn begin() {
    let _ = std::fs::metadata("/begin");
}

/// Says something to who traces the process: that something is done, say.
pub fn mark(what: &str) {
    let _ = std::fs::metadata(format!("/mark/{what}"));
}

/// Runs the test `test` as the process, under strace with these options; what strace has written.
pub(crate) fn traced(test: &str, home: &Path, what: &str, options: &[&str]) -> String {
    let output = home.join("trace");
    let _ = Command::new(require::find_program("strace").unwrap())
        .args(["-f", "-qq", "-o"])
        .arg(&output)
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(TASK, format!("{what} {}", home.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let trace = std::fs::read_to_string(&output).unwrap();
    std::fs::remove_file(output).unwrap();
    trace
}

/// How often each call is made in all, and how often before the task begins.
fn counts(trace: &str) -> BTreeMap<String, (usize, usize)> {
    let (mut counts, mut begun) = (BTreeMap::<String, (usize, usize)>::new(), false);
    for line in trace.lines() {
        begun |= line.contains("\"/begin\"");
        let Some((name, _)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('(')) else {
            continue;
        };
        if line.contains("resumed>") {
            continue;
        }
        let count = counts.entry(name.to_owned()).or_default();
        count.0 += 1;
        count.1 += usize::from(!begun);
    }
    counts
}

/// Runs the task again and again, each time in a directory as `prepare` makes it, with this fate for another one of `calls`,
/// and has `judge` look at what is left. At most `most` times for each kind of call, the first and the last among them.
///
/// # Panics
/// If the task does not begin, or fewer than `least` runs were hit.
pub fn everywhere(
    test: &str,
    what: &str,
    (fate, calls): (Fate, &str),
    (most, least): (usize, usize),
    prepare: impl Fn(&Path),
    judge: impl Fn(&Path, &str),
) {
    let fresh = || {
        let home = crate::memory::directory();
        prepare(home.path());
        home
    };
    let home = fresh();
    let trace = traced(test, home.path(), what, &["-e", &format!("trace={calls},stat,newfstatat,statx")]);
    assert!(trace.contains("\"/begin\""), "{trace}");
    let (mut runs, mut hits) = (0, 0);
    for (call, (all, before)) in counts(&trace) {
        if all == before || !calls.split(',').any(|name| name == call) {
            continue;
        }
        let step = (all - before).div_ceil(most).max(1);
        for number in (before + 1..=all).step_by(step).chain([all]) {
            let home = fresh();
            let (inject, sign) = match fate {
                Fate::Kill => (format!("inject={call}:signal=KILL:when={number}"), "killed by SIGKILL"),
                Fate::Full => (format!("inject={call}:error=ENOSPC:when={number}+"), "(INJECTED)"),
            };
            let trace = traced(test, home.path(), what, &["-e", &inject, "-e", &format!("trace={call}")]);
            runs += 1;
            hits += usize::from(trace.contains(sign));
            judge(home.path(), &format!("{what}, {fate:?} at {call} {number} of {all}"));
        }
    }
    println!("{what}: {runs} runs, {hits} of them hit");
    assert!(hits >= least, "{hits} of {runs} runs were hit");
}
