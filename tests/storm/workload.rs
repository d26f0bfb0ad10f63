//! What a writer does, and what a database must hold after it: both follow from a seed.
//!
//! Invariant: [`transaction`] depends on nothing but its arguments, so whoever knows the seed knows what every writer's
//! slots hold after any number of its transactions, and a database can be compared with exactly one such number.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Params};

/// Places for rows, of each writer.
const SLOTS: u32 = 48;

/// A generator of pseudo-random numbers: a counter, scrambled.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: &[u64]) -> Rng {
        let mut rng = Rng(0);
        for part in seed {
            rng.0 ^= *part;
            rng.0 = rng.next();
        }
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
            x = (x ^ (x >> shift)).wrapping_mul(factor);
        }
        x ^ (x >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (self.next() % u64::from(n)) as u32
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// One change to one slot: the length of the new row, or `None` to delete it.
type Change = (u32, Option<u32>);

struct Transaction {
    changes: Vec<Change>,
    /// Made within a savepoint that is rolled back, between the two halves of `changes`.
    undone: Vec<Change>,
    /// Afterwards, if the database is in WAL mode.
    checkpoint: Option<&'static str>,
}

fn transaction(seed: u64, writer: u32, seq: u32) -> Transaction {
    let mut rng = Rng::new(&[seed, writer.into(), seq.into()]);
    // A large one needs several times the page cache that the writers allow themselves.
    let large = rng.once_in(9);
    let count = if large { 40 } else { 1 + rng.below(5) };
    let mut some = |count| -> Vec<Change> {
        let mut one = || {
            let length = if large { 3000 + rng.below(3000) } else { 10 + rng.below(900) };
            (rng.below(SLOTS), (!rng.once_in(4)).then_some(length))
        };
        (0..count).map(|_| one()).collect()
    };
    let (changes, undone) = (some(count), some(3));
    let undone = if rng.once_in(4) { undone } else { Vec::new() };
    let modes = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];
    let checkpoint = rng.once_in(12).then(|| modes[rng.below(4) as usize]);
    Transaction { changes, undone, checkpoint }
}

/// The bytes of a row.
fn body(seed: u64, writer: u32, seq: u32, slot: u32, length: u32) -> Vec<u8> {
    let mut rng = Rng::new(&[seed, writer.into(), seq.into(), slot.into()]);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect();
    bytes.truncate(length as usize);
    bytes
}

/// What the slots of a writer hold after its first `transactions`.
pub(crate) fn expected(seed: u64, writer: u32, transactions: u32) -> BTreeMap<u32, Vec<u8>> {
    let mut last = BTreeMap::new();
    for seq in 1..=transactions {
        for (slot, length) in transaction(seed, writer, seq).changes {
            match length {
                Some(length) => last.insert(slot, (seq, length)),
                None => last.remove(&slot),
            };
        }
    }
    last.into_iter().map(|(slot, (seq, length))| (slot, body(seed, writer, seq, slot, length))).collect()
}

/// Opens a database by its URI; the VFS `hardened` is there.
pub(crate) fn open(uri: &str) -> rusqlite::Result<Connection> {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    let connection = Connection::open_with_flags(uri, OpenFlags::default())?;
    connection.busy_timeout(Duration::from_secs(30))?;
    Ok(connection)
}

/// A writer: which, where and how.
pub(crate) struct Task {
    pub(crate) uri: String,
    /// Run after the open.
    pub(crate) pragmas: String,
    pub(crate) writer: u32,
    pub(crate) seed: u64,
}

/// What a writer is about to do or has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The transaction with this number begins.
    Begin(u32),
    /// Its COMMIT has returned.
    Commit(u32),
}

/// Writes transaction after transaction, from where the database says this writer was, for as long as `tell` agrees.
pub(crate) fn write(task: &Task, mut tell: impl FnMut(Event) -> bool) -> rusqlite::Result<()> {
    let &Task { ref uri, ref pragmas, writer, seed } = task;
    let db = open(uri)?;
    // A small page cache, so that large transactions write before they commit.
    db.execute_batch(&format!("PRAGMA cache_size = 16; {pragmas}"))?;
    begin(&db)?;
    let tables = "CREATE TABLE IF NOT EXISTS done(writer, seq, PRIMARY KEY (writer, seq)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS item(writer, slot, seq, body, PRIMARY KEY (writer, slot));
         CREATE INDEX IF NOT EXISTS item_by_seq ON item(seq, writer);
         COMMIT";
    retried(|| db.execute_batch(tables))?;
    let last = "SELECT ifnull(max(seq), 0) FROM done WHERE writer = ?";
    let mut seq: u32 = retried(|| db.query_row(last, [writer], |row| row.get(0)))?;
    loop {
        seq += 1;
        if !tell(Event::Begin(seq)) {
            return Ok(());
        }
        let Transaction { changes, undone, checkpoint } = transaction(seed, writer, seq);
        let (before, after) = changes.split_at(changes.len() / 2);
        let make = |changes: &[Change]| {
            changes.iter().try_for_each(|(slot, length)| match length {
                Some(length) => run(
                    &db,
                    "INSERT INTO item VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (writer, slot) DO UPDATE SET seq = excluded.seq, body = excluded.body",
                    (writer, slot, seq, body(seed, writer, seq, *slot, *length)),
                ),
                None => run(&db, "DELETE FROM item WHERE writer = ? AND slot = ?", (writer, slot)),
            })
        };
        begin(&db)?;
        make(before)?;
        if !undone.is_empty() {
            db.execute_batch("SAVEPOINT part")?;
            make(&undone)?;
            db.execute_batch("ROLLBACK TO part; RELEASE part")?;
        }
        make(after)?;
        run(&db, "INSERT INTO done VALUES (?, ?)", (writer, seq))?;
        retried(|| db.execute_batch("COMMIT"))?;
        if !tell(Event::Commit(seq)) {
            return Ok(());
        }
        if let Some(mode) = checkpoint {
            // Its answer says if it was busy, and in a rollback mode that there is nothing to do.
            retried(|| db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())))?;
        }
    }
}

fn run(db: &Connection, sql: &str, parameters: impl Params + Clone) -> rusqlite::Result<()> {
    // A page that does not fit into the cache is written, for which readers must have left.
    retried(|| db.prepare_cached(sql)?.execute(parameters.clone()).map(drop))
}

fn begin(db: &Connection) -> rusqlite::Result<()> {
    retried(|| db.execute_batch("BEGIN IMMEDIATE"))
}

/// Again while the database is busy: SQLite does not wait where it sees a deadlock coming.
fn retried<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let mut result = attempt();
    for _ in 0..1000 {
        match &result {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => result = attempt(),
            _ => break,
        }
    }
    result
}
