//! Paths that lead to no file.

use std::os::unix::fs::symlink;

use super::*;

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_missing_directory_is_named_as_the_one_to_create() {
    let home = home();
    let path = home.path().join("a/b/app.db");
    let seen = format!("the directory {} does not exist", home.path().join("a/b").display());
    assert_refused(home.path(), &path, Told::InText, &seen, "create it first");
}

#[test]
fn a_path_through_a_file_names_that_file() {
    let home = home();
    let file = home.path().join("notes.txt");
    std::fs::write(&file, "text").unwrap();
    let seen = format!("{} is a file, not a directory", file.display());
    assert_refused(home.path(), &file.join("app.db"), Told::Remembered, &seen, "correct the path");
    assert_refused(home.path(), &file.join("deeper/app.db"), Told::Remembered, &seen, "correct the path");
}

#[test]
fn a_directory_is_no_database() {
    let home = home();
    std::fs::create_dir(home.path().join("data")).unwrap();
    assert_refused(home.path(), &home.path().join("data"), Told::InText, "it is a directory", "name a file in it");
}

#[test]
fn a_pipe_is_no_database_and_is_not_waited_for() {
    let home = home();
    let pipe = home.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Without somebody at the other end a read-only open of a pipe would never return: the refusal comes first.
    assert_refused(home.path(), &pipe, Told::InText, "it is a pipe, not a file", "name a regular file");
}

#[test]
fn a_socket_is_no_database() {
    let home = home();
    let path = home.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_refused(home.path(), &path, Told::InText, "it is a socket, not a file", "name a regular file");
}

#[test]
fn a_link_into_a_missing_directory_tells_both_names() {
    let home = home();
    let link = home.path().join("app.db");
    symlink("gone/real.db", &link).unwrap();
    let seen = format!("the directory {} does not exist", home.path().join("gone").display());
    assert_refused(home.path(), &link, Told::InText, &seen, "create it first");
    let error = last_open_error().unwrap();
    assert_eq!(error.path(), Some(home.path().join("gone/real.db").as_path()));
}

#[test]
fn a_link_to_a_missing_file_creates_the_file_it_names() {
    let home = home();
    let link = home.path().join("link.db");
    symlink("real.db", &link).unwrap();
    {
        let _alone = alone();
        let before = everything(home.path());
        let error = Options::new().create(false).open_connection(&link).map(drop).unwrap_err();
        assert_explained(&error, &home.path().join("real.db"), CANTOPEN, "there is no such file", "check the name");
        assert!(error.cause().contains(&link.display().to_string()), "{error}");
        assert_eq!(everything(home.path()), before);
    }
    open_connection(&link).unwrap().execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    assert!(link.is_symlink());
    assert_eq!(rows(&Connection::open(home.path().join("real.db")).unwrap()), 1);
}

#[test]
fn a_missing_file_that_is_not_to_be_created_is_not_created() {
    let home = home();
    let path = home.path().join("app.db");
    let _alone = alone();
    for options in [Options::new().create(false), Options::new().read_only(true)] {
        let error = options.open_connection(&path).map(drop).unwrap_err();
        assert_explained(&error, &path, CANTOPEN, "there is no such file", "check the name");
        assert_eq!(last_open_error(), Some(error));
    }
    assert_eq!(everything(home.path()), BTreeMap::new());
}

#[test]
fn links_in_a_circle_are_named() {
    let home = home();
    symlink("two", home.path().join("one")).unwrap();
    symlink("one", home.path().join("two")).unwrap();
    let one = home.path().join("one");
    let seen = format!("{} is a symbolic link that leads back to itself", one.display());
    assert_refused(home.path(), &one, Told::Remembered, &seen, "correct the link");
    assert_refused(home.path(), &one.join("app.db"), Told::Remembered, &seen, "correct the link");
}

#[test]
fn a_name_longer_than_a_directory_can_hold_is_told() {
    let home = home();
    assert_refused(
        home.path(),
        &home.path().join("x".repeat(256)),
        Told::Remembered,
        "the name is too long",
        "choose a shorter one",
    );
}

#[test]
fn a_path_longer_than_sqlite_can_hold_is_told_and_the_longest_one_works() {
    let home = home();
    let directory = home.path().join(["x".repeat(100), "y".repeat(100), "z".repeat(100), "w".repeat(100)].join("/"));
    std::fs::create_dir_all(&directory).unwrap();
    let fits = |length: usize| directory.join("n".repeat(length - directory.as_os_str().len() - 1));
    let longest = fits(504);
    open_connection(&longest).unwrap().execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(rows(&open_connection(&longest).unwrap()), 1);
    for length in [505, 511, 512, 600] {
        let seen = format!("its path has {length} bytes");
        assert_refused(home.path(), &fits(length), Told::Remembered, &seen, "choose a shorter path");
    }
}

#[test]
fn a_zero_byte_in_the_name_is_refused_instead_of_opening_what_stands_before_it() {
    let home = home();
    let path = home.path().join("app.db\0.txt");
    stock_database(&home.path().join("app.db"), 1);
    let _alone = alone();
    let before = everything(home.path());
    let error = open_connection(&path).map(drop).unwrap_err();
    assert_explained(&error, &path, CANTOPEN, "zero byte", "check where the name comes from");
    assert_eq!(last_open_error(), Some(error));
    assert_eq!(everything(home.path()), before);
}

#[test]
fn the_empty_name_and_memory_are_private_databases_as_in_sqlite() {
    for name in ["", ":memory:"] {
        let here = everything_named_here();
        let connection = open_connection(name).unwrap();
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(rows(&connection), 1);
        let other = open_connection(name).unwrap();
        assert!(other.prepare("SELECT * FROM t").is_err(), "{name:?} is nobody else's");
        assert_eq!(everything_named_here(), here, "{name:?} leaves no file");
    }
}

/// The names in the current directory.
fn everything_named_here() -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(".").unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn a_pipe_in_the_place_of_the_wal_is_not_waited_for() {
    let home = home();
    let path = home.path().join("app.db");
    assert!(std::process::Command::new("mkfifo").arg(home.path().join("app.db-wal")).status().unwrap().success());
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(hardened_sqlite::open_connection(path).is_ok()));
    // SQLite removes what cannot be the WAL of an empty database.
    assert!(receive.recv_timeout(std::time::Duration::from_secs(60)).expect("the open ends"));
}
