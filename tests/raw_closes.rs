//! Promise 2, first cause: other code of the process opens and closes the files of a database, which drops all POSIX locks
//! that the process has on them. Another process is let in, or deletes the log. Each case fails with stock SQLite first.
//!
//! `HARDENED_CLOSES` sets how often the other process tries to get in, in each journal mode (10,000 unless set).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;
#[path = "raw_closes/closer.rs"]
mod closer;
#[path = "raw_closes/last_close.rs"]
mod last_close;
#[path = "raw_closes/libraries.rs"]
mod libraries;
#[path = "raw_closes/tries.rs"]
mod tries;

use std::path::{Path, PathBuf};

use actors::Other;
use hardened_sqlite::hardened_vfs;
use support::sqlite::Connection;

const BUSY: i32 = rusqlite::ffi::SQLITE_BUSY;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Delete,
    Wal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vfs {
    Stock,
    Hardened,
}

const MODES: [Mode; 2] = [Mode::Delete, Mode::Wal];
const VFSES: [Vfs; 2] = [Vfs::Stock, Vfs::Hardened];

fn uri(path: &Path, mode: Mode, vfs: Vfs) -> String {
    let parameters = match (vfs, mode) {
        (Vfs::Stock, _) => "vfs=unix",
        (Vfs::Hardened, Mode::Delete) => "vfs=hardened&policy=delete&locks=ofd&busy_timeout=0",
        (Vfs::Hardened, Mode::Wal) => "vfs=hardened&policy=wal&locks=ofd&busy_timeout=0",
    };
    format!("file:{}?{parameters}", path.display())
}

fn open(path: &Path, mode: Mode, vfs: Vfs) -> Connection {
    hardened_vfs::register(Default::default()).unwrap();
    Connection::open(&uri(path, mode, vfs), None).unwrap()
}

fn elsewhere(path: &Path, mode: Mode, vfs: Vfs) -> Other {
    Other::open(&uri(path, mode, vfs))
}

/// How many rows [`fresh`] has made.
const ROWS: i64 = 200;

/// A database of stock SQLite's, closed.
fn fresh(home: &Path, mode: Mode) -> PathBuf {
    let path = home.join("app.db");
    let db = open(&path, mode, Vfs::Stock);
    let rows = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})");
    let journal = if mode == Mode::Wal { "PRAGMA journal_mode=WAL;" } else { "" };
    db.rows(&format!("{journal} CREATE TABLE t(x, filler); {rows} INSERT INTO t SELECT i, zeroblob(900) FROM n"))
        .unwrap();
    path
}

/// The result code of statements, 0 for success.
fn code(db: &Connection, sql: &str) -> i32 {
    db.rows(sql).map_or_else(|failure| failure.code, |_| 0)
}

#[track_caller]
fn number(rows: Result<Vec<String>, i32>) -> i64 {
    rows.unwrap().last().unwrap().parse().unwrap()
}

/// What a process finds that opens the database now: whether it is whole, and how many rows have this `x`.
fn found(path: &Path, mode: Mode, x: i64) -> Result<(String, i64), i32> {
    let mut other = elsewhere(path, mode, Vfs::Stock);
    let integrity = other.sql("PRAGMA integrity_check(1)")?.concat();
    let rows = other.sql(&format!("SELECT count(*) FROM t NOT INDEXED WHERE x = {x}"))?;
    Ok((integrity, number(Ok(rows))))
}
