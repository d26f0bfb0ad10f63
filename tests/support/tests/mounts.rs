//! Mounts of other kinds come and go with their guards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use setup::mountinfo;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use support::{mounts, require};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn kind(line: &str) -> String {
    line.split_once(" - ").unwrap().1.split(' ').next().unwrap().to_owned()
}

#[test]
fn images_of_each_filesystem_are_made_mounted_and_gone_after_the_drop() {
    if !require::loop_devices() {
        return;
    }
    for (fs, size) in [("ext4", 16 * MIB), ("xfs", 320 * MIB), ("btrfs", 128 * MIB)] {
        if !require::program(&format!("mkfs.{fs}")) {
            continue;
        }
        let mounted = mounts::loop_fs(fs, size).unwrap();
        let at = mounted.path().to_owned();
        assert_eq!(kind(&mountinfo(&at).unwrap()), fs);
        fs::write(at.join("a"), b"x").unwrap();
        // Busy, so the unmount has to be a lazy one.
        let busy = File::open(at.join("a")).unwrap();
        drop(mounted);
        assert_eq!(mountinfo(&at), None);
        drop(busy);
        assert!(!at.exists());
    }
}

#[test]
fn a_tmpfs_takes_options_and_can_be_made_read_only() {
    if !require::root() {
        return;
    }
    let small = mounts::tmpfs_with("size=64k").unwrap();
    assert_eq!(kind(&mountinfo(small.path()).unwrap()), "tmpfs");
    let full = fs::write(small.path().join("a"), vec![0; 1 << 17]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    small.read_only(true).unwrap();
    let read_only = fs::write(small.path().join("b"), b"x").unwrap_err();
    assert_eq!(read_only.raw_os_error(), Some(libc::EROFS));
    small.read_only(false).unwrap();
    fs::write(small.path().join("b"), b"").unwrap();
}

#[test]
fn an_overlay_writes_to_its_upper_directory_only() {
    if !require::root() {
        return;
    }
    let base = mounts::tmpfs().unwrap();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| base.path().join(name));
    for dir in [&lower, &upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(lower.join("a"), b"lower").unwrap();
    let overlay = mounts::overlay(&lower, &upper, &work).unwrap();
    assert_eq!(kind(&mountinfo(overlay.path()).unwrap()), "overlay");
    fs::write(overlay.path().join("a"), b"changed").unwrap();
    assert_eq!(fs::read(lower.join("a")).unwrap(), b"lower");
    assert_eq!(fs::read(upper.join("a")).unwrap(), b"changed");
}

#[test]
fn bind_mounts_of_directories_and_files_show_the_original_until_they_are_dropped() {
    if !require::root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("a"), b"a").unwrap();
    fs::write(to.join("b"), b"b").unwrap();
    let bound = mounts::bind(&from, &to).unwrap();
    assert_eq!(fs::read(bound.path().join("a")).unwrap(), b"a");
    drop(bound);
    assert_eq!(fs::read(to.join("b")).unwrap(), b"b");

    let bound = mounts::bind_file(&from.join("a"), &to.join("b")).unwrap();
    let inode = |path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(bound.path().to_owned()), inode(from.join("a")));
    drop(bound);
    assert_eq!(fs::read(to.join("b")).unwrap(), b"b");
    let error = mounts::bind_file(&from, &to.join("b")).unwrap_err();
    assert!(error.to_string().contains("from"), "{error}");
}

#[test]
fn a_failed_mkfs_says_why() {
    if !require::loop_devices() || !require::program("mkfs.ext4") {
        return;
    }
    let error = mounts::loop_fs("ext4", 1024).unwrap_err();
    assert!(error.to_string().contains("mkfs.ext4"), "{error}");
}
