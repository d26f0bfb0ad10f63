//! Writes that belong together, sent as one.
//!
//! [`frame`]: the header of a log frame and its page, everywhere. [`run`]: the writes to a rollback journal between two syncs, and
//! pages of the database that stand side by side, where each write is a round trip to a server.
//!
//! Invariant: what waits here reaches the base before a sync, an unlock, a size query, a truncate or a close of its file, and a
//! read finds it. Nothing of the journal waits when the first page of the database is written, so the order of the two is
//! SQLite's.

pub(crate) mod frame;
pub(crate) mod run;
