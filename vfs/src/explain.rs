//! Why an open failed, in words: what stands at the path, and what to do about it.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::refusal::Refusal;

/// The refusal for an open that the base failed with `code` and `errno` (0 if it has none). `create`: the file was to be
/// created if missing.
pub(crate) fn failed_open(path: &Path, code: i32, errno: i32, create: bool) -> Refusal {
    let refusal = |reason: String, hint: &str| Refusal::new(path, code, reason).hint(hint);
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => refusal("it is a directory".into(), "name a file in it"),
        Ok(found) if !found.is_file() => {
            let kind = found.file_type();
            let what = if kind.is_fifo() {
                "a pipe"
            } else if kind.is_socket() {
                "a socket"
            } else {
                "a device"
            };
            refusal(format!("it is {what}, not a file"), "name a regular file")
        }
        Ok(found) => match io::Error::from_raw_os_error(errno).kind() {
            io::ErrorKind::PermissionDenied => refusal(
                format!(
                    "no permission: its mode is {:04o} and its owner {}, this process runs as user {}",
                    found.mode() & 0o7777,
                    found.uid(),
                    rustix::process::geteuid().as_raw()
                ),
                "run as its owner or change its mode",
            ),
            _ => by_number(path, code, errno),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(path, code, errno, create),
        Err(error) => unreachable(path, code, &error),
    }
}

/// The refusal for a path that the base could not even make absolute, failing with `code`, or that leaves no room for the
/// names of its journals in the `longest` bytes that SQLite has for a path.
pub(crate) fn failed_path(path: &Path, code: i32, longest: usize) -> Refusal {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match std::fs::metadata(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => unreachable(path, code, &error),
        _ => {
            let length = path.as_os_str().len();
            let reason = format!(
                "its path has {length} bytes, and with -journal behind it must not have more than SQLite's {longest}"
            );
            Refusal::new(path, code, reason).hint("choose a shorter path")
        }
    }
}

/// The path leads nowhere because of `error`, which is another than that something is missing.
fn unreachable(path: &Path, code: i32, error: &io::Error) -> Refusal {
    let refusal = |reason: String, hint: &str| Refusal::new(path, code, reason).hint(hint);
    // The last place that can still be seen, and the first that cannot.
    let seen = path.ancestors().find(|ancestor| ancestor.metadata().is_ok()).unwrap_or(path);
    match error.raw_os_error() {
        Some(libc::ENOTDIR) => refusal(format!("{} is a file, not a directory", seen.display()), "correct the path"),
        Some(libc::EACCES) => refusal(
            format!("no permission to look into {}", seen.display()),
            "run as a user who may enter it, or change its mode",
        ),
        Some(libc::ELOOP) => {
            let link = path.ancestors().take_while(|ancestor| *ancestor != seen).last().unwrap_or(path);
            refusal(format!("{} is a symbolic link that leads back to itself", link.display()), "correct the link")
        }
        Some(libc::ENAMETOOLONG) => refusal("the name is too long".into(), "choose a shorter one"),
        _ => refusal(error.to_string(), "check the directories of the path"),
    }
}

fn missing(path: &Path, code: i32, errno: i32, create: bool) -> Refusal {
    let refusal = |reason: String, hint: &str| Refusal::new(path, code, reason).hint(hint);
    if std::fs::symlink_metadata(path).is_ok() {
        return refusal("it is a symbolic link to nothing".into(), "correct or remove the link");
    }
    let parent = path.parent().unwrap_or(path);
    if !parent.exists() {
        return refusal(format!("the directory {} does not exist", parent.display()), "create it first");
    }
    if !create {
        return refusal("there is no such file, and it was not to be created".into(), "check the name");
    }
    // The base tries again for reading only, and that error is the one left.
    let errno = if errno == libc::ENOENT { why_not_created(parent) } else { errno };
    match errno {
        libc::EACCES | libc::EPERM => refusal(
            format!("no permission to create a file in {}", parent.display()),
            "choose another directory or change its mode",
        ),
        libc::EROFS => {
            refusal(format!("{} is on a read-only filesystem", parent.display()), "choose another directory")
        }
        libc::ENOSPC | libc::EDQUOT => {
            refusal(format!("no space left in {}", parent.display()), "make room; nothing was written")
        }
        libc::ENAMETOOLONG => refusal("the name is too long".into(), "choose a shorter one"),
        _ => by_number(path, code, errno),
    }
}

/// The number of the error with which a file cannot be created in `directory`, as far as it can be seen without trying.
fn why_not_created(directory: &Path) -> i32 {
    use rustix::fs::{Access, access, statvfs};
    match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Err(error) => error.raw_os_error(),
        // Some filesystems have no number of files to run out of, and say 0.
        Ok(()) => match statvfs(directory) {
            Ok(left) if left.f_bavail == 0 || (left.f_files > 0 && left.f_favail == 0) => libc::ENOSPC,
            _ => libc::ENOENT,
        },
    }
}

/// Nothing is wrong with the path: only the number tells.
fn by_number(path: &Path, code: i32, errno: i32) -> Refusal {
    match errno {
        0 => Refusal::new(path, code, format!("the base VFS failed with code {code}")),
        libc::EMFILE => Refusal::new(path, code, "this process has as many open files as it may have")
            .hint("close some, or raise the limit (ulimit -n)"),
        libc::ENFILE => Refusal::new(path, code, "this machine has as many open files as it may have")
            .hint("close programs, or raise fs.file-max"),
        _ => Refusal::new(path, code, format!("{} (code {code})", io::Error::from_raw_os_error(errno))),
    }
}
