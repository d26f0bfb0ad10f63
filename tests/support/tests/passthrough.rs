//! What a client sees of the FUSE filesystem is what the backing directory does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use setup::{mounted, plain};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use support::require;

#[test]
fn bytes_written_through_the_mount_are_in_the_backing_file_and_back() {
    let Some(fs) = plain() else { return };
    let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(fs.on("a"), &data).unwrap();
    assert_eq!(fs::read(fs.behind("a")).unwrap(), data);
    fs::write(fs.behind("b"), b"from behind").unwrap();
    assert_eq!(fs::read(fs.on("b")).unwrap(), b"from behind");
}

#[test]
fn appending_writes_go_to_the_end() {
    let Some(fs) = plain() else { return };
    fs::write(fs.on("a"), b"12").unwrap();
    let mut file = OpenOptions::new().append(true).open(fs.on("a")).unwrap();
    file.write_all(b"3").unwrap();
    file.write_all(b"4").unwrap();
    assert_eq!(fs::read(fs.behind("a")).unwrap(), b"1234");
}

#[test]
fn an_unlinked_open_file_keeps_its_data_and_takes_more() {
    let Some(fs) = plain() else { return };
    let mut file = File::options().create_new(true).read(true).write(true).open(fs.on("a")).unwrap();
    file.write_all(b"before").unwrap();
    let inode = file.metadata().unwrap().ino();
    fs::remove_file(fs.on("a")).unwrap();
    assert!(!fs.behind("a").exists());
    fs::write(fs.on("a"), b"a new file of the same name").unwrap();

    file.write_all(b" and after").unwrap();
    let mut text = [0; 16];
    file.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"before and after");
    let meta = file.metadata().unwrap();
    assert_eq!((meta.nlink(), meta.len(), meta.ino()), (0, 16, inode));
    file.set_len(3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3);
    assert_ne!(fs::metadata(fs.on("a")).unwrap().ino(), inode);
}

#[test]
fn a_rename_over_an_open_file_replaces_the_name_and_not_the_open_file() {
    let Some(fs) = plain() else { return };
    fs::write(fs.on("old"), b"old").unwrap();
    fs::write(fs.on("new"), b"newer").unwrap();
    let mut open = File::open(fs.on("old")).unwrap();
    let inode = fs::metadata(fs.on("new")).unwrap().ino();
    fs::rename(fs.on("new"), fs.on("old")).unwrap();

    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    assert_eq!(fs::read(fs.on("old")).unwrap(), b"newer");
    assert_eq!(fs::metadata(fs.on("old")).unwrap().ino(), inode);
    assert_eq!(fs::metadata(fs.on("new")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn hard_links_share_one_inode_whose_number_is_that_of_the_backing_file() {
    let Some(fs) = plain() else { return };
    fs::write(fs.on("a"), b"x").unwrap();
    fs::hard_link(fs.on("a"), fs.on("b")).unwrap();
    let (a, b) = (fs::metadata(fs.on("a")).unwrap(), fs::metadata(fs.on("b")).unwrap());
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    assert_eq!(a.ino(), fs::metadata(fs.behind("a")).unwrap().ino());
    fs::write(fs.on("b"), b"through b").unwrap();
    assert_eq!(fs::read(fs.on("a")).unwrap(), b"through b");
    fs::remove_file(fs.on("a")).unwrap();
    assert_eq!(fs::metadata(fs.on("b")).unwrap().nlink(), 1);
}

#[test]
fn attributes_can_be_set_and_reach_the_backing_file() {
    let Some(fs) = plain() else { return };
    let file = File::create(fs.on("a")).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    std::os::unix::fs::chown(fs.on("a"), Some(12), Some(34)).unwrap();
    file.set_len(12345).unwrap();
    for path in [fs.on("a"), fs.behind("a")] {
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640, "{path:?}");
        assert_eq!((meta.uid(), meta.gid(), meta.len()), (12, 34, 12345), "{path:?}");
    }
    file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    assert_eq!(fs::metadata(fs.behind("a")).unwrap().modified().unwrap(), time);
    truncate(&fs.on("a"), 7);
    assert_eq!(fs::metadata(fs.behind("a")).unwrap().len(), 7);
}

/// `truncate(2)`, which sends a SETATTR without an open file.
fn truncate(path: &Path, size: i64) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is NUL-terminated.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), size) }, 0);
}

#[test]
fn a_new_file_has_the_mode_that_was_asked_for_less_the_callers_umask() {
    let Some(fs) = plain() else { return };
    let shell = format!("umask 027; cd '{}' && : > file && mkdir dir && mkfifo pipe", fs.mount.path().display());
    assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
    let mode = |name| fs::metadata(fs.behind(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("file"), mode("dir"), mode("pipe")), (0o640, 0o750, 0o640));
    assert!(fs::metadata(fs.on("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn a_file_that_another_user_creates_is_theirs() {
    if !require::program("setpriv") {
        return;
    }
    let Some(fs) = mounted(|options| options.allow_other(true)) else {
        return;
    };
    fs::set_permissions(fs.mount.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mine = Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups", "touch"])
        .arg(fs.on("a"))
        .status()
        .unwrap();
    assert!(mine.success());
    let meta = fs::metadata(fs.behind("a")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (12345, 12345));
}

#[test]
fn directories_list_all_entries_with_their_kinds() {
    let Some(fs) = plain() else { return };
    fs::create_dir(fs.on("dir")).unwrap();
    symlink("file000", fs.on("link")).unwrap();
    // Enough for several READDIR answers.
    let files: BTreeSet<String> = (0..500).map(|i| format!("file{i:03}")).collect();
    for name in &files {
        File::create(fs.behind(name)).unwrap();
    }
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(fs.mount.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        assert_eq!(kind.is_dir(), name == "dir");
        assert_eq!(kind.is_symlink(), name == "link");
        assert!(seen.insert(name), "listed twice");
    }
    assert!(seen.remove("dir") && seen.remove("link"));
    assert_eq!(seen, files);
    assert_eq!(fs::read_link(fs.on("link")).unwrap(), Path::new("file000"));
    fs::remove_dir(fs.on("dir")).unwrap();
    assert!(!fs.behind("dir").exists());
}

#[test]
fn errors_of_the_backing_directory_come_through() {
    let Some(fs) = plain() else { return };
    fs::create_dir(fs.on("dir")).unwrap();
    fs::write(fs.on("dir/file"), b"").unwrap();
    let code = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    assert_eq!(code(fs::remove_dir(fs.on("dir"))), libc::ENOTEMPTY);
    assert_eq!(code(fs::create_dir(fs.on("dir"))), libc::EEXIST);
    assert_eq!(code(File::create_new(fs.on("dir/file")).map(drop)), libc::EEXIST);
    assert_eq!(code(File::open(fs.on("none")).map(drop)), libc::ENOENT);
    assert_eq!(code(fs::rename(fs.on("dir"), fs.on("dir/below"))), libc::EINVAL);
}

#[test]
fn a_read_only_mount_refuses_writes() {
    let Some(fs) = mounted(|options| options.read_only(true)) else {
        return;
    };
    fs::write(fs.behind("a"), b"x").unwrap();
    assert_eq!(fs::read(fs.on("a")).unwrap(), b"x");
    let error = fs::write(fs.on("b"), b"y").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
}

/// Maps the first page of a file, shared and writable.
fn map(file: &File) -> std::io::Result<*mut u8> {
    let (rw, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of an open file; the result is checked.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rw, shared, file.as_raw_fd(), 0) };
    if page == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(page.cast()) }
}

#[test]
fn two_shared_mappings_of_a_file_grown_by_write_or_by_truncate_see_each_other() {
    let Some(fs) = plain() else { return };
    for grow in [true, false] {
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(fs.on("m"));
        let (one, two) = (open().unwrap(), open().unwrap());
        if grow {
            one.write_all_at(&[0], 32767).unwrap();
        } else {
            one.set_len(0).unwrap();
            one.set_len(32768).unwrap();
        }
        let (a, b) = (map(&one).unwrap(), map(&two).unwrap());
        // SAFETY: both mappings are a page long and live until the unmap below.
        unsafe {
            a.add(100).write_volatile(7);
            assert_eq!(b.add(100).read_volatile(), 7);
            assert_eq!(libc::msync(a.cast(), 4096, libc::MS_SYNC), 0);
            libc::munmap(a.cast(), 4096);
            libc::munmap(b.cast(), 4096);
        }
        assert_eq!(fs::read(fs.behind("m")).unwrap()[100], 7);
    }
}

#[test]
fn direct_io_makes_a_shared_mapping_fail() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    fs::write(fs.behind("m"), [0; 4096]).unwrap();
    let file = File::options().read(true).write(true).open(fs.on("m")).unwrap();
    assert_eq!(map(&file).unwrap_err().raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn space_can_be_allocated_and_the_numbers_of_the_backing_filesystem_show() {
    let Some(fs) = plain() else { return };
    let file = File::create(fs.on("a")).unwrap();
    // SAFETY: an open file and plain numbers.
    assert_eq!(unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, 65536) }, 0);
    let meta = fs::metadata(fs.behind("a")).unwrap();
    assert_eq!((meta.len(), meta.blocks() >= 128), (65536, true));
    let numbers = |path: &Path| {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: all zeroes is a valid statvfs, which the call then fills.
        unsafe {
            let mut out: libc::statvfs = std::mem::zeroed();
            assert_eq!(libc::statvfs(path.as_ptr(), &mut out), 0);
            (out.f_blocks, out.f_files, out.f_bsize, out.f_namemax)
        }
    };
    assert_eq!(numbers(fs.mount.path()), numbers(fs.backing()));
}

#[test]
fn fsync_of_files_and_directories_succeeds() {
    let Some(fs) = plain() else { return };
    let file = File::create(fs.on("a")).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(fs.mount.path()).unwrap().sync_all().unwrap();
}

#[test]
fn access_goes_by_the_mode() {
    let Some(fs) = plain() else { return };
    fs::write(fs.behind("a"), b"").unwrap();
    let may = |mode: i32| {
        let path = CString::new(fs.on("a").as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated.
        unsafe { libc::access(path.as_ptr(), mode) == 0 }
    };
    fs::set_permissions(fs.behind("a"), fs::Permissions::from_mode(0o400)).unwrap();
    assert!(may(libc::R_OK | libc::W_OK), "we are root");
    assert!(!may(libc::X_OK), "nobody may execute it");
    fs::set_permissions(fs.behind("a"), fs::Permissions::from_mode(0o501)).unwrap();
    assert!(may(libc::X_OK));
}

#[test]
fn unmapping_dirty_pages_succeeds_while_other_threads_allocate() {
    let Some(fs) = plain() else { return };
    let file = File::options().create_new(true).read(true).write(true).open(fs.on("m")).unwrap();
    file.set_len(4096).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Every large allocation changes the memory map, which an unmap holds while the kernel sends
        // the dirty page.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        });
        for round in 0..200 {
            let page = map(&file).unwrap();
            // SAFETY: the mapping is a page long and not used after the unmap.
            unsafe {
                page.write_volatile(round);
                assert_eq!(libc::munmap(page.cast(), 4096), 0);
            }
            assert_eq!(fs::read(fs.behind("m")).unwrap()[0], round);
        }
        done.store(true, Ordering::Relaxed);
    });
}
