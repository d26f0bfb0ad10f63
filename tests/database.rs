//! Promise 8: one connection per file and process, one writer, a pool of readers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "database/cache.rs"]
mod cache;
#[path = "database/care.rs"]
mod care;
#[path = "database/closing.rs"]
mod closing;
#[path = "database/transactions.rs"]
mod transactions;

use std::path::Path;

use hardened_sqlite::{Database, Error};
use tempfile::TempDir;

/// A directory and a database in it with one empty table.
fn made() -> (TempDir, Database) {
    let home = TempDir::new().unwrap();
    let db = hardened_sqlite::open(home.path().join("app.db")).unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, writer, seq)")).unwrap();
    (home, db)
}

fn insert(db: &Database, x: i64) -> Result<usize, Error> {
    db.write(|tx| tx.execute("INSERT INTO t(x) VALUES (?1)", [x]))
}

fn count(db: &Database) -> i64 {
    db.read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).unwrap()
}

/// How many descriptors of this process are open on a file.
fn descriptors(path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links.filter(|link| std::fs::read_link(link.as_ref().unwrap().path()).is_ok_and(|to| to == path)).count()
}
