//! What is measured.
//!
//! Invariant: an operation times itself, so that what it needs but nobody asked about does not count.

use std::time::{Duration, Instant};

use hardened_sqlite::rusqlite::{Connection, Result as SqliteResult};

use super::subject::{Outcome, ROWS, Subject, words};

/// One operation, given its number: how long it took.
pub(crate) type Operation<'a> = Box<dyn FnMut(u64) -> Outcome<Duration> + 'a>;

/// A row of the table.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) prepare: for<'a> fn(&'a Subject) -> Outcome<Operation<'a>>,
}

pub(crate) const WORKLOADS: [Workload; 8] = [
    Workload { name: "open, first read", prepare: open },
    Workload { name: "read a row", prepare: |subject| on_one(subject, read) },
    Workload { name: "read after another connection wrote", prepare: read_after },
    Workload { name: "insert a row", prepare: |subject| on_one(subject, insert) },
    Workload { name: "connect, insert a row, close", prepare: per_call },
    Workload { name: "update a row in a large table", prepare: |subject| on_one(subject, update) },
    Workload { name: "transaction of 100 pages", prepare: |subject| on_one(subject, scattered) },
    Workload { name: "nine reads and an update", prepare: |subject| on_one(subject, mixed) },
];

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}

/// On a connection that stays open.
fn on_one(subject: &Subject, work: fn(&Connection, u64) -> SqliteResult<()>) -> Outcome<Operation<'_>> {
    let connection = subject.connect()?;
    Ok(Box::new(move |number| Ok(timed(|| work(&connection, number).map_err(words))?.0)))
}

/// Nobody else has it open. The close is not counted.
fn open(subject: &Subject) -> Outcome<Operation<'_>> {
    Ok(Box::new(|number| {
        let opened = timed(|| {
            let connection = subject.connect()?;
            read(&connection, number).map_err(words)?;
            Ok(connection)
        });
        Ok(opened?.0)
    }))
}

/// A connection of its own for every insert, and nobody else has it open: the close is a last one.
fn per_call(subject: &Subject) -> Outcome<Operation<'_>> {
    Ok(Box::new(|number| {
        let done = timed(|| {
            let connection = subject.connect()?;
            insert(&connection, number).map_err(words)?;
            connection.close().map_err(|(_, error)| words(error))
        });
        Ok(done?.0)
    }))
}

fn read_after(subject: &Subject) -> Outcome<Operation<'_>> {
    let (reader, writer) = (subject.connect()?, subject.connect()?);
    Ok(Box::new(move |number| {
        update(&writer, number).map_err(words)?;
        Ok(timed(|| read(&reader, number).map_err(words))?.0)
    }))
}

/// Rows in no order that a cache or a disk would like, and the same for both sides.
fn key(number: u64) -> u64 {
    number.wrapping_mul(2_654_435_761) % ROWS + 1
}

fn read(connection: &Connection, number: u64) -> SqliteResult<()> {
    let mut read = connection.prepare_cached("SELECT y FROM large WHERE x = ?1")?;
    read.query_row([key(number) as i64], |row| row.get_ref(0).map(|_| ()))
}

fn insert(connection: &Connection, _: u64) -> SqliteResult<()> {
    connection.prepare_cached("INSERT INTO small(y) VALUES (randomblob(100))")?.execute([]).map(|_| ())
}

fn update(connection: &Connection, number: u64) -> SqliteResult<()> {
    let mut update = connection.prepare_cached("UPDATE large SET y = randomblob(300) WHERE x = ?1")?;
    update.execute([key(number) as i64]).map(|_| ())
}

/// 100 rows, each on a page of its own.
fn scattered(connection: &Connection, number: u64) -> SqliteResult<()> {
    let sql = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 60 FROM n WHERE i + 60 <= 6000) \
               UPDATE large SET y = randomblob(300) WHERE x IN n";
    connection.prepare_cached(sql)?.execute([(number % 60 + 1) as i64]).map(|_| ())
}

fn mixed(connection: &Connection, number: u64) -> SqliteResult<()> {
    for read_of in 0..9 {
        read(connection, number * 9 + read_of)?;
    }
    update(connection, number)
}
