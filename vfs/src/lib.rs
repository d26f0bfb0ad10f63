//! A SQLite VFS that keeps databases safe below SQL.
//!
//! [`register`] puts a VFS named `hardened` over the process's default one. A database opened with `vfs=hardened` gets the
//! right journal mode for its filesystem before anything is written: WAL with synchronous NORMAL on a local disk, a
//! rollback journal with synchronous FULL, and no way to WAL, on network, FUSE, cluster, virtual-machine and unknown
//! filesystems.
//!
//! ```
//! hardened_vfs::register(hardened_vfs::Options::default())?;
//! // Now: file:app.db?vfs=hardened
//! # Ok::<(), hardened_vfs::RegisterError>(())
//! ```
//!
//! Data flows one way: SQLite, [`shim`](self) (the FFI edge), policy, base VFS. The rooms: [`fs`] decides which filesystem
//! a path is on, `policy` what that means, `setup` what is set on a new connection, [`format`](mod@format) reads SQLite's
//! on-disk headers.

#[cfg(not(unix))]
compile_error!("hardened-vfs stands on SQLite's unix VFS");

#[cfg(all(feature = "loadable", feature = "linked"))]
compile_error!("`loadable` calls the host's SQLite and cannot be combined with `linked`");

pub mod checksum;
mod combine;
#[cfg(target_os = "linux")]
mod database_file;
mod explain;
pub mod format;
mod fresh;
pub mod fs;
mod generation;
pub mod guard;
mod hold;
mod in_flight;
mod journal_file;
mod known_size;
mod lock;
mod main_file;
mod notice;
mod options;
mod policy;
mod refusal;
mod report;
mod setup;
mod shared;
mod shim;
mod shm;
mod sync;
mod transaction;
mod unsummed;

#[cfg(target_os = "linux")]
pub use database_file::DatabaseFile;
pub use lock::fork::{PerProcess, count as forks};
pub use options::{
    ChecksumChoice, CombineChoice, FsChoice, GuardChoice, KEYS, LocksChoice, OptionError, Options, PolicyChoice,
    RollbackJournal,
};
pub use refusal::{Refusal, forget_refusal_here, last_refusal, last_refusal_here, next_failure_number};
pub use report::{Report, VerdictReport};
pub use setup::{Setup, take_setup_here};
#[cfg(feature = "loadable")]
pub use shim::host;
pub use shim::register::{NAME, RegisterError};

/// Registers the VFS `hardened` with these options as the defaults of every database opened with it. Thread-safe; again
/// with the same options is a success.
///
/// # Errors
/// [`RegisterError`] if the base does not exist, or the name is registered with other options.
#[cfg(not(feature = "loadable"))]
pub fn register(options: Options) -> Result<(), RegisterError> {
    shim::register::register_in(shim::sqlite::Api::linked(), NAME, options, false)
}

/// Like [`register`], and makes it the VFS of every open that names none. `sqlite3_shutdown` makes SQLite forget that, as
/// it does for any VFS; calling this again sets it again.
///
/// # Errors
/// As [`register`].
#[cfg(not(feature = "loadable"))]
pub fn register_default(options: Options) -> Result<(), RegisterError> {
    shim::register::register_in(shim::sqlite::Api::linked(), NAME, options, true)
}

/// Like [`register`] under another name, so that several bases or sets of defaults can stand side by side.
///
/// # Errors
/// As [`register`].
#[cfg(not(feature = "loadable"))]
pub fn register_as(name: &str, options: Options) -> Result<(), RegisterError> {
    shim::register::register_in(shim::sqlite::Api::linked(), name, options, false)
}

/// What the VFS would do with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outlook {
    /// `WAL, synchronous NORMAL`, `DELETE, synchronous FULL` or `off`.
    pub policy: String,
    /// Why.
    pub reason: String,
    /// Whether WAL databases stay WAL databases.
    pub wal: bool,
    /// Whether a WAL database found there may be converted after taking its exclusive lock, because that lock would meet
    /// everybody else's.
    pub convertible: bool,
}

/// What the VFS would do with a database on this filesystem, opened with these options over a base with shared memory.
///
/// ```
/// let verdict = hardened_vfs::fs::classify("/".as_ref(), std::time::Duration::from_secs(10))?;
/// println!("{}", hardened_vfs::outlook(&hardened_vfs::Options::default(), &verdict).policy);
/// # Ok::<(), hardened_vfs::fs::Problem>(())
/// ```
pub fn outlook(options: &Options, verdict: &fs::Verdict) -> Outlook {
    let policy = policy::Policy::settle(options, verdict, true);
    Outlook {
        policy: policy.to_string(),
        wal: !policy.hides_shared_memory(),
        convertible: policy::exclusive_lock_is_proof(verdict),
        reason: policy.reason,
    }
}
