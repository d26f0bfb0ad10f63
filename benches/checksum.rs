//! What checksums cost: stock SQLite, SQLite's own checksum VFS and hardened, in turn in one run.
//!
//! `cargo bench --bench checksum`. Medians of times, and, where valgrind is installed, instructions: of each workload twice, with
//! and without its statements, so that opening and loading do not count. Ratios are what counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/checksum/original.rs"]
mod original;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rusqlite::Connection;

const WAYS: [&str; 3] = ["stock", "original", "hardened"];
const WORKLOADS: [(&str, u32); 4] =
    [("point reads", 100_000), ("inserts, one commit", 10_000), ("inserts, a commit each", 2_000), ("full scans", 10)];
const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [way, workload, count, path] = arguments.as_slice() {
        run(&open(way, path.as_ref()), workload, count.parse().unwrap());
        return;
    }
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    let ways: Vec<&str> = WAYS.into_iter().filter(|way| *way != "original" || original::load()).collect();
    let home = tempfile::tempdir().unwrap();
    println!("| workload | unit | {} |\n|---|---|{}", ways.join(" | "), "---|".repeat(ways.len()));
    for (workload, count) in WORKLOADS {
        let mut times = vec![Vec::new(); ways.len()];
        for round in 0..ROUNDS {
            for (way, times) in ways.iter().zip(&mut times) {
                let path = database(home.path(), &format!("{way}{round}"), way);
                let connection = open(way, &path);
                let began = Instant::now();
                run(&connection, workload, count);
                times.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(count));
            }
        }
        let medians = times.iter_mut().map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        print_row(workload, "µs each", &medians.collect::<Vec<f64>>());
        if support::require::find_program("valgrind").is_some() {
            let count = count / 20 + 1;
            let counted = ways.iter().map(|way| {
                let [with, without] = [count, 0].map(|count| {
                    let path = database(home.path(), "counted", way);
                    instructions(way, workload, count, &path)
                });
                (with - without) / f64::from(count)
            });
            print_row(workload, "instructions each", &counted.collect::<Vec<f64>>());
        }
    }
}

/// Each figure, and what it is of the first.
fn print_row(workload: &str, unit: &str, figures: &[f64]) {
    let cells = figures.iter().map(|figure| format!("{figure:.1} ({:.3})", figure / figures[0]));
    println!("| {workload} | {unit} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

/// 10,000 rows of 400 bytes in WAL mode, with sums where the way has any.
fn database(home: &Path, name: &str, way: &str) -> std::path::PathBuf {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(home.join(format!("{name}.db{suffix}")));
    }
    let path = home.join(format!("{name}.db"));
    let connection = open(way, &path);
    if way == "original" {
        original::reserve(&connection);
    }
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
             INSERT INTO t SELECT i, zeroblob(400) FROM n; CREATE TABLE u(id INTEGER PRIMARY KEY, x)",
        )
        .unwrap();
    path
}

fn open(way: &str, path: &Path) -> Connection {
    let connection = match way {
        "stock" => Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), c"unix").unwrap(),
        "original" => {
            assert!(original::load());
            original::open(path)
        }
        _ => {
            hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
            Connection::open(format!("file:{}?vfs=hardened&checksum=on&policy=wal&fs=local", path.display())).unwrap()
        }
    };
    // So small that nearly every read is one of the VFS.
    connection.execute_batch("PRAGMA cache_size=10; PRAGMA synchronous=NORMAL").unwrap();
    connection
}

fn run(connection: &Connection, workload: &str, count: u32) {
    match workload {
        "point reads" => {
            let mut statement = connection.prepare("SELECT length(x) FROM t WHERE id = ?1").unwrap();
            for i in 0..count {
                let id = i.wrapping_mul(7919) % 10_000 + 1;
                assert_eq!(statement.query_row([id], |row| row.get::<_, i64>(0)).unwrap(), 400);
            }
        }
        "full scans" => {
            let mut statement = connection.prepare("SELECT sum(length(x)) FROM t").unwrap();
            for _ in 0..count {
                assert_eq!(statement.query_row([], |row| row.get::<_, i64>(0)).unwrap(), 4_000_000);
            }
        }
        _ => {
            let each = workload.ends_with("each");
            let mut statement = connection.prepare("INSERT INTO u(x) VALUES (zeroblob(400))").unwrap();
            if !each {
                connection.execute_batch("BEGIN").unwrap();
            }
            for _ in 0..count {
                statement.execute([]).unwrap();
            }
            if !each {
                connection.execute_batch("COMMIT").unwrap();
            }
            drop(statement);
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
    }
}

/// Counted by valgrind in a process of its own.
fn instructions(way: &str, workload: &str, count: u32, path: &Path) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args([way, workload, &count.to_string()])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|line| line.contains("Collected :")).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
