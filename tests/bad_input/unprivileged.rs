//! Running part of a test as a user whom permissions stop, in a process of its own.

use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The user and group `nobody`.
const NOBODY: u32 = 65534;

/// The environment variable that tells a process started by a test that it is one, and its directory.
pub(crate) const HERE: &str = "HARDENED_TEST_DIRECTORY";

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A directory that the other user may enter and write to.
pub(crate) fn open_directory() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
    home
}

/// `program` as the other user, or as ourselves if we are not root. It is started through a descriptor, because that
/// user may not be allowed into the directories that lead to it.
pub(crate) fn as_nobody(program: &Path, configure: impl FnOnce(&mut Command)) -> Output {
    let file = File::open(program).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.current_dir("/").env("RUST_BACKTRACE", "0");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    configure(&mut command);
    command.output().unwrap()
}

/// Where this process was started by a test: its directory.
#[allow(dead_code, reason = "not every test crate runs itself again")]
pub(crate) fn rerun_in() -> Option<PathBuf> {
    std::env::var_os(HERE).map(PathBuf::from)
}

/// Runs the test `name` of this program again as the other user; there [`rerun_in`] answers `directory`.
#[allow(dead_code, reason = "not every test crate runs itself again")]
#[track_caller]
pub(crate) fn rerun(name: &str, directory: &Path) {
    let output = as_nobody(&std::env::current_exe().unwrap(), |command| {
        command.args(["--exact", name, "--nocapture"]).env(HERE, directory);
    });
    assert_passed(&output);
}

/// The other process ran exactly one test, and it passed.
#[allow(dead_code, reason = "not every test crate runs itself again")]
#[track_caller]
pub(crate) fn assert_passed(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
}
