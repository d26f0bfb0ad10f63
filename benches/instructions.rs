//! What a statement costs on a local disk in instructions, by callgrind: stock SQLite, SQLite's own checksum VFS and hardened.
//!
//! `cargo bench --bench instructions`; `-- WORD...` only the loads and ways whose names have one of the words. Each figure is the
//! difference of a run and one twice as long, so that opening, loading and closing do not count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/checksum/original.rs"]
mod original;

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

const STOCK: &str = "stock";
const ORIGINAL: &str = "SQLite's checksum VFS";
const WAYS: [(&str, &str); 6] = [
    (STOCK, ""),
    ("policy=off", "policy=off"),
    ("guard=off", "guard=off"),
    ("default", ""),
    ("checksum=on", "checksum=on"),
    (ORIGINAL, ""),
];

struct Load {
    name: &'static str,
    wal: bool,
    /// How many in the shorter run.
    times: u32,
    /// Of how many statements one writes; 0: none.
    writes: u32,
    /// Most reads miss it.
    small_cache: bool,
}

const fn load(name: &'static str, wal: bool, times: u32, writes: u32, small_cache: bool) -> Load {
    Load { name, wal, times, writes, small_cache }
}

const LOADS: [Load; 7] = [
    load("point read, WAL", true, 2000, 0, false),
    load("point read past the cache, WAL", true, 2000, 0, true),
    load("one-row commit, WAL NORMAL", true, 2000, 1, false),
    load("9 reads and 1 commit, WAL", true, 4000, 10, false),
    load("point read, DELETE", false, 2000, 0, false),
    load("one-row commit, DELETE FULL", false, 300, 1, false),
    load("9 reads and 1 commit, DELETE", false, 2000, 10, false),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [mark, way, load, times, path] = words.as_slice() {
        if mark == "run" {
            let [way, load, times] = [way, load, times].map(|number| number.parse::<usize>().unwrap());
            return run(&open(WAYS[way], &LOADS[load], path.as_ref()), &LOADS[load], times as u32);
        }
    }
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    if support::require::find_program("valgrind").is_none() {
        return println!("valgrind is not installed");
    }
    let wanted = |name: &str, of: &dyn Fn(&str) -> bool| {
        let words: Vec<&String> = words.iter().filter(|word| of(word)).collect();
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    };
    let of_ways = |word: &str| WAYS.iter().any(|(name, _)| name.contains(word));
    let of_loads = |word: &str| LOADS.iter().any(|load| load.name.contains(word));
    let ways: Vec<usize> = (0..WAYS.len())
        .filter(|way| *way == 0 || wanted(WAYS[*way].0, &of_ways))
        .filter(|way| WAYS[*way].0 != ORIGINAL || original::load())
        .collect();
    let home = tempfile::tempdir().unwrap();
    let names: Vec<&str> = ways.iter().map(|way| WAYS[*way].0).collect();
    println!("| instructions each | {} |\n|---|{}", names.join(" | "), "---|".repeat(ways.len()));
    for (number, load) in LOADS.iter().enumerate().filter(|(_, load)| wanted(load.name, &of_loads)) {
        let figures: Vec<f64> = ways.iter().map(|way| each(home.path(), *way, number)).collect();
        let cells = figures.iter().map(|figure| format!("{figure:.0} ({:.3})", figure / figures[0]));
        println!("| {} | {} |", load.name, cells.collect::<Vec<_>>().join(" | "));
    }
}

fn each(home: &Path, way: usize, load: usize) -> f64 {
    let times = LOADS[load].times;
    let [once, twice] = [times, 2 * times].map(|times| {
        let path = home.join("counted.db");
        for suffix in ["", "-wal", "-shm", "-journal", "-guard"] {
            let _ = std::fs::remove_file(home.join(format!("counted.db{suffix}")));
        }
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args(["run", &way.to_string(), &load.to_string(), &times.to_string()])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let line = text.lines().find(|line| line.contains("Collected :")).unwrap_or_else(|| panic!("{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    });
    (twice - once) / f64::from(times)
}

/// 2,000 rows of 400 bytes, with sums where the way has any.
fn open((way, parameters): (&str, &str), load: &Load, path: &Path) -> Connection {
    let connection = match way {
        STOCK => Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), c"unix").unwrap(),
        ORIGINAL => {
            assert!(original::load());
            let connection = original::open(path);
            original::reserve(&connection);
            connection
        }
        _ => {
            hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
            let policy = if load.wal { "wal" } else { "delete" };
            let policy = if parameters.starts_with("policy") { String::new() } else { format!("&policy={policy}") };
            Connection::open(format!("file:{}?vfs=hardened{policy}&{parameters}", path.display())).unwrap()
        }
    };
    let (mode, synchronous) = if load.wal { ("WAL", "NORMAL") } else { ("DELETE", "FULL") };
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode={mode}; PRAGMA synchronous={synchronous};
             CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO t SELECT i, zeroblob(400) FROM n; CREATE TABLE IF NOT EXISTS u(id INTEGER PRIMARY KEY, x);
             PRAGMA wal_checkpoint"
        ))
        .unwrap();
    if load.small_cache {
        connection.execute_batch("PRAGMA cache_size=10").unwrap();
    }
    connection
}

fn run(connection: &Connection, load: &Load, times: u32) {
    let mut read = connection.prepare("SELECT length(x) FROM t WHERE id = ?1").unwrap();
    let mut write = connection.prepare("INSERT INTO u(x) VALUES (zeroblob(100))").unwrap();
    for i in 0..times {
        if load.writes > 0 && i % load.writes == 0 {
            write.execute([]).unwrap();
        } else {
            let id = i.wrapping_mul(7919) % 2000 + 1;
            assert_eq!(read.query_row([id], |row| row.get::<_, i64>(0)).unwrap(), 400);
        }
    }
}
