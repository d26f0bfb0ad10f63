//! Which processes have a file open.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has the file open, as far as the kernel shows its files to this user.
pub(super) fn one_of(path: &Path) -> Option<u32> {
    let wanted = std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok()?;
    let processes = std::fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let has = files.flatten().any(|file| {
            // What the link leads to, without opening it.
            std::fs::metadata(file.path()).is_ok_and(|found| (found.dev(), found.ino()) == wanted)
        });
        if has {
            return Some(number);
        }
    }
    None
}
