//! Disks in memory, each one a SQLite VFS.

use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libsqlite3_sys as ffi;

use super::cut::Device;
use super::fault::Faults;
use super::image::Image;
use super::live::Live;
use super::rng::Rng;
use super::states::Log;
use super::vfs;
use crate::fault_vfs::Call;

/// A disk that SQLite knows. It is leaked: VFSes above may remember it.
#[derive(Debug)]
pub(super) struct Registered {
    name: CString,
    live: Mutex<Live>,
}

impl Registered {
    pub(super) fn c_name(&self) -> &CStr {
        &self.name
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that nobody uses, and how many there are at all.
static IDLE: Mutex<(Vec<&'static Registered>, usize)> = Mutex::new((Vec::new(), 0));

/// A disk in memory, registered as the VFS [`name`](Self::name), for one thread at a time. Dropping it hands the
/// registration on to the next one; all connections to it must be closed then.
#[derive(Debug)]
pub struct Disk(&'static Registered);

impl Disk {
    /// An empty disk that nobody else uses.
    ///
    /// # Panics
    /// If SQLite refuses the registration.
    pub fn lease() -> Disk {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle.0.pop();
        let registered = known.unwrap_or_else(|| {
            idle.1 += 1;
            register(&format!("crash-{:02}", idle.1))
        });
        *registered.live() = Live::default();
        Disk(registered)
    }

    /// The name of the VFS.
    pub fn name(&self) -> &'static str {
        self.0.c_name().to_str().unwrap()
    }

    /// The full name of a file on it, which no other disk has: VFSes above may tell databases apart by their names.
    pub fn path(&self, file: &str) -> String {
        format!("/{}/{file}", self.name())
    }

    /// What it is like from now on, and the seed of its randomness. No file may be open.
    ///
    /// # Panics
    /// If a file is open.
    pub fn set_up(&self, device: Device, seed: u64) {
        let mut live = self.0.live();
        assert!(live.handles.iter().all(Option::is_none), "files are open on {}", self.name());
        (live.device, live.rng, live.slept) = (device, Some(Rng::new(seed)), 0);
    }

    /// Replaces all files. Nothing is recorded from now on, and no sync does anything.
    ///
    /// # Panics
    /// If a file is open.
    pub fn load(&self, image: &Image) {
        let mut live = self.0.live();
        assert!(live.handles.iter().all(Option::is_none), "files are open on {}", self.name());
        live.load(image);
    }

    /// Makes everything durable and records what happens from now on, with these faults. Files may be open.
    ///
    /// # Panics
    /// If a deleted file is open.
    pub fn record(&self, faults: Faults) {
        self.0.live().record(faults);
    }

    /// Goes on where a record was after so many events, as if the process that made it had died there while the machine
    /// went on: unsynced changes are still in the cache. What happens from now on is added to that record.
    ///
    /// # Panics
    /// If a file is open.
    pub fn resume(&self, log: &Log, after: usize, faults: Faults) {
        let mut live = self.0.live();
        assert!(live.handles.iter().all(Option::is_none), "files are open on {}", self.name());
        live.load(&log.start);
        live.device = log.device;
        live.record(faults);
        live.replay(&log.events[..after]);
    }

    /// How many events were recorded.
    pub fn events(&self) -> usize {
        self.0.live().events.len()
    }

    /// The record, which ends.
    pub fn take_log(&self) -> Log {
        let mut live = self.0.live();
        live.recording = false;
        Log {
            start: std::mem::take(&mut live.start),
            events: Arc::new(std::mem::take(&mut live.events)),
            device: live.device,
        }
    }

    /// The files as programs see them.
    pub fn cached(&self) -> Image {
        self.0.live().model.cached()
    }

    /// How often a method was called on files whose names end with `suffix` since the recording began.
    pub fn count(&self, call: Call, suffix: &str) -> u64 {
        let live = self.0.live();
        live.counts.iter().filter(|((of, name), _)| *of == call && name.ends_with(suffix)).map(|(_, n)| n).sum()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let open = self.0.live().handles.iter().any(Option::is_some);
        // A disk with open files stays as it is: a failed test must not spoil another one.
        if !open {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).0.push(self.0);
        }
    }
}

fn register(name: &str) -> &'static Registered {
    let name = CString::new(name).unwrap();
    let registered: &'static Registered = Box::leak(Box::new(Registered { name, live: Mutex::default() }));
    let table = Box::leak(Box::new(vfs::table(registered)));
    // SAFETY: the table and its name are leaked, so they outlive the registration.
    let rc = unsafe { ffi::sqlite3_vfs_register(table, 0) };
    assert_eq!(rc, ffi::SQLITE_OK, "sqlite3_vfs_register");
    registered
}
