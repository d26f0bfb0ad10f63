//! `hardened bench` measures, says what, and leaves nothing behind.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::fuse::{Fault, Mount, Op, Options, What};
use support::{mounts, require};
use tempfile::TempDir;

#[path = "bad_input/unprivileged.rs"]
mod unprivileged;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hardened");

const OPERATIONS: [&str; 8] = [
    "open, first read",
    "read a row",
    "read after another connection wrote",
    "insert a row",
    "connect, insert a row, close",
    "update a row in a large table",
    "transaction of 100 pages",
    "nine reads and an update",
];

fn command(arguments: &[&str], paths: &[&Path]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("bench").args(arguments).args(paths);
    command
}

/// The exit code, standard output and standard error.
fn run(arguments: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let output = command(arguments, paths).args(["--seconds", "0.01"]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A directory with a file of the user's.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("app.db"), "theirs").unwrap();
    home
}

#[track_caller]
fn untouched(home: &Path) {
    assert_eq!(names(home), ["app.db"]);
    assert_eq!(fs::read(home.join("app.db")).unwrap(), b"theirs");
}

#[test]
fn every_directory_gets_a_table_and_nothing_is_left_there() {
    let homes = [home(), home()];
    let (code, out, err) = run(&[], &[homes[0].path(), homes[1].path()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for home in &homes {
        assert!(out.contains(&home.path().display().to_string()), "{out}");
        untouched(home.path());
    }
    for operation in OPERATIONS {
        assert_eq!(out.lines().filter(|line| line.starts_with(operation)).count(), 2, "{operation}: {out}");
    }
    assert!(out.contains("synchronous"), "{out}");
}

#[track_caller]
fn measured(document: &Value) {
    let rows = document["rows"].as_array().unwrap();
    let operations: Vec<&str> = rows.iter().map(|row| row["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, OPERATIONS);
    for row in rows {
        for side in ["stock", "hardened"] {
            let of = |key: &str| row[side][key].as_f64().unwrap_or_else(|| panic!("{row}"));
            assert!(of("per_second") > 0.0 && of("median_us") > 0.0 && of("operations") >= 1.0, "{row}");
            assert!(of("p95_us") >= of("median_us"), "{row}");
        }
        let of = |key: &str| row["ratio"][key].as_f64().unwrap();
        assert!(0.0 < of("low") && of("low") <= of("median") && of("median") <= of("high"), "{row}");
    }
}

#[test]
fn both_sides_get_the_mode_that_the_filesystem_allows() {
    if !require::fuse() {
        return;
    }
    let (backing, at) = (home(), TempDir::new().unwrap());
    let mount = Mount::new(Options::new(backing.path()).subtype("share"), at.path()).unwrap();
    let (code, out, err) = run(&["--json"], &[mount.path()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["policy"], "DELETE, synchronous FULL");
    assert_eq!(document["verdict"]["filesystem"], "fuse.share");
    measured(&document);
    untouched(backing.path());

    let (code, out, _) = run(&["--json", "--policy", "wal"], &[backing.path()]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, document["policy"].as_str()), (0, Some("WAL, synchronous NORMAL")), "{out}");
    measured(&document);
}

#[test]
fn a_side_that_fails_is_told_and_the_other_is_measured() {
    if !require::fuse() {
        return;
    }
    let (backing, at) = (home(), TempDir::new().unwrap());
    let mount = Mount::new(Options::new(backing.path()), at.path()).unwrap();
    mount.fault(Fault::on(Op::Write).name("stock.db-journal"));
    let (code, out, err) = run(&["--json"], &[mount.path()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let insert = &document["rows"][3];
    assert!(insert["stock"]["error"].as_str().unwrap().contains("I/O"), "{insert}");
    assert!(insert["ratio"].is_null() && insert["hardened"]["operations"].as_u64() > Some(0), "{insert}");
    mount.clear_faults();
    mount.fault(Fault::on(Op::Write).name("hardened.db-journal").what(What::Enospc));
    let (code, out, err) = run(&[], &[mount.path()]);
    assert!(code == 1 && err.contains("full"), "{out}{err}");
    untouched(backing.path());
}

#[test]
fn a_directory_that_cannot_be_used_is_3_before_anything_is_measured() {
    let home = home();
    let refused = |directory: &Path, expected: &str| {
        let (code, out, err) = run(&[], &[home.path(), directory]);
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(err.contains(&directory.display().to_string()) && err.contains(expected), "{expected}: {err}");
        assert!(err.contains("hint: "), "{err}");
        untouched(home.path());
    };
    refused(&home.path().join("missing"), "No such file or directory");
    refused(&home.path().join("app.db"), "not a directory");
    if require::root() {
        let small = mounts::tmpfs_with("size=1m").unwrap();
        refused(small.path(), "MiB are free");
        let closed = mounts::tmpfs().unwrap();
        closed.read_only(true).unwrap();
        refused(closed.path(), "Read-only");
        closed.read_only(false).unwrap();
    }
    let closed = unprivileged::open_directory();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o555)).unwrap();
    let output = unprivileged::as_nobody(Path::new(PROGRAM), |command| {
        command.arg("bench").arg(closed.path());
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && text.contains("Permission denied"), "{text}");
    for wrong in [&["--policy", "sometimes"][..], &["--policy"], &["--jsno"]] {
        assert_eq!(run(wrong, &[home.path()]).0, 2, "{wrong:?}");
    }
    assert_eq!(run(&[], &[]).0, 2, "no directory");
    let output = command(&["--seconds", "0"], &[home.path()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn whoever_is_killed_leaves_nothing_behind_either() {
    let home = home();
    let mut command = command(&["--seconds", "20"], &[home.path()]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let wait = |until: &dyn Fn(usize) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !until(names(home.path()).len()) {
            assert!(Instant::now() < deadline, "{:?}", names(home.path()));
            std::thread::yield_now();
        }
    };
    wait(&|names| names == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    wait(&|names| names == 1);
    untouched(home.path());
}
