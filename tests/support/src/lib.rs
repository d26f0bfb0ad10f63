//! What the tests and benchmarks of `hardened` share: filesystems that can be counted, slowed,
//! broken and stopped, real mounts that go away again, and the gates that decide whether a test can
//! run on this machine.
//!
//! Invariant: nothing here outlives its guard. Dropping a mount releases every request it holds
//! back and detaches it even if files on it are still open, so a failed test leaves no mount behind.

#![deny(missing_docs)]

pub mod ask;
pub mod board;
pub mod crash;
mod detach;
pub mod extension;
pub mod fault_vfs;
pub mod fuse;
pub mod log_writes;
pub mod memory;
pub mod mounts;
pub mod names;
pub mod ofd;
pub mod process;
pub mod renaming;
pub mod require;
mod rule;
pub mod second;
pub mod shell;
pub mod sqlite;
pub mod strace;
pub mod system_call;
pub mod unsynced;
