//! Promise 2: a database with two names has two journals and two logs; it is used by one name at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use hardened_sqlite::rusqlite::{Connection, ffi};
use hardened_sqlite::{FsChoice, Options, PolicyChoice};
use support::fuse::{self, LockTable};
use tempfile::TempDir;

const OTHER: &str = "HARDENED_HARD_LINKS_OTHER";

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
        assert!(error.to_string().contains("several names (hard links)"), "{error}");
        assert!(opened_elsewhere(&two).contains("several names (hard links)"));
        // By the same name, however it is spelled.
        assert_eq!(opened_elsewhere(&one), "ok");
        assert_eq!(opened_elsewhere(&one.parent().unwrap().join("./one.db")), "ok");
        drop(first);
        let second = options.open_connection(&two).unwrap();
        assert_eq!(rows(&second), 1);
        assert!(opened_elsewhere(&one).contains("several names (hard links)"));
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
    assert!(error.to_string().contains("several names (hard links)"), "{error}");
}

#[test]
fn a_name_that_is_given_while_the_database_is_open_is_refused_too() {
    let home = TempDir::new().unwrap();
    let (one, two) = (home.path().join("one.db"), home.path().join("two.db"));
    let first = local().open_connection(&one).unwrap();
    first.execute_batch("CREATE TABLE t(x)").unwrap();
    std::fs::hard_link(&one, &two).unwrap();
    assert!(opened_elsewhere(&two).contains("several names (hard links)"));
    assert_eq!(opened_elsewhere(&one), "ok");
}
