//! Where a backup may go, and what it looks like there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn neither_the_database_nor_what_belongs_to_it_is_a_destination() {
    let place = Place::new(&Options::new());
    let home = place.home.path();
    symlink(&place.path, home.join("link")).unwrap();
    std::fs::create_dir(home.join("directory")).unwrap();
    std::fs::write(home.join("text"), "not a database").unwrap();
    symlink("nowhere", home.join("dangling")).unwrap();
    let bytes = std::fs::read(&place.path).unwrap();
    let wrong = [
        "app.db",
        "./app.db",
        "app.db-wal",
        "app.db-shm",
        "app.db-journal",
        "link",
        "directory",
        "text",
        "dangling",
        "no/a",
        "..",
    ];
    let before = names(home);
    for name in wrong {
        let error = backup(&place.connection, home.join(name)).unwrap_err();
        assert!(error.hint().is_some() && matches!(error, Error::CannotOpen(_)), "{name}: {error:?}");
    }
    assert!(backup(&place.connection, "").is_err());
    assert!(backup(&place.connection, OsStr::from_bytes(b"a\0b")).is_err());
    // An older backup would take the name of the database.
    assert!(Backup::to(home.join("app")).keep(2).run(&place.connection).is_ok());
    drop(place.connection);
    std::fs::rename(&place.path, home.join("app.1")).unwrap();
    let moved = hardened_sqlite::open_connection(home.join("app.1")).unwrap();
    let error = Backup::to(home.join("app")).keep(2).run(&moved).unwrap_err();
    assert!(error.cause().contains("would become"), "{error}");
    std::fs::remove_file(home.join("app")).unwrap();
    drop(moved);
    std::fs::rename(home.join("app.1"), &place.path).unwrap();
    assert!(names(home).iter().all(|name| before.contains(name)), "{:?}", names(home));
    assert_eq!(std::fs::read(&place.path).unwrap().len(), bytes.len().max(std::fs::read(&place.path).unwrap().len()));
}

#[test]
fn a_hard_link_of_the_database_is_not_a_destination() {
    let place = Place::new(&Options::new().policy(PolicyChoice::Off));
    std::fs::hard_link(&place.path, place.saved("a")).unwrap();
    assert!(matches!(backup(&place.connection, place.saved("a")), Err(Error::CannotOpen(_))));
}

#[test]
fn odd_names_are_names() {
    let place = Place::new(&Options::new());
    let longest = "x".repeat(255);
    let odd: [&[u8]; 7] =
        [b"100% sure?.db", b" ", b"a b&vfs=unix#", b"\xff\xfe", b"-wal", b"new\nline", longest.as_bytes()];
    for name in odd {
        let to = place.home.path().join("saved").join(OsStr::from_bytes(name));
        let report = backup(&place.connection, &to).unwrap();
        assert_eq!(report.backup, to);
        assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
        assert!(std::fs::read(&to).unwrap().starts_with(b"SQLite format 3\0"));
        std::fs::remove_file(&to).unwrap();
    }
    // Its older backups would have too long names: that is known before anything is given up.
    let to = place.saved(&longest);
    backup(&place.connection, &to).unwrap();
    add(&place.connection);
    assert!(Backup::to(&to).keep(2).run(&place.connection).is_err());
    assert_eq!((names(to.parent().unwrap()).len(), rows(&to)), (1, 300));
}

#[test]
fn the_database_itself_may_have_an_odd_name() {
    let home = TempDir::new().unwrap();
    let path = home.path().join(OsStr::from_bytes(b"100%\xff?#.db"));
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    fill(&connection, 9);
    let report = backup(&connection, home.path().join("a")).unwrap();
    assert_eq!((report.source, rows(&home.path().join("a"))), (path, 9));
    assert_ne!(report.method, Method::Sqlite);
}

#[test]
fn a_link_to_a_backup_stays_a_link_and_a_relative_name_is_one_of_the_directory() {
    let place = Place::new(&Options::new());
    backup(&place.connection, place.saved("real")).unwrap();
    symlink("saved/real", place.home.path().join("link")).unwrap();
    add(&place.connection);
    let report = backup(&place.connection, place.home.path().join("link")).unwrap();
    assert_eq!(report.backup, place.saved("real").canonicalize().unwrap());
    assert_eq!(rows(&place.saved("real")), 301);
    assert!(place.home.path().join("link").is_symlink());
}

#[test]
fn a_backup_has_the_permissions_and_owner_of_the_database() {
    let place = Place::new(&Options::new());
    for mode in [0o600, 0o644, 0o660, 0o640] {
        std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(mode)).unwrap();
        add(&place.connection);
        backup(&place.connection, place.saved("a")).unwrap();
        assert_eq!(std::fs::metadata(place.saved("a")).unwrap().mode() & 0o777, mode);
    }
    if !support::require::root() {
        return;
    }
    std::os::unix::fs::chown(&place.path, Some(1234), Some(4321)).unwrap();
    add(&place.connection);
    backup(&place.connection, place.saved("a")).unwrap();
    let found = std::fs::metadata(place.saved("a")).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 4321));
}

#[test]
fn a_backup_that_somebody_has_open_with_a_log_is_not_replaced() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    backup(&place.connection, &to).unwrap();
    let user = stock(&to);
    assert_eq!(text(&user, "PRAGMA journal_mode=WAL"), "wal");
    add(&user);
    add(&place.connection);
    assert!(matches!(backup(&place.connection, &to), Err(Error::Busy(_))));
    drop(user);
    backup(&place.connection, &to).unwrap();
    assert_eq!(rows(&to), 301);
}
