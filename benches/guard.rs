//! What the guard costs: system calls, syncs, bytes and time of a commit, for each of its modes and for stock SQLite.
//!
//! `cargo bench --bench guard`. The modes take turns in one process for the times; the counts come from a child process
//! for each mode, by /proc/self/io and, where it is installed, strace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

const WORK: &str = "HARDENED_BENCH_WORK";
const ROUNDS: usize = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Stock,
    With(&'static str),
}

const MODES: [Mode; 4] = [Mode::Stock, Mode::With("off"), Mode::With("on"), Mode::With("strict")];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Stock => "stock",
            Mode::With(guard) => guard,
        }
    }
}

/// A load: the journal mode, what is done, and how often.
struct Load {
    name: &'static str,
    journal: &'static str,
    synchronous: &'static str,
    times: usize,
    work: fn(&Connection, usize),
}

const LOADS: [Load; 5] = [
    Load { name: "WAL, NORMAL: insert a row", journal: "wal", synchronous: "normal", times: 4000, work: insert },
    Load { name: "WAL, FULL: insert a row", journal: "wal", synchronous: "full", times: 300, work: insert },
    Load { name: "DELETE, FULL: insert a row", journal: "delete", synchronous: "full", times: 200, work: insert },
    Load { name: "DELETE, FULL: update 100 pages", journal: "delete", synchronous: "full", times: 40, work: update },
    Load { name: "WAL: read a row", journal: "wal", synchronous: "normal", times: 20_000, work: read },
];

fn insert(connection: &Connection, _: usize) {
    let mut insert = connection.prepare_cached("INSERT INTO t(filler) VALUES (zeroblob(100))").unwrap();
    insert.execute([]).unwrap();
}

fn update(connection: &Connection, number: usize) {
    let mut update = connection.prepare_cached("UPDATE u SET k = ?1 WHERE x <= 100").unwrap();
    update.execute([number as i64]).unwrap();
}

fn read(connection: &Connection, number: usize) {
    let mut read = connection.prepare_cached("SELECT k FROM u WHERE x = ?1").unwrap();
    read.query_row([number as i64 % 200 + 1], |row| row.get::<_, i64>(0)).unwrap();
}

fn open(mode: Mode, load: &Load, path: &Path) -> Connection {
    let policy = if load.journal == "wal" { "wal" } else { "delete" };
    let connection = match mode {
        Mode::Stock => Connection::open(path).unwrap(),
        Mode::With(guard) => {
            hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
            let uri = format!("file:{}?vfs=hardened&policy={policy}&guard={guard}", path.display());
            Connection::open_with_flags(uri, OpenFlags::default()).unwrap()
        }
    };
    let (journal, synchronous) = (load.journal, load.synchronous);
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode={journal}; PRAGMA synchronous={synchronous};
             CREATE TABLE IF NOT EXISTS t(x INTEGER PRIMARY KEY, filler);
             CREATE TABLE IF NOT EXISTS u(x INTEGER PRIMARY KEY, k, filler);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO u SELECT i, 0, zeroblob(3500) FROM n WHERE NOT EXISTS (SELECT 1 FROM u)"
        ))
        .unwrap();
    connection
}

fn work(connection: &Connection, load: &Load) -> Duration {
    let start = Instant::now();
    for number in 0..load.times {
        (load.work)(connection, number);
    }
    start.elapsed()
}

/// Bytes written and calls of write by this process so far.
fn written() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    (field("wchar:"), field("syscw:"))
}

/// What a child does: `MODE LOAD PATH TIMES-FACTOR`.
fn child(arguments: &str) {
    let mut parts = arguments.splitn(4, ' ');
    let mode: usize = parts.next().unwrap().parse().unwrap();
    let load: usize = parts.next().unwrap().parse().unwrap();
    let times: usize = parts.next().unwrap().parse().unwrap();
    let (mode, load) = (MODES[mode], &LOADS[load]);
    let connection = open(mode, load, Path::new(parts.next().unwrap()));
    let before = written();
    for number in 0..times {
        (load.work)(&connection, number);
    }
    let after = written();
    println!("{} {}", after.0 - before.0, after.1 - before.1);
    std::process::exit(0);
}

fn run(mode: usize, load: usize, times: usize, strace: bool) -> (f64, BTreeMap<String, u64>) {
    let home = tempfile::tempdir().unwrap();
    let counts = home.path().join("counts");
    let this = std::env::current_exe().unwrap();
    let mut command = if strace { Command::new("strace") } else { Command::new(&this) };
    if strace {
        command.args(["-f", "-c", "-o"]).arg(&counts).arg(&this);
    }
    let path = home.path().join("bench.db");
    let output = command.env(WORK, format!("{mode} {load} {times} {}", path.display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(&counts).unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let (Some(Ok(count)), Some(name)) = (fields.get(3).map(|count| count.parse()), fields.last()) {
            calls.insert((*name).to_owned(), count);
        }
    }
    (bytes, calls)
}

/// Per operation: the difference of a long and a short run, so that opening and closing do not count.
fn counted(mode: usize, load: usize, strace: bool) -> (f64, f64, f64) {
    let times = LOADS[load].times.min(4000);
    let (few, many) = (times / 4, times);
    let (short, long) = (run(mode, load, few, strace), run(mode, load, many, strace));
    let per = |difference: f64| difference / (many - few) as f64;
    let of = |calls: &BTreeMap<String, u64>, wanted: fn(&str) -> bool| -> f64 {
        calls.iter().filter(|(name, _)| wanted(name)).map(|(_, count)| *count as f64).sum()
    };
    let all: fn(&str) -> bool = |name| name != "total";
    let syncs: fn(&str) -> bool = |name| matches!(name, "fsync" | "fdatasync");
    (per(of(&long.1, all) - of(&short.1, all)), per(of(&long.1, syncs) - of(&short.1, syncs)), per(long.0 - short.0))
}

fn main() {
    if let Ok(arguments) = std::env::var(WORK) {
        child(&arguments);
    }
    let strace = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    println!("| load | guard | time, ratio | system calls | syncs | bytes written |");
    println!("|---|---|---|---|---|---|");
    for (index, load) in LOADS.iter().enumerate() {
        let home = tempfile::tempdir().unwrap();
        let open = |mode: Mode| open(mode, load, &home.path().join(format!("{}.db", mode.name())));
        let connections: Vec<Connection> = MODES.iter().map(|mode| open(*mode)).collect();
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); MODES.len()];
        for round in 0..ROUNDS {
            for step in 0..MODES.len() {
                // Nobody always runs after the same one.
                let mode = (step + round) % MODES.len();
                times[mode].push(work(&connections[mode], load));
            }
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64()
        };
        let stock = median(&mut times[0]);
        for (mode, times) in times.iter_mut().enumerate() {
            let (calls, syncs, bytes) = counted(mode, index, strace);
            let ratio = median(times) / stock;
            println!("| {} | {} | {ratio:.2} | {calls:.1} | {syncs:.3} | {bytes:.0} |", load.name, MODES[mode].name());
        }
    }
    if !strace {
        println!("\nsystem calls and syncs need strace, which is not installed");
    }
}
