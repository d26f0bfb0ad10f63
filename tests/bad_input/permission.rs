//! Files and directories that this user may not read, write or enter.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::unprivileged::{open_directory, rerun, rerun_in};
use super::*;
use support::{mounts, require};

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The open is refused with all that `assert_explained` asks for, by our API and as text of SQLite's.
#[track_caller]
fn assert_denied(path: &Path, seen: &str, hint: &str) {
    let error = open_connection(path).map(drop).unwrap_err();
    assert_explained(&error, path, CANTOPEN, seen, hint);
    assert_eq!(last_open_error(), Some(error));
    let (code, _) = code_and_text(&plain(path).map(drop).unwrap_err());
    assert_eq!(code, CANTOPEN);
    assert!(last_open_error().unwrap().cause().contains(seen));
}

#[test]
fn an_unreadable_file_is_told_with_its_mode_and_owner() {
    const NAME: &str = "permission::an_unreadable_file_is_told_with_its_mode_and_owner";
    if let Some(home) = rerun_in() {
        let path = home.join("app.db");
        assert_denied(&path, "no permission: its mode is 0000 and its owner ", "run as its owner or change its mode");
        let (_, text) = code_and_text(&plain(&path).map(drop).unwrap_err());
        assert!(text.contains("no permission: its mode is 0000"), "{text}");
        return;
    }
    let home = open_directory();
    let path = home.path().join("app.db");
    stock_database(&path, 3);
    let before = everything(home.path());
    set_mode(&path, 0);
    rerun(NAME, home.path());
    set_mode(&path, 0o600);
    assert_eq!(everything(home.path()), before);
}

#[test]
fn a_file_in_a_directory_that_may_not_be_entered_names_that_directory() {
    const NAME: &str = "permission::a_file_in_a_directory_that_may_not_be_entered_names_that_directory";
    if let Some(home) = rerun_in() {
        let seen = format!("no permission to look into {}", home.join("private").display());
        assert_denied(&home.join("private/app.db"), &seen, "run as a user who may enter it");
        assert_denied(&home.join("private/deeper/app.db"), &seen, "run as a user who may enter it");
        return;
    }
    let home = open_directory();
    let private = home.path().join("private");
    std::fs::create_dir(&private).unwrap();
    stock_database(&private.join("app.db"), 3);
    let before = everything(home.path());
    set_mode(&private, 0);
    rerun(NAME, home.path());
    set_mode(&private, 0o700);
    assert_eq!(everything(home.path()), before);
}

#[test]
fn a_new_file_in_a_directory_that_may_not_be_written_names_that_directory() {
    const NAME: &str = "permission::a_new_file_in_a_directory_that_may_not_be_written_names_that_directory";
    if let Some(home) = rerun_in() {
        let seen = format!("no permission to create a file in {}", home.display());
        assert_denied(&home.join("app.db"), &seen, "choose another directory or change its mode");
        return;
    }
    let home = open_directory();
    set_mode(home.path(), 0o555);
    rerun(NAME, home.path());
    set_mode(home.path(), 0o700);
    assert_eq!(everything(home.path()), BTreeMap::new());
}

/// Reads the rows, and is told on writing that the database cannot be written.
#[track_caller]
fn assert_only_readable(path: &Path, code: i32) {
    let connection = open_connection(path).unwrap();
    assert_eq!((rows(&connection), integrity(&connection).as_str()), (3, "ok"));
    let error = connection.execute("INSERT INTO t VALUES (4, NULL)", []).unwrap_err();
    assert_eq!(code_and_text(&error).0 & 0xff, code, "{error}");
    assert_eq!(rows(&connection), 3);
    let connection = plain(path).unwrap();
    assert_eq!(rows(&connection), 3);
}

#[test]
fn a_read_only_file_is_read_and_not_written() {
    const NAME: &str = "permission::a_read_only_file_is_read_and_not_written";
    if let Some(home) = rerun_in() {
        assert_only_readable(&home.join("app.db"), rusqlite::ffi::SQLITE_READONLY);
        let report = hardened_sqlite::report(&open_connection(home.join("app.db")).unwrap()).unwrap();
        assert_eq!(report.access, "read-only");
        return;
    }
    let home = open_directory();
    let path = home.path().join("app.db");
    stock_database(&path, 3);
    let before = everything(home.path());
    set_mode(&path, 0o444);
    rerun(NAME, home.path());
    assert_eq!(everything(home.path()), before);
}

#[test]
fn a_database_in_a_read_only_directory_is_read_and_not_written() {
    const NAME: &str = "permission::a_database_in_a_read_only_directory_is_read_and_not_written";
    if let Some(home) = rerun_in() {
        let path = home.join("app.db");
        let connection = open_connection(&path).unwrap();
        assert_eq!((rows(&connection), integrity(&connection).as_str()), (3, "ok"));
        let error = connection.execute("INSERT INTO t VALUES (4, NULL)", []).unwrap_err();
        let (code, _) = code_and_text(&error);
        assert!([rusqlite::ffi::SQLITE_READONLY, CANTOPEN].contains(&(code & 0xff)), "{error}");
        let notes = hardened_sqlite::report(&connection).unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("keeps journal_mode delete")), "{notes:?}");
        return;
    }
    let home = open_directory();
    let path = home.path().join("app.db");
    stock_database(&path, 3);
    let before = everything(home.path());
    set_mode(&path, 0o666);
    set_mode(home.path(), 0o555);
    rerun(NAME, home.path());
    set_mode(home.path(), 0o700);
    assert_eq!(everything(home.path()), before);
}

#[test]
fn a_database_on_a_read_only_filesystem_is_read_and_nothing_is_created() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs().unwrap();
    let path = disk.path().join("app.db");
    stock_database(&path, 3);
    let before = everything(disk.path());
    disk.read_only(true).unwrap();
    assert_only_readable(&path, rusqlite::ffi::SQLITE_READONLY);
    {
        let _alone = alone();
        let missing = disk.path().join("new.db");
        let seen = format!("{} is on a read-only filesystem", disk.path().display());
        assert_denied(&missing, &seen, "choose another directory");
        let (_, text) = code_and_text(&plain(&missing).map(drop).unwrap_err());
        assert!(text.contains(&seen), "{text}");
    }
    assert_eq!(everything(disk.path()), before);
    disk.read_only(false).unwrap();
    open_connection(&path).unwrap().execute("INSERT INTO t VALUES (4, NULL)", []).unwrap();
    assert_eq!(rows(&Connection::open(&path).unwrap()), 4);
}
