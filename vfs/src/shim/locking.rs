//! xLock, xUnlock and xCheckReservedLock of a main database: by locks of our own, or by the base.

use std::ffi::c_int;
use std::io::Error;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;
use rustix::io::Errno;

use super::base::BaseFile;
use super::edge::guarded;
use super::file::{Kind, PASS, State, base_of, state};
use super::lost::tell_lost;
use super::protect;
use crate::fs::Class;
use crate::lock::FileLocks;
use crate::main_file::{self, Access, MainFile};

pub(crate) unsafe extern "C" fn lock(f: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_LOCK);
    // SAFETY: an open file.
    let state = unsafe { state(f) };
    let take = || match &state.locks {
        Some(locks) => guarded(ffi::SQLITE_IOERR_LOCK, || locks.lock(level)),
        None => base.lock(level),
    };
    let Kind::Main(main) = &state.kind else { return take() };
    main_file::touch(main);
    if let Some(index) = state.index().filter(|_| level > ffi::SQLITE_LOCK_SHARED) {
        // Whoever has the WAL-index mapped has SHARED on the database too, unless somebody took it away from them.
        if index.is_shared() {
            return ffi::SQLITE_BUSY;
        }
        // The log is about to be deleted, after a checkpoint that takes no lock.
        if !index.is_whole() {
            return tell_lost(main);
        }
    }
    // SAFETY: SQLite calls.
    if let Some(code) = unsafe { protect::before_lock(main, level) } {
        return code;
    }
    let code = take();
    if let (Some(locks), true) = (&state.locks, code != ffi::SQLITE_OK) {
        tell(main, locks, code);
    }
    if code == ffi::SQLITE_OK {
        main.level.store(level, Ordering::Relaxed);
        if protect::is_clean(main) {
            return code;
        }
        // SAFETY: SQLite calls.
        let judged = guarded(ffi::SQLITE_IOERR_LOCK, || unsafe { protect::after_shared(main) }.unwrap_or(PASS));
        if judged != PASS {
            unlock_to(state, base, ffi::SQLITE_LOCK_NONE);
            main.level.store(ffi::SQLITE_LOCK_NONE, Ordering::Relaxed);
            return judged;
        }
    }
    code
}

/// Says why a lock could not be had, where that is more than somebody else's.
#[cold]
fn tell(main: &MainFile, locks: &FileLocks, code: c_int) {
    guarded(code, || {
        if code != ffi::SQLITE_BUSY {
            let failure = locks.failure();
            // The last to close a log asks for the exclusive lock, which a handle for reading does not get: so it leaves the log.
            let cannot = |error: &Error| {
                main.access == Access::ReadOnly && error.raw_os_error() == Some(Errno::BADF.raw_os_error())
            };
            if let Some(error) = failure.filter(|error| !cannot(error)) {
                main.warn("lock", format!("a lock could not be taken: {error}"));
            }
        } else if main.verdict.class == Class::Fuse && locks.held_by_nobody_here() {
            main.warn(
                "lock-left",
                format!(
                    "a lock is in the way that no process of this host holds. If no other host uses the database, the \
                     process behind {} has kept the lock of one that was killed: mount it again",
                    main.verdict.filesystem
                ),
            );
        }
        code
    });
}

fn unlock_to(state: &State, base: &BaseFile, level: c_int) -> c_int {
    match &state.locks {
        Some(locks) => guarded(ffi::SQLITE_IOERR_UNLOCK, || locks.unlock(level)),
        None => base.unlock(level),
    }
}

pub(crate) unsafe extern "C" fn unlock(f: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let base = base_of!(f, ffi::SQLITE_OK);
    // SAFETY: an open file.
    let state = unsafe { state(f) };
    if let Some(pages) = &state.pages {
        pages.unlocked(level);
    }
    let Kind::Main(main) = &state.kind else { return unlock_to(state, base, level) };
    if main.holds.load(Ordering::Relaxed) || main.over.load(Ordering::Relaxed) {
        let told = guarded(ffi::SQLITE_IOERR_UNLOCK, || {
            // SAFETY: SQLite calls.
            unsafe { protect::before_unlock(main) };
            ffi::SQLITE_OK
        });
        if told != ffi::SQLITE_OK {
            return told;
        }
    }
    let code = unlock_to(state, base, level);
    if code == ffi::SQLITE_OK {
        main.lowered(level);
    }
    code
}

pub(crate) unsafe extern "C" fn check_reserved_lock(f: *mut ffi::sqlite3_file, result: *mut c_int) -> c_int {
    let base = base_of!(f, ffi::SQLITE_IOERR_CHECKRESERVEDLOCK);
    // SAFETY: an open file.
    let Some(locks) = (unsafe { &state(f).locks }) else {
        // SAFETY: SQLite's pointer.
        return unsafe { base.check_reserved_lock(result) };
    };
    guarded(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK, || match locks.reserved() {
        Ok(reserved) => {
            // SAFETY: SQLite's pointer.
            unsafe { *result = c_int::from(reserved) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    })
}
