//! Files that a forked child has from its parent: everything on them fails, and nothing is harmed by closing them.
//!
//! Locks do not pass to a child, but its copy of the connection believes that it holds them: what it would write, roll back
//! or delete is in the middle of its parent's transaction. Nothing here waits for a mutex of ours, which a thread of the
//! parent may have held.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::bases;
use super::file::State;
use crate::lock::fork;
use crate::main_file;
use crate::notice;

/// What a child is told.
pub(crate) const TEXT: &str = "the connection was opened before fork(): it belongs to the parent process, and this one can only close it; open the \
     database again here";

/// `code`, and the reason in the log, once per child.
#[cold]
pub(crate) fn refuse(state: &State, code: c_int) -> c_int {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    if TOLD.swap(fork::count(), Ordering::Relaxed) != fork::count() {
        let path = state.main().map(|main| format!("{}: ", main.path.display())).unwrap_or_default();
        notice::say(&state.registration.speak, ffi::SQLITE_MISUSE, &format!("{path}{TEXT}"));
    }
    code
}

/// xClose in a child. Its copies of the descriptors go; what is behind the state in memory stays, because it refers to what
/// other threads of the parent may have been changing.
pub(crate) fn close(state: Box<State>) -> c_int {
    if let Some(main) = state.main() {
        main_file::forget_inherited(main);
    }
    let code = match &state.base {
        // Its locks are those of the process, and stay with the parent. Those of other bases may be files.
        Some(base) if is_plain(&state) => base.close(),
        _ => ffi::SQLITE_OK,
    };
    std::mem::forget(state);
    code
}

/// xShmUnmap in a child: never with the file. A WAL-index of ours stays as it is: its handle is closed, and its mappings are no
/// longer those of the file.
pub(crate) fn unmap(state: &State, base: &BaseFile) -> c_int {
    if state.index().is_none() && is_plain(state) { base.shm_unmap(0) } else { ffi::SQLITE_OK }
}

fn is_plain(state: &State) -> bool {
    bases::is_unix(state.base_vfs())
}
