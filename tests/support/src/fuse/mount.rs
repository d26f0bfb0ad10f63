//! A mounted filesystem, as the test holds it.

use super::control::{Control, control};
use super::counters::{Counters, Op};
use super::fault::{Fault, FaultHandle};
use super::hold::{Hold, HoldGuard};
use super::options::Options;
use super::wire::Request;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A mounted FUSE filesystem. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    server: &'static Control,
    mount: u64,
}

impl Mount {
    /// Mounts at an existing directory.
    ///
    /// # Panics
    /// If the server process cannot be started.
    pub fn new(mut options: Options, mountpoint: &Path) -> io::Result<Mount> {
        let at = mountpoint.canonicalize().map_err(|e| about("mount point", mountpoint, e))?;
        let backing = options.backing.canonicalize();
        options.backing = backing.map_err(|e| about("backing directory", &options.backing, e))?;
        let server = control();
        let mount =
            server.ask(&Request::Mount { options, at: at.clone() }).map_err(|e| about("FUSE mount at", &at, e))?;
        Ok(Mount { at, server, mount })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// How many requests have arrived so far, by kind.
    pub fn counters(&self) -> Counters {
        self.server.must(&Request::Counters { mount: self.mount })
    }

    /// Waits until at least `n` requests of a kind have arrived since the mount was made. For those
    /// that no system call waits for, such as RELEASE.
    pub fn wait_counted(&self, op: Op, n: u64, timeout: Duration) -> bool {
        self.server.must(&Request::WaitCounted { mount: self.mount, op, n, timeout })
    }

    /// From now on every answer comes this long after its request.
    pub fn set_latency(&self, latency: Duration) {
        self.server.must(&Request::SetLatency { mount: self.mount, latency })
    }

    /// Adds a fault rule after those that are there.
    ///
    /// # Panics
    /// If the fault changes the data of a write but is for another kind of request.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        fault.check();
        let id = self.server.must(&Request::AddFault { mount: self.mount, fault });
        FaultHandle::new(self.server, id)
    }

    /// Removes all fault rules.
    pub fn clear_faults(&self) {
        self.server.must(&Request::ClearFaults { mount: self.mount })
    }

    /// Makes every matching request wait until the guard is dropped. The caller's own requests are
    /// no exception.
    pub fn hold(&self, hold: impl Into<Hold>) -> HoldGuard {
        let hold = self.server.must(&Request::AddHold { mount: self.mount, hold: hold.into() });
        HoldGuard::new(self.server, self.mount, hold)
    }

    /// How many requests are held back now.
    pub fn held(&self) -> usize {
        self.server.must(&Request::Held { mount: self.mount })
    }

    /// Waits until at least `n` requests are held back; `false` if the time runs out.
    pub fn wait_held(&self, n: usize, timeout: Duration) -> bool {
        self.server.must(&Request::WaitHeld { mount: self.mount, n, timeout })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.server.ask::<()>(&Request::Unmount { mount: self.mount }) {
            eprintln!("cannot unmount {}: {error}", self.at.display());
        }
    }
}

fn about(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
