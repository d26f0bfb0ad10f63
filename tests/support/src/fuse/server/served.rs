//! A mounted filesystem in the server: from `/dev/fuse` to the unmount.
//!
//! As root the mount is made and undone here rather than by `fuser`, which would leave out the
//! subtype, and which after a foreign unmount would unmount whatever lies below.

use super::handles::Handles;
use super::inodes::Inodes;
use super::lock_calls::Locks;
use super::passthrough::Passthrough;
use super::requests::Server;
use super::traffic::Traffic;
use crate::detach::MountPoint;
use crate::fuse::options::Options;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long an unmount waits for the server's threads to end.
const SERVER_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A mounted filesystem, as the server holds it.
#[derive(Debug)]
pub(super) struct Served {
    at: MountPoint,
    fs: Arc<Passthrough>,
    /// In a mutex only so that a mount can be shared between threads.
    ended: Mutex<Receiver<()>>,
    session: Mutex<Option<BackgroundSession>>,
}

impl Served {
    pub(super) fn new(options: &Options, locks: Option<Locks>, at: &Path) -> io::Result<Self> {
        let fs = Arc::new(Passthrough {
            inodes: Inodes::new(&options.backing)?,
            handles: Handles::default(),
            locks,
            traffic: Traffic::default(),
            cache: options.cache,
            direct_io: options.direct_io,
        });
        fs.traffic.set_latency(options.latency);
        let (alive, ended) = channel();
        let server = Server { fs: fs.clone(), auto_invalidate: options.auto_invalidate, alive };
        let session = if rustix::process::geteuid().is_root() {
            mount_as_root(server, options, at)?
        } else {
            mount_as_user(server, options, at)?
        };
        let at = MountPoint::new(at.to_owned())?;
        Ok(Self { at, fs, ended: Mutex::new(ended), session: Mutex::new(Some(session)) })
    }

    pub(super) fn path(&self) -> &Path {
        self.at.path()
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.fs.traffic
    }

    /// Lets all requests go and unmounts; if files are open, breaks the connection under them.
    pub(super) fn unmount(&self) -> io::Result<()> {
        self.traffic().holds.close();
        self.traffic().faults.clear();
        self.traffic().set_latency(Duration::ZERO);
        if let Some(locks) = &self.fs.locks {
            locks.table.close(locks.client);
        }
        let at = self.at.path();
        let done = if rustix::process::geteuid().is_root() {
            self.at.detach(UnmountFlags::FORCE).map_err(io::Error::from)
        } else {
            Command::new("fusermount3").args(["-u", "-z", "--"]).arg(at).status().map(drop)
        };
        drop(self.session.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Backing descriptors are closed when this returns; the server of a mount that lives on in
        // another mount namespace does not end, so the wait is bounded.
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(SERVER_ENDS_WITHIN);
        done
    }
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
