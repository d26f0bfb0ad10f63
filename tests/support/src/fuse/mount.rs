//! A mounted filesystem: from `/dev/fuse` to the unmount.
//!
//! As root the mount is made and undone here rather than by `fuser`, which would leave out the
//! subtype, and which after a foreign unmount would unmount whatever lies below.

use super::counters::{Counters, Op};
use super::fault::{self, Fault, Faults};
use super::handles::Handles;
use super::hold::{Hold, HoldGuard};
use super::inodes::Inodes;
use super::lock_calls::Locks;
use super::options::Options;
use super::passthrough::Passthrough;
use super::server::Server;
use super::traffic::Traffic;
use crate::detach::MountPoint;
use crate::rule::FaultHandle;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a drop waits for the server's threads to end.
const SERVER_ENDS_WITHIN: Duration = Duration::from_secs(5);

static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// A mounted FUSE filesystem. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    at: MountPoint,
    fs: Arc<Passthrough>,
    /// In a mutex only so that a mount can be shared between threads.
    ended: Mutex<Receiver<()>>,
    session: Option<BackgroundSession>,
}

impl Mount {
    /// Mounts at an existing directory.
    pub fn new(options: Options, mountpoint: &Path) -> io::Result<Mount> {
        let at = mountpoint.canonicalize().map_err(|e| about("mount point", mountpoint, e))?;
        let inodes = Inodes::new(&options.backing).map_err(|e| about("backing directory", &options.backing, e))?;
        let client = CLIENTS.fetch_add(1, Ordering::SeqCst);
        let fs = Arc::new(Passthrough {
            inodes,
            handles: Handles::default(),
            locks: options.locks.clone().map(|table| Locks { table, client }),
            traffic: Traffic::default(),
            cache: options.cache,
            direct_io: options.direct_io,
        });
        fs.traffic.set_latency(options.latency);
        let (alive, ended) = channel();
        let server = Server { fs: fs.clone(), auto_invalidate: options.auto_invalidate, alive };
        let session = if rustix::process::geteuid().is_root() {
            mount_as_root(server, &options, &at)
        } else {
            mount_as_user(server, &options, &at)
        };
        let (session, at) = session
            .and_then(|session| Ok((session, MountPoint::new(at.clone())?)))
            .map_err(|e| about("FUSE mount at", &at, e))?;
        Ok(Mount { at, fs, ended: Mutex::new(ended), session: Some(session) })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// How many requests have arrived so far, by kind.
    pub fn counters(&self) -> Counters {
        self.fs.traffic.tally.snapshot()
    }

    /// Waits until at least `n` requests of a kind have arrived since the mount was made. For those
    /// that no system call waits for, such as RELEASE.
    pub fn wait_counted(&self, op: Op, n: u64, timeout: Duration) -> bool {
        self.fs.traffic.tally.wait(op, n, timeout)
    }

    /// From now on every answer comes this long after its request.
    pub fn set_latency(&self, latency: Duration) {
        self.fs.traffic.set_latency(latency);
    }

    /// Adds a fault rule after those that are there.
    ///
    /// # Panics
    /// If the fault changes the data of a write but is for another kind of request.
    pub fn fault(&self, fault: Fault) -> FaultHandle {
        fault::add(self.faults(), fault)
    }

    /// Removes all fault rules.
    pub fn clear_faults(&self) {
        self.faults().clear();
    }

    /// Unmounts; if files are open, breaks the connection under them and detaches the mount.
    fn unmount(&self) {
        let at = self.path();
        if !rustix::process::geteuid().is_root() {
            let _ = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(at).status();
        } else if let Err(error) = self.at.detach(UnmountFlags::FORCE) {
            eprintln!("cannot unmount {}: {error}", at.display());
        }
    }

    fn faults(&self) -> &Faults {
        &self.fs.traffic.faults
    }

    /// Makes every matching request wait until the guard is dropped. The caller's own requests are
    /// no exception.
    pub fn hold(&self, hold: impl Into<Hold>) -> HoldGuard {
        self.fs.traffic.holds.add(hold.into())
    }

    /// How many requests are held back now.
    pub fn held(&self) -> usize {
        self.fs.traffic.holds.held()
    }

    /// Waits until at least `n` requests are held back; `false` if the time runs out.
    pub fn wait_held(&self, n: usize, timeout: Duration) -> bool {
        self.fs.traffic.holds.wait_held(n, timeout)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.fs.traffic.holds.close();
        self.faults().clear();
        self.set_latency(Duration::ZERO);
        if let Some(locks) = &self.fs.locks {
            locks.table.close(locks.client);
        }
        self.unmount();
        drop(self.session.take());
        // Backing descriptors are closed when this returns; the server of a mount that lives on in
        // another mount namespace does not end, so the wait is bounded.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(SERVER_ENDS_WITHIN);
    }
}

fn about(what: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.n_threads = Some(options.threads);
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config
}

fn mount_as_root(server: Server, options: &Options, at: &Path) -> io::Result<BackgroundSession> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    if options.allow_other {
        data.push_str(",default_permissions,allow_other");
    }
    let kind = match &options.subtype {
        Some(subtype) => format!("fuse.{subtype}"),
        None => "fuse".to_owned(),
    };
    let source = options.source.as_deref().or(options.subtype.as_deref()).unwrap_or("fuse");
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    let data = CString::new(data)?;
    rustix::mount::mount(source, at, kind.as_str(), flags, Some(data.as_c_str()))?;
    let config = config(options);
    let session = Session::from_fd(server, OwnedFd::from(device), config.acl, config).and_then(Session::spawn);
    if session.is_err() {
        let _ = rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
    }
    session
}

fn mount_as_user(server: Server, options: &Options, at: &Path) -> io::Result<BackgroundSession> {
    let mut config = config(options);
    config.mount_options.extend(options.subtype.clone().map(MountOption::Subtype));
    config.mount_options.extend(options.source.clone().map(MountOption::FSName));
    if options.allow_other {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    Session::new(server, at, &config)?.spawn()
}
