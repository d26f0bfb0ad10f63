//! What an SMB server has, where its client answers from what it remembers.
//!
//! A Linux client believes for a second that a name is there, or that it is not, whatever other clients do
//! (`docs/filesystems.md`). A journal that is missed is a transaction of a dead writer that is not undone. And it keeps a file
//! open on the server for a second after the last close: meanwhile nobody can open or make a file of a name that another client
//! has removed, while the one that keeps it open still finds it there.
//!
//! Invariant: nothing is made and nothing is changed on the server.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, StatxFlags};
use rustix::io::Errno;

/// Whether a file of this name is there that is not empty. It is closed at once by whoever has it open on this host.
///
/// # Errors
/// If it cannot be told.
pub(crate) fn is_there(path: &Path) -> io::Result<bool> {
    if !is_named(path)? {
        return Ok(false);
    }
    // The client asks the server, and takes nothing that it has open itself: it never shares a handle that cannot be read.
    let open = |reading: bool| File::options().read(reading).write(!reading).custom_flags(libc::O_NOFOLLOW).open(path);
    let opened = match open(false) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            open(true)
        }
        opened => opened,
    };
    match opened {
        Ok(file) => {
            close_at_once(&file);
            // One that can be read may be that of somebody here, of which the client remembers the size.
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
            Ok(rustix::fs::statx(&file, c"", flags, StatxFlags::SIZE)?.stx_size > 0)
        }
        // It is being removed, or was.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the server has the name, or has had it within a second.
fn is_named(path: &Path) -> io::Result<bool> {
    // Before a name is made the server is asked for it. This one never is, since a link cannot lead to another filesystem.
    match rustix::fs::linkat(CWD, c"/proc/self", CWD, path, AtFlags::empty()) {
        Err(Errno::EXIST) => Ok(true),
        Err(Errno::XDEV | Errno::ROFS) => Ok(false),
        // The list of names comes from the server too, and corrects what the client remembers.
        _ => listed(path),
    }
}

fn listed(path: &Path) -> io::Result<bool> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    for entry in std::fs::read_dir(directory)? {
        if entry?.file_name() == name {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the client close the file on the server when it is closed here. It does so once the file has been told about locks.
pub(crate) fn close_at_once(file: &File) {
    // There is none, so the server hears nothing of it.
    let _ = rustix::fs::fcntl_lock(file, FlockOperation::Unlock);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_if_its_file_is_and_is_not_empty_and_none_is_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db-journal");
        assert!(!is_there(&path).unwrap() && !is_named(&path).unwrap() && !listed(&path).unwrap());
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        std::fs::write(&path, "").unwrap();
        assert!(!is_there(&path).unwrap() && is_named(&path).unwrap() && listed(&path).unwrap());
        std::fs::write(&path, "x").unwrap();
        assert!(is_there(&path).unwrap());
        assert!(is_there(&home.path().join("none/app.db-journal")).is_err());
    }
}
