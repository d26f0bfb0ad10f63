//! A transaction in WAL mode that outgrows the page cache, with savepoints that are rolled back: what it commits outlives a crash,
//! also with an SQLite that leaves frames of it without a checksum (3.40.1, the system's on Debian 12).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use support::crash::Rng;
use support::second::{Connection, Library};

/// What every row says: its number, when it was written, and how often.
const ALL: &str = "SELECT i || ' ' || stamp || ' ' || length(b) FROM t ORDER BY i";

fn open(library: Library, path: &Path, vfs: &str) -> Connection {
    let db = library.open_uri(&format!("file:{}?vfs={vfs}", path.display())).unwrap();
    // A page cache that holds little, so that a transaction is in the log before it commits; no checkpoint.
    let pragmas = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 10";
    assert_eq!(db.rows(pragmas).unwrap()[0], "wal");
    db
}

/// What somebody finds who opens copies of the files as they are now, as after a crash of everybody.
fn after_a_crash(path: &Path) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let copy = home.path().join("copy.db");
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    let db = support::sqlite::Connection::open(&format!("file:{}?vfs=unix", copy.display()), None).unwrap();
    assert_eq!(db.rows("PRAGMA integrity_check").unwrap(), ["ok"]);
    db.rows(ALL).unwrap()
}

fn made(library: Library, path: &Path, vfs: &str) -> Connection {
    let db = open(library, path, vfs);
    db.rows(
        "CREATE TABLE t(i INTEGER PRIMARY KEY, stamp, b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO t SELECT i, 0, zeroblob(3000) FROM n;
         PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
    db
}

fn update(stamp: usize, from: usize, to: usize) -> String {
    let length = 2900 + stamp % 200;
    format!("UPDATE t SET stamp = {stamp}, b = randomblob({length}) WHERE i BETWEEN {from} AND {to};")
}

/// The transaction, and another one after it.
fn commit(db: &Connection, body: &str) {
    db.rows(&format!("BEGIN IMMEDIATE; {body} COMMIT; INSERT INTO t VALUES ((SELECT max(i) + 1 FROM t), 7, 'later')"))
        .unwrap();
}

/// Pages of the savepoint are written twice, but not its first ones; what follows is long or short.
fn bodies() -> [String; 2] {
    let taken_back = format!("SAVEPOINT s; {}{} ROLLBACK TO s; RELEASE s;", update(1, 1, 60), update(2, 20, 60));
    [(100, 200), (100, 104)].map(|(from, to)| format!("{taken_back}{}", update(3, from, to)))
}

/// A transaction with savepoints, some within others.
fn at_random(rng: &mut Rng, transaction: usize) -> String {
    let (mut body, mut open, mut from) = (String::new(), 0, 0);
    for step in 0..3 + rng.below(12) {
        // Often some of the pages that were written last, but not the first of them.
        from = if rng.percent(60) { from + 1 + rng.below(20) } else { rng.below(150) };
        match rng.below(6) {
            0 => {
                open += 1;
                body += &format!("SAVEPOINT s{open};");
            }
            1 if open > 0 => {
                // To any that is open; those within it end.
                open = 1 + rng.below(open);
                body += &format!("ROLLBACK TO s{open};");
            }
            2 if open > 0 => {
                body += &format!("RELEASE s{open};");
                open -= 1;
            }
            _ => body += &update(transaction * 100 + step, from, from + 10 + rng.below(60)),
        }
    }
    body
}

/// Whether it is in the versions up to this one; newer ones may have it or not.
fn has_the_bug(version: &str) -> bool {
    version <= "3.40.1"
}

#[test]
fn what_stock_sqlite_loses_after_a_rollback_to_a_savepoint_is_there_with_hardened() {
    let Some(library) = Library::load() else { return };
    library.load_extension(support::extension::build(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let version = library.open(Path::new(":memory:")).rows("SELECT sqlite_version()").unwrap();
    for (number, body) in bodies().iter().enumerate() {
        let kept = ["unix", "hardened"].map(|vfs| {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.db");
            let db = made(library, &path, vfs);
            commit(&db, body);
            let kept = after_a_crash(&path) == db.rows(ALL).unwrap();
            commit(&db, "");
            let both = after_a_crash(&path) == db.rows(ALL).unwrap();
            println!("SQLite {version:?}, {vfs}, transaction {number}: kept {kept}, with a later one {both}");
            kept && both
        });
        assert!(kept[1], "transaction {number}");
        assert!(!(kept[0] && has_the_bug(&version[0])), "stock {version:?} keeps transaction {number}");
    }
}

#[test]
fn transactions_with_savepoints_at_random_outlive_a_crash_at_every_commit() {
    let Some(library) = Library::load() else { return };
    library.load_extension(support::extension::build(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let version = library.open(Path::new(":memory:")).rows("SELECT sqlite_version()").unwrap();
    let setting = |name, otherwise| std::env::var(name).map_or(otherwise, |value: String| value.parse().unwrap());
    let (seed, rounds) = (setting("HARDENED_SAVEPOINTS_SEED", 5), setting("HARDENED_SAVEPOINTS_ROUNDS", 6));
    let (mut transactions, mut lost) = (0, 0);
    for (vfs, round) in (0..rounds).flat_map(|round| ["unix", "hardened"].map(|vfs| (vfs, round))) {
        let mut rng = Rng::derived(seed, &[round]);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        let db = made(library, &path, vfs);
        for transaction in 0..8 {
            let body = at_random(&mut rng, transaction);
            commit(&db, &body);
            let kept = after_a_crash(&path) == db.rows(ALL).unwrap();
            if vfs == "hardened" {
                assert!(kept, "seed {seed}, round {round}: {body}");
                transactions += 1;
            } else {
                lost += u32::from(!kept);
            }
            if rng.percent(20) {
                db.rows("PRAGMA wal_checkpoint(RESTART)").unwrap();
            }
        }
    }
    println!("seed {seed}: SQLite {version:?}, {transactions} transactions, kept by hardened; {lost} not by stock");
}
