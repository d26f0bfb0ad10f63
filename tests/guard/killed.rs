//! Databases as a process leaves them that died in the middle of a commit in rollback mode.
//!
//! The process runs on a VFS that lets so many pages reach the database and fails from then on, also when SQLite wants to
//! read its journal to undo them; then it goes without closing anything.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};
use support::fault_vfs::{Call, FailSpec, FaultVfs};
use support::names::beside;
use tempfile::TempDir;

/// How many rows there were before the last transaction.
pub(crate) const ROWS: i64 = 60;

/// How many rows were only in the WAL.
pub(crate) const COMMITS: i64 = 10;

/// Pages that the last transaction writes, page 1 last.
pub(crate) const PAGES: u64 = 8;

const DIRECTORY: &str = "HARDENED_TEST_DIE_IN";
const AFTER: &str = "HARDENED_TEST_DIE_AFTER";

/// What a process has left.
pub(crate) struct Killed(TempDir);

impl Killed {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("app.db")
    }

    /// Waits until the process has been dead for longer than may lie between a record and its pages.
    pub(crate) fn rest(&self) {
        while age(&self.path()).min(age(&beside(&self.path(), "-guard"))) < 1100 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// A copy of the database and its journal, without the guard's record.
    pub(crate) fn copy(&self) -> PathBuf {
        let copy = self.0.path().join("copy.db");
        std::fs::copy(self.path(), &copy).unwrap();
        if beside(&self.path(), "-journal").exists() {
            std::fs::copy(beside(&self.path(), "-journal"), beside(&copy, "-journal")).unwrap();
        }
        copy
    }
}

/// A process that died after so many pages had been written.
pub(crate) fn killed_after(test: &str, pages: u64) -> Killed {
    // On a machine that stands still between the record and the pages the times prove nothing.
    let prompt =
        |killed: &Killed| pages == 0 || age(&killed.path()).abs_diff(age(&beside(&killed.path(), "-guard"))) < 500;
    (0..10).map(|_| killed(test, &pages.to_string())).find(prompt).expect("a record right before its pages")
}

/// How long ago the status of a file was changed, in milliseconds.
fn age(path: &Path) -> i128 {
    let found = std::fs::metadata(path).unwrap();
    let changed = i128::from(found.ctime()) * 1000 + i128::from(found.ctime_nsec()) / 1_000_000;
    i128::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap() - changed
}

/// A process that died in a transaction that changes one row.
pub(crate) fn killed_in_small(test: &str) -> Killed {
    killed(test, "small")
}

/// A process that died with commits in a WAL.
pub(crate) fn killed_in_wal(test: &str) -> Killed {
    killed(test, "wal")
}

/// The test program runs itself again, up to here.
fn killed(test: &str, after: &str) -> Killed {
    if let (Some(directory), Some(after)) = (std::env::var_os(DIRECTORY), std::env::var(AFTER).ok()) {
        let path = Path::new(&directory).join("app.db");
        match after.parse() {
            Ok(after) => die_while_writing(&path, after, "x % 4 = 0"),
            Err(_) if after == "small" => die_while_writing(&path, 1, "x = 1"),
            Err(_) => die_with_a_wal(&path),
        }
    }
    let home = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, home.path())
        .env(AFTER, after)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stderr);
    assert_eq!(status.status.code(), Some(77), "{text}");
    Killed(home)
}

fn die_with_a_wal(path: &Path) -> ! {
    let connection = super::open(&super::local(), path);
    connection.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, filler); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    // A change of the file must lie back far enough to be told from a later one.
    while std::fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap().as_millis() < 30 {
        std::thread::yield_now();
    }
    for x in 1..=COMMITS {
        connection.execute("INSERT INTO t VALUES (?1, 'filler')", [x]).unwrap();
    }
    std::mem::forget(connection);
    std::process::exit(77);
}

fn die_while_writing(path: &Path, after: u64, rows: &str) -> ! {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    let vfs = FaultVfs::register("dying");
    let uri = format!("file:{}?vfs=hardened&base=dying&policy=delete&combine=off", path.display());
    let connection = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
    connection.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, filler); CREATE INDEX f ON t(filler)").unwrap();
    for x in 1..=ROWS {
        connection.execute("INSERT INTO t VALUES (?1, printf('%0200d', ?1))", [x]).unwrap();
    }
    let written = vfs.fail(Call::Write, FailSpec::code(10 | (3 << 8)).name("app.db").skip(after));
    let unlinked = vfs.fail(Call::Delete, FailSpec::code(10 | (10 << 8)).name("-journal"));
    // Before it syncs a journal SQLite looks for an old header behind its records.
    vfs.fail(Call::Read, FailSpec::code(10 | (1 << 8)).name("-journal").skip(1));
    let update = format!("UPDATE t SET filler = printf('%0200d', x + 1000) WHERE {rows}");
    let error = connection.execute_batch(&update).unwrap_err();
    eprintln!("{error}");
    assert_eq!(written.matched().min(after), after, "as many pages are written");
    assert!(written.seen() > 0 || unlinked.seen() > 0);
    std::mem::forget(connection);
    std::process::exit(77);
}
