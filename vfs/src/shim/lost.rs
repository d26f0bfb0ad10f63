//! A connection whose WAL-index was cut off: see [`crate::shm`].

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::edge::guarded;
use super::file::{Kind, State};
use crate::main_file::MainFile;

impl State {
    /// Why nothing is read from or written to the database or its log any more: what the WAL-index said is not known.
    #[inline]
    pub(super) fn lost(&self) -> Option<c_int> {
        let main = match &self.kind {
            Kind::Main(main) => main,
            Kind::Wal(journal) => journal.owner()?,
            Kind::Journal(_) | Kind::Other => return None,
        };
        main.index_lost.load(Ordering::Acquire).then(|| tell_lost(main))
    }
}

/// Says that the WAL-index is lost; the code for it.
#[cold]
pub(super) fn tell_lost(main: &MainFile) -> c_int {
    guarded(ffi::SQLITE_IOERR_SHMMAP, || {
        main.warn(
            "index-lost",
            "its -shm file was cut off by somebody else while it was in use, so this connection cannot know any more which \
             transactions are in the log; nothing is read or written through it: close it and open the database again, \
             which reads the log anew, and find out who touches the files"
                .into(),
        );
        ffi::SQLITE_IOERR_SHMMAP
    })
}
