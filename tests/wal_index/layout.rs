//! The bytes of the -shm file, its permissions, and what is allowed on one that may not be written.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::actors::{Actor, HARDENED, HARDENED_ELSEWHERE, Kind, STOCK, STOCK_ELSEWHERE};
use super::roles::make;
use support::names::beside;

/// The index after a fixed course of events, without what SQLite draws by lot: salts and the sums that depend on them.
fn course(kind: Kind) -> Vec<Vec<u8>> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    make(&path);
    let mut seen = Vec::new();
    let mut db = Actor::open(&path, kind);
    for sql in [
        "SELECT * FROM t",
        "PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (1)",
        "CREATE TABLE u(x); INSERT INTO u SELECT zeroblob(3000000)",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "INSERT INTO t VALUES (2)",
        "BEGIN; DELETE FROM u; ROLLBACK",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "INSERT INTO t VALUES (3)",
    ] {
        db.ok(sql);
        let mut bytes = std::fs::read(beside(&path, "-shm")).unwrap();
        bytes[24..48].fill(0);
        bytes[72..96].fill(0);
        seen.push(bytes);
    }
    seen
}

#[test]
fn the_index_is_byte_for_byte_that_of_stock() {
    let (stock, hardened) = (course(STOCK), course(HARDENED));
    assert!(stock.iter().any(|bytes| bytes.len() > 32768), "more than one region");
    for (step, (stock, hardened)) in stock.iter().zip(&hardened).enumerate() {
        assert_eq!(stock.len(), hardened.len(), "step {step}");
        let differ = stock.iter().zip(hardened).position(|(a, b)| a != b);
        assert_eq!(differ, None, "step {step}");
    }
}

/// Permissions, owner and group.
fn look(path: &Path) -> (u32, u32, u32) {
    let found = std::fs::metadata(path).unwrap();
    (found.mode() & 0o7777, found.uid(), found.gid())
}

#[test]
fn the_index_belongs_to_the_owner_of_the_database() {
    for mode in [0o600, 0o644, 0o666, 0o660] {
        let seen = [STOCK, HARDENED].map(|kind| {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.db");
            make(&path);
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            if look(&path).1 == 0 {
                std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
            }
            let mut db = Actor::open(&path, kind);
            db.ok("SELECT * FROM t");
            assert_eq!(look(&beside(&path, "-shm")), look(&path), "{kind:?}");
            look(&beside(&path, "-shm"))
        });
        assert_eq!(seen[0], seen[1]);
    }
}

#[test]
fn a_link_in_the_place_of_the_index_is_not_followed() {
    let seen = [STOCK, HARDENED].map(|kind| {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        make(&path);
        let target = home.path().join("precious");
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, beside(&path, "-shm")).unwrap();
        let db = std::panic::catch_unwind(|| Actor::open(&path, kind));
        let answer = db.map_or(Err(-1), |mut db| db.sql("SELECT * FROM t"));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        answer
    });
    println!("{seen:?}");
    assert!(seen.iter().all(Result::is_err));
}

/// What both kinds answer must be the same.
fn alike(parameters: &str, nobody: bool, prepare: impl Fn(&Path), sql: &[&str]) -> Vec<Result<Vec<String>, i32>> {
    let [stock, hardened] = [STOCK_ELSEWHERE, HARDENED_ELSEWHERE].map(|kind| {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
        let path = home.path().join("app.db");
        make(&path);
        prepare(&path);
        let mut db = Actor::with(&path, kind, parameters, nobody);
        let answers = sql.iter().map(|sql| db.sql(sql)).collect::<Vec<_>>();
        db.close();
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
        answers
    });
    assert_eq!(stock, hardened);
    hardened
}

#[test]
fn without_a_writer_a_read_only_index_cannot_be_begun() {
    let answers = alike("readonly_shm=1", false, |_| {}, &["SELECT count(*) FROM t"]);
    assert!(answers[0].is_err(), "{answers:?}");
    // There, but nobody's: read from the log itself.
    let answers = alike(
        "readonly_shm=1&mode=ro",
        false,
        |path| {
            std::fs::write(beside(path, "-shm"), vec![0; 32768]).unwrap();
            std::fs::write(beside(path, "-wal"), "").unwrap();
        },
        &["SELECT count(*) FROM t"],
    );
    println!("{answers:?}");
}

#[test]
fn a_read_only_index_follows_a_writer() {
    for writer in [STOCK, HARDENED] {
        for reader in [STOCK_ELSEWHERE, HARDENED_ELSEWHERE, HARDENED] {
            if !writer.hardened && !reader.elsewhere {
                // Stock connections of one process share one handle.
                continue;
            }
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.db");
            make(&path);
            let mut writer = Actor::open(&path, writer);
            writer.ok("INSERT INTO t VALUES (1)");
            let mut reader = Actor::with(&path, reader, "readonly_shm=1&mode=ro", false);
            assert_eq!(reader.ok("SELECT count(*) FROM t"), "2");
            writer.ok("INSERT INTO t VALUES (2)");
            assert_eq!(reader.ok("SELECT count(*) FROM t"), "3");
            reader.ok("BEGIN; SELECT count(*) FROM t");
            writer.ok("INSERT INTO t VALUES (3)");
            assert_eq!(writer.ok("PRAGMA wal_checkpoint(TRUNCATE)"), "1");
            assert_eq!(reader.ok("SELECT count(*) FROM t"), "3");
        }
    }
}

#[test]
fn a_read_only_database_is_read_as_stock_reads_it() {
    let answers = alike("mode=ro", false, |_| {}, &["SELECT count(*) FROM t", "INSERT INTO t VALUES (1)"]);
    assert_eq!(answers[0], Ok(vec!["1".into()]));
    assert!(answers[1].is_err());
}

#[test]
fn in_a_directory_that_may_not_be_written_all_is_as_with_stock() {
    let close = |path: &Path| {
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o555)).unwrap();
    };
    let sql = ["SELECT count(*) FROM t"];
    println!("{:?}", alike("mode=ro", true, close, &sql));
    // With files that are there and may be read.
    println!(
        "{:?}",
        alike(
            "mode=ro",
            true,
            |path| {
                std::fs::write(beside(path, "-shm"), vec![0; 32768]).unwrap();
                std::fs::write(beside(path, "-wal"), "").unwrap();
                close(path);
            },
            &sql
        )
    );
}
