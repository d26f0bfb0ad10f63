//! Promise 2: nobody takes a lock away from a hardened connection, and a mix of hardened and stock ones stays safe.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;
#[path = "locks/forked.rs"]
mod forked;
#[path = "locks/levels.rs"]
mod levels;
#[path = "locks/neighbours.rs"]
mod neighbours;
#[path = "locks/odd.rs"]
mod odd;

use std::path::Path;

use actors::Other;
use rusqlite::{Connection, OpenFlags};

/// Bytes of the main file on which somebody has a lock, as `KIND MODE FIRST LAST`: those of this inode in the kernel's list.
fn locked(path: &Path) -> Vec<String> {
    // The kernel gives out its list in pieces, and other tests take and release locks meanwhile.
    let mut before = listed(path);
    loop {
        let now = listed(path);
        if now == before {
            return now;
        }
        before = now;
    }
}

fn listed(path: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).unwrap();
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let list = std::fs::read_to_string("/proc/locks").unwrap();
    let on_it = |line: &&str| line.split_whitespace().any(|field| field == inode);
    let told = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        [fields[1], fields[3], fields[6], fields[7]].join(" ")
    };
    let mut found: Vec<String> = list.lines().filter(on_it).map(told).collect();
    found.sort();
    // Where one piece of the list ends and the next begins, a lock that was taken elsewhere meanwhile shows another one twice.
    found.dedup();
    found
}

/// Opened as any program does it, with more options behind the VFS.
fn open(path: &Path, vfs: &str) -> Connection {
    if vfs.contains("hardened") {
        hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    }
    let db = Connection::open_with_flags(format!("file:{}?{vfs}", path.display()), OpenFlags::default()).unwrap();
    db.busy_timeout(std::time::Duration::ZERO).unwrap();
    db
}

/// The same in another process.
fn peer(path: &Path, vfs: &str) -> Other {
    // Which is what `busy_timeout` does above; stock SQLite does not wait unless it is told to.
    Other::open(&format!("file:{}?{vfs}{}", path.display(), if vfs == STOCK { "" } else { "&busy_timeout=0" }))
}

/// In rollback mode, with our locks.
const HARDENED: &str = "vfs=hardened&policy=delete&locks=ofd";
/// The same in WAL mode.
const WAL: &str = "vfs=hardened&policy=wal&locks=ofd";
/// As SQLite comes.
const STOCK: &str = "vfs=unix";

/// The result code of statements, 0 for success. Rows are read and thrown away.
fn code(db: &Connection, sql: &str) -> i32 {
    match db.execute_batch(sql) {
        Ok(()) => 0,
        Err(rusqlite::Error::SqliteFailure(error, _)) => error.extended_code,
        Err(error) => panic!("{sql}: {error}"),
    }
}

fn integrity(db: &Connection) -> String {
    db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

fn count(db: &Connection) -> i64 {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}
