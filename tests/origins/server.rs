//! The state of a server: two generations of backups at each start, and four ways to be damaged.

#[path = "../../examples/server_state.rs"]
mod server_state;

use std::fs;
use std::path::{Path, PathBuf};

use hardened_sqlite::recover::Outcome;
use rusqlite::Connection;
use server_state::State;
use tempfile::TempDir;

const ROWS: i64 = 2000;

/// A state with [`ROWS`] events, started and stopped often enough to have two backups, the newer with all of them.
fn grown() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    for (round, rows) in [(0, ROWS / 2), (1, ROWS / 2), (2, 0)] {
        let (state, story) = State::start(home.path()).unwrap();
        assert!(story.is_none(), "round {round}: {story:?}");
        (0..rows).for_each(|row| state.add(&format!("event {round} {row} {}", "x".repeat(100))).unwrap());
        let closed = state.stop().unwrap();
        assert!(closed.log_left.is_none() && !closed.still_open);
        assert!(!home.path().join("state.db-wal").exists(), "the log is in the database");
    }
    let path = home.path().join("state.db");
    assert_eq!(saved(&home, "state.db.bak"), ROWS);
    assert_eq!(saved(&home, "state.db.bak.1"), ROWS / 2);
    (home, path)
}

fn saved(home: &TempDir, name: &str) -> i64 {
    let saved = Connection::open(home.path().join(name)).unwrap();
    saved.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap()
}

/// Bytes that are no page, in the second half of a file or everywhere.
fn damage(path: &Path, all: bool) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let from = if all { 100 } else { bytes.len() / 2 / 4096 * 4096 };
    let to = if all { bytes.len() } else { from + 4096 };
    bytes[from..to].fill(0x5a);
    fs::write(path, &bytes).unwrap();
    bytes
}

/// Starts it, and answers how it was recovered and how many events there are.
fn recovered(home: &TempDir, before: &[u8]) -> (Outcome, i64) {
    let (state, story) = State::start(home.path()).unwrap();
    let recovery = story.unwrap();
    assert_eq!(fs::read(recovery.kept.as_ref().unwrap()).unwrap(), before, "the damaged one is kept");
    let count = state.count().unwrap();
    state.add("goes on").unwrap();
    state.stop().unwrap();
    let (state, story) = State::start(home.path()).unwrap();
    assert!(story.is_none() && state.count().unwrap() == count + 1);
    (recovery.outcome, count)
}

#[test]
fn a_backup_has_the_database_alone_and_a_damaged_database_moves_none() {
    let (home, path) = grown();
    let names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let backups = ["state.db.bak", "state.db.bak.1"].map(|name| fs::read(home.path().join(name)).unwrap());
    damage(&path, false);
    hardened_sqlite::Options::new()
        .backup_before_open(hardened_sqlite::Backup::to(home.path().join("state.db.bak")).keep(2))
        .open(&path)
        .unwrap_err();
    let after = ["state.db.bak", "state.db.bak.1"].map(|name| fs::read(home.path().join(name)).unwrap());
    assert!(after == backups);
}

#[test]
fn a_damaged_page_costs_its_rows_and_no_others() {
    let (home, path) = grown();
    let before = damage(&path, false);
    let (outcome, count) = recovered(&home, &before);
    assert!(matches!(outcome, Outcome::Salvaged(_)), "{outcome:?}");
    assert!(count < ROWS && count > ROWS - 100, "{count}");
}

#[test]
fn what_cannot_be_salvaged_comes_from_the_newest_sound_backup() {
    let (home, path) = grown();
    let before = damage(&path, true);
    let (outcome, count) = recovered(&home, &before);
    assert!(matches!(outcome, Outcome::Restored { ref backup, .. } if backup.ends_with("state.db.bak")), "{outcome:?}");
    assert_eq!(count, ROWS);
}

#[test]
fn a_damaged_backup_is_passed_over() {
    let (home, path) = grown();
    let before = damage(&path, true);
    damage(&home.path().join("state.db.bak"), false);
    let (outcome, count) = recovered(&home, &before);
    assert!(
        matches!(outcome, Outcome::Restored { ref backup, .. } if backup.ends_with("state.db.bak.1")),
        "{outcome:?}"
    );
    assert_eq!(count, ROWS / 2);
}
