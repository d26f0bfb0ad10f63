//! What checks and backups of a large database cost, beside the sqlite3 shell, cp and the same SQLite without this crate.
//!
//! `cargo bench --bench backup`, as root (the page cache is dropped before each cold run) and with five times the size free in
//! the temporary directory. `HARDENED_BENCH_MB` sets the size in MiB (1000). The least of five rounds in turn, because what else
//! the machine does only adds; sqlite3 on a cold file takes so long that it runs once. Ratios are what counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use hardened_sqlite::{Backup, Check, check};
use rusqlite::Connection;

const ROUNDS: usize = 5;

fn main() {
    let megabytes: u64 = std::env::var("HARDENED_BENCH_MB").map_or(1000, |text| text.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let free = fs2::available_space(home.path()).unwrap();
    assert!(free > (5 * megabytes) << 20, "{free} bytes are free, and five times the database is needed");
    let path = home.path().join("app.db");
    make(&path, megabytes << 20);
    println!(
        "{} bytes, SQLite {} and sqlite3 {}",
        size(&path),
        rusqlite::version(),
        shell(&path, "SELECT sqlite_version()")
    );
    let mut times = Times::default();
    for round in 0..ROUNDS {
        checks(&path, round == 0, &mut times);
        copies(home.path(), &path, &mut times);
        eprintln!("{:?}", times.all);
    }
    times.print();
    shared(&path);
}

#[derive(Default)]
struct Times {
    names: Vec<String>,
    all: BTreeMap<String, Vec<f64>>,
}

impl Times {
    fn time<T>(&mut self, name: &str, body: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = body();
        self.add(name, began.elapsed().as_secs_f64());
        result
    }

    fn add(&mut self, name: &str, seconds: f64) {
        if !self.all.contains_key(name) {
            self.names.push(name.to_owned());
        }
        self.all.entry(name.to_owned()).or_default().push(seconds);
    }

    fn least(&self, name: &str) -> f64 {
        self.all[name].iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn print(&self) {
        println!("| what | seconds |\n|---|---|");
        for name in &self.names {
            println!("| {name} | {:.2} |", self.least(name));
        }
        println!("\n| ratio | |\n|---|---|");
        let ratio = |what: &str, of: f64, to: &str| println!("| {what} to {to} | {:.2} |", self.least(what) / of);
        for kind in ["quick", "full"] {
            let (cold, warm) = (format!("check, {kind}, cold"), format!("check, {kind}, warm"));
            ratio(&cold, self.least("cat, cold") + self.least(&warm), "reading the file and the warm check");
            ratio(&cold, self.least(&format!("sqlite3, {kind}, cold")), "sqlite3");
            ratio(&warm, self.least(&format!("sqlite3, {kind}, warm")), "sqlite3");
            ratio(&warm, self.least(&format!("same SQLite, {kind}, warm")), "the same SQLite");
        }
        ratio("check, pages, cold", self.least("cat, cold"), "reading the file");
        ratio("backup: copy", self.least("cp"), "cp");
        ratio("backup: copy and sync", self.least("cp and sync"), "cp and sync");
        ratio("backup: copy and sync", self.least("sqlite3 .backup"), "sqlite3 .backup");
        ratio("backup: all", self.least("cp and sync") + self.least("check, quick, warm"), "cp, sync and a warm check");
    }
}

/// Two tables written in turn, with an index in random order: what a database looks like that has been used.
fn make(path: &Path, bytes: u64) {
    let connection = hardened_sqlite::open_connection(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA synchronous=OFF; PRAGMA cache_size=-1500000; CREATE TABLE a(id INTEGER PRIMARY KEY, k BLOB, x BLOB); \
             CREATE TABLE b(id INTEGER PRIMARY KEY, k BLOB, x BLOB); CREATE INDEX i ON a(k)",
        )
        .unwrap();
    while size(path) + size(&path.with_extension("db-wal")) < bytes {
        for table in ["a", "b"] {
            let sql = format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
                 INSERT INTO {table}(k, x) SELECT randomblob(16), randomblob(abs(random()) % 400) FROM n"
            );
            connection.execute_batch(&sql).unwrap();
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// Nothing of any file is in memory.
fn cold() {
    Command::new("sync").status().unwrap();
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("root, to drop the page cache");
}

fn read(path: &Path) {
    let (mut file, mut piece) = (std::fs::File::open(path).unwrap(), vec![0; 1 << 20]);
    while file.read(&mut piece).unwrap() > 0 {}
}

fn shell(path: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(path).arg(sql).output().expect("the sqlite3 shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn checks(path: &Path, first: bool, times: &mut Times) {
    cold();
    times.time("cat, cold", || Command::new("cat").arg(path).stdout(std::process::Stdio::null()).status().unwrap());
    for (kind, what, pragma) in
        [("quick", Check::Quick, "PRAGMA quick_check"), ("full", Check::Full, "PRAGMA integrity_check")]
    {
        for state in ["cold", "warm"] {
            let before = || if state == "cold" { cold() } else { read(path) };
            if first || state == "warm" {
                before();
                let answer = times.time(&format!("sqlite3, {kind}, {state}"), || shell(path, pragma));
                assert_eq!(answer, "ok");
            }
            if state == "warm" {
                let stock = Connection::open_with_flags_and_vfs(path, Default::default(), c"unix").unwrap();
                times.time(&format!("same SQLite, {kind}, warm"), || {
                    stock.query_row(pragma, [], |row| row.get::<_, String>(0)).unwrap()
                });
            }
            let connection = hardened_sqlite::open_connection(path).unwrap();
            before();
            let health = times.time(&format!("check, {kind}, {state}"), || check(&connection, what).unwrap());
            assert!(health.is_ok());
        }
    }
    let connection = hardened_sqlite::open_connection(path).unwrap();
    for state in ["cold", "warm"] {
        if state == "cold" {
            cold()
        } else {
            read(path)
        };
        times.time(&format!("check, pages, {state}"), || check(&connection, Check::Pages).unwrap());
    }
}

fn copies(home: &Path, path: &Path, times: &mut Times) {
    let to = home.join("copy");
    let fresh = || {
        let _ = std::fs::remove_file(&to);
        Command::new("sync").status().unwrap();
        read(path);
    };
    fresh();
    let began = Instant::now();
    times.time("cp", || Command::new("cp").arg(path).arg(&to).status().unwrap());
    Command::new("sync").arg(&to).status().unwrap();
    times.add("cp and sync", began.elapsed().as_secs_f64());
    fresh();
    times.time("sqlite3 .backup", || shell(path, &format!(".backup {}", to.display())));
    fresh();
    let connection = hardened_sqlite::open_connection(path).unwrap();
    let report = times.time("backup: all", || Backup::to(&to).run(&connection).unwrap());
    times.add("backup: copy", report.copying.as_secs_f64());
    times.add("backup: copy and sync", (report.copying + report.syncing).as_secs_f64());
    times.add("backup: check of the copy", report.health.took.as_secs_f64());
    std::fs::remove_file(&to).unwrap();
}

/// A filesystem that shares blocks.
fn shared(path: &Path) {
    for kind in ["btrfs", "xfs"] {
        let disk = match support::mounts::loop_fs(kind, size(path) * 2 + (400 << 20)) {
            Ok(disk) => disk,
            Err(error) => {
                println!("{kind}: {error}");
                continue;
            }
        };
        let (there, to) = (disk.path().join("app.db"), disk.path().join("copy"));
        std::fs::copy(path, &there).unwrap();
        Command::new("sync").status().unwrap();
        let mut times = Times::default();
        let connection = hardened_sqlite::open_connection(&there).unwrap();
        for _ in 0..ROUNDS {
            times.time("cp", || Command::new("cp").arg("--reflink=always").arg(&there).arg(&to).status().unwrap());
            std::fs::remove_file(&to).unwrap();
            let report = Backup::to(&to).run(&connection).unwrap();
            times.add("copy", report.copying.as_secs_f64());
            times.add("sync", report.syncing.as_secs_f64());
            println!("{kind}: {report}");
            std::fs::remove_file(&to).unwrap();
        }
        let ms = |name| times.least(name) * 1e3;
        println!(
            "{kind}: cp --reflink=always {:.1} ms, backup: copy {:.1} ms, sync {:.1} ms",
            ms("cp"),
            ms("copy"),
            ms("sync")
        );
    }
}
