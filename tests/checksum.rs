//! Checksums of pages: databases have them, keep them and are checked by them, in SQLite's own format.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "checksum/changes.rs"]
mod changes;
#[path = "checksum/compatible.rs"]
mod compatible;
#[path = "checksum/file.rs"]
mod file;
#[path = "checksum/original.rs"]
mod original;

use file::{assert_sealed, content, fill, flip, hardened, home, page_size, reserved, stock, value};
use rusqlite::{Error, ffi};

fn code(error: &Error) -> i32 {
    match error {
        Error::SqliteFailure(code, _) => code.extended_code,
        other => panic!("{other}"),
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn a_new_database_has_sums_in_every_journal_mode_and_page_size() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        for mode in ["delete", "truncate", "persist", "wal"] {
            let (_home, path) = home();
            let why = format!("pages of {size}, {mode}");
            let connection = hardened(&path, "policy=off&checksum=on");
            connection.execute_batch(&format!("PRAGMA page_size={size}; PRAGMA cache_size=10")).unwrap();
            assert_eq!(value(&connection, &format!("PRAGMA journal_mode={mode}")).unwrap(), mode);
            fill(&connection, 300, 700);
            connection
                .execute_batch("DELETE FROM t WHERE id % 3 = 0; UPDATE t SET x = x || 'y' WHERE id % 5 = 0")
                .unwrap();
            connection
                .execute_batch("BEGIN; DELETE FROM t; ROLLBACK; VACUUM; INSERT INTO t VALUES (1000, 'z')")
                .unwrap();
            let before = content(&connection);
            assert_eq!(before.1, "ok", "{why}");
            drop(connection);
            assert_eq!(page_size(&std::fs::read(&path).unwrap()), size, "{why}");
            assert!(assert_sealed(&path, &why) > 3);
            assert_eq!(content(&hardened(&path, "")), before, "{why}");
            assert_eq!(content(&stock(&path)), before, "{why}: stock reads it");
        }
    }
}

#[test]
fn the_defaults_of_a_local_and_of_a_network_database_take_sums() {
    for options in ["checksum=on&fs=local", "checksum=on&fs=network"] {
        let (_home, path) = home();
        let connection = hardened(&path, options);
        fill(&connection, 2000, 300);
        assert_eq!(value(&connection, "PRAGMA checksum_verification").unwrap(), "1");
        drop(connection);
        assert_sealed(&path, options);
    }
}

#[test]
fn without_the_option_a_database_has_no_sums_and_keeps_those_it_has() {
    let (_home, path) = home();
    let connection = hardened(&path, "fs=local");
    fill(&connection, 10, 10);
    assert_eq!(value(&connection, "PRAGMA checksum_verification").unwrap(), "0");
    drop(connection);
    assert_eq!(reserved(&path), 0);
    let (_home, path) = home();
    fill(&hardened(&path, "checksum=on"), 100, 1000);
    for options in ["", "checksum=off", "checksum=auto&fs=network", "checksum=off&policy=off", "checksum=on"] {
        let connection = hardened(&path, options);
        connection.execute_batch("UPDATE t SET x = x || 'more'; VACUUM; DELETE FROM t WHERE id = 1").unwrap();
        drop(connection);
        assert_sealed(&path, options);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_that_names_the_page() {
    const SEED: u64 = 0x5eed_0101;
    let mut random = Random(SEED);
    let (home, path) = home();
    fill(&hardened(&path, "policy=delete&checksum=on"), 400, 500);
    let good = std::fs::read(&path).unwrap();
    let size = page_size(&good);
    let (mut flips, mut told) = (0, 0);
    for round in 0..300 {
        // The first rounds are for the header, where a bit may change what a page is.
        let byte = if round < 60 { random.below(100) } else { random.below(good.len()) };
        let bit = random.below(8) as u8;
        let copy = home.path().join(format!("{round}.db"));
        std::fs::write(&copy, &good).unwrap();
        flip(&copy, byte, bit);
        let damaged = std::fs::read(&copy).unwrap();
        let connection = hardened(&copy, "policy=off");
        let error = value(&connection, "SELECT sum(length(x)) FROM t NOT INDEXED")
            .and_then(|_| value(&connection, "SELECT count(x) FROM t INDEXED BY i"))
            .and_then(|_| value(&connection, "PRAGMA integrity_check"));
        let error = error.expect_err(&format!("byte {byte} bit {bit} round {round} seed {SEED:#x}"));
        if code(&error) == ffi::SQLITE_IOERR_DATA {
            let report = value(&connection, "PRAGMA hardened_report").unwrap();
            let page = byte / size + 1;
            assert!(report.contains(&format!("page {page} (at byte {}", (page - 1) * size)), "{byte}: {report}");
            told += 1;
        } else {
            // SQLite itself could not read the header.
            assert!(byte < 100 && code(&error) & 0xff == ffi::SQLITE_NOTADB, "byte {byte} bit {bit}: {error}");
        }
        drop(connection);
        assert_eq!(std::fs::read(&copy).unwrap(), damaged, "reading changes nothing");
        std::fs::remove_file(&copy).unwrap();
        flips += 1;
    }
    assert!(told > 200, "{told}");
    println!("{flips} flips, {told} with the page, seed {SEED:#x}");
}

#[test]
fn damage_can_be_read_past_when_verification_is_off() {
    let (_home, path) = home();
    fill(&hardened(&path, "policy=delete&checksum=on"), 400, 500);
    let good = content(&hardened(&path, ""));
    let size = page_size(&std::fs::read(&path).unwrap());
    // The sum itself, so that the content stays what it was.
    flip(&path, 5 * size - 1, 3);
    let connection = hardened(&path, "");
    let scan: serde_json::Value =
        serde_json::from_str(&value(&connection, "PRAGMA hardened_checksum").unwrap()).unwrap();
    assert_eq!((&scan["bad"], &scan["bad_pages"]), (&1.into(), &serde_json::json!([5])));
    assert_eq!(scan["page_size"], size);
    let all = "SELECT sum(length(x)), (SELECT count(x) FROM t INDEXED BY i) FROM t NOT INDEXED";
    assert_eq!(code(&value(&connection, all).unwrap_err()), ffi::SQLITE_IOERR_DATA);
    assert_eq!(value(&connection, "PRAGMA checksum_verification=off").unwrap(), "0");
    assert_eq!(content(&connection), good);
    drop(connection);
    assert_eq!(content(&hardened(&path, "checksum=off")), good);
    let connection = hardened(&path, "");
    connection.execute_batch("PRAGMA mmap_size=100000000").unwrap();
    assert_eq!(code(&value(&connection, all).unwrap_err()), ffi::SQLITE_IOERR_DATA, "a mapping is no way past it");
    drop(connection);
    hardened(&path, "checksum=off").execute_batch("UPDATE t SET x = x || 'y'; VACUUM").unwrap();
    assert_sealed(&path, "written again with verification off");
}

#[test]
fn a_database_with_other_reserved_bytes_is_left_alone_and_the_report_says_so() {
    let (_home, path) = home();
    let connection = stock(&path);
    support::sqlite::reserve_bytes(&connection, 16);
    fill(&connection, 100, 500);
    drop(connection);
    let connection = hardened(&path, "checksum=on");
    let report = value(&connection, "PRAGMA hardened_report").unwrap();
    assert!(report.contains("the database has 16 reserved bytes a page"), "{report}");
    connection.execute_batch("VACUUM; UPDATE t SET x = x || 'y'").unwrap();
    assert_eq!(content(&connection).1, "ok");
    drop(connection);
    assert_eq!(reserved(&path), 16);
}
