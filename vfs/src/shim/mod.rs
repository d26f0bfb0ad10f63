//! The FFI edge: sqlite3_vfs and sqlite3_io_methods.
//!
//! Everything that SQLite calls is here, and so is every call to SQLite. No panic leaves it, no pointer that SQLite owns
//! is kept longer than SQLite promises, and no memory of SQLite's allocator is kept at all.

pub(crate) mod auto;
pub(crate) mod base;
pub(crate) mod bases;
pub(crate) mod below;
pub(crate) mod checkpoint;
pub(crate) mod connection;
pub(crate) mod control;
pub(crate) mod convert;
pub(crate) mod crc;
pub(crate) mod early;
mod edge;
pub(crate) mod file;
pub(crate) mod generation;
pub(crate) mod halts;
pub(crate) mod heal;
#[cfg(feature = "loadable")]
pub mod host;
pub(crate) mod index_header;
mod inherited;
mod journals;
pub(crate) mod judge;
pub(crate) mod judging;
pub(crate) mod link;
pub(crate) mod locking;
pub(crate) mod lost;
pub(crate) mod memory;
pub(crate) mod methods;
pub(crate) mod observe;
pub(crate) mod open;
mod own_journal;
pub(crate) mod protect;
pub(crate) mod register;
pub(crate) mod resume;
pub(crate) mod rollback;
pub(crate) mod sidecar;
mod sizes;
pub(crate) mod sqlite;
#[cfg(target_os = "linux")]
pub(crate) mod statmount;
pub(crate) mod unsummed;
pub(crate) mod vfs;
mod waiting;
pub(crate) mod witness;
