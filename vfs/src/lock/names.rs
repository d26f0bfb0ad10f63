//! A file with more than one name (a hard link) has more than one journal and more than one -wal: two connections that opened it
//! by different names do not see each other's, and corrupt it.
//!
//! So each connection claims its name with a shared lock on a byte of its own behind SQLite's, and whoever opens a file with
//! several names looks for the claims of others. Stock connections claim nothing, and are not noticed. Invariant: of two
//! connections of ours that are open at the same time by different names, the later one has been refused.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ofd::Handle;
use super::{ALL, Bytes, Range};

/// Claims begin behind the byte that `try_out` uses.
const FIRST: i64 = ALL.start + ALL.length + 1;

/// How many bytes there are for names; two names on the same byte are taken for one.
const COUNT: i64 = 1 << 24;

/// Claims the name by which the file was opened; `false` if somebody uses it by another one.
///
/// # Errors
/// If the filesystem refuses the locks.
pub(super) fn claim(handle: &Handle, path: &Path) -> io::Result<bool> {
    let mine = Range { start: FIRST + byte(path)?, length: 1 };
    // Nobody takes them exclusively.
    let _claimed = handle.take(mine, false)?;
    if handle.stat().is_none_or(|found| found.st_nlink < 2) {
        return Ok(true);
    }
    let before = Range { start: FIRST, length: mine.start - FIRST };
    let behind = Range { start: mine.start + 1, length: FIRST + COUNT - mine.start - 1 };
    for others in [before, behind] {
        // A length of 0 would mean everything.
        if others.length > 0 && handle.taken(others)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same for every path that leads to the same entry of the same directory, also on another host: hard links do not leave a
/// filesystem, whose number is another one on each host that has mounted it.
fn byte(path: &Path) -> io::Result<i64> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::fs::metadata(directory)?;
    let sum = crc32c::crc32c(&directory.ino().to_le_bytes());
    let sum = crc32c::crc32c_append(sum, path.file_name().unwrap_or(OsStr::new("")).as_bytes());
    Ok(i64::from(sum) % COUNT)
}
