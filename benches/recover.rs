//! How long it takes to recover a database of about 1 GB, beside `.recover` of SQLite's shell into a new one, in one run:
//! `cargo bench --bench recover -- [MEGABYTES]`. It needs five times as much room in the directory of temporary files.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use hardened_sqlite::{Check, Outcome, Recover};
use rusqlite::Connection;
use support::shell::Shell;

/// Rows of about 250 bytes with a key, a time, two texts and a number, one index, and a table WITHOUT ROWID.
fn make(path: &Path, megabytes: u64) {
    let connection = Connection::open(path).unwrap();
    let rows = megabytes * 2900;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN;
             CREATE TABLE messages(id INTEGER PRIMARY KEY, at INT, author TEXT, body TEXT, score REAL);
             CREATE TABLE tags(tag TEXT, message INT, PRIMARY KEY(tag, message)) WITHOUT ROWID;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO messages SELECT i, 1700000000 + i * 7, 'author ' || (i * 7919 % 10007),
                 'message ' || i || ' ' || substr(hex(i * 2654435761) || printf('%.*c', 260, 'text of it '), 1, 200 + i % 120), i / 8.0
             FROM n;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows} / 4)
             INSERT INTO tags SELECT 'tag ' || printf('%08d', i), i FROM n;
             CREATE INDEX messages_at ON messages(at);
             COMMIT"
        ))
        .unwrap();
}

/// Takes away every ten thousandth page.
fn damage(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in (5000..pages).step_by(10_000) {
        file.write_all_at(&[0; 4096], page * 4096).unwrap();
    }
}

/// A database that lies damaged on a disk was written long ago: nobody has to wait for that now.
fn settle(path: &Path) {
    std::fs::File::open(path).unwrap().sync_all().unwrap();
}

fn count(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection
        .query_row("SELECT (SELECT count(*) FROM messages NOT INDEXED) + (SELECT count(*) FROM tags)", [], |row| {
            row.get(0)
        })
        .unwrap()
}

/// Seconds of user time of this process and of those that it has waited for.
fn user_time() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    [fields[11], fields[13]].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> (T, f64) {
    let (began, user) = (Instant::now(), user_time());
    let result = run();
    let seconds = began.elapsed().as_secs_f64();
    println!("{what}: {seconds:.1} s, {:.1} s of user time", user_time() - user);
    (result, seconds)
}

fn main() {
    let Some(shell) = Shell::find() else { return };
    let megabytes = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1000);
    let home = tempfile::tempdir().unwrap();
    let path = |name| home.path().join(name);
    make(&path("app.db"), megabytes);
    damage(&path("app.db"));
    settle(&path("app.db"));
    let size = std::fs::metadata(path("app.db")).unwrap().len() as f64 / 1e6;
    println!("{size:.0} MB");
    let mut ratios = Vec::new();
    for round in 0..2 {
        std::fs::copy(path("app.db"), path("copy.db")).unwrap();
        settle(&path("copy.db"));
        let (recovery, ours) = timed("recover()", || Recover::new().run(path("copy.db")).unwrap());
        assert!(matches!(recovery.outcome, Outcome::Salvaged(_)));
        let ((), stock) = timed(".recover of the shell into a new database", || {
            shell.recover(&path("app.db"), &path("stock.db")).unwrap();
        });
        println!("rows: {} by recover(), {} by the shell", count(&path("copy.db")), count(&path("stock.db")));
        if round == 0 {
            println!("{recovery}");
            let connection = hardened_sqlite::open_connection(path("copy.db")).unwrap();
            assert!(hardened_sqlite::check(&connection, Check::Full).unwrap().is_ok());
        }
        ratios.push(stock / ours);
        for entry in std::fs::read_dir(home.path()).unwrap().flatten() {
            if entry.file_name() != "app.db" {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    println!("the shell takes {ratios:.1?} times as long");
}
