//! Which processes have a file open.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has the file open, as far as the kernel shows its files to this user.
pub(super) fn one_of(path: &Path) -> Option<u32> {
    one_besides(path, None)
}

/// The same, but for a descriptor of this process.
pub(crate) fn one_besides(path: &Path, own: Option<BorrowedFd<'_>>) -> Option<u32> {
    let own = own.map(|own| own.as_raw_fd().to_string());
    let wanted = std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok()?;
    let processes = std::fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let is_own =
            |name: &std::ffi::OsStr| number == std::process::id() && own.as_deref().is_some_and(|own| name == own);
        let has = files.flatten().filter(|file| !is_own(&file.file_name())).any(|file| {
            // What the link leads to, without opening it.
            std::fs::metadata(file.path()).is_ok_and(|found| (found.dev(), found.ino()) == wanted)
        });
        if has {
            return Some(number);
        }
    }
    None
}
