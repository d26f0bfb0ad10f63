//! A task board that many threads and processes use at once, with checks of its health running all the time.
//!
//! `cargo run --example task_board -- FILE [TASKS]` creates and completes that many tasks with eight threads.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hardened_sqlite::{Check, Database, Error as Failure};

/// How many threads work.
pub(crate) const THREADS: u64 = 8;

/// The board. Every user of it opens it, and all of a process share one database.
pub(crate) struct Board(Database);

impl Board {
    /// Opens the board.
    pub(crate) fn open(path: &Path) -> Result<Board, Failure> {
        let db = hardened_sqlite::open(path)?;
        db.write(|tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS task(
                     id INTEGER PRIMARY KEY, title TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0);
                 CREATE INDEX IF NOT EXISTS open_tasks ON task(title) WHERE NOT done",
            )
        })?;
        Ok(Board(db))
    }

    /// Creates a task.
    pub(crate) fn create(&self, title: &str) -> Result<i64, Failure> {
        self.0.write(|tx| {
            tx.prepare_cached("INSERT INTO task(title) VALUES (?1)")?.execute([title])?;
            Ok(tx.last_insert_rowid())
        })
    }

    /// Completes it. Whether it was open.
    pub(crate) fn complete(&self, id: i64) -> Result<bool, Failure> {
        let sql = "UPDATE task SET done = 1 WHERE id = ?1 AND NOT done";
        self.0.write(|tx| tx.prepare_cached(sql)?.execute([id]).map(|rows| rows == 1))
    }

    /// How many tasks there are and how many of them are done.
    pub(crate) fn counts(&self) -> Result<(i64, i64), Failure> {
        self.0.read(|c| {
            c.query_row("SELECT count(*), ifnull(sum(done), 0) FROM task", [], |row| Ok((row.get(0)?, row.get(1)?)))
        })
    }
}

/// What happened.
#[derive(Debug)]
pub(crate) struct Worked {
    /// Checks that came to their end.
    pub(crate) checks: u64,
    /// What they found: nothing, unless something is wrong.
    pub(crate) findings: Vec<String>,
}

/// Creates and completes tasks with [`THREADS`] threads, each with a board of its own, while one thread checks.
pub(crate) fn work(path: &Path, tasks: u64, who: &str) -> Result<Worked, Failure> {
    let board = Board::open(path)?;
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let worked = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= tasks {
                            return Ok(());
                        }
                        // As code does that knows nothing of the rest of the program.
                        let board = Board::open(path)?;
                        let id = board.create(&format!("{who} {number}"))?;
                        board.complete(id)?;
                    }
                })
            })
            .collect();
        let checks = scope.spawn(|| {
            let mut worked = Worked { checks: 0, findings: Vec::new() };
            while !over.load(Ordering::Relaxed) {
                let check = if worked.checks % 2 == 0 { Check::Quick } else { Check::Full };
                let goes_on = |_| match over.load(Ordering::Relaxed) && worked.checks > 0 {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                };
                match board.0.check_with(check, &mut { goes_on }) {
                    Ok(health) => worked.findings.extend(health.findings.iter().map(ToString::to_string)),
                    Err(Failure::Cancelled(_)) => break,
                    Err(error) => return Err(error),
                }
                worked.checks += 1;
            }
            Ok(worked)
        });
        let done: Result<(), Failure> = workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        over.store(true, Ordering::Relaxed);
        let worked = checks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.and(worked)
    })?;
    board.0.close()?;
    Ok(worked)
}

#[allow(dead_code, reason = "the tests use the rest")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("which file?")?;
    let tasks = std::env::args().nth(2).map_or(Ok(1000), |tasks| tasks.parse())?;
    println!("{:?}", work(path.as_ref(), tasks, "task")?);
    let (all, done) = Board::open(path.as_ref())?.counts()?;
    println!("{done} of {all} tasks are done");
    Ok(())
}
