//! Promise 6: no writes into a dead generation. When the database, its -wal or its -shm is not the file of that name any
//! more, writing stops, and what was committed and cannot be reached is saved.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hardened_sqlite::hardened_vfs::PolicyChoice;
use hardened_sqlite::rusqlite::{self, Connection, ffi};
use hardened_sqlite::{FsChoice, Options, report};
use support::names::beside;
use support::{mounts, require};
use tempfile::TempDir;

fn hardened(path: &Path) -> Connection {
    Options::new().fs(FsChoice::Local).open_connection(path).unwrap()
}

fn stock(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    connection
}

fn insert(connection: &Connection, x: i64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t VALUES (?1)", [x])
}

fn rows(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    connection.prepare("SELECT x FROM t ORDER BY x")?.query_map([], |row| row.get(0))?.collect()
}

fn code<T: std::fmt::Debug>(result: rusqlite::Result<T>) -> i32 {
    result.unwrap_err().sqlite_error().unwrap().extended_code
}

const LOOK: &str = "HARDENED_GENERATIONS_LOOK";

/// Looked at by another process with stock SQLite, which does not know what this one has open.
fn rows_for_others(path: &Path) -> String {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "others_look", "--nocapture"]).env(LOOK, path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let seen = text.split_once("seen: ").unwrap_or_else(|| panic!("{text}")).1;
    seen.lines().next().unwrap().to_owned()
}

#[test]
fn others_look() {
    if let Some(path) = std::env::var_os(LOOK) {
        println!("seen: {:?}", rows(&Connection::open(path).unwrap()).unwrap());
    }
}

/// A database in WAL mode with one row in the file and one in the log.
fn begun(open: fn(&Path) -> Connection) -> (TempDir, PathBuf, Connection) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let connection = open(&path);
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    insert(&connection, 2).unwrap();
    (home, path, connection)
}

/// Every file of a directory with its bytes.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The saved commits and their manifest.
fn stranded(directory: &Path) -> Option<(PathBuf, serde_json::Value)> {
    let saved = content(directory).into_keys().find(|path| {
        let name = path.to_str().unwrap();
        name.contains("-wal_stranded_") && !name.ends_with(".json")
    })?;
    let manifest = fs::read_to_string(beside(&saved, ".json")).unwrap();
    Some((saved, serde_json::from_str(&manifest).unwrap()))
}

/// What a person does who follows the manifest.
fn rows_by_the_manifest(directory: &Path, database: &Path) -> Vec<i64> {
    let (saved, manifest) = stranded(directory).unwrap();
    assert_eq!(manifest["database_inode"], fs::metadata(database).unwrap().ino());
    assert_eq!(manifest["saved"], saved.file_name().unwrap().to_str().unwrap());
    let elsewhere = TempDir::new().unwrap();
    let copy = elsewhere.path().join("copy.db");
    fs::copy(database, &copy).unwrap();
    fs::copy(saved, beside(&copy, "-wal")).unwrap();
    let connection = Connection::open(&copy).unwrap();
    let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    rows(&connection).unwrap()
}

fn refuses_everything(connection: &Connection, what: &str) {
    assert_eq!(code(insert(connection, 3)), ffi::SQLITE_READONLY_DBMOVED, "{what}");
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2));
    assert_eq!(code(checkpoint), ffi::SQLITE_READONLY_DBMOVED, "{what}");
    let alarms = report(connection).unwrap().alarms;
    println!("{alarms:?}");
    assert!(alarms.len() == 1 && alarms[0].contains(what), "{alarms:?}");
    // What was read before can still be read.
    assert_eq!(rows(connection).unwrap(), [1, 2]);
}

/// Keeps its locks, and its WAL-index in its own memory.
fn exclusively(connection: Connection) -> Connection {
    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(())).unwrap();
    // The locks are kept from the next transaction on.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
    connection
}

#[test]
fn a_connection_in_exclusive_locking_mode_looks_at_the_names_before_each_commit() {
    let replace = |path: &Path| {
        fs::rename(path, beside(path, ".old")).unwrap();
        fs::copy(beside(path, ".old"), path).unwrap();
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(beside(path, suffix)).unwrap();
        }
    };
    let (_home, path, connection) = begun(stock);
    let connection = exclusively(connection);
    replace(&path);
    insert(&connection, 3).unwrap();
    assert_eq!(rows_for_others(&path), "[1]", "stock has acknowledged what nobody will see");

    let (home, path, connection) = begun(hardened);
    let connection = exclusively(connection);
    insert(&connection, 3).unwrap();
    replace(&path);
    assert_eq!(code(insert(&connection, 4)), ffi::SQLITE_READONLY_DBMOVED);
    assert_eq!(code(insert(&connection, 5)), ffi::SQLITE_READONLY_DBMOVED);
    assert_eq!(rows(&connection).unwrap(), [1, 2, 3]);
    drop(connection);
    assert_eq!(rows_by_the_manifest(home.path(), &beside(&path, ".old")), [1, 2, 3]);
    assert_eq!(rows_for_others(&path), "[1]");
}

#[test]
fn an_unlinked_wal_takes_no_more_commits_and_those_in_it_are_saved() {
    let unlink = |path: &Path| ["-wal", "-shm"].map(|suffix| fs::remove_file(beside(path, suffix)).unwrap());
    let (_home, path, connection) = begun(stock);
    unlink(&path);
    insert(&connection, 3).unwrap();
    assert_eq!(rows_for_others(&path), "[1]", "stock has acknowledged what nobody will see");
    drop(connection);

    let (home, path, connection) = begun(hardened);
    unlink(&path);
    refuses_everything(&connection, "its -wal has been renamed or removed");
    let before = fs::read(&path).unwrap();
    drop(connection);
    assert_eq!(fs::read(&path).unwrap(), before, "the checkpoint at close has written");
    assert_eq!(rows_by_the_manifest(home.path(), &path), [1, 2]);
}

#[test]
fn a_renamed_database_is_written_no_more_and_its_commits_are_saved() {
    let (home, path, connection) = begun(stock);
    let renamed = home.path().join("renamed.db");
    fs::rename(&path, &renamed).unwrap();
    insert(&connection, 3).unwrap();
    assert_eq!(rows_for_others(&renamed), "[1]", "stock has acknowledged what nobody will see");
    drop(connection);

    let (home, path, connection) = begun(hardened);
    let renamed = home.path().join("renamed.db");
    fs::rename(&path, &renamed).unwrap();
    refuses_everything(&connection, "the database has been renamed or removed");
    let before = fs::read(&renamed).unwrap();
    drop(connection);
    assert_eq!(fs::read(&renamed).unwrap(), before, "the checkpoint at close has written");
    assert_eq!(rows_by_the_manifest(home.path(), &renamed), [1, 2]);
}

#[test]
fn a_database_replaced_by_a_copy_is_written_no_more_and_the_copy_is_left_alone() {
    let replace = |path: &Path| {
        let copy = beside(path, "-copy");
        fs::copy(path, &copy).unwrap();
        fs::rename(copy, path).unwrap();
    };
    let (_home, path, connection) = begun(stock);
    replace(&path);
    insert(&connection, 3).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert_eq!(rows_for_others(&path), "[1]", "stock has acknowledged what nobody will see");
    drop(connection);

    let (home, path, connection) = begun(hardened);
    replace(&path);
    refuses_everything(&connection, "the database is another file now");
    let before = content(home.path());
    drop(connection);
    assert_eq!(content(home.path()), before, "closing has changed something");
    assert!(stranded(home.path()).is_some());
}

#[test]
fn a_replaced_wal_index_stops_writing_and_loses_nothing() {
    let (home, path, connection) = begun(hardened);
    fs::remove_file(beside(&path, "-shm")).unwrap();
    refuses_everything(&connection, "its -shm has been renamed or removed");
    // The commits are where anybody finds them.
    assert!(stranded(home.path()).is_none());
    assert_eq!(rows(&hardened(&path)).unwrap(), [1, 2]);
    refuses_everything(&connection, "its -shm");
    drop(connection);
    assert_eq!(rows(&hardened(&path)).unwrap(), [1, 2]);
}

#[test]
fn files_that_come_back_can_be_written_again() {
    let (home, path, connection) = begun(hardened);
    let elsewhere = home.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    assert_eq!(code(insert(&connection, 3)), ffi::SQLITE_READONLY_DBMOVED);
    fs::rename(&elsewhere, &path).unwrap();
    insert(&connection, 3).unwrap();
    assert_eq!(rows(&connection).unwrap(), [1, 2, 3]);
}

#[test]
fn a_deleted_database_leaves_nothing_behind() {
    let (home, path, connection) = begun(hardened);
    for suffix in ["", "-wal", "-shm", "-guard"] {
        let _ = fs::remove_file(beside(&path, suffix));
    }
    assert_eq!(code(insert(&connection, 3)), ffi::SQLITE_READONLY_DBMOVED);
    drop(connection);
    assert_eq!(content(home.path()).into_keys().collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn other_files_in_the_directory_may_come_and_go() {
    let (home, _path, connection) = begun(hardened);
    for x in 3..200 {
        let other = home.path().join("other");
        fs::write(&other, b"x").unwrap();
        insert(&connection, x).unwrap();
        fs::remove_file(&other).unwrap();
        insert(&connection, -x).unwrap();
    }
    assert_eq!(report(&connection).unwrap().alarms, Vec::<String>::new());
}

#[test]
fn a_database_renamed_in_rollback_mode_is_told_in_words() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let connection = Options::new().policy(PolicyChoice::Delete).open_connection(&path).unwrap();
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    fs::rename(&path, home.path().join("renamed.db")).unwrap();
    assert_eq!(code(insert(&connection, 2)), ffi::SQLITE_READONLY_DBMOVED);
    let alarms = report(&connection).unwrap().alarms;
    assert!(alarms.len() == 1 && alarms[0].contains("the database has been renamed or removed"), "{alarms:?}");
}

/// In EXCLUSIVE locking mode SQLite asks nothing: it takes no lock for a transaction or a checkpoint, and keeps its journal open.
#[test]
fn a_connection_that_keeps_its_locks_notices_too() {
    for mode in ["WAL", "DELETE", "TRUNCATE", "PERSIST"] {
        let begun = |open: fn(&Path) -> Connection| {
            let home = TempDir::new().unwrap();
            let path = home.path().join("app.db");
            let connection = open(&path);
            for pragma in [format!("journal_mode={mode}"), "locking_mode=EXCLUSIVE".to_owned()] {
                connection.query_row(&format!("PRAGMA {pragma}"), [], |_| Ok(())).unwrap();
            }
            connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").unwrap();
            let renamed = home.path().join("renamed.db");
            fs::rename(&path, &renamed).unwrap();
            (home, path, renamed, connection)
        };
        let (_home, _, _, connection) = begun(stock);
        insert(&connection, 3).unwrap();
        drop(connection);

        let (_home, path, renamed, connection) = begun(hardened);
        let before = fs::read(&renamed).unwrap();
        for _ in 0..2 {
            assert_eq!(code(insert(&connection, 3)), ffi::SQLITE_READONLY_DBMOVED, "{mode}");
        }
        if mode == "WAL" {
            let checkpoint = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2));
            assert_eq!(code(checkpoint), ffi::SQLITE_READONLY_DBMOVED);
        }
        let alarms = report(&connection).unwrap().alarms;
        assert!(alarms.len() == 1 && alarms[0].contains("the database has been renamed or removed"), "{alarms:?}");
        assert_eq!(fs::read(&renamed).unwrap(), before, "{mode}");
        // It is only as dead as the name.
        fs::rename(&renamed, &path).unwrap();
        insert(&connection, 3).unwrap();
        if mode == "WAL" {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        }
        assert_eq!(rows(&connection).unwrap(), [1, 2, 3], "{mode}");
    }
}

/// Old and small ext4 filesystems count whole seconds: a name that has changed in the second of a look leaves the directory's
/// time as it was.
#[test]
fn a_change_within_the_second_of_a_look_is_seen_where_the_filesystem_counts_seconds() {
    if !require::loop_devices() || !require::program("mkfs.ext4") {
        return;
    }
    let images = TempDir::new().unwrap();
    let image = images.path().join("image");
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    mounts::format_with("ext4", &image, &["-I", "128"]).unwrap();
    let disk = mounts::loop_image("ext4", &image).unwrap();
    for round in 0..4 {
        let path = disk.path().join(format!("{round}.db"));
        let connection = hardened(&path);
        connection.execute_batch("CREATE TABLE t(x)").unwrap();
        let directory = fs::metadata(disk.path()).unwrap();
        assert_eq!(directory.ctime_nsec(), 0, "it counts finer: then this test proves nothing");
        // Where times are fine this look would be trusted from now on.
        let begun = Duration::from_secs(directory.ctime().try_into().unwrap());
        while UNIX_EPOCH.elapsed().unwrap() < begun + Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        insert(&connection, 1).unwrap();
        fs::rename(&path, disk.path().join("renamed.db")).unwrap();
        assert_eq!(code(insert(&connection, 2)), ffi::SQLITE_READONLY_DBMOVED, "{round}");
    }
}

/// What a checkpoint that waits lets happen, once.
static MEANWHILE: std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>> = std::sync::Mutex::new(None);

fn waits(_: i32) -> bool {
    if let Some(meanwhile) = MEANWHILE.lock().unwrap().take() {
        meanwhile();
    }
    true
}

/// It has looked at the names when it began, and again when its turn has come.
#[test]
fn a_checkpoint_that_waited_for_a_writer_writes_nothing_into_a_file_that_was_renamed_meanwhile() {
    for (open, is_written) in [(stock as fn(&Path) -> Connection, true), (hardened, false)] {
        let (_home, path, mut connection) = begun(open);
        connection.busy_handler(Some(waits)).unwrap();
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let old = path.with_file_name("old.db");
        let (from, to, new) = (path.clone(), old.clone(), path.with_file_name("new.db"));
        let (kept, keeps) = std::sync::mpsc::channel();
        *MEANWHILE.lock().unwrap() = Some(Box::new(move || {
            fs::rename(&from, &to).unwrap();
            Connection::open(&new).unwrap().execute_batch("CREATE TABLE other(y)").unwrap();
            fs::rename(&new, &from).unwrap();
            writer.execute_batch("ROLLBACK").unwrap();
            // Its close would close the log.
            kept.send(writer).unwrap();
        }));
        let before = fs::read(&path).unwrap();
        let answer = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        let _writer = keeps.recv().unwrap();
        assert_eq!(fs::read(&old).unwrap() != before, is_written, "{answer:?}");
        assert_eq!(answer.is_err(), !is_written, "{answer:?}");
    }
}
