//! Processes that commit, or read, as fast as they can, for as long as they are told.
//!
//! Invariant: all that are told at once begin within a pipe's delay of each other, with an open connection.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use support::process::again;

const URI: &str = "HARDENED_FAIR_URI";
const SQL: &str = "HARDENED_FAIR_SQL";
const TIMEOUT: &str = "HARDENED_FAIR_TIMEOUT";

pub(crate) const WRITE: &str = "INSERT INTO t VALUES (1)";
pub(crate) const READ: &str = "SELECT count(*) FROM s";

/// What came of the time that a process had.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) done: u32,
    pub(crate) busy: u32,
    /// The longest that one transaction took, in ms.
    pub(crate) longest: u32,
    /// Transactions in a second.
    pub(crate) rate: f64,
}

/// Turns this process into one that works, if the environment says so.
pub(crate) fn is_worker() -> bool {
    let Ok(uri) = std::env::var(URI) else { return false };
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    let connection = Connection::open(uri).unwrap();
    let timeout = std::env::var(TIMEOUT).unwrap().parse().unwrap();
    connection.execute_batch("PRAGMA synchronous = FULL").unwrap();
    connection.busy_timeout(Duration::from_millis(timeout)).unwrap();
    let sql = std::env::var(SQL).unwrap();
    // Past what the test harness has printed without an end of line.
    println!("\nready");
    for order in std::io::stdin().lines() {
        let time = Duration::from_millis(order.unwrap().parse().unwrap());
        let (began, mut share) = (Instant::now(), Share::default());
        while began.elapsed() < time {
            let this = Instant::now();
            match once(&connection, &sql) {
                Ok(()) => share.done += 1,
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => share.busy += 1,
                Err(error) => panic!("{error}"),
            }
            share.longest = share.longest.max(u32::try_from(this.elapsed().as_millis()).unwrap());
        }
        let took = began.elapsed().as_secs_f64();
        println!("={} {} {} {}", share.done, share.busy, share.longest, f64::from(share.done) / took);
    }
    true
}

fn once(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

/// Such a process.
pub(crate) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// `test` is the name of the test that calls [`is_worker`] first; `timeout` is in ms.
    pub(crate) fn start(test: &str, path: &Path, vfs: &str, sql: &str, timeout: u32) -> Worker {
        let mut child = again(test)
            .env(URI, format!("file:{}?vfs={vfs}", path.display()))
            .env(SQL, sql)
            .env(TIMEOUT, timeout.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut worker = Worker { child, orders, answers };
        worker.hear(|line| (line == "ready").then_some(()));
        worker
    }

    /// Stops it (SIGSTOP), and waits until it has.
    pub(crate) fn stop(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    /// Has it begin.
    pub(crate) fn begin(&mut self, time: Duration) {
        writeln!(self.orders.as_mut().unwrap(), "{}", time.as_millis()).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> Share {
        self.hear(|line| {
            let numbers: Vec<&str> = line.strip_prefix('=')?.split(' ').collect();
            let [done, busy, longest, rate] = numbers[..] else { return None };
            let number = |text: &str| text.parse().unwrap();
            Some(Share {
                done: number(done),
                busy: number(busy),
                longest: number(longest),
                rate: rate.parse().unwrap(),
            })
        })
    }

    fn hear<T>(&mut self, what: impl Fn(&str) -> Option<T>) -> T {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "a worker is gone");
            if let Some(heard) = what(line.trim_end()) {
                return heard;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.orders.take());
        // One that was stopped would not notice.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// All of them at once.
pub(crate) fn together(workers: &mut [&mut Worker], time: Duration) -> Vec<Share> {
    workers.iter_mut().for_each(|worker| worker.begin(time));
    workers.iter_mut().map(|worker| worker.end()).collect()
}
