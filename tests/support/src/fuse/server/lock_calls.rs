//! The lock requests of the protocol, and the two that give locks up without saying so.
//!
//! FLUSH comes with each `close` of a process and drops the process's locks on the file; RELEASE
//! comes with the last `close` of an open file and drops its OFD locks.

use super::locks::{Lock, LockTable, Owner};
use super::passthrough::Passthrough;
use std::io;

/// The lock table as one mount uses it.
#[derive(Debug)]
pub(super) struct Locks {
    pub(super) table: LockTable,
    /// Which mount this is to the table.
    pub(super) client: u64,
}

/// A lock request, as the kernel sends it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockRequest {
    pub(super) node: u64,
    pub(super) handle: u64,
    pub(super) owner: u64,
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) kind: i32,
}

/// What GETLK answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockAnswer {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) kind: i32,
    pub(super) pid: u32,
}

impl Locks {
    fn wanted(&self, request: &LockRequest) -> Lock {
        Lock {
            owner: Owner { client: self.client, number: request.owner },
            handle: request.handle,
            pid: request.pid,
            start: request.start,
            end: request.end,
            exclusive: request.kind == libc::F_WRLCK,
        }
    }
}

impl Passthrough {
    fn locks(&self) -> io::Result<&Locks> {
        self.locks.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))
    }

    pub(super) fn getlk(&self, request: &LockRequest) -> io::Result<LockAnswer> {
        let locks = self.locks()?;
        Ok(match locks.table.conflict(request.node, &locks.wanted(request)) {
            Some(Lock { start, end, exclusive, pid, .. }) => {
                let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
                LockAnswer { start, end, kind, pid }
            }
            None => LockAnswer { start: request.start, end: request.end, kind: libc::F_UNLCK, pid: request.pid },
        })
    }

    /// `caller` is the thread that waits, if it does.
    pub(super) fn setlk(&self, request: &LockRequest, caller: Option<u32>) -> io::Result<()> {
        let locks = self.locks()?;
        let wanted = locks.wanted(request);
        match (request.kind, caller) {
            (libc::F_UNLCK, _) => {
                locks.table.unlock(request.node, wanted.owner, request.start, request.end);
                Ok(())
            }
            (_, None) => locks.table.try_lock(request.node, wanted),
            (_, Some(thread)) => locks.table.lock(request.node, wanted, || has_pending_signal(thread)),
        }
    }

    pub(super) fn flush(&self, node: u64, owner: u64) {
        if let Some(locks) = &self.locks {
            let owner = Owner { client: locks.client, number: owner };
            locks.table.unlock(node, owner, 0, u64::MAX);
        }
    }

    pub(super) fn release(&self, node: u64, handle: u64) {
        self.handles.remove(handle);
        if let Some(locks) = &self.locks {
            locks.table.release_handle(node, locks.client, handle);
        }
    }
}

/// Whether a signal that is neither blocked nor ignored waits for the thread.
fn has_pending_signal(thread: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else {
        return true; // gone
    };
    let mask = |field: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        value.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !(mask("SigBlk:") | mask("SigIgn:")) != 0
}
