//! A full disk.

use support::{mounts, require};

use super::*;

#[test]
fn a_full_disk_leaves_the_old_backups_and_no_half_file() {
    if !require::root() {
        return;
    }
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let place = Place::new(&Options::new().policy(policy));
        let small = mounts::tmpfs_with("size=1m").unwrap();
        let to = small.path().join("a");
        let wanted = Backup::to(&to).keep(3);
        wanted.run(&place.connection).unwrap();
        add(&place.connection);
        wanted.run(&place.connection).unwrap();
        let before = names(small.path());
        // The database, or only its log, has grown beyond what is free.
        place
            .connection
            .execute_batch("INSERT INTO t(x) VALUES (zeroblob(900000)); UPDATE count SET n = n + 1")
            .unwrap();
        for _ in 0..2 {
            let error = wanted.run(&place.connection).unwrap_err();
            assert!(matches!(error, Error::NoSpace(_)), "{error}");
            assert_eq!(names(small.path()), before);
            assert_eq!((rows(&to), rows(&small.path().join("a.1"))), (301, 300));
            let _ = place.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        // The way of a shell: half a file, and the backup of before is gone.
        let copied = std::fs::copy(&place.path, &to);
        assert!(
            copied.is_err() && std::fs::metadata(&to).unwrap().len() < std::fs::metadata(&place.path).unwrap().len()
        );
    }
}

#[test]
fn a_copy_through_sqlite_to_a_full_disk_leaves_the_old_backup() {
    if !require::root() {
        return;
    }
    let home = TempDir::new().unwrap();
    let connection = stock(&home.path().join("app.db"));
    fill(&connection, 300);
    let small = mounts::tmpfs_with("size=1m").unwrap();
    let to = small.path().join("a");
    backup(&connection, &to).unwrap();
    connection.execute_batch("INSERT INTO t(x) VALUES (zeroblob(1900000))").unwrap();
    assert!(matches!(backup(&connection, &to), Err(Error::NoSpace(_))));
    assert_eq!((names(small.path()), rows(&to)), (vec!["a".into()], 300));
}
