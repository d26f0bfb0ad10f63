//! The server process: the filesystem's work, and what the test process may tell it.

mod attr;
mod handles;
mod holds;
mod inodes;
mod lock_calls;
mod locks;
mod passthrough;
mod reply;
mod requests;
mod served;
pub(super) mod service;
mod tally;
mod traffic;
