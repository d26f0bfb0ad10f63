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
            _ => refusal(os(errno, code), "see the operating system's message"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(path, code, errno, create),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let file = path.ancestors().find(|ancestor| ancestor.is_file()).unwrap_or(path);
            refusal(format!("{} is a file, not a directory", file.display()), "correct the path")
        }
        Err(error) => refusal(error.to_string(), "check the directories of the path"),
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
        _ => refusal(os(errno, code), "see the operating system's message"),
    }
}

fn os(errno: i32, code: i32) -> String {
    if errno == 0 {
        format!("the base VFS failed with code {code}")
    } else {
        format!("{} (code {code})", io::Error::from_raw_os_error(errno))
    }
}
