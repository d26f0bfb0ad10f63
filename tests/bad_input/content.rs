//! Files that are no database, not a whole one, or have something odd beside them.

use super::*;

/// A directory with a database of several pages, and its bytes.
fn real() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    stock_database(&path, 50);
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 2 * 4096);
    (home, path, bytes)
}

#[test]
fn a_file_of_no_or_one_byte_is_an_empty_database_as_for_sqlite_itself() {
    for length in [0, 1] {
        let (home, path, bytes) = real();
        std::fs::write(&path, &bytes[..length]).unwrap();
        let stock = Connection::open(&path).unwrap();
        assert_eq!(stock.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        drop(stock);
        let connection = open_connection(&path).unwrap();
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        drop(connection);
        assert_eq!(rows(&Connection::open(&path).unwrap()), 1);
        assert_eq!(everything(home.path()).len(), 1, "no journal stays behind");
    }
}

#[test]
fn a_database_cut_off_within_its_header_is_left_alone() {
    for (length, code) in [(15, NOTADB), (16, NOTADB), (50, CORRUPT), (99, CORRUPT)] {
        let (home, path, bytes) = real();
        std::fs::write(&path, &bytes[..length]).unwrap();
        let seen = format!("the file starts as an SQLite database does and ends after {length} of the 100 bytes");
        let hint = if code == NOTADB { "if it was a database, restore a backup" } else { "recover a copy" };
        assert_unreadable(home.path(), &path, code, &seen, hint);
    }
}

#[test]
fn a_database_cut_off_behind_its_header_is_left_alone() {
    for length in [100, 511, 512, 4095, 4096, 4096 + 2048] {
        let (home, path, bytes) = real();
        std::fs::write(&path, &bytes[..length]).unwrap();
        let seen = format!("pages of 4096 bytes, marked for a rollback journal, cut off after {length} bytes");
        assert_unreadable(home.path(), &path, CORRUPT, &seen, "copy it aside with its -wal and -journal");
    }
}

#[test]
fn a_file_of_another_kind_is_named_and_left_alone() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    };
    let random: Vec<u8> = (0..1024).flat_map(|_| random()).collect();
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("notes.txt", b"Dear diary,\ntoday I wrote a database.\n".repeat(40), "it looks like text"),
        ("app.db.gz", [&[0x1f, 0x8b, 8, 0], &[7; 600][..]].concat(), "it looks like a gzip-compressed file"),
        ("zeros", vec![0; 4096], "only zero bytes"),
        ("random", random, "it looks like"),
        ("short", b"no".to_vec(), "the file is not an SQLite database"),
        ("page", [b"SQLite format 2\0", &[0; 1008][..]].concat(), "the file is not an SQLite database"),
    ];
    for (name, bytes, seen) in cases {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_unreadable(home.path(), &path, NOTADB, seen, "check the name");
    }
}

#[test]
fn a_header_with_an_impossible_value_is_named_and_left_alone() {
    for (at, value, seen) in [(16, 3, "page size"), (19, 9, "read version 9"), (21, 65, "payload fractions")] {
        let (home, path, mut bytes) = real();
        bytes[at] = value;
        std::fs::write(&path, bytes).unwrap();
        assert_unreadable(home.path(), &path, NOTADB, seen, "restore a backup");
    }
}

#[test]
fn a_wal_or_journal_opened_as_a_database_is_left_alone() {
    let (home, path, _) = real();
    let live = Connection::open(&path).unwrap();
    live.execute_batch("PRAGMA journal_mode=WAL; DELETE FROM t WHERE x = 1").unwrap();
    let copies = tempfile::tempdir().unwrap();
    let wal = copies.path().join("app.db-wal");
    std::fs::copy(home.path().join("app.db-wal"), &wal).unwrap();
    assert_unreadable(copies.path(), &wal, NOTADB, "write-ahead log", "check the name");

    let (home, path, _) = real();
    let live = Connection::open(&path).unwrap();
    live.execute_batch("PRAGMA cache_size=1; BEGIN; UPDATE t SET filler = randomblob(500)").unwrap();
    let copies = tempfile::tempdir().unwrap();
    let journal = copies.path().join("app.db-journal");
    std::fs::copy(home.path().join("app.db-journal"), &journal).unwrap();
    assert_unreadable(copies.path(), &journal, NOTADB, "rollback journal", "check the name");
}

#[test]
fn garbage_in_place_of_a_journal_or_wal_costs_no_row() {
    let garbage: [(&str, Vec<u8>); 4] = [
        ("text", b"this is not what you look for\n".repeat(100)),
        ("zeros", vec![0; 5000]),
        ("one byte", b"x".to_vec()),
        ("empty", Vec::new()),
    ];
    for mode in ["DELETE", "WAL"] {
        for suffix in ["-wal", "-journal", "-shm"] {
            for (what, bytes) in &garbage {
                let (home, path, _) = real();
                Connection::open(&path)
                    .unwrap()
                    .query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(()))
                    .unwrap();
                let beside = home.path().join(format!("app.db{suffix}"));
                std::fs::write(&beside, bytes).unwrap();
                let case = format!("a {suffix} of {what} beside a database in {mode} mode");
                let connection = open_connection(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!((rows(&connection), integrity(&connection).as_str()), (50, "ok"), "{case}");
                connection.execute("INSERT INTO t VALUES (51, NULL)", []).unwrap();
                drop(connection);
                let stock = Connection::open(&path).unwrap();
                assert_eq!((rows(&stock), integrity(&stock).as_str()), (51, "ok"), "{case}");
            }
        }
    }
}

#[test]
fn a_directory_in_place_of_a_journal_is_told_and_costs_no_row() {
    for suffix in ["-journal", "-wal"] {
        let (home, path, bytes) = real();
        std::fs::create_dir(home.path().join(format!("app.db{suffix}"))).unwrap();
        let stock = Connection::open(&path).unwrap().query_row("SELECT * FROM t", [], |_| Ok(())).unwrap_err();
        let _alone = alone();
        let error = open_connection(&path).map(drop).unwrap_err();
        assert_eq!(error.code().unwrap(), code_and_text(&stock).0, "{suffix}: {error}");
        assert!(error.hint().is_some(), "{suffix}: {error}");
        assert_eq!(last_open_error(), Some(error));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{suffix}");
    }
}
