//! Backups of databases in use, their rotation, and the way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "backup/full.rs"]
mod full;
#[path = "backup/killed.rs"]
mod killed;
#[path = "backup/names.rs"]
mod names;
#[path = "backup/power_cut.rs"]
mod power_cut;
#[path = "backup/rotation.rs"]
mod rotation;
#[path = "backup/shared_blocks.rs"]
mod shared_blocks;
#[path = "backup/way_back.rs"]
mod way_back;
#[path = "backup/writers.rs"]
mod writers;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use hardened_sqlite::backup::{BeforeOpen, Method, before_open};
use hardened_sqlite::{Backup, ChecksumChoice, Error, Options, PolicyChoice, Progress, Stage, backup};
use rusqlite::{Connection, OpenFlags};
use support::ask::text;
use tempfile::TempDir;

fn stock(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix").unwrap()
}

/// Rows 1 to `rows`, and a counter that says how many there are.
fn fill(connection: &Connection, rows: u32) {
    connection
        .execute_batch(&format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE INDEX i ON t(x); CREATE TABLE count(n); \
             INSERT INTO count VALUES ({rows}); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO t SELECT i, i || hex(zeroblob(200)) FROM n"
        ))
        .unwrap();
}

fn add(connection: &Connection) {
    connection
        .execute_batch(
            "BEGIN IMMEDIATE; INSERT INTO t(x) SELECT n + 1 || hex(zeroblob(200)) FROM count; \
             UPDATE count SET n = n + 1; COMMIT",
        )
        .unwrap();
}

/// Opens a backup as any program would, and says how many rows it has; they are what the counter says.
#[track_caller]
fn rows(backup: &Path) -> u32 {
    let bytes = std::fs::read(backup).unwrap();
    assert_eq!(bytes[18..20], [1, 1], "a database without a log");
    let connection = Connection::open_with_flags_and_vfs(backup, OpenFlags::SQLITE_OPEN_READ_ONLY, c"unix").unwrap();
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok", "{}", backup.display());
    let rows = text(&connection, "SELECT count(*) FROM t");
    assert_eq!(rows, text(&connection, "SELECT n FROM count"), "half a transaction");
    rows.parse().unwrap()
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

struct Place {
    home: TempDir,
    path: PathBuf,
    connection: Connection,
}

impl Place {
    fn new(options: &Options) -> Place {
        Place::at(TempDir::new().unwrap(), options)
    }

    fn at(home: TempDir, options: &Options) -> Place {
        let path = home.path().join("app.db");
        let connection = options.open_connection(&path).unwrap();
        fill(&connection, 300);
        std::fs::create_dir(home.path().join("saved")).unwrap();
        Place { home, path, connection }
    }

    fn saved(&self, name: &str) -> PathBuf {
        self.home.path().join("saved").join(name)
    }
}

#[test]
fn a_backup_is_what_was_committed_with_checksums_in_every_mode_and_nothing_is_left_beside_it() {
    for sums in [ChecksumChoice::Auto, ChecksumChoice::On] {
        for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
            let place = Place::new(&Options::new().policy(policy).checksum(sums));
            let to = place.saved("a");
            for round in 0..3 {
                let report = backup(&place.connection, &to).unwrap();
                assert_eq!(rows(&to), 300 + round, "{report}");
                assert!(!report.identical && report.method != Method::Sqlite, "{report}");
                assert_eq!(report.bytes, std::fs::metadata(&to).unwrap().len());
                assert_eq!(names(&place.home.path().join("saved")), ["a"]);
                let bytes = std::fs::read(&to).unwrap();
                let wrong =
                    bytes.chunks(4096).filter(|page| !hardened_sqlite::hardened_vfs::checksum::sum::holds(page));
                assert!(sums == ChecksumChoice::Auto || wrong.count() == 0, "sums of pages that were in the log");
                add(&place.connection);
                if round == 1 {
                    let _ = place.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                }
            }
        }
    }
}

#[test]
fn a_backup_of_another_vfs_or_of_memory_goes_through_sqlite() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    for connection in [stock(&path), Connection::open_in_memory().unwrap()] {
        fill(&connection, 50);
        let _ = connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
        let to = home.path().join("copy");
        let report = backup(&connection, &to).unwrap();
        assert_eq!((report.method, rows(&to)), (Method::Sqlite, 50), "{report}");
        assert!(names(home.path()).iter().all(|name| name.starts_with("app.db") || name == "copy"));
    }
}

#[test]
fn a_backup_of_a_database_that_is_not_on_a_local_filesystem_goes_through_sqlite() {
    if !support::require::root_and_fuse() {
        return;
    }
    let (backing, point) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let options = support::fuse::Options::new(backing.path()).subtype("anything");
    let mount = support::fuse::Mount::new(options, point.path()).unwrap();
    let connection = hardened_sqlite::open_connection(point.path().join("far.db")).unwrap();
    fill(&connection, 50);
    for to in [backing.path().join("near"), point.path().join("beside")] {
        let report = backup(&connection, &to).unwrap();
        assert_eq!((report.method, rows(&to)), (Method::Sqlite, 50), "{report}");
    }
    drop(connection);
    drop(mount);
}

#[test]
fn within_a_transaction_no_backup_is_made() {
    let place = Place::new(&Options::new());
    place.connection.execute_batch("BEGIN; DELETE FROM t").unwrap();
    assert!(matches!(backup(&place.connection, place.saved("a")), Err(Error::Busy(_))));
    assert!(names(&place.home.path().join("saved")).is_empty());
}

#[test]
fn progress_never_goes_back_and_a_stop_leaves_the_last_backup_and_nothing_else() {
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let place = Place::new(&Options::new().policy(policy));
        let to = place.saved("a");
        backup(&place.connection, &to).unwrap();
        add(&place.connection);
        for stop in [Stage::Copy, Stage::Verify] {
            let mut watch = |progress: Progress| {
                if progress.stage == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let stopped = Backup::to(&to).keep(3).run_with(&place.connection, &mut watch);
            assert!(matches!(stopped, Err(Error::Cancelled(_))), "{stop:?}: {stopped:?}");
            assert_eq!((names(&place.home.path().join("saved")), rows(&to)), (vec!["a".into()], 300));
            assert!(place.connection.is_autocommit());
        }
        let mut seen: Vec<Progress> = Vec::new();
        let mut watch = |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        };
        Backup::to(&to).run_with(&place.connection, &mut watch).unwrap();
        let verifying = seen.iter().position(|progress| progress.stage == Stage::Verify).unwrap();
        for stage in [&seen[..verifying], &seen[verifying..]] {
            assert!(stage.iter().all(|progress| progress.stage == stage[0].stage && progress.done <= progress.total));
            assert!(stage.windows(2).all(|two| two[0].done <= two[1].done), "{stage:?}");
        }
    }
}

#[test]
fn a_damaged_database_is_not_backed_up_and_the_last_backup_stays() {
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let options = Options::new().policy(policy);
        let place = Place::new(&options);
        let to = place.saved("a");
        let wanted = Backup::to(&to).keep(3);
        wanted.run(&place.connection).unwrap();
        drop(place.connection);
        let mut bytes = std::fs::read(&place.path).unwrap();
        let page = 9 * 4096;
        bytes[page..page + 2000].fill(0xee);
        std::fs::write(&place.path, bytes).unwrap();
        let connection = options.open_connection(&place.path).unwrap();
        let error = wanted.run(&connection).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        let BeforeOpen::Damaged(health) = before_open(&connection, &wanted).unwrap() else { panic!("backed up") };
        assert!(!health.is_sound());
        let directory = to.parent().unwrap();
        assert_eq!((names(directory), rows(&to)), (vec!["a".into()], 300));
        // What stock SQLite does: the copy takes the place of the good one, and says nothing.
        let mut copy = stock(&to);
        rusqlite::backup::Backup::new(&connection, &mut copy).unwrap().step(-1).unwrap();
        assert_ne!(text(&copy, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn before_open_checks_first_backs_up_once_and_leaves_a_new_database_alone() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let wanted = Backup::to(home.path().join("before")).keep(2);
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    assert_eq!(before_open(&connection, &wanted).unwrap(), BeforeOpen::Empty);
    fill(&connection, 20);
    for identical in [false, true] {
        let BeforeOpen::BackedUp { health, report } = before_open(&connection, &wanted).unwrap() else { panic!() };
        assert_eq!((health.is_ok(), report.identical), (true, identical));
    }
    assert_eq!(rows(&home.path().join("before")), 20);
    assert!(!home.path().join("before.1").exists());
}
