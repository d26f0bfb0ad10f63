//! Which filesystem is this, and may WAL be used on it?
//!
//! The decision ([`decide`]) is pure: facts in, verdict out. The facts come from a thin probe that asks the kernel by
//! mount id (statmount, else the mount table, else statfs) on the path as the kernel resolves it. Invariants:
//!
//! - Only filesystems on the allowlist of local ones are `Local`; what is not known is not.
//! - Nothing behind a mount that is not known to be local is touched by the calling thread: such steps run in the
//!   mount's lane, and a server that does not answer costs the caller a bounded time and the process one thread.
//! - The worse of the verdicts on the directory (it will hold -wal and -journal) and on the file itself counts.

mod cache;
mod classify;
mod decide;
mod facts;
#[cfg(target_os = "linux")]
mod first_look;
mod lane;
#[cfg(target_os = "linux")]
mod listing;
mod mount_table;
#[cfg(target_os = "linux")]
mod probe;
mod statmount;
mod sync_folder;
mod table;
mod verdict;
#[cfg(target_os = "linux")]
mod walk;

#[doc(hidden)]
pub use classify::answers;
pub use classify::{NoAnswer, Problem, classify};
pub(crate) use classify::{known_local, place};
#[cfg(target_os = "linux")]
pub(crate) use classify::{known_magic, last_verdict, verdict_on};
pub use decide::{Facts, decide};
pub use facts::MountFacts;
#[cfg(target_os = "linux")]
pub(crate) use first_look::{FirstLook, take as first_look};
pub use mount_table::{Mount, MountTable};
#[cfg(target_os = "linux")]
pub(crate) use probe::{Found, look};
pub use statmount::parse as parse_statmount;
pub use sync_folder::{SyncFolder, recognise as recognise_sync_folder};
#[cfg(target_os = "linux")]
pub(crate) use table::class_of;
pub use verdict::{Class, LockReach, Source, Verdict};
