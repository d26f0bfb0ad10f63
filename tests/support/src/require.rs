//! Gates: what a test needs from the machine.
//!
//! A test asks first and returns if the answer is no:
//!
//! ```no_run
//! if !support::require::root_and_fuse() {
//!     return;
//! }
//! ```
//!
//! Invariant: a test is never skipped silently. Each gate that says no writes a `SKIPPED` line past
//! the output capture of the test harness; with the environment variable `CI` set (other than empty,
//! `0` or `false`) it panics instead, because there a skipped test hides a broken runner.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Says that `what` is missing: always `false`, after the `SKIPPED` line.
///
/// # Panics
/// When the environment variable `CI` is set.
pub fn unavailable(what: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let line = format!("SKIPPED: {test} needs {what}");
    assert!(!in_ci(), "{line} (CI is set, so this is a failure)");
    // `eprintln!` would be swallowed by the harness for a test that passes.
    let _ = writeln!(std::io::stderr(), "\n{line}");
    false
}

fn in_ci() -> bool {
    is_affirmative(&std::env::var("CI").unwrap_or_default())
}

fn is_affirmative(value: &str) -> bool {
    !(value.is_empty() || value == "0" || value.eq_ignore_ascii_case("false"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The test mounts filesystems or changes owners, as root.
pub fn root() -> bool {
    is_root() || unavailable("root")
}

/// The test mounts a FUSE filesystem: `/dev/fuse` opens, and the user is root or has `fusermount3`.
pub fn fuse() -> bool {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        return unavailable(&format!("/dev/fuse ({error})"));
    }
    is_root() || find_program("fusermount3").is_some() || unavailable("root or fusermount3, to mount a FUSE filesystem")
}

/// [`root`] and [`fuse`] together.
pub fn root_and_fuse() -> bool {
    root() && fuse()
}

/// The test mounts disk images: root, and a loop device can be had.
pub fn loop_devices() -> bool {
    if !is_root() {
        return unavailable("root, to mount a disk image");
    }
    match OpenOptions::new().read(true).write(true).open("/dev/loop-control") {
        Ok(_) => true,
        Err(error) => unavailable(&format!("loop devices (/dev/loop-control: {error})")),
    }
}

/// The test runs the program `name`.
pub fn program(name: &str) -> bool {
    find_program(name).is_some() || unavailable(&format!("the program {name}"))
}

/// Where the program `name` is: `PATH` first, then the directories of system programs, which the
/// `PATH` of an ordinary user may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The test runs virtual machines: `qemu-system-x86_64` and the guest image of the network lab.
pub fn emulator() -> bool {
    if !program("qemu-system-x86_64") {
        return false;
    }
    let dir = netlab_dir();
    dir.join("guest.img").is_file() || unavailable(&format!("the lab image {}", dir.join("guest.img").display()))
}

/// [`emulator`], unless the environment variable `HARDENED_SKIP_NETLAB` is 1: the second end of the dependency range is
/// tested without the lab, which takes minutes.
pub fn netlab() -> bool {
    if std::env::var_os("HARDENED_SKIP_NETLAB").is_some_and(|value| value == "1") {
        eprintln!("not run: HARDENED_SKIP_NETLAB=1");
        return false;
    }
    emulator()
}

/// Where the network lab keeps its images: `NETLAB_DIR`, or `~/.cache/hardened-netlab`.
pub fn netlab_dir() -> PathBuf {
    match std::env::var_os("NETLAB_DIR") {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            home.join(".cache/hardened-netlab")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_counts_as_set_unless_empty_zero_or_false() {
        for no in ["", "0", "false", "FALSE"] {
            assert!(!is_affirmative(no), "{no:?}");
        }
        for yes in ["1", "true", "yes"] {
            assert!(is_affirmative(yes), "{yes:?}");
        }
    }

    #[test]
    fn a_program_is_found_by_name_and_a_made_up_one_is_not() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-anywhere"), None);
    }
}
