//! With SQLite's own checksum VFS, in both directions.

use super::file::{assert_sealed, content, fill, flip, hardened, home, page_size, stock, value};
use super::{Random, code, original};
use rusqlite::ffi;

const SIZES: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

#[test]
fn what_one_writes_the_other_reads_and_writes_on() {
    if !original::load() {
        return;
    }
    let mut rounds = 0;
    for size in SIZES {
        for mode in ["delete", "wal"] {
            for ours_first in [true, false] {
                let (_home, path) = home();
                let why = format!("pages of {size}, {mode}, ours first: {ours_first}");
                let prepare = format!("PRAGMA page_size={size}; PRAGMA journal_mode={mode}");
                let first = if ours_first {
                    hardened(&path, "policy=off&checksum=on")
                } else {
                    let connection = original::open(&path);
                    original::reserve(&connection);
                    connection
                };
                first.execute_batch(&prepare).unwrap();
                fill(&first, 200, 300);
                drop(first);
                assert_sealed(&path, &why);
                for round in 0..4 {
                    let ours = (round % 2 == 0) != ours_first;
                    let connection = if ours { hardened(&path, "policy=off") } else { original::open(&path) };
                    assert_eq!(value(&connection, "PRAGMA checksum_verification").unwrap(), "1", "{why}");
                    let sql =
                        format!("UPDATE t SET x = x || 'r' WHERE id % 4 = {round}; DELETE FROM t WHERE id = {round}");
                    connection.execute_batch(&sql).unwrap();
                    assert_eq!(content(&connection).1, "ok", "{why}");
                    drop(connection);
                    assert_sealed(&path, &why);
                    rounds += 1;
                }
            }
        }
    }
    println!("{rounds} hand-overs");
}

#[test]
fn the_same_damage_is_the_same_error_to_both() {
    if !original::load() {
        return;
    }
    const SEED: u64 = 0x5eed_0201;
    let mut random = Random(SEED);
    let (home, path) = home();
    fill(&hardened(&path, "policy=delete&checksum=on"), 400, 500);
    let good = std::fs::read(&path).unwrap();
    let size = page_size(&good);
    for round in 0..100 {
        let byte = size + random.below(good.len() - size);
        let copy = home.path().join(format!("{round}.db"));
        std::fs::write(&copy, &good).unwrap();
        flip(&copy, byte, random.below(8) as u8);
        let all = "SELECT sum(length(x)), (SELECT count(x) FROM t INDEXED BY i) FROM t NOT INDEXED";
        for connection in [hardened(&copy, "policy=off"), original::open(&copy)] {
            let error = value(&connection, all).unwrap_err();
            assert_eq!(code(&error), ffi::SQLITE_IOERR_DATA, "byte {byte} round {round} seed {SEED:#x}");
        }
    }
    println!("100 flips, seed {SEED:#x}");
}

#[test]
fn its_sql_function_agrees_on_random_pages() {
    if !original::load() {
        return;
    }
    const SEED: u64 = 0x5eed_0202;
    let mut random = Random(SEED);
    let (_home, path) = home();
    let connection = original::open(&path);
    let verify =
        |page: &[u8]| connection.query_row("SELECT verify_checksum(?1)", [page], |row| row.get::<_, bool>(0)).unwrap();
    let mut pages = 0;
    for size in SIZES {
        for _ in 0..40 {
            let mut page: Vec<u8> = (0..size).map(|_| random.below(256) as u8).collect();
            assert!(!verify(&page));
            let sum = hardened_sqlite::hardened_vfs::checksum::sum::of(&page);
            page[size - 8..].copy_from_slice(&sum);
            assert!(verify(&page), "size {size} seed {SEED:#x}");
            page[random.below(size)] ^= 1 << random.below(8);
            assert!(!verify(&page), "size {size} seed {SEED:#x}");
            pages += 1;
        }
    }
    println!("{pages} pages, seed {SEED:#x}");
}

#[test]
fn a_large_database_is_vacuumed_into_sums_where_the_original_fails() {
    let (home, path) = home();
    let connection = stock(&path);
    fill(&connection, 10_000, 500);
    let before = content(&connection);
    drop(connection);
    assert!(std::fs::metadata(&path).unwrap().len() > 10 << 20);
    let copy = home.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();

    // The default page cache, in a rollback journal and in WAL.
    for options in ["checksum=on&policy=delete", "checksum=on&fs=local"] {
        let ours = home.path().join("ours.db");
        std::fs::copy(&path, &ours).unwrap();
        let connection = hardened(&ours, options);
        connection.execute_batch("VACUUM").unwrap();
        assert_eq!(content(&connection), before, "{options}");
        drop(connection);
        let pages = assert_sealed(&ours, options);
        assert_eq!(content(&stock(&ours)), before, "{options}");
        println!("{options}: {pages} pages");
    }
    if !original::load() {
        return;
    }
    let connection = original::open(&copy);
    original::reserve(&connection);
    let outcome = connection
        .execute_batch("VACUUM")
        .and_then(|()| value(&connection, "SELECT sum(length(x)) FROM t NOT INDEXED"))
        .and_then(|_| value(&connection, "PRAGMA integrity_check"));
    println!("the original: {outcome:?}");
    assert!(outcome.is_err(), "the original has learned it; say so in docs/checksum.md");
}

#[test]
fn a_wal_of_ours_survives_a_crash_that_costs_the_original_its_commits() {
    if !original::load() {
        return;
    }
    let mut kept = Vec::new();
    for ours in [true, false] {
        let (home, path) = home();
        let open =
            |path: &std::path::Path| if ours { hardened(path, "policy=off&checksum=on") } else { original::open(path) };
        let connection = open(&path);
        if !ours {
            original::reserve(&connection);
        }
        connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").unwrap();
        fill(&connection, 50, 300);
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        for _ in 0..20 {
            connection.execute_batch("INSERT INTO t(x) VALUES ('committed')").unwrap();
        }
        let crashed = home.path().join("crashed.db");
        std::fs::copy(&path, &crashed).unwrap();
        std::fs::copy(home.path().join("app.db-wal"), home.path().join("crashed.db-wal")).unwrap();
        kept.push(value(&open(&crashed), "SELECT count(*) FROM t WHERE x = 'committed'").unwrap());
    }
    println!("of 20 commits are left after a crash: ours {}, the original {}", kept[0], kept[1]);
    assert_eq!(kept[0], "20");
    // 3.46.1 loses them too, 3.53.4 does not.
    if std::env::var_os("HARDENED_CKSUMVFS").is_none() {
        assert_ne!(kept[1], "20", "the original has learned it; say so in docs/checksum.md");
    }
}
