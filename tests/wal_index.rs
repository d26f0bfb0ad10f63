//! Promise 2 in WAL mode: the WAL-index that hardened connections map and lock themselves is the one of stock SQLite, in one
//! process and in several; no close() elsewhere takes its locks away, and no change of the file ends the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;
#[path = "wal_index/closed.rs"]
mod closed;
#[path = "wal_index/cut.rs"]
mod cut;
#[path = "wal_index/layout.rs"]
mod layout;
#[path = "wal_index/reset.rs"]
mod reset;
#[path = "wal_index/roles.rs"]
mod roles;
#[path = "wal_index/shortage.rs"]
mod shortage;
