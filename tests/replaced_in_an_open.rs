//! Promises 2, 5 and 6: the file, its directory and its name are what they were when the base opened it, whatever is put in their
//! place in the middle of an open.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hardened_sqlite::rusqlite::Connection;
use hardened_sqlite::{Error, FsChoice, Options};
use support::system_call::{Call, within};
use tempfile::TempDir;

fn hardened(path: &Path) -> Result<Connection, Error> {
    Options::new().fs(FsChoice::Local).open_connection(path)
}

fn make(path: &Path) {
    Connection::open(path).unwrap().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x)").unwrap();
}

/// What of a directory this process has open, by name.
fn open_in(home: &Path) -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let paths = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
    paths.filter(|path| path.starts_with(home)).collect()
}

/// Puts copies of `model` at `path` until one has the number `wanted`, if one is.
fn replace(path: &Path, model: &Path, wanted: Option<u64>) -> bool {
    (0..200).any(|number| {
        let copy = path.with_file_name(format!("copy{number}"));
        fs::copy(model, &copy).unwrap();
        let fits = wanted.is_none_or(|wanted| fs::metadata(&copy).unwrap().ino() == wanted);
        if fits {
            fs::rename(&copy, path).unwrap();
        }
        fits
    })
}

#[test]
fn a_file_that_is_replaced_twice_and_has_its_number_again_is_not_taken_for_the_first() {
    let home = TempDir::new().unwrap();
    let (path, model) = (home.path().join("app.db"), home.path().join("model"));
    make(&model);
    fs::copy(&model, &path).unwrap();
    let first = fs::metadata(&path).unwrap().ino();
    // The directory is known then.
    drop(hardened(&home.path().join("other.db")).unwrap());
    let (to, from) = (path.clone(), model.clone());
    // Before the base opens it, and once it has.
    let hook = within(Call::Open, "/app.db", 0, move || {
        assert!(replace(&to, &from, None));
        std::mem::forget(within(Call::Fstat, "/app.db", 0, move || {
            println!("the number {first} was given again: {}", replace(&to, &from, Some(first)));
        }));
    });
    let opened = hardened(&path);
    assert!(hook.has_run());
    drop(hook);
    match opened {
        Ok(connection) => {
            connection.execute_batch("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            let seen =
                Connection::open(&path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
            assert_eq!(seen.unwrap(), 1, "what was acknowledged is in the file of that name");
        }
        Err(error) => assert!(error.to_string().contains("was replaced"), "{error}"),
    }
}

/// The directory is put in the place of another one before the base opens the file.
fn swapped(home: &Path, link: bool) -> (Connection, PathBuf) {
    let (data, new, old) = (home.join("data"), home.join("data.new"), home.join("data.old"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&new).unwrap();
    make(&data.join("app.db"));
    match link {
        true => fs::hard_link(data.join("app.db"), new.join("app.db")).unwrap(),
        false => make(&new.join("app.db")),
    }
    // The directory is known then.
    drop(hardened(&data.join("other.db")).unwrap());
    let path = data.join("app.db");
    let from = old.clone();
    let hook = within(Call::Open, "/app.db", 0, move || {
        fs::rename(&data, &from).unwrap();
        fs::rename(&new, &data).unwrap();
    });
    let connection = hardened(&path).unwrap();
    assert!(hook.has_run());
    (connection, old)
}

#[test]
fn the_directory_that_is_synced_is_that_of_the_file_that_was_opened() {
    let home = TempDir::new().unwrap();
    let (connection, old) = swapped(home.path(), false);
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let open = open_in(home.path());
    assert!(open.iter().any(|path| path.ends_with("data")), "{open:?}");
    assert!(!open.iter().any(|path| path.starts_with(&old)), "{open:?}");
}

#[test]
fn a_name_in_the_directory_that_was_there_before_is_another_name() {
    let home = TempDir::new().unwrap();
    let (connection, old) = swapped(home.path(), true);
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let error = hardened(&old.join("app.db")).unwrap_err();
    assert!(error.to_string().contains("by another name"), "{error}");
}
