//! Promise 1 where WAL is not safe: a rollback journal and synchronous FULL, and nothing turns WAL on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hardened_sqlite::{FsChoice, Options, PolicyChoice, RollbackJournal, report};
use rusqlite::{Connection, OpenFlags};
use support::ask::text;
use support::fuse;
use support::require;
use tempfile::TempDir;

fn uri(path: &Path, parameters: &str) -> String {
    format!("file:{}?vfs=hardened{parameters}", path.display())
}

fn plain(path: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    Connection::open_with_flags(uri(path, parameters), OpenFlags::default())
}

/// A directory that is treated as a network mount. The kernel under it is local, so that stock SQLite has every chance.
fn network() -> (TempDir, Options) {
    (tempfile::tempdir().unwrap(), Options::new().fs(FsChoice::Network))
}

fn stamp(path: &Path) -> [u8; 2] {
    std::fs::read(path).unwrap()[18..20].try_into().unwrap()
}

/// A WAL database with `rows` rows, the last of them only in its -wal, as a crashed process leaves it.
fn abandoned_wal_database(path: &Path, rows: i64) {
    let live = tempfile::tempdir().unwrap();
    let original = live.path().join("live.db");
    let stock = Connection::open(&original).unwrap();
    stock
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); PRAGMA wal_checkpoint; PRAGMA wal_autocheckpoint=0")
        .unwrap();
    for row in 0..rows {
        stock.execute("INSERT INTO t VALUES (?1)", [row]).unwrap();
    }
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", original.display()), format!("{}{suffix}", path.display())).unwrap();
    }
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

/// The same, read by another process: here each close() of a file would drop the locks of a stock connection to it.
fn contents_seen_from_outside(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &Path| std::process::Command::new("cat").arg(path).output().unwrap().stdout;
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn a_new_database_is_delete_and_full_and_nothing_is_written_at_open() {
    let (home, _) = network();
    let path = home.path().join("app.db");
    let connection = plain(&path, "&fs=network").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
    assert_eq!(text(&connection, "PRAGMA synchronous"), "2");
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(stamp(&path), [1, 1]);
    assert!(!home.path().join("app.db-shm").exists());
}

#[test]
fn asking_for_wal_is_answered_truthfully_in_sqlites_own_row_shape() {
    let (home, options) = network();
    let connection = options.open_connection(home.path().join("app.db")).unwrap();
    let stock = Connection::open(home.path().join("stock.db")).unwrap();
    for sql in ["PRAGMA journal_mode=WAL", "PRAGMA main.journal_mode=wal", "PRAGMA journal_mode('w')"] {
        let shape = |connection: &Connection| {
            let mut statement = connection.prepare(sql).unwrap();
            let names: Vec<String> =
                (0..statement.column_count()).map(|index| statement.column_name(index).unwrap().to_owned()).collect();
            let rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            (names, rows)
        };
        let (names, rows) = shape(&connection);
        assert_eq!(rows, ["delete"], "{sql}");
        let (stock_names, stock_rows) = shape(&stock);
        assert_eq!(names, stock_names, "{sql}");
        assert_eq!(stock_rows, ["wal"], "{sql}: stock obeys");
    }
    let notes = report(&connection).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("journal_mode=WAL was not obeyed")), "{notes:?}");
}

#[test]
fn exclusive_locking_mode_is_no_way_to_wal() {
    let (home, options) = network();
    let path = home.path().join("app.db");
    let connection = options.open_connection(&path).unwrap();
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "delete");
    connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!((stamp(&path), home.path().join("app.db-wal").exists()), ([1, 1], false));

    // The way is open in stock SQLite even without shared memory.
    let stock = Connection::open(home.path().join("stock.db")).unwrap();
    assert_eq!(text(&stock, "PRAGMA locking_mode=EXCLUSIVE"), "exclusive");
    assert_eq!(text(&stock, "PRAGMA journal_mode=WAL"), "wal");
}

#[test]
fn exclusive_locking_mode_that_no_pragma_of_this_database_announced_is_no_way_either() {
    // The locking mode of the connection is set while its main database is in memory; the attached one inherits it.
    let (home, _) = network();
    let path = home.path().join("app.db");
    let connection = plain(Path::new(":memory:"), "").unwrap();
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
    connection.execute("ATTACH ?1 AS n", [uri(&path, "&fs=network")]).unwrap();
    connection.execute_batch("CREATE TABLE n.t(x); INSERT INTO n.t VALUES (1)").unwrap();
    let _ = connection.query_row("PRAGMA n.journal_mode=WAL", [], |_| Ok(()));
    let _ = connection.execute_batch("INSERT INTO n.t VALUES (2)");
    assert!(!home.path().join("app.db-wal").exists());
    drop(connection);
    assert_eq!(stamp(&path), [1, 1]);
    let again = plain(&path, "&fs=network").unwrap();
    assert_eq!(text(&again, "PRAGMA integrity_check"), "ok");
    assert!(text(&again, "SELECT count(*) FROM t").parse::<i64>().unwrap() >= 1);
}

#[test]
fn the_rollback_journal_is_delete_unless_the_options_say_otherwise() {
    let (home, options) = network();
    let connection = options.clone().open_connection(home.path().join("app.db")).unwrap();
    for mode in ["truncate", "persist", "off", "memory"] {
        assert_eq!(text(&connection, &format!("PRAGMA journal_mode={mode}")), "delete", "{mode}");
    }
    let options = options.journal(RollbackJournal::Truncate);
    let connection = options.open_connection(home.path().join("app.db")).unwrap();
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "truncate");
    assert_eq!(text(&connection, "PRAGMA journal_mode=delete"), "truncate");
}

#[test]
fn synchronous_below_full_is_raised_and_said() {
    let (home, options) = network();
    let connection = options.open_connection(home.path().join("app.db")).unwrap();
    for (value, level) in [("OFF", "2"), ("NORMAL", "2"), ("1", "2"), ("nonsense", "2"), ("FULL", "2"), ("EXTRA", "3")]
    {
        connection.execute_batch(&format!("PRAGMA synchronous={value}")).unwrap();
        assert_eq!(text(&connection, "PRAGMA synchronous"), level, "{value}");
    }
    let notes = report(&connection).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("synchronous=NORMAL was raised to FULL")), "{notes:?}");
}

#[test]
fn each_attached_database_is_judged_by_its_own_filesystem() {
    let (home, _) = network();
    let main = plain(&home.path().join("local.db"), "").unwrap();
    let far = home.path().join("far.db");
    main.execute("ATTACH ?1 AS far", [uri(&far, "&fs=network")]).unwrap();
    main.execute_batch("CREATE TABLE far.t(x); CREATE TABLE main.t(x)").unwrap();
    // Unqualified, the pragma is for all databases of the connection; only main is asked.
    assert_eq!(text(&main, "PRAGMA journal_mode=WAL"), "wal");
    assert_eq!(text(&main, "PRAGMA far.journal_mode"), "delete");
    assert_eq!(text(&main, "PRAGMA far.journal_mode=WAL"), "delete");
    main.execute_batch("PRAGMA far.synchronous=OFF").unwrap();
    assert_eq!(text(&main, "PRAGMA far.synchronous"), "2");
    main.execute_batch("INSERT INTO far.t VALUES (1); INSERT INTO main.t VALUES (1)").unwrap();
    assert_eq!(stamp(&far), [1, 1]);
    let json = text(&main, "PRAGMA far.hardened_report");
    let report = hardened_sqlite::Report::from_json(&json).unwrap();
    assert_eq!((report.journal_mode.as_deref(), report.synchronous.as_deref()), (Some("delete"), Some("FULL")));
}

#[test]
fn a_network_main_does_not_keep_wal_from_a_local_attached_database() {
    let (home, options) = network();
    let main = options.open_connection(home.path().join("far.db")).unwrap();
    main.execute("ATTACH ?1 AS near", [uri(&home.path().join("near.db"), "")]).unwrap();
    main.execute_batch("CREATE TABLE near.t(x)").unwrap();
    assert_eq!(text(&main, "PRAGMA journal_mode=WAL"), "delete");
    assert_eq!(text(&main, "PRAGMA near.journal_mode"), "wal");
}

#[test]
fn without_a_journal_on_disk_no_page_is_written_however_the_mode_was_set() {
    // The pragma is heard by the main database only, and that is in memory here.
    for (mode, parameters) in [("OFF", "&fs=network"), ("MEMORY", "&fs=network"), ("OFF", ""), ("MEMORY", "")] {
        let (home, _) = network();
        let path = home.path().join("app.db");
        let connection = plain(Path::new(":memory:"), "").unwrap();
        connection.execute("ATTACH ?1 AS n", [uri(&path, parameters)]).unwrap();
        connection.execute_batch("CREATE TABLE n.t(x); INSERT INTO n.t VALUES (1)").unwrap();
        connection.execute_batch(&format!("PRAGMA journal_mode={mode}")).unwrap();
        let result = connection.execute_batch("INSERT INTO n.t VALUES (2)");
        let error = result.expect_err("a write without a journal");
        assert_eq!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::SystemIoFailure),
            "{mode}{parameters}: {error}"
        );
        drop(connection);
        let again = plain(&path, parameters).unwrap();
        assert_eq!(text(&again, "PRAGMA integrity_check"), "ok");
        assert_eq!(text(&again, "SELECT count(*) FROM t"), "1", "{mode}{parameters}: nothing was lost");

        let stock = Connection::open_in_memory().unwrap();
        stock.execute("ATTACH ?1 AS n", [home.path().join("stock.db").to_str().unwrap()]).unwrap();
        stock
            .execute_batch(&format!("CREATE TABLE n.t(x); PRAGMA journal_mode={mode}; INSERT INTO n.t VALUES (2)"))
            .unwrap();
    }
}

#[test]
fn every_rollback_journal_still_lets_pages_through() {
    let (home, _) = network();
    for mode in ["delete", "truncate", "persist"] {
        let path = home.path().join(format!("{mode}.db"));
        let connection = plain(&path, &format!("&fs=network&journal={mode}")).unwrap();
        assert_eq!(text(&connection, "PRAGMA journal_mode"), mode);
        connection.execute_batch("PRAGMA cache_size=5; CREATE TABLE t(x)").unwrap();
        for round in 0..3 {
            // More than the cache holds, so that pages spill in the middle of the transaction.
            connection
                .execute_batch(
                    "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)
                     INSERT INTO t SELECT randomblob(1000) FROM n; COMMIT",
                )
                .unwrap_or_else(|error| panic!("{mode} round {round}: {error}"));
            connection.execute_batch("BEGIN; DELETE FROM t; ROLLBACK; SAVEPOINT s; DELETE FROM t WHERE rowid%2; ROLLBACK TO s; RELEASE s").unwrap();
        }
        connection
            .execute_batch("PRAGMA auto_vacuum=INCREMENTAL; VACUUM; DELETE FROM t; PRAGMA incremental_vacuum")
            .unwrap();
        assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_copy_of_a_wal_database_by_the_backup_api_arrives_as_a_rollback_database() {
    let (home, options) = network();
    let source = plain(&home.path().join("source.db"), "").unwrap();
    source.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1), (2), (3)").unwrap();
    assert_eq!(text(&source, "PRAGMA journal_mode"), "wal");
    let path = home.path().join("copy.db");
    let mut copy = options.open_connection(&path).unwrap();
    rusqlite::backup::Backup::new(&source, &mut copy).unwrap().run_to_completion(100, Duration::ZERO, None).unwrap();
    assert_eq!(stamp(&path), [1, 1]);
    assert_eq!(text(&copy, "SELECT count(*) FROM t"), "3", "the same connection goes on");
    copy.execute_batch("INSERT INTO t VALUES (4)").unwrap();
    assert_eq!(text(&copy, "PRAGMA integrity_check"), "ok");
    let stock = Connection::open(&path).unwrap();
    assert_eq!(
        (text(&stock, "SELECT count(*) FROM t").as_str(), text(&stock, "PRAGMA journal_mode").as_str()),
        ("4", "delete")
    );

    let mut plain_copy = Connection::open(home.path().join("stock.db")).unwrap();
    rusqlite::backup::Backup::new(&source, &mut plain_copy)
        .unwrap()
        .run_to_completion(100, Duration::ZERO, None)
        .unwrap();
    assert_eq!(stamp(&home.path().join("stock.db")), [2, 2], "stock writes the stamp");
}

#[test]
fn vacuum_into_a_network_mount_makes_a_rollback_database() {
    let (home, _) = network();
    let source = plain(&home.path().join("source.db"), "").unwrap();
    source.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    let path = home.path().join("copy.db");
    source.execute("VACUUM INTO ?1", [uri(&path, "&fs=network")]).unwrap();
    assert_eq!(stamp(&path), [1, 1]);
}

#[test]
fn a_wal_database_nobody_else_has_open_is_converted_with_all_its_commits() {
    for parameters in ["&fs=network", "&policy=delete"] {
        let (home, _) = network();
        let path = home.path().join("app.db");
        abandoned_wal_database(&path, 20);
        let connection = plain(&path, parameters).unwrap();
        assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
        assert_eq!(text(&connection, "SELECT count(*) FROM t"), "20", "the commits of the -wal are in");
        assert_eq!((stamp(&path), home.path().join("app.db-wal").exists()), ([1, 1], false));
        let notes = report(&connection).unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("converted")), "{notes:?}");
    }
}

#[test]
fn an_attached_wal_database_is_converted_as_well() {
    let (home, _) = network();
    let path = home.path().join("app.db");
    abandoned_wal_database(&path, 5);
    let connection = plain(Path::new(":memory:"), "").unwrap();
    connection.execute("ATTACH ?1 AS n", [uri(&path, "&fs=network")]).unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM n.t"), "5");
    assert_eq!(text(&connection, "PRAGMA n.journal_mode"), "delete");
}

#[test]
fn a_leftover_wal_beside_a_rollback_database_is_dealt_with_too() {
    let (home, _) = network();
    let path = home.path().join("app.db");
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    drop(stock);
    std::fs::write(home.path().join("app.db-wal"), vec![0x5a; 4096]).unwrap();
    let connection = plain(&path, "&fs=network").unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "1");
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
}

#[test]
fn a_wal_database_that_is_open_elsewhere_is_refused_untouched_with_a_hint() {
    let (home, options) = network();
    let path = home.path().join("app.db");
    abandoned_wal_database(&path, 3);
    let other = Connection::open(&path).unwrap();
    assert_eq!(text(&other, "SELECT count(*) FROM t"), "3");
    let before = contents_seen_from_outside(home.path());

    let error = options.open_connection(&path).unwrap_err();
    assert_eq!(error.code(), Some(rusqlite::ffi::SQLITE_CANTOPEN_DIRTYWAL));
    assert!(error.cause().contains("another connection has it open"), "{error}");
    assert!(error.hint().unwrap().contains("close it there"), "{:?}", error.hint());

    let plain_error = plain(&path, "&fs=network").unwrap_err();
    assert!(plain_error.to_string().contains("another connection has it open"), "{plain_error}");

    let main = plain(Path::new(":memory:"), "").unwrap();
    let attach = main.execute("ATTACH ?1 AS n", [uri(&path, "&fs=network")]).unwrap_err();
    assert_eq!(attach.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen), "{attach}");
    assert!(hardened_sqlite::last_open_error().unwrap().cause().contains("another connection has it open"));

    assert_eq!(contents_seen_from_outside(home.path()), before, "nothing was touched");
    other.execute_batch("INSERT INTO t VALUES (9)").unwrap();
    assert_eq!(text(&other, "SELECT count(*) FROM t"), "4");
}

#[test]
fn a_wal_database_opened_read_only_is_refused_with_the_way_out() {
    let (home, options) = network();
    let path = home.path().join("app.db");
    abandoned_wal_database(&path, 3);
    let before = contents(home.path());
    let error = options.clone().read_only(true).open_connection(&path).unwrap_err();
    assert!(error.hint().unwrap().contains("open it once read-write"), "{error:?}");
    assert_eq!(contents(home.path()), before);
    drop(options.clone().open_connection(&path).unwrap());
    let connection = options.read_only(true).open_connection(&path).unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "3");
}

#[test]
fn an_immutable_wal_database_is_read_as_it_is() {
    let (home, _) = network();
    let path = home.path().join("app.db");
    abandoned_wal_database(&path, 3);
    let before = contents(home.path());
    let connection = plain(&path, "&fs=network&immutable=1").unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM sqlite_schema"), "1");
    drop(connection);
    assert_eq!(contents(home.path()), before);
}

#[test]
fn the_policy_wal_allows_it_with_full_and_says_so() {
    if !require::root_and_fuse() {
        return;
    }
    let (backing, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = fuse::Mount::new(fuse::Options::new(backing.path()).subtype("litefs"), point.path()).unwrap();
    let connection = Options::new().policy(PolicyChoice::Wal).open_connection(mount.path().join("app.db")).unwrap();
    let report = report(&connection).unwrap();
    assert_eq!((report.journal_mode.as_deref(), report.synchronous.as_deref()), (Some("wal"), Some("FULL")));
    assert!(report.overridden[0].contains("policy=wal"), "{report}");
    assert_eq!(report.verdict.class, "fuse");
}

#[test]
fn a_wal_database_carried_onto_a_fuse_mount_opens_and_is_converted() {
    if !require::root_and_fuse() {
        return;
    }
    let (backing, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    abandoned_wal_database(&backing.path().join("app.db"), 12);
    // No shared memory at all here: stock SQLite cannot even read it.
    let options = fuse::Options::new(backing.path()).subtype("anything").direct_io(true);
    let mount = fuse::Mount::new(options, point.path()).unwrap();
    let path = mount.path().join("app.db");
    let stock = Connection::open(&path).unwrap();
    assert!(stock.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_err(), "stock fails");
    drop(stock);
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "12");
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
    let report = report(&connection).unwrap();
    assert_eq!((report.verdict.class.as_str(), report.verdict.filesystem.as_str()), ("fuse", "fuse.anything"));
}

#[test]
fn a_database_opened_by_name_and_not_by_uri_has_its_journals_too() {
    hardened_sqlite::hardened_vfs::register_as("hardened-network", "fs=network".parse().unwrap()).unwrap();
    let (home, _) = network();
    let path = home.path().join("app.db");
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Connection::open_with_flags_and_vfs(&path, flags, "hardened-network").unwrap()
    };
    let (first, second) = (open(), open());
    first.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    second.execute_batch("INSERT INTO t VALUES (2); BEGIN; DELETE FROM t; ROLLBACK").unwrap();
    assert_eq!(text(&first, "SELECT count(*) FROM t"), "2");
    // Heard by the database in memory only.
    let main = Connection::open_with_flags_and_vfs(":memory:", OpenFlags::default(), "hardened-network").unwrap();
    main.execute("ATTACH ?1 AS n", [path.to_str().unwrap()]).unwrap();
    main.execute_batch("PRAGMA journal_mode=OFF").unwrap();
    assert!(main.execute_batch("INSERT INTO n.t VALUES (3)").is_err(), "a write without a journal");
    assert_eq!(text(&first, "SELECT count(*) FROM t"), "2");
}

#[test]
fn pragmas_that_only_a_main_database_in_memory_hears_open_no_wal_file() {
    let (home, _) = network();
    let path = home.path().join("app.db");
    let connection = plain(Path::new(":memory:"), "").unwrap();
    connection.execute("ATTACH ?1 AS n", [uri(&path, "&fs=network")]).unwrap();
    connection.execute_batch("CREATE TABLE n.t(x); INSERT INTO n.t VALUES (1)").unwrap();
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
    let _ = connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
    let _ = connection.execute_batch("INSERT INTO n.t VALUES (2)");
    assert!(!home.path().join("app.db-wal").exists());
    drop(connection);
    assert_eq!(stamp(&path), [1, 1]);
    let again = plain(&path, "&fs=network").unwrap();
    assert_eq!(text(&again, "PRAGMA integrity_check"), "ok");
    assert!(text(&again, "SELECT count(*) FROM t").parse::<i64>().unwrap() >= 1);

    let stock = Connection::open_in_memory().unwrap();
    stock.execute("ATTACH ?1 AS n", [home.path().join("stock.db").to_str().unwrap()]).unwrap();
    stock.execute_batch("CREATE TABLE n.t(x); PRAGMA locking_mode=EXCLUSIVE").unwrap();
    let _ = stock.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
    stock.execute_batch("INSERT INTO n.t VALUES (2)").unwrap();
    assert!(home.path().join("stock.db-wal").exists(), "stock is in WAL mode now");
}
