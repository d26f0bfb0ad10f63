//! Names that look like something else. They are names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;
use hardened_sqlite::{FsChoice, report};
use support::names::beside;

const NAMES: [&[u8]; 22] = [
    b"with space.db",
    b"100%.db",
    b"%41.db",
    b"%00.db",
    b"what?.db",
    b"what?vfs=unix&mode=memory",
    b"one#two.db",
    b"a&b=c.db",
    b"mode=ro",
    b"line\nbreak.db",
    b"tab\tbell\x07.db",
    b"it's \"quoted\" `so`.db",
    b"back\\slash.db",
    b"-leading.db",
    b"--json",
    b"file:leading.db",
    b"file:///etc/x",
    b":memory:",
    b"not utf-8 \xff\xfe.db",
    "größe 日本.db".as_bytes(),
    b"app.db-journal",
    b" ",
];

/// Every file in `home` is the database or stands beside it.
fn assert_only_this(home: &Path, path: &Path) {
    let name = path.file_name().unwrap().as_encoded_bytes();
    for entry in std::fs::read_dir(home).unwrap() {
        let found = entry.unwrap().file_name();
        let rest = found.as_encoded_bytes().strip_prefix(name);
        assert!(matches!(rest, Some(b"" | b"-wal" | b"-shm" | b"-journal" | b"-guard")), "{found:?} beside {path:?}");
    }
}

#[test]
fn odd_names_are_created_written_and_read_again_with_their_journals_beside_them() {
    for name in NAMES {
        for fs in [FsChoice::Local, FsChoice::Network] {
            let home = tempfile::tempdir().unwrap();
            let path: PathBuf = home.path().join(OsStr::from_bytes(name)).components().collect();
            if name.starts_with(b"file:///") {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            let home = path.parent().unwrap();
            let connection = Options::new().fs(fs).open_connection(&path).unwrap();
            connection.execute_batch("CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES (1)").unwrap();
            let journal = beside(&path, if fs == FsChoice::Local { "-wal" } else { "-journal" });
            assert!(journal.exists(), "{journal:?}");
            assert_only_this(home, &path);
            connection.execute_batch("COMMIT").unwrap();
            assert_eq!(report(&connection).unwrap().path, path.display().to_string());
            drop(connection);
            let option = if fs == FsChoice::Local { "fs=local" } else { "fs=network" };
            assert_eq!(rows(&plain_with(&path, option).unwrap()), 1, "{path:?} through its URI");
            let read_only = Options::new().fs(fs).read_only(true).open_connection(&path).unwrap();
            assert_eq!(rows(&read_only), 1);
            drop(read_only);
            // Stock SQLite takes a name for a URI only if it is asked to.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
            assert_eq!(rows(&Connection::open_with_flags(&path, flags).unwrap()), 1, "{path:?} as a plain path");
            assert_only_this(home, &path);
        }
    }
}

#[test]
fn an_odd_name_that_cannot_be_opened_is_told_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path: PathBuf = home.path().join("missing").join(OsStr::from_bytes(name)).components().collect();
        let error = {
            let _alone = alone();
            open_connection(&path).map(drop).unwrap_err()
        };
        let parent = path.parent().unwrap().display().to_string();
        assert_explained(&error, &path, CANTOPEN, &format!("the directory {parent} does not exist"), "create it first");
    }
}

#[test]
fn a_relative_odd_name_is_a_name_too() {
    // The current directory belongs to all tests: a directory of our own in it that goes away again.
    let home = tempfile::tempdir_in(".").unwrap();
    let relative = Path::new(home.path().file_name().unwrap());
    for name in NAMES {
        let path = relative.join(OsStr::from_bytes(name));
        if name.starts_with(b"file:///") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        open_connection(&path).unwrap().execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(rows(&plain(&path).unwrap()), 1, "{path:?}");
        assert!(path.is_file(), "{path:?}");
    }
}
