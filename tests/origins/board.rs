//! A task board: rapid work of many threads and processes, health checks all the time, and nothing but the tasks to show for it.

#[path = "../../examples/task_board.rs"]
mod task_board;

use std::path::Path;
use std::process::Stdio;

use hardened_sqlite::{Check, open};
use support::process::again;
use task_board::{Board, work};
use tempfile::TempDir;

const FILE: &str = "HARDENED_ORIGINS_BOARD";
const WHO: &str = "HARDENED_ORIGINS_BOARD_WHO";
/// Of each process.
const TASKS: i64 = 250;

#[test]
fn worker() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let path = Path::new(&path);
    let worked = work(path, TASKS as u64, &std::env::var(WHO).unwrap()).unwrap();
    assert_eq!(worked.findings, [""; 0], "a false alarm");
    assert!(worked.checks > 0);
    println!("\nchecks {}", worked.checks);
}

#[test]
fn a_thousand_tasks_of_four_processes_are_done_once_each_under_constant_checks() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("board.db");
    let start = |who: usize| {
        let mut worker = again("board::worker");
        worker.env(FILE, &path).env(WHO, who.to_string()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let workers: Vec<_> = (0..4).map(start).collect();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let board = Board::open(&path).unwrap();
    assert_eq!(board.counts().unwrap(), (4 * TASKS, 4 * TASKS));
    let db = open(&path).unwrap();
    assert!(db.check(Check::Full).unwrap().is_ok());
    let titles = "SELECT count(DISTINCT title) FROM task";
    assert_eq!(db.read(|c| c.query_row(titles, [], |row| row.get::<_, i64>(0))).unwrap(), 4 * TASKS);
    assert_eq!(db.report().alarms, [""; 0]);
    drop((board, db));
    let files: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["board.db"], "no backup, no copy, nothing left");
}

#[test]
fn each_process_has_one_connection_however_many_boards_it_opens() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("board.db");
    let board = Board::open(&path).unwrap();
    let mark = |sql: &str| open(&path).unwrap().with_writer(|c| c.execute_batch(sql));
    mark("CREATE TEMP TABLE mark(x)").unwrap();
    work(&path, 20, "task").unwrap();
    mark("INSERT INTO mark VALUES (1)").unwrap();
    drop(board);
    mark("INSERT INTO mark VALUES (1)").unwrap_err();
}
