//! Backups while others write: each is the database as of one commit, never before the last one that was acknowledged when the
//! backup began.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::*;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Adds rows, one or several in a transaction, and changes old ones; now and then a checkpoint of some kind. `committed` is
/// what was acknowledged.
fn write(path: &Path, options: &Options, seed: u64, committed: &AtomicU32, stop: &AtomicBool) {
    let connection = options.clone().busy_timeout(Duration::from_secs(120)).open_connection(path).unwrap();
    let mut rng = Rng(seed);
    while !stop.load(Ordering::SeqCst) {
        let kind = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][rng.below(4) as usize];
        if rng.below(12) == 0 {
            let _ = connection.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(()));
        }
        let (rows, old) = (1 + rng.below(4), rng.below(300));
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; INSERT INTO t(x) SELECT value || hex(randomblob(300)) FROM generate(1, {rows}); \
                 UPDATE t SET x = 'changed' || hex(randomblob({old})) WHERE id % 300 = {old}; \
                 UPDATE count SET n = n + {rows}; COMMIT"
            ).replace(&format!("generate(1, {rows})"), &format!("(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {rows}) SELECT value FROM n)")))
            .unwrap();
        committed.fetch_add(rows as u32, Ordering::SeqCst);
        if rng.below(20) == 0 {
            // A pause lets all of the log into the database, after which it is begun anew.
            std::thread::yield_now();
        }
    }
}

fn under_writers(options: &Options, rounds: u32) {
    // Where syncs take no time: what counts is how often files change under the copy.
    let home = support::memory::directory();
    let place = Place::at(home, &options.clone().busy_timeout(Duration::from_secs(120)));
    let (committed, stop) = (AtomicU32::new(300), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in [11, 12] {
            let (path, committed, stop) = (&place.path, &committed, &stop);
            scope.spawn(move || write(path, options, seed, committed, stop));
        }
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds {
                let to = place.saved(&format!("a{}", round % 3));
                let before = committed.load(Ordering::SeqCst);
                let report = backup(&place.connection, &to).unwrap_or_else(|error| panic!("round {round}: {error}"));
                let found = rows(&to);
                assert!(found >= before, "round {round}: {found} of {before} rows, {report}");
            }
        }));
        stop.store(true, Ordering::SeqCst);
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn every_backup_under_writers_and_checkpoints_is_one_commit_of_a_wal_database() {
    under_writers(&Options::new(), 60);
}

#[test]
fn every_backup_under_writers_is_one_commit_of_a_database_with_checksums() {
    under_writers(&Options::new().checksum(ChecksumChoice::On), 20);
}

#[test]
fn every_backup_under_writers_is_one_commit_of_a_database_with_a_rollback_journal() {
    under_writers(&Options::new().policy(PolicyChoice::Delete), 20);
}

#[test]
fn a_copy_of_the_file_alone_is_not_one_commit() {
    let place = Place::new(&Options::new());
    add(&place.connection);
    std::fs::copy(&place.path, place.saved("cp")).unwrap();
    let copy = stock(&place.saved("cp"));
    let found = copy.query_row("SELECT n FROM count", [], |row| row.get::<_, u32>(0));
    assert_ne!(found.ok(), Some(301), "cp leaves out what is in the log");
    backup(&place.connection, place.saved("a")).unwrap();
    assert_eq!(rows(&place.saved("a")), 301);
}

/// A watch that lets `act` happen once, when so much has been copied.
fn when_copied<'a>(pages: u64, act: impl FnOnce() + Send + 'a) -> impl FnMut(Progress) -> ControlFlow<()> + Send + 'a {
    let mut act = Some(act);
    move |progress| {
        if progress.stage == Stage::Copy && progress.done >= pages {
            if let Some(act) = act.take() {
                act();
            }
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn the_log_that_is_begun_anew_during_the_copy_does_no_harm() {
    let place = Place::new(&Options::new());
    let all = |sql: &str| place.connection.query_row(sql, [], |row| row.get::<_, i64>(1)).unwrap();
    for kind in ["FULL", "TRUNCATE"] {
        let before = rows_of(&place.connection);
        // Everything is in the database, so the backup reads from there alone, and a writer may begin the log anew.
        assert!(all(&format!("PRAGMA wal_checkpoint({kind})")) >= 0);
        let path = place.path.clone();
        let mut watch = when_copied(0, move || {
            let other = hardened_sqlite::open_connection(&path).unwrap();
            for _ in 0..20 {
                add(&other);
            }
        });
        let to = place.saved("a");
        Backup::to(&to).run_with(&place.connection, &mut watch).unwrap();
        assert_eq!(rows(&to), before + 20, "{kind}");
    }
}

fn rows_of(connection: &Connection) -> u32 {
    text(connection, "SELECT n FROM count").parse().unwrap()
}

#[test]
fn a_commit_in_rollback_mode_during_the_copy_begins_it_anew_and_is_in_it() {
    let options = Options::new().policy(PolicyChoice::Delete).busy_timeout(Duration::from_millis(100));
    let place = Place::new(&options);
    // Several steps, each longer than the backup keeps writers out: the watch is slow.
    place.connection.execute_batch("CREATE TABLE large AS SELECT zeroblob(60000000) AS x").unwrap();
    let path = place.path.clone();
    let begun = std::time::Instant::now();
    let mut commit = None;
    let mut watch = |progress: Progress| {
        if commit.is_none() {
            // A writer waits for the lock from now on; the backup gives it up in between.
            let path = path.clone();
            commit = Some(std::thread::spawn(move || {
                let other = Options::new().policy(PolicyChoice::Delete).busy_timeout(Duration::from_secs(60));
                add(&other.open_connection(&path).unwrap());
            }));
        }
        if commit.as_ref().is_some_and(|commit| !commit.is_finished()) && progress.stage == Stage::Copy {
            std::thread::sleep(Duration::from_millis(110));
        }
        ControlFlow::Continue(())
    };
    let to = place.saved("a");
    let report = Backup::to(&to).run_with(&place.connection, &mut watch).unwrap();
    commit.unwrap().join().unwrap();
    let found = rows(&to);
    assert!(found == 301 || report.restarts == 0, "{report:?} after {:?}", begun.elapsed());
    if report.method == Method::Reflink {
        return;
    }
    assert_eq!((found, report.restarts), (301, 1), "{report:?}");
}

#[test]
fn a_log_with_frames_that_have_no_checksum_is_read_through_sqlite_and_a_damaged_one_is_an_error() {
    use std::os::unix::fs::FileExt;
    for (bytes, at) in [(&[0_u8; 16][..], 8), (&[7_u8][..], 24 + 100)] {
        let place = Place::new(&Options::new());
        add(&place.connection);
        let log = std::fs::File::options().write(true).open(place.home.path().join("app.db-wal")).unwrap();
        // The second frame; what leads to it is the index.
        log.write_all_at(bytes, 32 + 24 + 4096 + at).unwrap();
        let made = backup(&place.connection, place.saved("a"));
        if bytes.len() == 16 {
            assert_eq!((made.unwrap().method, rows(&place.saved("a"))), (Method::Sqlite, 301));
            let error = hardened_sqlite::check(&place.connection, hardened_sqlite::Check::Pages).unwrap_err();
            assert!(error.cause().contains("without a checksum"), "{error}");
        } else {
            assert!(matches!(made, Err(Error::Corrupt(_))), "{made:?}");
            assert!(names(&place.home.path().join("saved")).is_empty());
        }
    }
}

#[test]
fn a_file_that_is_not_the_open_one_any_more_is_not_backed_up() {
    let place = Place::new(&Options::new());
    let other = Place::new(&Options::new());
    backup(&other.connection, place.saved("other")).unwrap();
    std::fs::rename(place.saved("other"), &place.path).unwrap();
    let error = backup(&place.connection, place.saved("a")).unwrap_err();
    assert!(matches!(error, Error::Moved(_)), "{error}");
    assert!(names(&place.home.path().join("saved")).is_empty());
}
