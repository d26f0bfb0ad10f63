//! Verdicts on the filesystems of this machine.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::{Class, Facts, Mount, MountTable, Problem, Source, Verdict, classify, decide};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{mounts, process, require};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

fn verdict(path: impl AsRef<Path>) -> Verdict {
    classify(path.as_ref(), LIMIT).unwrap_or_else(|problem| panic!("{}: {problem}", path.as_ref().display()))
}

/// What the mount table says about a path without links.
fn listed(path: &Path) -> Mount {
    let table = MountTable::parse(&fs::read("/proc/self/mountinfo").unwrap());
    table.covering(path).unwrap().clone()
}

/// A directory whose path has no links.
fn room() -> (TempDir, PathBuf) {
    let dir = TempDir::with_prefix("hardened-live-").unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

/// A directory on the tmpfs that every Linux has.
fn in_shared_memory() -> Option<(TempDir, PathBuf)> {
    let shm = Path::new("/dev/shm").canonicalize().ok().filter(|shm| listed(shm).facts.name().unwrap() == "tmpfs");
    let Some(dir) = shm.and_then(|shm| TempDir::with_prefix_in("hardened-live-", shm).ok()) else {
        require::unavailable("a tmpfs at /dev/shm that can be written to");
        return None;
    };
    let path = dir.path().to_owned();
    Some((dir, path))
}

fn io_problem(path: &Path) -> (PathBuf, io::Error, String) {
    let problem = classify(path, LIMIT).expect_err("there is something wrong with the path");
    let text = problem.to_string();
    match problem {
        Problem::Io { at, error } => (at, error, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_root_is_what_the_mount_table_says() {
    let mount = listed(Path::new("/"));
    let expected = decide(&Facts::of(mount.facts));
    let found = verdict("/");
    assert_eq!(found.filesystem, expected.filesystem);
    assert_eq!((&found.source, &found.mount_point), (&expected.source, &expected.mount_point));
    assert_eq!(found.mount_point.as_deref(), Some(Path::new("/")));
    assert!(matches!(found.from, Source::Statmount | Source::MountTable), "{found:?}");
    let sorted = |mut options: Vec<String>| {
        options.sort();
        options
    };
    assert_eq!(sorted(found.options.clone()), sorted(expected.options));
    // The upper layer of an overlay may be found, and be worse.
    if expected.filesystem != "overlay" {
        assert_eq!((found.class, found.wal, found.locks), (expected.class, expected.wal, expected.locks));
        assert_eq!(found.reason, expected.reason);
    }
}

#[test]
fn a_file_in_a_missing_directory_is_judged_by_the_nearest_directory_that_exists() {
    let Some((_guard, dir)) = in_shared_memory() else { return };
    let here = verdict(&dir);
    assert_eq!((here.filesystem.as_str(), here.class, here.wal), ("tmpfs", Class::Local, true));
    for path in ["x.db", "no/x.db", "no/such/directory/x.db"] {
        assert_eq!(verdict(dir.join(path)), here, "{path}");
    }
    File::create(dir.join("x.db")).unwrap();
    assert_eq!(verdict(dir.join("x.db")), here);
}

#[test]
fn links_are_followed_to_the_filesystem_they_lead_to() {
    let Some((_guard, shm)) = in_shared_memory() else { return };
    let (_keep, dir) = room();
    let here = verdict(dir.join("x.db"));
    fs::create_dir(shm.join("sub")).unwrap();
    symlink(shm.join("sub"), dir.join("absolute")).unwrap();
    symlink("absolute", dir.join("chain")).unwrap();
    symlink(shm.join("new.db"), dir.join("dangling.db")).unwrap();
    File::create(shm.join("there.db")).unwrap();
    symlink(shm.join("there.db"), dir.join("file.db")).unwrap();
    symlink(&dir, shm.join("back")).unwrap();
    for path in ["absolute/x.db", "chain/x.db", "chain", "dangling.db", "file.db", "chain/../x.db"] {
        let found = verdict(dir.join(path));
        assert_eq!(found.filesystem, "tmpfs", "{path}: {found}");
        assert_eq!(found.mount_point, verdict(&shm).mount_point, "{path}");
    }
    assert_eq!(verdict(dir.join("x.db")), here, "what was learnt about a link says nothing about its neighbours");
    assert_eq!(verdict(shm.join("back/x.db")), here);
    assert_eq!(verdict(shm.join("sub/../back/./x.db")), here);
}

#[test]
fn a_relative_path_begins_in_the_current_directory() {
    let current = std::env::current_dir().unwrap().canonicalize().unwrap();
    for path in ["x.db", "./x.db", "no/x.db", "tests/../x.db"] {
        assert_eq!(verdict(path), verdict(current.join("x.db")), "{path}");
    }
    assert_eq!(verdict("../x.db"), verdict(current.parent().unwrap().join("x.db")));
    let mut up = PathBuf::new();
    (0..64).for_each(|_| up.push(".."));
    assert_eq!(verdict(up.join("x.db")), verdict("/x.db"), "above the root is the root");
    assert_eq!(verdict(up.join("proc/x.db")).filesystem, "proc");
}

#[test]
fn a_circle_of_links_is_an_error_that_names_the_place() {
    let (_keep, dir) = room();
    symlink("b", dir.join("a")).unwrap();
    symlink("a", dir.join("b")).unwrap();
    let (at, error, text) = io_problem(&dir.join("a/x.db"));
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    assert!(at.starts_with(&dir), "{}", at.display());
    assert!(text.starts_with(dir.to_str().unwrap()), "{text}");
}

#[test]
fn as_many_links_are_followed_as_linux_follows() {
    let (_keep, dir) = room();
    File::create(dir.join("0")).unwrap();
    for link in 1..=42 {
        symlink((link - 1).to_string(), dir.join(link.to_string())).unwrap();
    }
    // Not compared with stat(2), which counts links twice when a mount elsewhere makes it start again.
    for link in 0..=40 {
        assert_eq!(verdict(dir.join(link.to_string())), verdict(dir.join("0")), "{link} links");
    }
    for link in 41..=42 {
        assert_eq!(io_problem(&dir.join(link.to_string())).1.raw_os_error(), Some(libc::ELOOP), "{link} links");
    }
}

#[test]
fn a_file_where_a_directory_should_be_is_an_error_that_names_the_file() {
    let (_keep, dir) = room();
    File::create(dir.join("file")).unwrap();
    let (at, error, text) = io_problem(&dir.join("file/x.db"));
    assert_eq!((at, error.raw_os_error()), (dir.join("file"), Some(libc::ENOTDIR)));
    assert!(text.starts_with(dir.join("file").to_str().unwrap()), "{text}");
    symlink("file", dir.join("link")).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    symlink("sub/..", dir.join("round")).unwrap();
    for path in ["link/sub/x.db", "sub/../file/x.db", "./sub/.././link/x.db", "round/file/x.db"] {
        let (at, error, _) = io_problem(&dir.join(path));
        assert_eq!((at, error.raw_os_error()), (dir.join("file"), Some(libc::ENOTDIR)), "{path}");
    }
}

/// An overlay with all its layers on `base`.
fn overlay_on(base: &mounts::Mounted) -> mounts::Mounted {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| base.path().join(name));
    for dir in [&lower, &upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    mounts::overlay(&lower, &upper, &work).unwrap()
}

#[test]
fn a_mount_over_a_directory_counts_while_it_is_there_and_no_longer() {
    if !require::root() {
        return;
    }
    let (_keep, dir) = room();
    let path = dir.join("x.db");
    let tmpfs = mounts::tmpfs_with("ro").unwrap();
    let base = mounts::tmpfs().unwrap();
    let overlay = overlay_on(&base);
    let before = verdict(&path);
    for round in 0..3 {
        let first = mounts::bind(tmpfs.path(), &dir).unwrap();
        // Twice: the second time from what is remembered.
        for _ in 0..2 {
            let found = verdict(&path);
            assert_eq!((found.filesystem.as_str(), found.mount_point.as_deref()), ("tmpfs", Some(&*dir)), "{round}");
            assert!(found.options.contains(&"ro".to_owned()), "{found:?}");
        }
        let second = mounts::bind(overlay.path(), &dir).unwrap();
        for _ in 0..2 {
            let found = verdict(&path);
            assert_eq!((found.filesystem.as_str(), found.wal), ("overlay", true), "{round}: {found}");
        }
        drop(second);
        assert_eq!(verdict(&path).filesystem, "tmpfs", "{round}");
        drop(first);
        assert_eq!(verdict(&path), before, "{round}");
    }
}

#[test]
fn a_mount_on_a_directory_made_later_is_seen() {
    if !require::root() {
        return;
    }
    let (_keep, dir) = room();
    let path = dir.join("later/x.db");
    let before = verdict(&path);
    fs::create_dir(dir.join("later")).unwrap();
    assert_eq!(verdict(&path), before);
    let tmpfs = mounts::tmpfs().unwrap();
    let mounted = mounts::bind(tmpfs.path(), &dir.join("later")).unwrap();
    assert_eq!(verdict(&path).mount_point.as_deref(), Some(&*dir.join("later")));
    drop(mounted);
    assert_eq!(verdict(&path), before);
}

#[test]
fn the_facts_about_a_mount_are_those_of_the_mount_table_to_the_byte() {
    if !require::root() {
        return;
    }
    let tmpfs = mounts::tmpfs().unwrap();
    let read_only = mounts::tmpfs().unwrap();
    read_only.read_only(true).unwrap();
    for (from, name) in [
        (&tmpfs, "plain"),
        (&tmpfs, "a space"),
        (&tmpfs, "tab\tand\nnewline"),
        (&tmpfs, "back\\slash"),
        (&tmpfs, "back\\040slash"),
        (&tmpfs, "comma,and\\,hash#"),
        (&read_only, "read only"),
    ] {
        let (_keep, dir) = room();
        let at = dir.join(name);
        fs::create_dir(&at).unwrap();
        let _mounted = mounts::bind(from.path(), &at).unwrap();
        let found = verdict(at.join("x.db"));
        assert_eq!(found.mount_point.as_deref(), Some(&*at), "{name:?}");
        let expected = decide(&Facts::of(listed(&at).facts));
        assert_eq!((found.filesystem, found.source), (expected.filesystem, expected.source), "{name:?}");
        assert_eq!((found.options, found.reason), (expected.options, expected.reason), "{name:?}");
    }
}

#[test]
fn an_overlay_is_local_while_its_upper_layer_is() {
    if !require::root() {
        return;
    }
    let base = mounts::tmpfs().unwrap();
    let overlay = overlay_on(&base);
    let found = verdict(overlay.path().join("x.db"));
    assert_eq!((found.filesystem.as_str(), found.class, found.wal), ("overlay", Class::Local, true));
    let upper = format!("upperdir={}", base.path().join("upper").display());
    assert_eq!(found.options, [upper]);
}

#[test]
fn a_file_that_is_a_mount_of_its_own_gets_no_wal_and_a_warning() {
    if !require::root() {
        return;
    }
    let base = mounts::tmpfs().unwrap();
    let (_keep, dir) = room();
    let [original, neighbour, onto] = [base.path().join("o.db"), base.path().join("n.db"), dir.join("x.db")];
    for file in [&original, &neighbour, &onto] {
        File::create(file).unwrap();
    }
    // In one directory, so that the directory is already known.
    let alone = verdict(&neighbour);
    assert_eq!((alone.wal, alone.warnings.len()), (true, 0));
    let elsewhere = verdict(&onto);
    for target in [&neighbour, &onto] {
        let mounted = mounts::bind_file(&original, target).unwrap();
        let found = verdict(target);
        assert!(!found.wal, "{found:?}");
        assert!(found.warnings.iter().any(|warning| warning.contains("mount of its own")), "{found:?}");
        assert_eq!(verdict(&original), alone);
        drop(mounted);
    }
    assert_eq!((verdict(&neighbour), verdict(&onto)), (alone, elsewhere));
}

/// The root of the second process of the test below, and who it is there.
const IN_CHROOT: &str = "HARDENED_TEST_CHROOT";

#[test]
fn an_empty_chroot_without_proc_still_has_a_verdict() {
    if let Some(told) = std::env::var_os(IN_CHROOT) {
        return in_chroot(told.to_str().unwrap());
    }
    if !require::root() {
        return;
    }
    let base = mounts::tmpfs().unwrap();
    // Not the root of the mount: the mount itself is out of the process's reach then.
    let root = base.path().join("root");
    fs::create_dir(&root).unwrap();
    for (who, from) in [("root", vec!["Statmount", "Statfs"]), ("nobody", vec!["Statfs"])] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_empty_chroot_without_proc_still_has_a_verdict", "--nocapture"])
            .env(IN_CHROOT, format!("{who}:{}", root.to_str().unwrap()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let line = said.lines().find_map(|line| line.split_once("VERDICT ")).expect(&said).1;
        let expected = from.iter().map(|from| format!("tmpfs local true {from}"));
        assert!(expected.clone().any(|expected| expected == line), "{who}: {line}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing was created");
}

fn in_chroot(told: &str) {
    let (who, root) = told.split_once(':').unwrap();
    rustix::process::chroot(root).unwrap();
    std::env::set_current_dir("/").unwrap();
    if who == "nobody" {
        process::set_user(65534);
    }
    assert!(fs::read_dir("/proc").is_err());
    let found = verdict("/x.db");
    assert_eq!(found, verdict("/no/such/x.db"));
    assert_eq!(found, verdict("x.db"));
    assert_eq!(found.warnings.len(), usize::from(found.from == Source::Statfs), "{found:?}");
    println!("VERDICT {} {} {} {:?}", found.filesystem, found.class, found.wal, found.from);
}
