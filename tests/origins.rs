//! The applications that this project comes from, each as the program in `examples/` and what it may expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "origins/board.rs"]
mod board;
#[path = "origins/fallback.rs"]
mod fallback;
#[path = "origins/server.rs"]
mod server;
#[path = "origins/sessions.rs"]
mod sessions;
#[path = "origins/stores.rs"]
mod stores;

use hardened_sqlite::Database;

fn integrity(db: &Database) -> String {
    db.read(|c| c.query_row("PRAGMA integrity_check", [], |row| row.get(0))).unwrap()
}
