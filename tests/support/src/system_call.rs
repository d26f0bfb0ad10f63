//! Something that happens in the middle of a call of SQLite's: inside one of its system calls.
//!
//! Invariant: a system call of SQLite's is replaced as long as some thread waits for it, and is its own again afterwards.

use libsqlite3_sys as ffi;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

type Open = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
type Fstat = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;
type Pread = unsafe extern "C" fn(c_int, *mut c_void, usize, i64) -> isize;
type Pwrite = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;
type AnyCall = unsafe extern "C" fn();

/// A system call that SQLite lets others replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the system calls")]
pub enum Call {
    Open,
    Fstat,
    Pread,
    Pwrite,
}

struct Waiting {
    call: Call,
    /// How the name of the file ends.
    suffix: String,
    skip: usize,
    closure: Box<dyn FnOnce()>,
}

thread_local! {
    static TO_RUN: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

/// What SQLite called before the first replacement.
static REAL: [OnceLock<AnyCall>; 4] = [const { OnceLock::new() }; 4];

/// How many threads need the replacement.
static NEEDED: Mutex<[usize; 4]> = Mutex::new([0; 4]);

/// Tells whether the closure has run; dropped, it takes the closure back if it has not.
#[derive(Debug)]
#[must_use = "dropped at once, it takes the closure back"]
pub struct Within(Call, PhantomData<*const ()>);

/// [`within`] the next fstat, of whatever file.
///
/// # Panics
/// As [`within`].
pub fn in_next_fstat(closure: impl FnOnce() + 'static) -> Within {
    within(Call::Fstat, "", 0, closure)
}

/// Runs `closure` once, inside a `call` of SQLite on this thread for a file whose name ends with `suffix`, before anything is
/// done to the file; `skip` such calls pass first. What it calls has the real system calls.
///
/// # Panics
/// If something else waits already, or the VFS `unix` is not there or lets nobody replace its calls.
pub fn within(call: Call, suffix: &str, skip: usize, closure: impl FnOnce() + 'static) -> Within {
    let waiting = Waiting { call, suffix: suffix.to_owned(), skip, closure: Box::new(closure) };
    let before = TO_RUN.replace(Some(waiting));
    assert!(before.is_none(), "one closure at a time");
    let mut needed = NEEDED.lock().unwrap_or_else(PoisonError::into_inner);
    if needed[call as usize] == 0 {
        let real = *REAL[call as usize].get_or_init(|| call.current());
        assert!(!std::ptr::fn_addr_eq(real, call.replacement()));
        call.set(call.replacement());
    }
    needed[call as usize] += 1;
    Within(call, PhantomData)
}

impl Within {
    /// Whether the closure has run.
    pub fn has_run(&self) -> bool {
        TO_RUN.with_borrow(Option::is_none)
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let Within(call, _) = *self;
        drop(TO_RUN.take());
        let mut needed = NEEDED.lock().unwrap_or_else(PoisonError::into_inner);
        needed[call as usize] -= 1;
        if let (0, Some(real)) = (needed[call as usize], REAL[call as usize].get()) {
            call.set(*real);
        }
    }
}

/// Runs what waits for this call on a descriptor, if it is its turn.
fn strike(call: Call, fd: c_int) {
    strike_if(call, |suffix| is_named(fd, suffix));
}

fn strike_if(call: Call, is_named: impl Fn(&str) -> bool) {
    let due = TO_RUN.try_with(|to_run| {
        let mut to_run = to_run.borrow_mut();
        let waiting = to_run.as_mut().filter(|waiting| waiting.call == call && is_named(&waiting.suffix))?;
        match waiting.skip.checked_sub(1) {
            Some(left) => {
                waiting.skip = left;
                None
            }
            None => to_run.take(),
        }
    });
    if let Some(waiting) = due.ok().flatten() {
        (waiting.closure)();
    }
}

fn is_named(fd: c_int, suffix: &str) -> bool {
    let name = || std::fs::read_link(format!("/proc/self/fd/{fd}"));
    suffix.is_empty() || name().is_ok_and(|name| name.to_string_lossy().ends_with(suffix))
}

fn real(call: Call) -> Option<AnyCall> {
    REAL[call as usize].get().copied()
}

unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: a C string of SQLite's.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    strike_if(Call::Open, |suffix| name.ends_with(suffix.as_bytes()));
    let Some(real) = real(Call::Open) else { return -1 };
    // SAFETY: SQLite's open, with the arguments that SQLite gave for it.
    unsafe { std::mem::transmute::<AnyCall, Open>(real)(path, flags, mode) }
}

unsafe extern "C" fn fstat(fd: c_int, to: *mut c_void) -> c_int {
    strike(Call::Fstat, fd);
    let Some(real) = real(Call::Fstat) else { return -1 };
    // SAFETY: SQLite's fstat, with the arguments that SQLite gave for it.
    unsafe { std::mem::transmute::<AnyCall, Fstat>(real)(fd, to) }
}

unsafe extern "C" fn pread(fd: c_int, to: *mut c_void, length: usize, at: i64) -> isize {
    strike(Call::Pread, fd);
    let Some(real) = real(Call::Pread) else { return -1 };
    // SAFETY: SQLite's pread, with the arguments that SQLite gave for it.
    unsafe { std::mem::transmute::<AnyCall, Pread>(real)(fd, to, length, at) }
}

unsafe extern "C" fn pwrite(fd: c_int, from: *const c_void, length: usize, at: i64) -> isize {
    strike(Call::Pwrite, fd);
    let Some(real) = real(Call::Pwrite) else { return -1 };
    // SAFETY: SQLite's pwrite, with the arguments that SQLite gave for it.
    unsafe { std::mem::transmute::<AnyCall, Pwrite>(real)(fd, from, length, at) }
}

fn unix() -> *mut ffi::sqlite3_vfs {
    // SAFETY: a C string that lives across the call.
    let vfs = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    assert!(!vfs.is_null(), "no VFS unix");
    vfs
}

impl Call {
    fn name(self) -> &'static CStr {
        match self {
            Call::Open => c"open",
            Call::Fstat => c"fstat",
            Call::Pread => c"pread",
            Call::Pwrite => c"pwrite",
        }
    }

    fn replacement(self) -> AnyCall {
        // SAFETY: functions of the signature that SQLite calls under the name; only a call of that signature is made.
        unsafe {
            match self {
                Call::Open => std::mem::transmute::<Open, AnyCall>(open),
                Call::Fstat => std::mem::transmute::<Fstat, AnyCall>(fstat),
                Call::Pread => std::mem::transmute::<Pread, AnyCall>(pread),
                Call::Pwrite => std::mem::transmute::<Pwrite, AnyCall>(pwrite),
            }
        }
    }

    fn current(self) -> AnyCall {
        let vfs = unix();
        // SAFETY: a registered VFS and the name of a system call.
        let call = unsafe { (*vfs).xGetSystemCall.unwrap()(vfs, self.name().as_ptr()) };
        call.unwrap_or_else(|| panic!("SQLite does not call {:?}", self.name()))
    }

    fn set(self, call: AnyCall) {
        let vfs = unix();
        // SAFETY: a registered VFS, the name of a system call, and a function of its signature that lives as long as the
        // process.
        let code = unsafe { (*vfs).xSetSystemCall.unwrap()(vfs, self.name().as_ptr(), Some(call)) };
        assert_eq!(code, ffi::SQLITE_OK);
    }
}
