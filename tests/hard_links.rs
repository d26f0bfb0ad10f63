//! Promise 2: a database with two names has two journals and two logs; it is used by one name at a time. The names may be
//! hard links, mounts of the file alone, or one before and one after a rename.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use hardened_sqlite::rusqlite::{Connection, ffi};
use hardened_sqlite::{FsChoice, Options, PolicyChoice};
use support::fuse::{self, LockTable};
use support::mounts::{Mounted, bind, bind_file};
use support::names::beside;
use tempfile::TempDir;

const OTHER: &str = "HARDENED_HARD_LINKS_OTHER";

/// What a refusal says.
const BY_ANOTHER: &str = "open by another name: a hard link, the file mounted alone at a second place";

/// Another process that opens a database and says what comes of it.
fn opened_elsewhere(path: &Path) -> String {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "other_process", "--nocapture"]).env(OTHER, path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_once("opened: ").unwrap_or_else(|| panic!("{text}")).1.lines().next().unwrap().to_owned()
}

#[test]
fn other_process() {
    if let Some(path) = std::env::var_os(OTHER) {
        let opened = local().open_connection(Path::new(&path));
        println!("opened: {}", opened.map_or_else(|error| error.to_string().replace('\n', " "), |_| "ok".into()));
    }
}

fn local() -> Options {
    Options::new().fs(FsChoice::Local)
}

/// A database with two names.
fn two_names() -> (TempDir, PathBuf, PathBuf) {
    let home = TempDir::new().unwrap();
    let (one, two) = (home.path().join("one.db"), home.path().join("two.db"));
    Connection::open(&one).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    std::fs::hard_link(&one, &two).unwrap();
    (home, one, two)
}

fn rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// A stock connection in WAL mode.
fn stock(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    connection
}

#[test]
fn stock_loses_what_is_committed_under_two_names_at_once() {
    if let Some(path) = std::env::var_os(OTHER) {
        stock(Path::new(&path)).execute_batch("INSERT INTO t VALUES (2)").unwrap();
        return;
    }
    let (_home, one, two) = two_names();
    let first = stock(&one);
    first.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "stock_loses_what_is_committed_under_two_names_at_once"]).env(OTHER, &two);
    assert!(child.output().unwrap().status.success(), "both are acknowledged");
    drop(first);
    assert!(rows(&Connection::open(&two).unwrap()) < 2);
}

#[test]
fn a_database_that_is_open_by_one_name_is_refused_by_another() {
    for options in [local(), Options::new().policy(PolicyChoice::Delete)] {
        let (_home, one, two) = two_names();
        let first = options.clone().open_connection(&one).unwrap();
        first.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let error = options.clone().open_connection(&two).map(drop).unwrap_err();
        assert_eq!(error.code().map(|code| code & 0xff), Some(ffi::SQLITE_CANTOPEN), "{error}");
        assert!(error.to_string().contains(BY_ANOTHER), "{error}");
        assert!(opened_elsewhere(&two).contains(BY_ANOTHER));
        // By the same name, however it is spelled.
        assert_eq!(opened_elsewhere(&one), "ok");
        assert_eq!(opened_elsewhere(&one.parent().unwrap().join("./one.db")), "ok");
        drop(first);
        let second = options.open_connection(&two).unwrap();
        assert_eq!(rows(&second), 1);
        assert!(opened_elsewhere(&one).contains(BY_ANOTHER));
    }
}

/// Two hosts that have mounted the same filesystem know it by different device numbers.
#[test]
fn a_name_is_the_same_on_every_mount_of_its_filesystem() {
    if !support::require::root_and_fuse() {
        return;
    }
    let (home, one, _) = two_names();
    let table = LockTable::default();
    let here = [(); 2].map(|()| TempDir::new().unwrap());
    let mounts = here.each_ref().map(|at| {
        let options = fuse::Options::new(home.path()).forward_locks(true).lock_table(&table).direct_io(true);
        fuse::Mount::new(options, at.path()).unwrap()
    });
    let paths = mounts.each_ref().map(|mount| mount.path().join(one.file_name().unwrap()));
    let first = Options::new().open_connection(&paths[0]).unwrap();
    let second = Options::new().open_connection(&paths[1]).unwrap();
    first.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(rows(&second), 1);
    let error = Options::new().open_connection(mounts[1].path().join("two.db")).map(drop).unwrap_err();
    assert!(error.to_string().contains(BY_ANOTHER), "{error}");
}

#[test]
fn a_name_that_is_given_while_the_database_is_open_is_refused_too() {
    let home = TempDir::new().unwrap();
    let (one, two) = (home.path().join("one.db"), home.path().join("two.db"));
    let first = local().open_connection(&one).unwrap();
    first.execute_batch("CREATE TABLE t(x)").unwrap();
    std::fs::hard_link(&one, &two).unwrap();
    assert!(opened_elsewhere(&two).contains(BY_ANOTHER));
    assert_eq!(opened_elsewhere(&one), "ok");
}

/// A database, and the same file mounted alone at a place in another directory, where it has the same name.
fn mounted_alone() -> (TempDir, PathBuf, PathBuf, Mounted) {
    let home = TempDir::new().unwrap();
    let [one, two] = ["one", "two"].map(|directory| {
        std::fs::create_dir(home.path().join(directory)).unwrap();
        home.path().join(directory).join("app.db")
    });
    Connection::open(&one).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    std::fs::write(&two, "").unwrap();
    let mounted = bind_file(&one, &two).unwrap();
    (home, one, two, mounted)
}

#[test]
fn stock_loses_what_is_committed_by_a_file_that_is_mounted_alone_and_by_its_own_name() {
    let insert = |connection: &Connection, rows: i64| {
        for x in 0..rows {
            connection.execute("INSERT INTO t VALUES (?1)", [x]).unwrap();
        }
    };
    if let Some(path) = std::env::var_os(OTHER) {
        return insert(&stock(Path::new(&path)), 300);
    }
    if !support::require::root() {
        return;
    }
    let (_home, one, two, _mounted) = mounted_alone();
    let first = stock(&one);
    insert(&first, 201);
    let test = "stock_loses_what_is_committed_by_a_file_that_is_mounted_alone_and_by_its_own_name";
    assert!(support::process::again(test).env(OTHER, &two).status().unwrap().success(), "all are acknowledged");
    drop(first);
    assert!(rows(&Connection::open(&one).unwrap()) < 501);
}

#[test]
fn a_file_that_is_mounted_alone_is_refused_while_it_is_open_by_its_own_name() {
    if !support::require::root() {
        return;
    }
    for options in [local(), Options::new().policy(PolicyChoice::Delete)] {
        let (home, one, two, _mounted) = mounted_alone();
        let first = options.clone().open_connection(&one).unwrap();
        first.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let error = options.clone().open_connection(&two).map(drop).unwrap_err();
        assert_eq!(error.code().map(|code| code & 0xff), Some(ffi::SQLITE_CANTOPEN), "{error}");
        for says in [BY_ANOTHER, "renamed", two.to_str().unwrap()] {
            assert!(error.to_string().contains(says), "{says}: {error}");
        }
        assert!(error.hint().unwrap().contains("mount its directory and not the file"), "{error:?}");
        assert!(opened_elsewhere(&two).contains(BY_ANOTHER));
        assert!(!beside(&two, "-wal").exists() && !beside(&two, "-journal").exists());
        // A mount of the directory has the same journal.
        let shown = home.path().join("shown");
        std::fs::create_dir(&shown).unwrap();
        let _shown = bind(one.parent().unwrap(), &shown).unwrap();
        assert_eq!(opened_elsewhere(&shown.join("app.db")), "ok");
        drop(first);
        let second = options.open_connection(&two).unwrap();
        assert_eq!(rows(&second), 1);
        assert!(opened_elsewhere(&one).contains(BY_ANOTHER));
    }
}

#[test]
fn a_database_that_was_renamed_while_it_was_open_is_refused_by_its_new_name_until_it_is_closed() {
    for (options, log) in [(local(), "-wal"), (Options::new().policy(PolicyChoice::Delete), "-journal")] {
        let home = TempDir::new().unwrap();
        let (one, two) = (home.path().join("one.db"), home.path().join("two.db"));
        let first = options.clone().open_connection(&one).unwrap();
        first.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        first.query_row("PRAGMA wal_checkpoint", [], |_| Ok(())).unwrap();
        std::fs::rename(&one, &two).unwrap();
        let error = options.clone().open_connection(&two).map(drop).unwrap_err();
        assert!(error.to_string().contains(BY_ANOTHER) && error.to_string().contains("renamed"), "{error}");
        assert!(opened_elsewhere(&two).contains(BY_ANOTHER));
        assert!(!beside(&two, log).exists());
        let error = first.execute_batch("INSERT INTO t VALUES (2)").unwrap_err();
        assert_eq!(error.sqlite_error().unwrap().extended_code, ffi::SQLITE_READONLY_DBMOVED, "{error}");
        drop(first);
        assert_eq!(rows(&options.open_connection(&two).unwrap()), 1);
    }
}
