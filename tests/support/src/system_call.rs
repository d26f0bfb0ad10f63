//! Something that happens in the middle of a call of SQLite's: inside one of its system calls.
//!
//! Invariant: SQLite's fstat is replaced as long as some thread waits for it, and is its own again afterwards.

use libsqlite3_sys as ffi;
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

type Fstat = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
type AnyCall = unsafe extern "C" fn();

thread_local! {
    static TO_RUN: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// What SQLite called before the first replacement.
static REAL: OnceLock<Fstat> = OnceLock::new();

/// How many threads need the replacement.
static NEEDED: Mutex<usize> = Mutex::new(0);

/// Tells whether the closure has run; dropped, it takes the closure back if it has not.
#[derive(Debug)]
#[must_use = "dropped at once, it takes the closure back"]
pub struct InNextFstat(PhantomData<*const ()>);

/// Runs `closure` once, inside the next fstat of SQLite on this thread, before the file is looked at. What it calls has
/// the real fstat.
///
/// # Panics
/// If something else waits for that already, or the VFS `unix` is not there or lets nobody replace its calls.
pub fn in_next_fstat(closure: impl FnOnce() + 'static) -> InNextFstat {
    let before = TO_RUN.replace(Some(Box::new(closure)));
    assert!(before.is_none(), "one closure at a time");
    let mut needed = NEEDED.lock().unwrap_or_else(PoisonError::into_inner);
    if *needed == 0 {
        let real = *REAL.get_or_init(current);
        assert!(!std::ptr::fn_addr_eq(real, replacement as Fstat));
        set(replacement);
    }
    *needed += 1;
    InNextFstat(PhantomData)
}

impl InNextFstat {
    /// Whether the closure has run.
    pub fn has_run(&self) -> bool {
        TO_RUN.with_borrow(Option::is_none)
    }
}

impl Drop for InNextFstat {
    fn drop(&mut self) {
        drop(TO_RUN.take());
        let mut needed = NEEDED.lock().unwrap_or_else(PoisonError::into_inner);
        *needed -= 1;
        if let (0, Some(real)) = (*needed, REAL.get()) {
            set(*real);
        }
    }
}

unsafe extern "C" fn replacement(fd: c_int, to: *mut c_void) -> c_int {
    if let Some(closure) = TO_RUN.try_with(RefCell::take).ok().flatten() {
        closure();
    }
    let Some(real) = REAL.get() else { return -1 };
    // SAFETY: SQLite's fstat, with the arguments that SQLite gave for it.
    unsafe { real(fd, to) }
}

fn unix() -> *mut ffi::sqlite3_vfs {
    // SAFETY: a C string that lives across the call.
    let vfs = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    assert!(!vfs.is_null(), "no VFS unix");
    vfs
}

fn current() -> Fstat {
    let vfs = unix();
    // SAFETY: a registered VFS and the name of a system call; what SQLite keeps under this name is called as an fstat.
    unsafe {
        let call = (*vfs).xGetSystemCall.unwrap()(vfs, c"fstat".as_ptr()).expect("SQLite calls fstat");
        std::mem::transmute::<AnyCall, Fstat>(call)
    }
}

fn set(fstat: Fstat) {
    let vfs = unix();
    // SAFETY: a registered VFS, the name of a system call, and a function of its signature that lives as long as the process.
    let code = unsafe {
        let call = std::mem::transmute::<Fstat, AnyCall>(fstat);
        (*vfs).xSetSystemCall.unwrap()(vfs, c"fstat".as_ptr(), Some(call))
    };
    assert_eq!(code, ffi::SQLITE_OK);
}
