//! The WAL-index of a connection: the -shm file, mapped and locked by us in place of the operating system's VFS.
//!
//! The file, its 32 KiB regions, its lock bytes and the rules of who may empty it are SQLite's own
//! (<https://www.sqlite.org/walformat.html>), so stock and hardened connections share one database in every combination.
//! What differs: each connection has a handle of its own with locks of the open file description, so that no close()
//! elsewhere in the process drops them, and the kernel arbitrates between connections, threads and processes alike.
//!
//! Invariants. The dead-man switch is held shared for as long as anything is mapped; whoever has it exclusively is alone and
//! may empty the file. A mapping that lost its file ([`fault`]) is lost for good: every further call but an unlock fails, and
//! the files of the connection refuse to be read and written ([`crate::main_file::MainFile::index_lost`]).

#[cfg(target_os = "linux")]
mod fault;
#[cfg(target_os = "linux")]
mod index;
#[cfg(target_os = "linux")]
mod locks;
#[cfg(target_os = "linux")]
mod regions;

#[cfg(target_os = "linux")]
pub(crate) use fault::forget_inherited;
use std::path::PathBuf;
use std::time::Instant;

use crate::journal_file::Access;
use crate::main_file::MainFile;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::Index;
#[cfg(target_os = "linux")]
pub(crate) use index::Index;

/// Where the WAL-index of a database is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The -shm file.
    pub(crate) path: PathBuf,
    /// Whose permissions and owner it gets.
    pub(crate) database: PathBuf,
    /// The URI said `readonly_shm=1`.
    pub(crate) read_only: bool,
    /// The identity of the database, and who may read and write it, as it was seen at this time.
    pub(crate) fresh: Option<((u64, u64), Instant, Access)>,
}

/// The WAL-index of a database whose base would keep it in a -shm file of the operating system; `None` where it stays the
/// base's. Nothing is opened before SQLite asks for it.
#[cfg(target_os = "linux")]
pub(crate) fn for_file(main: &MainFile, off: bool, place: impl FnOnce() -> Place) -> Option<Index> {
    use crate::main_file::Access as Mode;
    let locking = matches!(main.access, Mode::ReadWrite | Mode::ReadOnly);
    let ours = main.native && main.base == "unix" && locking && !off;
    ours.then(|| Index::new(place(), std::sync::Arc::clone(&main.index_lost)))
}

/// Only Linux has locks of an open file description.
#[cfg(not(target_os = "linux"))]
pub(crate) fn for_file(_: &MainFile, _: bool, _: impl FnOnce() -> Place) -> Option<Index> {
    None
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::ffi::{c_int, c_void};

    /// Never there.
    #[derive(Debug)]
    pub(crate) struct Index(std::convert::Infallible);

    impl Index {
        pub(crate) fn is_ours(&self) -> bool {
            match self.0 {}
        }
        pub(crate) fn is_dead(&self) -> bool {
            match self.0 {}
        }
        pub(crate) fn is_whole(&self) -> bool {
            match self.0 {}
        }
        pub(crate) fn handle_lost(&self) -> Option<std::io::Error> {
            match self.0 {}
        }
        pub(crate) fn path(&self) -> &std::path::Path {
            match self.0 {}
        }
        pub(crate) fn identity(&self) -> Option<(u64, u64)> {
            match self.0 {}
        }
        pub(crate) fn is_shared(&self) -> bool {
            match self.0 {}
        }
        pub(crate) fn has_readers(&self) -> bool {
            match self.0 {}
        }
        pub(crate) fn reads_or_checkpoints(&self) -> bool {
            match self.0 {}
        }
        pub(crate) fn map(&self, _: c_int, _: c_int, _: bool) -> (c_int, *mut c_void) {
            match self.0 {}
        }
        pub(crate) fn lock(&self, _: c_int, _: c_int, _: c_int, _: bool) -> Option<c_int> {
            match self.0 {}
        }
        pub(crate) fn unmap(&self, _: bool) -> c_int {
            match self.0 {}
        }
    }
}
