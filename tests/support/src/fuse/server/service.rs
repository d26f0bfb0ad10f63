//! The server's side of the control socket.
//!
//! Invariant: when the test process is gone, everything it had mounted is unmounted before the server
//! ends.

use super::lock_calls::Locks;
use super::locks::LockTable;
use super::served::Served;
use crate::fuse::options::Options;
use crate::fuse::wire::{Request, Wire, receive, send};
use crate::rule::{FaultHandle, Rule};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Service {
    mounts: Mutex<HashMap<u64, Arc<Served>>>,
    faults: Mutex<HashMap<u64, FaultHandle>>,
    tables: Mutex<HashMap<u64, LockTable>>,
    last: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until standard input, a socket that the test process holds the other end of, is closed.
pub(in crate::fuse) fn run(socket: &Path) -> io::Result<()> {
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler. The end of the test process ends us, with
        // everything unmounted; a signal would not.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let listener = UnixListener::bind(socket)?;
    let service = Arc::new(Service::default());
    let accepting = service.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let service = accepting.clone();
            std::thread::spawn(move || service.converse(stream));
        }
    });
    let lifeline: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let mut lifeline = UnixStream::from(lifeline);
    lifeline.write_all(&[1])?;
    let _closed = lifeline.read(&mut [0]);
    service.unmount_all();
    let _ = std::fs::remove_file(socket);
    if let Some(dir) = socket.parent() {
        let _ = std::fs::remove_dir(dir);
    }
    Ok(())
}

impl Service {
    /// One request, one answer. A test process that is gone does not mind a missing answer.
    fn converse(&self, mut stream: UnixStream) {
        let answer = receive(&mut stream)
            .and_then(|frame| Request::get(&mut frame.as_slice()))
            .and_then(|request| self.answer(request));
        let mut frame = answer.is_ok().to_bytes();
        match answer {
            Ok(bytes) => frame.extend(bytes),
            Err(error) => frame = io::Result::<()>::Err(error).to_bytes(),
        }
        let _ = send(&mut stream, &frame);
    }

    fn answer(&self, request: Request) -> io::Result<Vec<u8>> {
        let on = |mount| self.mount(mount);
        Ok(match request {
            Request::Mount { options, at } => self.add(&options, &at)?.to_bytes(),
            Request::Unmount { mount } => {
                let served = lock(&self.mounts).remove(&mount);
                served.map_or(Ok(()), |served| served.unmount())?.to_bytes()
            }
            Request::Counters { mount } => on(mount)?.traffic().tally.snapshot().to_bytes(),
            Request::WaitCounted { mount, op, n, timeout } => {
                on(mount)?.traffic().tally.wait(op, n, timeout).to_bytes()
            }
            Request::SetLatency { mount, latency } => {
                on(mount)?.traffic().set_latency(latency);
                ().to_bytes()
            }
            Request::AddFault { mount, fault } => {
                let rule =
                    Rule { on: fault.on, name: fault.name, skip: fault.skip, times: fault.times, what: fault.what };
                let handle = on(mount)?.traffic().faults.add(rule);
                let id = self.next();
                lock(&self.faults).insert(id, handle);
                id.to_bytes()
            }
            Request::ClearFaults { mount } => {
                on(mount)?.traffic().faults.clear();
                ().to_bytes()
            }
            Request::Struck { fault } => {
                let faults = lock(&self.faults);
                let handle = faults.get(&fault).ok_or_else(unknown)?;
                (handle.seen(), handle.matched()).to_bytes()
            }
            Request::AddHold { mount, hold } => on(mount)?.traffic().holds.add(hold).to_bytes(),
            Request::Release { mount, hold } => {
                on(mount)?.traffic().holds.remove(hold);
                ().to_bytes()
            }
            Request::Held { mount } => on(mount)?.traffic().holds.held().to_bytes(),
            Request::WaitHeld { mount, n, timeout } => on(mount)?.traffic().holds.wait_held(n, timeout).to_bytes(),
            Request::Locked { table } => self.table(table).len().to_bytes(),
        })
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn mount(&self, id: u64) -> io::Result<Arc<Served>> {
        lock(&self.mounts).get(&id).cloned().ok_or_else(unknown)
    }

    fn table(&self, id: u64) -> LockTable {
        lock(&self.tables).entry(id).or_default().clone()
    }

    fn add(&self, options: &Options, at: &Path) -> io::Result<u64> {
        let id = self.next();
        let locks = options.locks.map(|table| Locks { table: self.table(table), client: id });
        let served = Served::new(options, locks, at)?;
        lock(&self.mounts).insert(id, Arc::new(served));
        Ok(id)
    }

    fn unmount_all(&self) {
        let mut mounts: Vec<_> = lock(&self.mounts).drain().collect();
        // The youngest first: it may lie on top of an older one.
        mounts.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        for (_, served) in mounts {
            if let Err(error) = served.unmount() {
                eprintln!("FUSE server: {}: {error}", served.path().display());
            }
        }
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such mount or fault")
}
