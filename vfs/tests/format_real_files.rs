//! Files that SQLite made, read by the parsers and by SQLite: both must come to the same conclusion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::format::wal::{self, ChecksumOrder, End, Scan};
use hardened_vfs::format::{database, journal, wal_index};
use rusqlite::{Connection, ffi};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A connection to a file in a directory of its own.
struct Db(Connection);

impl Db {
    fn open(path: &Path) -> Db {
        Db(Connection::open(path).unwrap())
    }

    /// Column `column` of the first row of `sql` as an integer (0 for what is none), or the primary result code.
    fn try_column(&self, sql: &str, column: usize) -> Result<i64, i32> {
        let value = self.0.query_row(sql, [], |row| Ok(row.get_ref(column)?.as_i64().unwrap_or(0)));
        match value {
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(0),
            value => value.map_err(|error| match error {
                rusqlite::Error::SqliteFailure(failure, _) => failure.extended_code & 0xff,
                other => panic!("{sql}: {other}"),
            }),
        }
    }

    fn int(&self, sql: &str) -> i64 {
        self.try_column(sql, 0).unwrap_or_else(|code| panic!("{sql}: {code}"))
    }

    fn run(&self, statements: &[&str]) {
        for sql in statements {
            self.int(sql);
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// The bytes of a database and of its log at one moment.
struct Snapshot {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Snapshot {
    fn of(path: &Path) -> Snapshot {
        Snapshot { database: fs::read(path).unwrap(), log: fs::read(beside(path, "-wal")).unwrap() }
    }

    fn scan(&self) -> Scan {
        wal::scan(&self.log[..]).unwrap()
    }

    /// Lets SQLite recover a copy and holds the scan against it. Without a recovered frame the size of the
    /// database is not the log's to tell.
    fn agrees_with_sqlite(&self, what: &str) -> Scan {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("copy.db");
        fs::write(&path, &self.database).unwrap();
        fs::write(beside(&path, "-wal"), &self.log).unwrap();
        let scan = self.scan();
        let db = Db::open(&path);
        let pages = db.int("PRAGMA page_count");
        let frames = db.try_column("PRAGMA wal_checkpoint", 1).unwrap();
        assert_eq!(scan.committed_frames, frames as u64, "{what}: {scan:?}");
        if let Some(count) = scan.page_count {
            assert_eq!(i64::from(count), pages, "{what}: {scan:?}");
        }
        assert_eq!(db.int("SELECT 1 FROM pragma_quick_check WHERE quick_check <> 'ok'"), 0);
        scan
    }
}

/// A WAL database whose log holds `transactions` transactions after the one that made the table.
fn wal_database(path: &Path, page_size: u32, transactions: u32) -> Db {
    let db = Db::open(path);
    db.run(&[
        &format!("PRAGMA page_size={page_size}"),
        "PRAGMA journal_mode=WAL",
        "PRAGMA wal_autocheckpoint=0",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)",
    ]);
    for n in 1..=transactions {
        db.int(&format!("INSERT INTO t(b) SELECT zeroblob({n} * 700) FROM (VALUES (1), (2), (3))"));
    }
    db
}

/// A generator of test positions (xorshift), so that a failure can be repeated.
struct Positions(u64);

impl Positions {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn each_transaction_adds_a_commit_that_sqlite_recovers() {
    for page_size in [512, 4096, 65536] {
        for transactions in 0..6 {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("a.db");
            let _open = wal_database(&path, page_size, transactions);
            let what = format!("page size {page_size}, {transactions} transactions");
            let scan = Snapshot::of(&path).agrees_with_sqlite(&what);
            assert_eq!(scan.commits, u64::from(transactions) + 1, "{what}");
            assert_eq!(scan.header.unwrap().page_size, page_size);
            assert_eq!((scan.uncommitted_frames(), scan.end), (0, End::EndOfFile));
        }
    }
}

#[test]
fn a_log_cut_around_each_frame_boundary_is_recovered_as_scanned() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let _open = wal_database(&path, 512, 4);
    let whole = Snapshot::of(&path);
    let frames = whole.scan().valid_frames as usize;
    assert!(frames > 10);
    for frame in 0..=frames {
        for offset in [0, 1, 23, 24, 25, 535] {
            let len = (32 + 536 * frame + offset).min(whole.log.len());
            let cut = Snapshot { database: whole.database.clone(), log: whole.log[..len].to_vec() };
            cut.agrees_with_sqlite(&format!("cut at {len}"));
        }
    }
}

#[test]
fn a_log_with_a_flipped_bit_is_recovered_as_scanned() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let _open = wal_database(&path, 512, 5);
    let mut damaged = Snapshot::of(&path);
    let seed = 0x5eed_0fda_3a6e;
    println!("seed {seed:#x}");
    let mut positions = Positions(seed);
    let len = damaged.log.len();
    for round in 0..150 {
        // A third of the flips go to the header and the first frame header.
        let at = positions.below(if round % 3 == 0 { 56 } else { len });
        let bit = positions.below(8);
        damaged.log[at] ^= 1 << bit;
        let scan = damaged.agrees_with_sqlite(&format!("bit {bit} of byte {at}"));
        damaged.log[at] ^= 1 << bit;
        assert_eq!(scan.valid_frames as usize, at.saturating_sub(32) / 536);
    }
    assert_eq!(damaged.scan().end, End::EndOfFile);
}

#[test]
fn a_restarted_log_ends_at_the_frames_of_the_generation_before() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = wal_database(&path, 1024, 6);
    let before = Snapshot::of(&path).scan();
    db.run(&["PRAGMA wal_checkpoint", "UPDATE t SET b = 1 WHERE a = 1"]);
    let after = Snapshot::of(&path).agrees_with_sqlite("restarted");
    assert!(after.valid_frames < before.valid_frames);
    let (old, new) = (before.header.unwrap(), after.header.unwrap());
    assert_eq!(after.end, End::OlderGeneration { salts: old.salts });
    assert_eq!(new.salts[0], old.salts[0].wrapping_add(1));
    assert_eq!(new.checkpoint_sequence, old.checkpoint_sequence + 1);
}

#[test]
fn the_wal_index_tells_the_salts_and_the_last_commit_of_its_log_and_nothing_when_it_is_damaged() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = wal_database(&path, 1024, 6);
    let scan = Snapshot::of(&path).scan();
    let mut start = std::fs::read(dir.path().join("a.db-shm")).unwrap();
    start.truncate(wal_index::HEADER_SIZE);
    let index = wal_index::Header::parse(&start).unwrap();
    assert_eq!((index.salts, u64::from(index.frames)), (scan.header.unwrap().salts, scan.committed_frames));
    for bit in 0..start.len() * 8 {
        start[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(wal_index::Header::parse(&start), None, "bit {bit}");
        start[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..start.len() {
        assert_eq!(wal_index::Header::parse(&start[..length]), None);
    }
    db.run(&["UPDATE t SET b = 1 WHERE a = 1"]);
    assert!(Snapshot::of(&path).scan().committed_frames > u64::from(index.frames));
}

#[test]
fn frames_spilled_by_an_open_transaction_are_counted_as_uncommitted() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = wal_database(&path, 512, 1);
    let rows = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i<500) \
                INSERT INTO t(b) SELECT zeroblob(200) FROM n";
    db.run(&["PRAGMA cache_size=10", "BEGIN", rows]);
    let scan = Snapshot::of(&path).agrees_with_sqlite("open transaction");
    assert!(scan.uncommitted_frames() > 20, "{scan:?}");
    // SQLite rewrites frames of its own transaction in place and mends the checksums when it commits.
    assert_eq!((scan.commits, scan.unreachable_commits), (2, 0));
}

#[test]
fn a_log_rewritten_with_the_other_checksum_order_is_recovered_alike() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let _open = wal_database(&path, 512, 3);
    let native = Snapshot::of(&path);
    let expected = native.scan();
    let header = expected.header.unwrap();
    let order = match header.order {
        ChecksumOrder::LittleEndian => ChecksumOrder::BigEndian,
        ChecksumOrder::BigEndian => ChecksumOrder::LittleEndian,
    };
    let mut log = native.log.clone();
    log[3] ^= 1;
    let mut sum = wal::Checksum::default().over(&log[..24], order);
    let store = |log: &mut [u8], at: usize, sum: wal::Checksum| {
        log[at..at + 4].copy_from_slice(&sum.0.to_be_bytes());
        log[at + 4..at + 8].copy_from_slice(&sum.1.to_be_bytes());
    };
    store(&mut log, 24, sum);
    for start in (32..log.len()).step_by(536) {
        sum = sum.over(&log[start..start + 8], order);
        sum = sum.over(&log[start + 24..start + 536], order);
        store(&mut log, start + 16, sum);
    }
    let swapped = Snapshot { database: native.database, log };
    let scan = swapped.agrees_with_sqlite("other order");
    assert_eq!(scan.header.unwrap().order, order);
    assert_eq!(scan.valid_frames, expected.valid_frames);
    assert_eq!(scan.page_count, expected.page_count);
}

#[test]
fn header_fields_are_those_that_sqlite_tells() {
    let encodings = ["UTF-8", "UTF-16le", "UTF-16be"];
    for (round, page_size) in [512, 1024, 4096, 32768, 65536].into_iter().enumerate() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.db");
        let db = Db::open(&path);
        let encoding = encodings[round % 3];
        let wal = round % 2 == 1;
        let mode = if wal { "WAL" } else { "DELETE" };
        db.run(&[
            &format!("PRAGMA page_size={page_size}"),
            &format!("PRAGMA encoding='{encoding}'"),
            &format!("PRAGMA auto_vacuum={}", round % 3),
            &format!("PRAGMA journal_mode={mode}"),
            "CREATE TABLE t(a)",
            "CREATE TABLE u(a)",
            "INSERT INTO u VALUES (zeroblob(300000))",
            "DROP TABLE u",
            "PRAGMA user_version=-7",
            "PRAGMA application_id=252006673",
            "PRAGMA wal_checkpoint(TRUNCATE)",
        ]);
        let header = database::Header::parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(header.page_size, page_size);
        assert_eq!(header.is_wal(), wal);
        assert_eq!(header.text_encoding.to_string(), encoding);
        assert_eq!(header.auto_vacuum as i64, db.int("PRAGMA auto_vacuum"));
        assert_eq!((header.user_version, header.application_id), (-7, 252_006_673));
        let told = |sql| u32::try_from(db.int(sql)).unwrap();
        assert_eq!(header.trusted_page_count(), Some(told("PRAGMA page_count")));
        assert_eq!(header.freelist_count, told("PRAGMA freelist_count"));
        assert_eq!(header.freelist_trunk != 0, header.freelist_count != 0);
        assert_eq!(header.schema_cookie, told("PRAGMA schema_version"));
        assert_eq!(header.schema_format, 4);
        assert_eq!(header.sqlite_version.0 as i32, ffi::SQLITE_VERSION_NUMBER);
        let version = header.sqlite_version.to_string();
        assert_eq!(version.as_bytes(), ffi::SQLITE_VERSION.to_bytes());
    }
}

#[test]
fn a_header_is_refused_exactly_if_sqlite_says_not_a_database() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = Db::open(&path);
    db.run(&["PRAGMA page_size=512", "CREATE TABLE t(a)"]);
    drop(db);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..24 {
        for value in [0, 1, 2, 3, 16, 32, 33, 64, 65, 128, 255] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            fs::write(&path, &bytes).unwrap();
            let parsed = database::Header::parse(&bytes);
            let code = Db::open(&path).try_column("PRAGMA schema_version", 0);
            let not_a_database = code == Err(ffi::SQLITE_NOTADB);
            assert_eq!(parsed.is_err(), not_a_database, "byte {at} = {value}: {code:?}");
            refused += u32::from(not_a_database);
            let _ = fs::remove_file(beside(&path, "-wal"));
            let _ = fs::remove_file(beside(&path, "-shm"));
        }
    }
    assert!(refused > 100);
}

fn journal_state(path: &Path) -> journal::State {
    match fs::read(beside(path, "-journal")) {
        Ok(bytes) => journal::State::of(Some(bytes.len() as u64), &bytes),
        Err(_) => journal::State::of(None, &[]),
    }
}

#[test]
fn each_journal_mode_leaves_the_state_it_is_known_for() {
    for (mode, expected) in
        [("DELETE", journal::State::Absent), ("TRUNCATE", journal::State::Empty), ("PERSIST", journal::State::Zeroed)]
    {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.db");
        let db = Db::open(&path);
        let set = format!("PRAGMA journal_mode={mode}");
        db.run(&[&set, "CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
        assert_eq!(journal_state(&path), expected);
    }
}

/// The header of the journal of a transaction that has spilled to the database, and the page counts of the
/// database with all that was spilled and after SQLite has rolled a copy back.
fn spilled(synchronous: &str) -> (journal::Header, u32, u32) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = Db::open(&path);
    let rows = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i<400) \
                INSERT INTO t SELECT zeroblob(300) FROM n";
    db.run(&[
        "PRAGMA page_size=512",
        &format!("PRAGMA synchronous={synchronous}"),
        "PRAGMA cache_size=10",
        "CREATE TABLE t(a)",
        rows,
        "BEGIN",
        "UPDATE t SET a = zeroblob(301)",
        rows,
    ]);
    let journal::State::Header(header) = journal_state(&path) else {
        panic!("no header: {}", journal_state(&path));
    };
    let copy = dir.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-journal"), beside(&copy, "-journal")).unwrap();
    let before = (fs::metadata(&copy).unwrap().len() / 512) as u32;
    let recovered = Db::open(&copy);
    let after = recovered.int("PRAGMA page_count") as u32;
    assert_eq!(recovered.int("SELECT count(*) FROM t WHERE length(a) = 300"), 400);
    assert_eq!(recovered.int("SELECT count(*) FROM t"), 400);
    assert_eq!(journal_state(&copy), journal::State::Absent);
    (header, before, after)
}

#[test]
fn the_initial_page_count_is_what_a_rollback_restores() {
    let (header, before, after) = spilled("FULL");
    assert!(before > after);
    assert_eq!(header.initial_page_count, after);
    assert_eq!((header.page_size, header.sector_size), (512, 512));
    assert!(matches!(header.records, journal::Records::Count(n) if n > 0));
}

#[test]
fn without_syncs_the_journal_counts_its_records_up_to_the_end_of_the_file() {
    let (header, _, after) = spilled("OFF");
    assert_eq!(header.records, journal::Records::ToEndOfFile);
    assert_eq!(header.initial_page_count, after);
}

#[test]
fn a_hot_candidate_is_discarded_by_sqlite_and_others_are_left_alone() {
    for first in [&b"garbage"[..], &journal::MAGIC, b"\0garbage", b""] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.db");
        Db::open(&path).run(&["CREATE TABLE t(a)"]);
        let mut bytes = first.to_vec();
        bytes.resize(if first.is_empty() { 0 } else { 600 }, 0);
        fs::write(beside(&path, "-journal"), &bytes).unwrap();
        let state = journal_state(&path);
        assert_eq!(Db::open(&path).int("SELECT count(*) FROM t"), 0);
        let gone = journal_state(&path) == journal::State::Absent;
        assert_eq!(state.is_hot_candidate(), gone, "{first:?}: {state}");
    }
}
