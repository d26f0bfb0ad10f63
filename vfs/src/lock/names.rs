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

use super::fork::PerProcess;
use super::handles::Registered;
use super::number::is_not;
use super::ofd::Handle;
use super::parked::Identity;
use super::{ALL, Bytes, Range};

/// Claims begin behind the byte that `try_out` uses.
const FIRST: i64 = ALL.start + ALL.length + 1;

/// How many bytes there are for names; two names on the same byte are taken for one.
const COUNT: i64 = 1 << 24;

/// The claims of this process, each by the handle that has it.
static CLAIMED: PerProcess<Vec<(Identity, i64, Registered)>> = PerProcess::new(|_| Vec::new());

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody else has a lock on the file.
    Alone,
    Agreed,
    /// Somebody uses it by another name.
    Refused,
}

/// Claims the name by which the file was opened.
///
/// # Errors
/// If the filesystem refuses the locks.
pub(super) fn claim(handle: &Handle, path: &Path) -> io::Result<Claim> {
    let mine = Range { start: FIRST + byte(handle, path)?, length: 1 };
    // Nobody takes them exclusively.
    let _claimed = handle.take(mine, false)?;
    let claim = match is_claimed(handle.identity(), mine.start) {
        true => Claim::Agreed,
        false => look(handle, mine)?,
    };
    if claim != Claim::Refused {
        handle.claimed(mine.start);
    }
    Ok(claim)
}

/// Whether another handle of this process has claimed the same byte and has it still: whoever came by another name since was refused.
fn is_claimed(identity: Identity, byte: i64) -> bool {
    let by =
        || CLAIMED.lock().iter().find(|(file, claimed, _)| (*file, *claimed) == (identity, byte)).map(|(.., by)| *by);
    // Its number may mean something else by now. After that look it must be there still.
    by().is_some_and(|other| !is_not(other, identity) && by().is_some_and(|by| by.is(other)))
}

pub(super) fn remember(identity: Identity, byte: i64, by: Registered) {
    CLAIMED.lock().push((identity, byte, by));
}

/// Before the lock is given back.
pub(super) fn forget(identity: Identity, byte: i64, by: Registered) {
    let mut claimed = CLAIMED.lock();
    if let Some(at) = claimed.iter().position(|(file, of, with)| (*file, *of) == (identity, byte) && with.is(by)) {
        claimed.swap_remove(at);
    }
}

/// Whether others are there, and by which names.
fn look(handle: &Handle, mine: Range) -> io::Result<Claim> {
    if !handle.taken(Range { start: 0, length: FIRST + COUNT })? {
        return Ok(Claim::Alone);
    }
    // Of whoever is there the kernel tells one, which may have the same name and hide another one.
    if !handle.taken(Range { start: FIRST, length: COUNT })? {
        return Ok(Claim::Agreed);
    }
    let before = Range { start: FIRST, length: mine.start - FIRST };
    let behind = Range { start: mine.start + 1, length: FIRST + COUNT - mine.start - 1 };
    for others in [before, behind] {
        // A length of 0 would mean everything.
        if others.length > 0 && handle.taken(others)? {
            return Ok(Claim::Refused);
        }
    }
    Ok(Claim::Agreed)
}

/// The same for every path that leads to the same entry of the same directory, also on another host, where the number of the
/// filesystem is another one.
fn byte(handle: &Handle, path: &Path) -> io::Result<i64> {
    let (device, inode) = match handle.directory() {
        Some(directory) => directory,
        None => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let found = std::fs::metadata(directory)?;
            (found.dev(), found.ino())
        }
    };
    let mut sum = crc32c::crc32c(&inode.to_le_bytes());
    if device != handle.identity().0 {
        // A file from another filesystem is mounted here: elsewhere a directory may have the same number.
        sum = crc32c::crc32c_append(sum, &device.to_le_bytes());
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
