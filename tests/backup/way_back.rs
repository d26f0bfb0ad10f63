//! A backup becomes the database again.

use hardened_sqlite::restore;

use super::*;

#[test]
fn a_restored_database_is_the_backup_and_the_old_one_is_kept_aside() {
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let options = Options::new().policy(policy);
        let place = Place::new(&options);
        let to = place.saved("a");
        backup(&place.connection, &to).unwrap();
        add(&place.connection);
        drop(place.connection);
        for number in 1..3 {
            let report = restore(&to, &place.path).unwrap();
            let kept = report.kept.unwrap();
            assert_eq!(kept, place.home.path().canonicalize().unwrap().join(format!("app.db.replaced-{number}")));
            assert_eq!(rows(&place.path), 300);
            assert_eq!(text(&stock(&kept), "SELECT n FROM count"), if number == 1 { "301" } else { "300" });
            assert!(to.exists());
        }
        add(&options.open_connection(&place.path).unwrap());
    }
}

#[test]
fn a_database_that_anybody_has_open_is_not_replaced() {
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let place = Place::new(&Options::new().policy(policy));
        let to = place.saved("a");
        backup(&place.connection, &to).unwrap();
        add(&place.connection);
        // Idle: in rollback mode it has no lock.
        let error = restore(&to, &place.path).unwrap_err();
        assert!(matches!(&error, Error::Busy(detail) if detail.cause.contains("process")), "{error}");
        assert_eq!(text(&place.connection, "SELECT n FROM count"), "301");
        assert!(
            !names(place.home.path()).iter().any(|name| name.contains("replaced") || name.starts_with(".hardened"))
        );
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_replaced_and_kept_with_its_log() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    backup(&place.connection, &to).unwrap();
    drop(place.connection);
    std::fs::write(&place.path, "torn to pieces").unwrap();
    std::fs::write(place.home.path().join("app.db-wal"), "and the log too").unwrap();
    let kept = restore(&to, &place.path).unwrap().kept.unwrap();
    assert_eq!(rows(&place.path), 300);
    assert_eq!(std::fs::read(&kept).unwrap(), b"torn to pieces");
    assert_eq!(std::fs::read(format!("{}-wal", kept.display())).unwrap(), b"and the log too");
    assert!(!place.home.path().join("app.db-wal").exists());
}

#[test]
fn a_log_without_its_database_is_not_played_into_the_restored_one() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    backup(&place.connection, &to).unwrap();
    add(&place.connection);
    let log = std::fs::read(place.home.path().join("app.db-wal")).unwrap();
    drop(place.connection);
    std::fs::remove_file(&place.path).unwrap();
    std::fs::write(place.home.path().join("app.db-wal"), log).unwrap();
    restore(&to, &place.path).unwrap();
    assert_eq!(rows(&place.path), 300);
    // What stock SQLite makes of a copy beside the old log: rows that the backup does not have, or damage.
    let found = hardened_sqlite::open_connection(&place.path).unwrap();
    assert_eq!(text(&found, "SELECT n FROM count"), "300");
}

#[test]
fn a_log_is_not_left_beside_the_restored_one_where_only_some_names_can_be_linked() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    backup(&place.connection, &to).unwrap();
    add(&place.connection);
    let files = ["app.db", "app.db-wal"].map(|name| place.home.path().join(name));
    let left = files.each_ref().map(|file| std::fs::read(file).unwrap());
    drop(place.connection);
    // As a process that was killed leaves them, and what has no second name: here a directory.
    files.iter().zip(left).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
    std::fs::create_dir(place.home.path().join("app.db-shm")).unwrap();
    let kept = restore(&to, &place.path).unwrap().kept.unwrap();
    assert!(!files[1].exists());
    assert_eq!(text(&stock(&place.path), "SELECT n FROM count"), "300");
    std::fs::remove_dir(format!("{}-shm", kept.display())).unwrap();
    assert_eq!(text(&stock(&kept), "SELECT n FROM count"), "301");
}

#[test]
fn a_damaged_or_missing_backup_changes_nothing() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    backup(&place.connection, &to).unwrap();
    add(&place.connection);
    drop(place.connection);
    let good = std::fs::read(&to).unwrap();
    let mut torn = good.clone();
    torn[5 * 4096..5 * 4096 + 3000].fill(0xee);
    for bad in [&b""[..], b"text", &good[..good.len() - 4096], &torn] {
        std::fs::write(&to, bad).unwrap();
        let error = restore(&to, &place.path).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_) | Error::NotADatabase(_)), "{error:?}");
        assert_eq!(text(&stock(&place.path), "SELECT n FROM count"), "301");
    }
    assert!(restore(to.with_extension("none"), &place.path).is_err());
    assert!(restore(&place.path, &place.path).is_err());
    assert!(names(place.home.path()).iter().all(|name| !name.contains("replaced") && !name.starts_with(".hardened")));
}

#[test]
fn a_database_that_is_gone_is_made_anew() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    backup(&place.connection, &to).unwrap();
    drop(place.connection);
    std::fs::remove_file(&place.path).unwrap();
    assert_eq!(restore(&to, &place.path).unwrap().kept, None);
    assert_eq!(rows(&place.path), 300);
}
