//! A real FUSE filesystem that passes everything through to a backing directory, served by a process
//! of its own that belongs to the test process, with request counters, latency, faults and holds.
//!
//! ```no_run
//! use std::time::Duration;
//! use support::fuse::{Fault, Hold, Mount, Op, Options, Times, What};
//!
//! # fn main() -> std::io::Result<()> {
//! let (backing, at) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! let mount = Mount::new(Options::new(backing.path()).subtype("sshfs"), at.path())?;
//!
//! let before = mount.counters();
//! std::fs::write(mount.path().join("a"), b"x")?;
//! assert_eq!((mount.counters() - before).get(Op::Write), 1);
//!
//! let full = mount.fault(Fault::on(Op::Write).name("-wal").what(What::Enospc));
//! let hold = mount.hold(Hold::All); // a server that does not answer
//! assert!(mount.wait_held(0, Duration::from_secs(1)));
//! drop(hold);
//! assert_eq!(full.seen(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! A request is counted when it arrives, then it waits (holds first, then latency), then the first
//! matching fault is applied or the work is done. A request that waits does so on a thread of its
//! own, so it stops no other.
//!
//! What a client of this filesystem should know:
//!
//! - The server starts with the first mount of the process and keeps the limits and the mount
//!   namespace that the process had then.
//! - Inode numbers are those of the backing files, so they are stable and hard links share one.
//! - The kernel's page cache sits in front of the server. After a dropped or torn write the cache
//!   still holds the full data until the file is opened again.
//! - Before the first truncation or cached write of a mount the kernel asks for a security attribute
//!   (one GETXATTR), and it answers a failed LOOKUP of a name it knew with a second LOOKUP.
//! - RELEASE and FORGET arrive some time after `close` has returned; wait for a RELEASE with
//!   [`Mount::wait_counted`].
//! - The library under this module answers the kernel's INTERRUPT with `ENOSYS`, so a client killed
//!   while its request is held stays until the request is answered, like the client of a dead
//!   server. Only a blocking lock request looks for pending signals itself.
//!
//! Invariant: dropping a [`Mount`] releases all holds, cancels waiting lock requests and leaves no
//! mount behind, whoever still has files open on it. If the test process ends without dropping it,
//! even by a signal, the server does the same.

mod control;
mod counters;
mod fault;
mod hold;
mod lock_table;
mod mount;
mod options;
mod server;
mod wire;

pub use crate::rule::Times;
pub use counters::{Counters, Op};
pub use fault::{Fault, FaultHandle, What};
pub use hold::{Hold, HoldGuard};
pub use lock_table::LockTable;
pub use mount::Mount;
pub use options::Options;
