//! Promise 4: a failed fsync is never forgotten. On a real filesystem that fails as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hardened_sqlite::{Options, report};
use rusqlite::Connection;
use support::fuse::{self, Fault, Mount, Op};
use support::require;
use tempfile::TempDir;

const DATABASE: &str = "app.db";

const EIO: i32 = 5;

/// Fields are dropped in order: the mount goes before its directories.
struct Mounted {
    mount: Mount,
    _backing: TempDir,
    _at: TempDir,
}

impl std::ops::Deref for Mounted {
    type Target = Mount;

    fn deref(&self) -> &Mount {
        &self.mount
    }
}

fn mounted() -> Option<Mounted> {
    if !require::root_and_fuse() {
        return None;
    }
    let (backing, at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mount = Mount::new(fuse::Options::new(backing.path()), at.path()).unwrap();
    Some(Mounted { mount, _backing: backing, _at: at })
}

fn open(path: &Path) -> Connection {
    Options::new().open_connection(path).unwrap()
}

fn insert(connection: &Connection, x: i64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t VALUES (?1, zeroblob(3000))", [x])
}

fn rows(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT x FROM t ORDER BY x").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn alarms(connection: &Connection) -> Vec<String> {
    report(connection).unwrap().alarms
}

fn with_a_row(path: &Path) -> Connection {
    let connection = open(path);
    connection.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, filler)").unwrap();
    insert(&connection, 1).unwrap();
    connection
}

fn eio(on: Op, name: &str) -> Fault {
    Fault::on(on).name(name).errno(EIO)
}

#[test]
fn a_sync_that_fails_once_is_healed_and_the_commit_stands() {
    let Some(mount) = mounted() else { return };
    let path = mount.path().join(DATABASE);
    let connection = with_a_row(&path);
    for (row, name) in [(2, DATABASE), (3, "app.db-journal")] {
        let fault = mount.fault(eio(Op::Fsync, name).times(1));
        insert(&connection, row).unwrap();
        assert_eq!(fault.seen(), 1, "{name}");
    }
    assert_eq!(alarms(&connection), [""; 0]);
    let notes = report(&connection).unwrap().notes;
    for which in ["the database", "the rollback journal"] {
        let healed = format!("a sync of {which} failed (code 1034) and was healed");
        assert!(notes.iter().any(|note| note.starts_with(&healed)), "{which}: {notes:?}");
    }
    drop(connection);
    assert_eq!(rows(&Connection::open(&path).unwrap()), [1, 2, 3]);
}

#[test]
fn a_sync_that_keeps_failing_stops_everything_until_all_have_closed() {
    let Some(mount) = mounted() else { return };
    let path = mount.path().join(DATABASE);
    let (connection, other) = (with_a_row(&path), open(&path));
    // Once, and once more when it is to be healed.
    let fault = mount.fault(eio(Op::Fsync, DATABASE).times(2));
    let error = insert(&connection, 2).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code, 1034, "{error}");
    assert_eq!(fault.seen(), 2);
    // The disk works again, and a sync would succeed. What it did not write nobody knows.
    for connection in [&connection, &other] {
        let error = insert(connection, 3).unwrap_err();
        assert_eq!(error.sqlite_error().unwrap().extended_code & 0xff, 10, "{error}");
        let alarms = alarms(connection);
        assert!(matches!(alarms.as_slice(), [one] if one.contains("a sync of the database failed")), "{alarms:?}");
    }
    drop(connection);
    assert!(insert(&other, 4).is_err(), "one connection is still open");
    drop(other);
    let again = open(&path);
    assert_eq!(alarms(&again), [""; 0]);
    assert_eq!(rows(&again), [1], "the transaction that failed was rolled back");
    insert(&again, 5).unwrap();
    drop(again);
    assert!(!mount.path().join("app.db-guard").exists(), "nothing is left to be told");
    let stock = Connection::open(&path).unwrap();
    assert_eq!(rows(&stock), [1, 5]);
}

#[test]
fn a_directory_sync_that_fails_stops_everything_too() {
    let Some(mount) = mounted() else { return };
    let path = mount.path().join(DATABASE);
    let connection = with_a_row(&path);
    let fault = mount.fault(Fault::on(Op::Fsyncdir).errno(EIO));
    let error = insert(&connection, 2).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code & 0xff, 10, "{error}");
    assert!(fault.seen() > 0);
    assert!(alarms(&connection)[0].contains("a sync of the directory failed"), "{:?}", alarms(&connection));
    // Stock SQLite has not heard of it.
    drop(connection);
    let stock = Connection::open(mount.path().join("stock.db")).unwrap();
    stock.execute_batch("PRAGMA synchronous=FULL; CREATE TABLE t(x)").unwrap();
}

const OTHER_PROCESS: &str = "another_process_hears_of_a_failed_sync_before_it_promises_anything";
const PATH: &str = "HARDENED_TEST_PATH";

/// Opens the database, says so, and tries to write when it is told to.
fn other_process(path: &Path) {
    let connection = open(path);
    println!("rows {:?}", rows(&connection));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    match insert(&connection, 100) {
        Ok(_) => println!("wrote"),
        Err(error) => println!("refused {} {:?}", error.sqlite_error().unwrap().extended_code, alarms(&connection)),
    }
}

fn line(child: &mut BufReader<impl std::io::Read>, starts: &[&str]) -> String {
    let mut line = String::new();
    while !starts.iter().any(|start| line.starts_with(start)) {
        line.clear();
        assert!(child.read_line(&mut line).unwrap() > 0, "the other process ended");
    }
    line
}

fn start_other(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", OTHER_PROCESS, "--nocapture"])
        .env(PATH, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn another_process_hears_of_a_failed_sync_before_it_promises_anything() {
    if let Some(path) = std::env::var_os(PATH) {
        return other_process(Path::new(&path));
    }
    let Some(mount) = mounted() else { return };
    let path = mount.path().join(DATABASE);
    let connection = with_a_row(&path);
    let mut child = start_other(&path);
    let mut says = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut says, &["rows"]), "rows [1]\n");
    mount.fault(eio(Op::Fsync, DATABASE).times(2));
    insert(&connection, 2).unwrap_err();
    // With it go its locks. The other process has had the database open all the time.
    drop(connection);
    writeln!(child.stdin.take().unwrap()).unwrap();
    let answer = line(&mut says, &["refused", "wrote"]);
    assert!(answer.starts_with("refused "), "{answer}");
    assert!(answer.contains("another process has stopped writing: a sync of the database failed"), "{answer}");
    assert!(child.wait().unwrap().success());
    let again = open(&path);
    assert_eq!(rows(&again), [1]);
    insert(&again, 3).unwrap();
}
