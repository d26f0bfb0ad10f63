//! A session store: the right level of synchronous in each mode, and every acknowledged event after a SIGKILL.

#[path = "../../examples/session_store.rs"]
mod session_store;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use hardened_sqlite::{FsChoice, Options};
use session_store::Sessions;
use tempfile::TempDir;

use crate::integrity;

const DIRECTORY: &str = "HARDENED_ORIGINS_SESSIONS";
const FS: &str = "HARDENED_ORIGINS_SESSIONS_FS";

fn options(fs: &str) -> Options {
    Options::new().fs(if fs == "network" { FsChoice::Network } else { FsChoice::Auto })
}

#[test]
fn the_level_of_synchronous_follows_the_mode_and_is_never_off() {
    for (fs, mode, level) in [("local", "wal", "NORMAL"), ("network", "delete", "FULL")] {
        let home = TempDir::new().unwrap();
        let sessions = Sessions::open(&options(fs), home.path()).unwrap();
        let db = sessions.database();
        let report = db.report();
        assert_eq!(report.journal_mode.as_deref(), Some(mode));
        assert_eq!(report.synchronous.as_deref(), Some(level));
        assert_eq!(report.busy_timeout, Some(2000));
        let off = "PRAGMA synchronous = OFF";
        let answer = db.with_writer(|c| {
            c.execute_batch(off)?;
            c.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))
        });
        assert!(answer.unwrap() > 0, "{mode}");
        let orphan = sessions.append(7, 1, "of no session").unwrap_err();
        assert!(orphan.to_string().contains("FOREIGN KEY constraint failed"), "{orphan}");
    }
}

/// The program itself, until it is killed.
#[test]
fn writer() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        println!();
        let fs = std::env::var(FS).unwrap();
        session_store::run(&options(&fs), Path::new(&directory)).unwrap();
    }
}

#[test]
fn every_acknowledged_event_is_there_after_each_of_many_kills() {
    for fs in ["local", "network"] {
        let home = TempDir::new().unwrap();
        let mut safe = None;
        for round in 0..12_usize {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sessions::writer", "--nocapture"])
                .env(DIRECTORY, home.path())
                .env(FS, fs)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut events = lines.by_ref().filter_map(|line| line.ok()?.strip_prefix("safe ")?.parse::<i64>().ok());
            // In the middle of the work that follows this event.
            let killed_after = events.nth(5 + 7 * round).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            // What it has said before it died counts too.
            safe = events.last().or(Some(killed_after)).max(safe);
            let sessions = Sessions::open(&options(fs), home.path()).unwrap();
            assert_eq!(integrity(sessions.database()), "ok");
            let there = "SELECT count(*), max(number) FROM events WHERE session = 1";
            let (count, last): (i64, i64) =
                sessions.database().read(|c| c.query_row(there, [], |row| Ok((row.get(0)?, row.get(1)?)))).unwrap();
            assert!(Some(last) >= safe, "{fs}, round {round}: {last} of {safe:?}");
            assert_eq!(count, last + 1, "none is missing");
            assert_eq!(sessions.database().report().alarms, [""; 0]);
        }
    }
}
