//! How a handle for locks is opened.

use std::fs::File;
use std::io;
use std::path::Path;

/// How a handle on a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Such a handle takes no exclusive locks.
    pub(crate) read_only: bool,
    /// For a server of SMB. Linux lets opens of a file with the same flags share one handle on the server, and with it the locks:
    /// who gives his up takes away those of others. It shares handles that can be read; one that can only be written is its own.
    pub(crate) apart: bool,
}

impl Manner {
    pub(crate) const fn plain(read_only: bool) -> Manner {
        Manner { read_only, apart: false }
    }

    /// On SMB also who only reads locks exclusively, if he may. Nothing is written through this handle.
    pub(super) fn open(&mut self, path: &Path) -> io::Result<File> {
        if self.apart {
            match File::options().write(true).open(path) {
                Err(error) if self.read_only && error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) if self.read_only && error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
                opened => {
                    self.read_only = false;
                    return opened;
                }
            }
        }
        File::options().read(true).write(!self.read_only).open(path)
    }
}
