//! A file that is reached by more than one name has more than one journal and more than one -wal: two connections that opened it
//! by different names do not see each other's, and corrupt it. The names may be hard links, the file may be mounted alone
//! at a second place, as containers do it, or it may have been renamed while it was open. Only the first shows in the
//! number of its links.
//!
//! So each connection claims its name with a shared lock on a byte of its own behind SQLite's, and looks for the claims of
//! others. Stock connections claim nothing, and are not noticed. Invariant: of two connections of ours that are open at the
//! same time by different names, the later one has been refused.

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
    let mine = Range { start: FIRST + byte(handle, path)?, length: 1 };
    // Nobody takes them exclusively.
    let _claimed = handle.take(mine, false)?;
    // Of whoever is there the kernel tells one, which may have the same name and hide another one.
    if !handle.taken(Range { start: FIRST, length: COUNT })? {
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

/// The same for every path that leads to the same entry of the same directory, also on another host, where the number of the
/// filesystem is another one.
fn byte(handle: &Handle, path: &Path) -> io::Result<i64> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::fs::metadata(directory)?;
    let mut sum = crc32c::crc32c(&directory.ino().to_le_bytes());
    if directory.dev() != handle.identity().0 {
        // A file from another filesystem is mounted here: elsewhere a directory may have the same number.
        sum = crc32c::crc32c_append(sum, &directory.dev().to_le_bytes());
    }
    Ok(i64::from(crc32c::crc32c_append(sum, &folded(path.file_name().unwrap_or(OsStr::new(""))))) % COUNT)
}

/// Without the difference between large and small letters: some directories make none.
fn folded(name: &OsStr) -> Vec<u8> {
    match name.to_str() {
        // Letter by letter: what a letter becomes does not depend on those beside it.
        Some(name) => name.chars().flat_map(char::to_lowercase).collect::<String>().into_bytes(),
        None => name.as_bytes().to_ascii_lowercase(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_byte_however_it_is_spelled_and_names_of_a_directory_have_different_ones() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("Äpp.db");
        std::fs::write(&path, "").unwrap();
        std::fs::create_dir(home.path().join("other")).unwrap();
        std::os::unix::fs::symlink(home.path(), home.path().join("link")).unwrap();
        let handle = Handle::open(&path, false).unwrap();
        let byte = |path: &Path| byte(&handle, path).unwrap();
        for same in ["Äpp.db", "äPP.DB", "./äpp.db", "link/äpp.db", "other/../äpp.db"] {
            assert_eq!(byte(&home.path().join(same)), byte(&path), "{same}");
        }
        for other in ["app.db", "Äpp.dbx", "other/Äpp.db"] {
            assert_ne!(byte(&home.path().join(other)), byte(&path), "{other}");
        }
    }
}
