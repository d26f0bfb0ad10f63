//! Fair: processes that write at the same time on a network mount share it. Stock SQLite gives all of it to one of them.
//! `cargo test --test fair -- --nocapture` prints the table of docs/network.md; `HARDENED_FAIR_SECONDS` sets how long each
//! line is measured (4 unless set).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "fair/workers.rs"]
mod workers;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use support::fuse::{Mount, Options};
use support::{ofd, require};
use tempfile::TempDir;
use workers::{READ, Share, WRITE, Worker, is_worker, together};

/// Where tickets are: behind any database.
const TICKETS: (i64, i64) = (1 << 52, 1 << 47);

/// SQLite's SHARED bytes.
const SHARED: (i64, i64) = (0x4000_0002, 510);

/// A mount whose server takes a millisecond for each request.
struct Place {
    mount: Mount,
    _homes: [TempDir; 2],
}

impl Place {
    fn new(forward: bool) -> Place {
        let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let options = Options::new(homes[0].path()).subtype("share").forward_locks(forward);
        let mount = Mount::new(options, homes[1].path()).unwrap();
        let maker = Connection::open(homes[0].path().join("app.db")).unwrap();
        maker.execute_batch("CREATE TABLE t(x); CREATE TABLE s(x); INSERT INTO s VALUES (1), (2)").unwrap();
        drop(maker);
        mount.set_latency(Duration::from_millis(1));
        Place { mount, _homes: homes }
    }

    fn path(&self) -> PathBuf {
        self.mount.path().join("app.db")
    }

    fn connection(&self) -> Connection {
        hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
        let connection = Connection::open(format!("file:{}?vfs=hardened", self.path().display())).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        connection
    }

    fn worker(&self, test: &str, vfs: &str, sql: &str) -> Worker {
        Worker::start(test, &self.path(), vfs, sql, 1000)
    }
}

fn time() -> Duration {
    let seconds = std::env::var("HARDENED_FAIR_SECONDS").map_or(4.0, |seconds| seconds.parse().unwrap());
    Duration::from_secs_f64(seconds)
}

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn rates(shares: &[Share]) -> Vec<f64> {
    shares.iter().map(|share| share.rate).collect()
}

/// The least part of the largest.
fn ratio(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(f64::MAX, f64::min) / rates.iter().copied().fold(0.1, f64::max)
}

/// What a machine that does other work as well did to a measurement is another one the next time.
fn at_last(mut measure: impl FnMut() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..5 {
        match measure() {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    panic!("{failures:?}");
}

fn line(what: &str, alone: f64, shares: &[Share]) -> String {
    let list = |of: fn(&Share) -> u32| shares.iter().map(|share| of(share).to_string()).collect::<Vec<_>>().join(", ");
    let rates = rates(shares);
    let total: f64 = rates.iter().sum();
    let line = format!(
        "| {what} | {} | {:.2} | {} | {} | {} |",
        list(|share| share.done),
        ratio(&rates),
        if alone.is_nan() { String::new() } else { format!("{:.2}", total / alone) },
        list(|share| share.busy),
        list(|share| share.longest)
    );
    println!("{line}");
    line
}

#[test]
fn two_writers_share_a_network_mount_of_which_stock_gives_one_of_them_all() {
    const TEST: &str = "two_writers_share_a_network_mount_of_which_stock_gives_one_of_them_all";
    if is_worker() || !require::fuse() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("| | transactions of each | ratio | of one writer's | BUSY | longest, ms |\n|---|---|---|---|---|---|");
    // Where locks are requests, a change of turns costs some.
    for (name, forward, total) in [("locks of the kernel", false, 0.95), ("locks of the server", true, 0.8)] {
        let place = Place::new(forward);
        at_last(|| {
            let [mut a, mut b] = [(); 2].map(|()| place.worker(TEST, "unix", WRITE));
            let shares = together(&mut [&mut a, &mut b], time());
            let line = line(&format!("stock, {name}"), f64::NAN, &shares);
            // Beside other work a writer may be late, and the other one comes in between.
            let starved = ratio(&rates(&shares)) < 0.2 || shares.iter().any(|share| share.busy > 0);
            starved.then_some(()).ok_or(line)
        });
        // At the same time, since the machine may have other work at any time.
        let beside = Place::new(forward);
        at_last(|| {
            let [mut a, mut b] = [(); 2].map(|()| place.worker(TEST, "hardened", WRITE));
            let mut alone = beside.worker(TEST, "hardened", WRITE);
            let mut shares = together(&mut [&mut a, &mut b, &mut alone], time());
            let alone = shares.remove(2).rate;
            let line = line(&format!("hardened, {name}"), alone, &shares);
            let (rates, busy) = (rates(&shares), shares.iter().map(|share| share.busy).sum::<u32>());
            let fair = ratio(&rates) >= 0.5 && busy == 0 && rates.iter().sum::<f64>() >= total * alone;
            fair.then_some(()).ok_or(line)
        });
    }
}

#[test]
fn four_writers_and_a_reader_get_their_turns_within_a_second() {
    const TEST: &str = "four_writers_and_a_reader_get_their_turns_within_a_second";
    if is_worker() || !require::fuse() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new(false);
    at_last(|| {
        let mut four = [(); 4].map(|()| place.worker(TEST, "hardened", WRITE));
        let shares = together(&mut four.iter_mut().collect::<Vec<_>>(), time());
        let line = line("four writers", f64::NAN, &shares);
        let fair = ratio(&rates(&shares)) >= 0.4 && shares.iter().all(|share| share.busy == 0);
        fair.then_some(()).ok_or(line)
    });
    at_last(|| {
        let [mut a, mut b] = [(); 2].map(|()| place.worker(TEST, "hardened", WRITE));
        let mut reader = place.worker(TEST, "hardened", READ);
        let shares = together(&mut [&mut a, &mut b, &mut reader], time());
        let line = line("two writers and a reader", f64::NAN, &shares);
        let fair = ratio(&rates(&shares[..2])) >= 0.5 && shares.iter().all(|share| share.busy == 0);
        fair.then_some(()).ok_or(line)
    });
}

#[test]
fn a_writer_loses_little_time_to_one_that_waits_and_is_stopped() {
    const TEST: &str = "a_writer_loses_little_time_to_one_that_waits_and_is_stopped";
    if is_worker() || !require::fuse() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (place, beside) = (Place::new(false), Place::new(false));
    let handle = File::options().read(true).write(true).open(place.path()).unwrap();
    at_last(|| {
        let [mut writer, mut alone] = [&place, &beside].map(|place| place.worker(TEST, "hardened", WRITE));
        let mut waiter = Worker::start(TEST, &place.path(), "hardened", WRITE, 60_000);
        let blocker = place.connection();
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        waiter.begin(time());
        let began = Instant::now();
        while !ofd::is_locked(&handle, TICKETS.0, TICKETS.1) {
            assert!(began.elapsed() < Duration::from_secs(60), "no ticket was taken");
            std::thread::yield_now();
        }
        waiter.stop();
        blocker.execute_batch("ROLLBACK").unwrap();
        if ofd::is_locked(&handle, SHARED.0, SHARED.1) {
            return Err("it was stopped on its way to the ticket, with SHARED".to_owned());
        }
        let shares = together(&mut [&mut writer, &mut alone], time());
        assert!(ofd::is_locked(&handle, TICKETS.0, TICKETS.1), "the ticket is still there");
        drop(waiter);
        assert!(!ofd::is_locked(&handle, TICKETS.0, TICKETS.1), "and goes with its process");
        let line = line("one writer beside one that waits and is stopped", shares[1].rate, &shares[..1]);
        (shares[0].rate >= 0.9 * shares[1].rate).then_some(()).ok_or(line)
    });
}

#[test]
fn a_writer_that_waits_for_readers_keeps_new_ones_out() {
    if is_worker() || !require::fuse() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for forward in [false, true] {
        let place = Place::new(forward);
        let [reader, writer, late] = [(); 3].map(|()| place.connection());
        let count = |connection: &Connection| connection.query_row(READ, [], |row| row.get::<_, i64>(0));
        reader.execute_batch("BEGIN; SELECT count(*) FROM s").unwrap();
        assert_eq!(count(&reader), Ok(2));
        writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO s VALUES (3)").unwrap();
        assert_eq!(count(&late), Ok(2), "RESERVED keeps nobody out");
        let busy = Some(ErrorCode::DatabaseBusy);
        assert_eq!(writer.execute_batch("COMMIT").unwrap_err().sqlite_error_code(), busy);
        for _ in 0..3 {
            assert_eq!(count(&late).unwrap_err().sqlite_error_code(), busy);
        }
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&late).unwrap_err().sqlite_error_code(), busy, "PENDING is still held");
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!((count(&late), count(&reader)), (Ok(3), Ok(3)));
    }
}
