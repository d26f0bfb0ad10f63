//! Bad input is explained, and nothing on disk is changed by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hardened_sqlite::{Error, Options, last_open_error, open_connection, uri};
use rusqlite::{Connection, OpenFlags};

#[path = "bad_input/content.rs"]
mod content;
#[path = "bad_input/last_error.rs"]
mod last_error;
#[path = "bad_input/names.rs"]
mod names;
#[path = "bad_input/paths.rs"]
mod paths;
#[path = "bad_input/permission.rs"]
mod permission;
#[path = "bad_input/shortage.rs"]
mod shortage;
#[path = "bad_input/unprivileged.rs"]
mod unprivileged;

const CANTOPEN: i32 = rusqlite::ffi::SQLITE_CANTOPEN;
const CORRUPT: i32 = rusqlite::ffi::SQLITE_CORRUPT;
const NOTADB: i32 = rusqlite::ffi::SQLITE_NOTADB;

/// `last_open_error` is one for the process: whoever fails to open does so alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All names below `directory`, with the bytes of regular files and the targets of links.
fn everything(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let bytes = if kind.is_file() {
            std::fs::read(entry.path()).unwrap()
        } else if kind.is_symlink() {
            std::fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
        } else {
            format!("{kind:?}").into_bytes()
        };
        if kind.is_dir() {
            found.extend(everything(&entry.path()));
        }
        found.insert(entry.path(), bytes);
    }
    found
}

/// An open as any program does it that names the VFS in its URI.
fn plain(path: &Path) -> rusqlite::Result<Connection> {
    plain_with(path, "")
}

/// The same with options of the VFS.
fn plain_with(path: &Path, options: &str) -> rusqlite::Result<Connection> {
    hardened_sqlite::hardened_vfs::register(Default::default()).unwrap();
    Connection::open_with_flags(uri(path, &options.parse().unwrap()), OpenFlags::default())
}

fn code_and_text(error: &rusqlite::Error) -> (i32, String) {
    match error {
        rusqlite::Error::SqliteFailure(failure, Some(text)) => (failure.extended_code, text.clone()),
        other => panic!("{other:?} has no message"),
    }
}

/// What an error owes the user: the path, the code, what was seen, what to do, and all of it in one message.
#[track_caller]
fn assert_explained(error: &Error, path: &Path, code: i32, seen: &str, hint: &str) {
    assert_eq!(error.path(), Some(path));
    assert_eq!(error.code(), Some(code), "{error:?}");
    assert!(error.cause().contains(seen), "{seen:?} is not in {:?}", error.cause());
    assert!(!error.cause().contains("vfs="), "the URI is ours, not the user's: {:?}", error.cause());
    let told = error.hint().unwrap_or_default();
    assert!(told.contains(hint), "{hint:?} is not in {told:?}");
    let expected = format!("Cannot load: {}: {}\nWhat to do: {told}.", path.display(), error.cause());
    assert_eq!(error.user_message("Cannot load"), expected);
}

/// How a program learns the reason that opens without our API.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    /// In SQLite's error message.
    InText,
    /// Only by `last_open_error`: SQLite gives up before there is a connection that could carry a message.
    Remembered,
}

/// Opens `path`, which is refused before SQLite sees a file; nothing in `home` changes.
#[track_caller]
fn assert_refused(home: &Path, path: &Path, told: Told, seen: &str, hint: &str) {
    let _alone = alone();
    let before = everything(home);
    let mut file = PathBuf::new();
    for options in [Options::new(), Options::new().read_only(true), Options::new().create(false)] {
        let error = options.open_connection(path).map(drop).unwrap_err();
        file = error.path().unwrap().to_owned();
        assert_explained(&error, &file, CANTOPEN, seen, hint);
        assert!(error.to_string().contains(&path.display().to_string()), "{error} names what the user named");
        assert!(matches!(error, Error::CannotOpen(_)));
        assert_eq!(last_open_error(), Some(error));
    }
    let (code, text) = code_and_text(&plain(path).map(drop).unwrap_err());
    assert_eq!(code, CANTOPEN);
    match told {
        Told::InText => assert!(text.contains(seen) && text.contains(hint), "{text}"),
        Told::Remembered => assert!(text.contains("unable to open database file"), "{text}"),
    }
    assert_explained(&last_open_error().unwrap(), &file, CANTOPEN, seen, hint);
    assert_eq!(everything(home), before);
}

/// Opens `path`, which SQLite opens and cannot read; nothing in `home` changes.
#[track_caller]
fn assert_unreadable(home: &Path, path: &Path, code: i32, seen: &str, hint: &str) {
    let _alone = alone();
    let before = everything(home);
    let error = open_connection(path).map(drop).unwrap_err();
    assert_explained(&error, path, code, seen, hint);
    assert_eq!(last_open_error(), Some(error));
    for options in [Options::new().read_only(true), Options::new().fs(hardened_sqlite::FsChoice::Network)] {
        let opened = options.open_connection(path).map(drop);
        let error = opened.expect_err(&format!("{options:?}"));
        assert_eq!((error.path(), error.code()), (Some(path), Some(code)), "{options:?}");
        assert!(error.cause().contains(seen), "{options:?}: {error}");
    }
    let connection = plain(path).expect("as in SQLite itself, the first statement finds out");
    let (plain_code, _) = code_and_text(&connection.execute_batch("CREATE TABLE t(x)").unwrap_err());
    drop(connection);
    let stock = Connection::open(path).unwrap();
    let (stock_code, _) = code_and_text(&stock.execute_batch("CREATE TABLE t(x)").unwrap_err());
    drop(stock);
    assert_eq!((plain_code, stock_code), (code, code));
    assert_eq!(everything(home), before);
}

/// A database in rollback mode with `t(x)` holding 1 to `rows`, each row about 500 bytes.
fn stock_database(path: &Path, rows: i64) {
    let stock = Connection::open(path).unwrap();
    stock.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY, filler)").unwrap();
    for row in 1..=rows {
        stock.execute("INSERT INTO t VALUES (?1, zeroblob(500))", [row]).unwrap();
    }
}

fn rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn integrity(connection: &Connection) -> String {
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}
