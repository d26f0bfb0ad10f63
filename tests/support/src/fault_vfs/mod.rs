//! A SQLite VFS that forwards everything to another one and fails calls as told.
//!
//! ```no_run
//! use libsqlite3_sys::SQLITE_IOERR_FSYNC;
//! use support::fault_vfs::{Call, FailSpec, FaultVfs};
//!
//! let vfs = FaultVfs::register("faulty");
//! let sync = vfs.fail(Call::Sync, FailSpec::code(SQLITE_IOERR_FSYNC).name("-wal").times(1));
//! // ... open a database with the VFS "faulty" and commit ...
//! assert_eq!(sync.seen(), 1);
//! vfs.clear();
//! ```
//!
//! Calls on a file match by the name the file was opened with. Shared memory belongs to the database
//! file: rules for it go by the database's name, not `-shm`.
//!
//! Invariant: a call that a rule fails does not reach the VFS below, and a call that no rule fails
//! reaches it unchanged.

mod file;
mod vfs;

pub use crate::rule::FaultHandle;
use crate::rule::{Rule, Rules, Times};
use libsqlite3_sys as ffi;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A method of the VFS or of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are those of SQLite's methods without the x")]
pub enum Call {
    Open,
    Delete,
    Access,
    FullPathname,
    Close,
    Read,
    Write,
    Truncate,
    Sync,
    FileSize,
    Lock,
    Unlock,
    CheckReservedLock,
    FileControl,
    /// SQLITE_FCNTL_PRAGMA, which is not counted as FileControl.
    Pragma,
    ShmMap,
    ShmLock,
    ShmUnmap,
    Fetch,
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailSpec {
    /// Only files whose name ends with this.
    pub name_suffix: Option<String>,
    /// How many matching calls pass unharmed first.
    pub skip: u64,
    /// How often it fails then.
    pub times: Times,
    /// What the call returns.
    pub code: c_int,
}

impl FailSpec {
    /// Every call returns this result code.
    pub fn code(code: c_int) -> Self {
        Self { name_suffix: None, skip: 0, times: Times::Forever, code }
    }

    /// Only files whose name ends with `suffix`.
    pub fn name(mut self, suffix: &str) -> Self {
        self.name_suffix = Some(suffix.to_owned());
        self
    }

    /// Lets `n` matching calls pass first.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// Fails `n` times.
    pub fn times(mut self, n: u64) -> Self {
        self.times = Times::N(n);
        self
    }
}

/// A registered VFS of this kind. It lives as long as the process.
#[derive(Debug)]
pub struct FaultVfs {
    name: CString,
    below: *mut ffi::sqlite3_vfs,
    rules: Rules<Call, c_int>,
    counts: Mutex<BTreeMap<Call, u64>>,
    io_version: AtomicI32,
    hide_shm_map: AtomicBool,
}

// SAFETY: the only member that is not thread-safe by itself is `below`, which SQLite requires to be
// callable from any thread and which is never written after registration.
unsafe impl Send for FaultVfs {}
// SAFETY: as above.
unsafe impl Sync for FaultVfs {}

impl FaultVfs {
    /// Registers a VFS of this name over `unix`, or finds the one that was registered before.
    ///
    /// # Panics
    /// If SQLite lacks the VFS `unix` or refuses the registration.
    pub fn register(name: &str) -> &'static FaultVfs {
        Self::register_over(name, "unix")
    }

    /// The same over any registered VFS.
    ///
    /// # Panics
    /// If there is no VFS `below` or SQLite refuses the registration.
    pub fn register_over(name: &str, below: &str) -> &'static FaultVfs {
        static REGISTERED: Mutex<Option<HashMap<String, &'static FaultVfs>>> = Mutex::new(None);
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = registered.get_or_insert_default();
        if let Some(known) = registered.get(name) {
            return known;
        }
        let vfs = Self::leak(name, below);
        registered.insert(name.to_owned(), vfs);
        vfs
    }

    fn leak(name: &str, below: &str) -> &'static FaultVfs {
        let (name, parent) = (c_string(name), c_string(below));
        // SAFETY: the argument is a NUL-terminated string; the call initialises SQLite by itself.
        let below_ptr = unsafe { ffi::sqlite3_vfs_find(parent.as_ptr()) };
        assert!(!below_ptr.is_null(), "SQLite has no VFS {below}");
        let vfs: &'static FaultVfs = Box::leak(Box::new(FaultVfs {
            name,
            below: below_ptr,
            rules: Rules::default(),
            counts: Mutex::default(),
            io_version: AtomicI32::new(3),
            hide_shm_map: AtomicBool::new(false),
        }));
        let table = Box::leak(Box::new(vfs::table(vfs)));
        // SAFETY: the table and its name are leaked, so they outlive the registration.
        let rc = unsafe { ffi::sqlite3_vfs_register(table, 0) };
        assert_eq!(rc, ffi::SQLITE_OK, "sqlite3_vfs_register");
        vfs
    }

    /// The name it is registered under.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// Adds a rule after those that are there.
    pub fn fail(&self, call: Call, spec: FailSpec) -> FaultHandle {
        let FailSpec { name_suffix: name, skip, times, code } = spec;
        self.rules.add(Rule { on: call, name, skip, times, what: code })
    }

    /// Which version of io_methods (1, 2 or 3) files opened from now on offer, at most that of the
    /// VFS below.
    ///
    /// # Panics
    /// On any other number.
    pub fn io_version(&self, version: c_int) {
        assert!((1..=3).contains(&version), "io_methods version {version}");
        self.io_version.store(version, Ordering::SeqCst);
    }

    /// Whether files opened from now on have no xShmMap, whatever their version.
    pub fn hide_shm_map(&self, hide: bool) {
        self.hide_shm_map.store(hide, Ordering::SeqCst);
    }

    /// How often a method has been called since the last [`clear`](Self::clear), failures included.
    pub fn count(&self, call: Call) -> u64 {
        self.counts().get(&call).copied().unwrap_or(0)
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<Call, u64> {
        self.tally().clone()
    }

    /// Back to forwarding everything at version 3, with all counts at zero. Open files keep the
    /// methods they were opened with.
    pub fn clear(&self) {
        self.rules.clear();
        self.tally().clear();
        self.io_version(3);
        self.hide_shm_map(false);
    }

    fn tally(&self) -> MutexGuard<'_, BTreeMap<Call, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; the result code if it is to fail.
    ///
    /// # Safety
    /// `name` is null or a NUL-terminated string.
    unsafe fn strike(&self, call: Call, name: *const c_char) -> Option<c_int> {
        *self.tally().entry(call).or_default() += 1;
        let name = if name.is_null() {
            &[]
        } else {
            // SAFETY: the caller's contract.
            unsafe { CStr::from_ptr(name) }.to_bytes()
        };
        self.rules.strike(call, |suffix| name.ends_with(suffix.as_bytes()))
    }
}

/// A name as C wants it.
///
/// # Panics
/// If it contains a NUL.
fn c_string(name: &str) -> CString {
    match CString::new(name) {
        Ok(name) => name,
        Err(error) => panic!("VFS name {name:?}: {error}"),
    }
}
