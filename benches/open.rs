//! What an open costs: stock SQLite against hardened, in turn in one run, so that a machine that changes its speed changes
//! both. `cargo bench --bench open`; `-- DIRECTORY...` measures in these directories.
//!
//! Medians are printed; the differences are what the VFS adds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

const ROUNDS: usize = 2_000;

/// What is measured.
type Way<'a> = (&'a str, Box<dyn FnMut() + 'a>);

fn main() {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).filter(|path| path.is_dir()).collect();
    let home = tempfile::tempdir().unwrap();
    let directories = if given.is_empty() { vec![home.path().to_owned()] } else { given };
    for directory in directories {
        measure(&directory);
    }
}

fn measure(directory: &Path) {
    let path = directory.join("hardened-bench-open.db");
    let made = hardened_sqlite::open_connection(&path).unwrap();
    made.execute_batch("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1)").unwrap();
    let report = hardened_sqlite::report(&made).unwrap();
    println!("{}: {}", directory.display(), report.policy);
    // Kept open: otherwise each close would be the last one and checkpoint.
    let name = path.to_str().unwrap();
    let hardened = format!("file:{name}?vfs=hardened");
    let off = format!("file:{name}?vfs=hardened&policy=off");
    let setup = format!(
        "PRAGMA busy_timeout=2000; PRAGMA journal_mode; PRAGMA synchronous={}",
        report.synchronous.as_deref().unwrap_or("FULL")
    );
    let limit = Duration::from_secs(10);
    let ways: Vec<Way<'_>> = vec![
        ("classify alone", Box::new(|| drop(hardened_sqlite::fs::classify(&path, limit).unwrap()))),
        ("stock: open, close", Box::new(|| drop(open(name)))),
        ("policy=off: open, close", Box::new(|| drop(open(&off)))),
        ("stock: open, the same pragmas, close", Box::new(|| open(name).execute_batch(&setup).unwrap())),
        ("hardened: open, close", Box::new(|| drop(open(&hardened)))),
        (
            "hardened_sqlite::open_connection, close",
            Box::new(|| drop(hardened_sqlite::open_connection(&path).unwrap())),
        ),
    ];
    println!("| what | median, µs |\n|---|---|");
    for (what, time) in medians(ways, ROUNDS) {
        println!("| {what} | {time:.1} |");
    }
    drop(made);
    let _ = std::fs::remove_file(&path);
    handles(directory);
}

/// A database that is open in this process already, and what it costs to connect for each row instead.
fn handles(directory: &Path) {
    let path = directory.join("hardened-bench-handles.db");
    let database = hardened_sqlite::open(&path).unwrap();
    database.write(|tx| tx.execute_batch("CREATE TABLE t(x)")).unwrap();
    let mode = database.report().journal_mode.clone().unwrap_or_default();
    let insert = "INSERT INTO t VALUES (1)";
    let one = hardened_sqlite::open_connection(&path).unwrap();
    let mut one = one.prepare(insert).unwrap();
    let (stock_path, name) = (directory.join("hardened-bench-stock.db"), path.to_str().unwrap());
    let stock_name = stock_path.to_str().unwrap();
    let connect = || {
        let stock = open(stock_name);
        stock.execute_batch(&format!("PRAGMA journal_mode={mode}; PRAGMA synchronous=NORMAL")).unwrap();
        stock
    };
    connect().execute_batch("CREATE TABLE IF NOT EXISTS t(x)").unwrap();
    let stock = connect();
    let mut stock = stock.prepare(insert).unwrap();
    let hardened = format!("file:{name}?vfs=hardened");
    // Nobody else has these open, so each close empties the log.
    let alone = ["stock-alone", "hardened-alone"].map(|name| directory.join(format!("hardened-bench-{name}.db")));
    let [stock_alone, hardened_alone] = [&alone[0], &alone[1]].map(|path| path.to_str().unwrap());
    let hardened_alone = format!("file:{hardened_alone}?vfs=hardened");
    open(stock_alone).execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(x)")).unwrap();
    open(&hardened_alone).execute_batch("CREATE TABLE t(x)").unwrap();
    // By themselves: what a commit leaves in the processor's caches is of no use to them.
    let opens: Vec<Way<'_>> = vec![
        ("stat of the file", Box::new(|| assert!(std::fs::metadata(&path).is_ok()))),
        ("open() of an open database, close", Box::new(|| drop(hardened_sqlite::open(&path).unwrap()))),
    ];
    let opens = medians(opens, ROUNDS);
    let ways: Vec<Way<'_>> = vec![
        ("stock: INSERT of a row, one connection", Box::new(move || assert!(stock.execute([]).is_ok()))),
        ("hardened: INSERT of a row, one connection", Box::new(move || assert!(one.execute([]).is_ok()))),
        (
            "hardened: INSERT of a row, open() for each",
            Box::new(|| {
                let database = hardened_sqlite::open(&path).unwrap();
                database.write(|tx| tx.execute(insert, [])).unwrap();
            }),
        ),
        ("stock: INSERT of a row, a connection for each", Box::new(|| connect().execute_batch(insert).unwrap())),
        (
            "hardened: INSERT of a row, a connection for each",
            Box::new(|| open(&hardened).execute_batch(insert).unwrap()),
        ),
        (
            "stock: the same, and nobody else has it open",
            Box::new(|| {
                let stock = open(stock_alone);
                stock.execute_batch("PRAGMA journal_mode; PRAGMA synchronous=NORMAL").unwrap();
                stock.execute_batch(insert).unwrap();
            }),
        ),
        (
            "hardened: the same, and nobody else has it open",
            Box::new(|| open(&hardened_alone).execute_batch(insert).unwrap()),
        ),
    ];
    println!("\n| what, {mode} | median, µs |\n|---|---|");
    for (what, time) in opens.into_iter().chain(medians(ways, ROUNDS / 4)) {
        println!("| {what} | {time:.1} |");
    }
    drop(database);
    for path in alone.iter().chain([&path, &stock_path]) {
        let _ = std::fs::remove_file(path);
    }
}

/// The median of each, in turn.
fn medians<'a>(mut ways: Vec<Way<'a>>, rounds: usize) -> Vec<(&'a str, f64)> {
    let mut times = vec![Vec::with_capacity(rounds); ways.len()];
    for round in 0..rounds + 100 {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            let began = Instant::now();
            way.1();
            if round >= 100 {
                times.push(began.elapsed());
            }
        }
    }
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        times[rounds / 2].as_secs_f64() * 1e6
    };
    ways.iter().map(|(what, _)| *what).zip(times.into_iter().map(middle)).collect()
}

fn open(name: &str) -> Connection {
    Connection::open_with_flags(name, OpenFlags::default()).unwrap()
}
