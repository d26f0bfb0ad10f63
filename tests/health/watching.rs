//! Progress and cancel.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hardened_sqlite::{Progress, Stage, check_with};

use super::*;

/// Enough for the file to be read ahead.
fn large(home: &TempDir) -> PathBuf {
    let path = database(home, &Options::new());
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    connection
        .execute_batch("INSERT INTO t(a, b) SELECT a || 'x', randomblob(9000) FROM t, (SELECT 1 UNION SELECT 2)")
        .unwrap();
    path
}

#[test]
fn progress_never_goes_back_and_ends_at_the_whole() {
    let home = TempDir::new().unwrap();
    let path = large(&home);
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    for what in ALL {
        let mut seen: Vec<Progress> = Vec::new();
        let mut watch = |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        };
        assert!(check_with(&connection, what, &mut watch).unwrap().is_ok());
        for stage in [Stage::Read, Stage::Check] {
            let all: Vec<&Progress> = seen.iter().filter(|progress| progress.stage == stage).collect();
            if what == Check::Pages && stage == Stage::Read {
                assert!(all.is_empty());
                continue;
            }
            assert!(all.len() >= 2, "{what}, {stage:?}: {all:?}");
            assert!(all.windows(2).all(|two| two[0].done <= two[1].done), "{all:?}");
            assert!(all.iter().all(|progress| progress.done <= progress.total), "{all:?}");
            let last = all.last().unwrap();
            assert_eq!(last.done, last.total, "{what}, {stage:?}");
        }
    }
}

#[test]
fn a_check_is_stopped_in_every_stage_and_the_connection_is_as_before() {
    let home = TempDir::new().unwrap();
    let path = large(&home);
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    for what in ALL {
        for stop in [Stage::Read, Stage::Check] {
            let mut watch = |progress: Progress| {
                if progress.stage == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let stopped = check_with(&connection, what, &mut watch);
            if what == Check::Pages && stop == Stage::Read {
                assert!(stopped.unwrap().is_ok());
                continue;
            }
            assert!(matches!(stopped, Err(Error::Cancelled(_))), "{what}, {stop:?}: {stopped:?}");
            assert!(connection.is_autocommit());
            assert!(check(&connection, what).unwrap().is_ok());
        }
    }
}

#[test]
fn a_stop_that_comes_while_sqlite_is_at_work_interrupts_it() {
    let connection = Connection::open_in_memory().unwrap();
    // Each row is looked up in eight indexes: long enough on any machine to be asked a second time.
    let indexes: String = (0..8).map(|n| format!("CREATE INDEX i{n} ON t(a, b, {n});")).collect();
    connection
        .execute_batch(&format!(
            "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) \
             INSERT INTO t SELECT random(), random() FROM n; {indexes}"
        ))
        .unwrap();
    let asked = AtomicU32::new(0);
    let mut watch = |_: Progress| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let stopped = check_with(&connection, Check::Full, &mut watch);
    assert!(matches!(stopped, Err(Error::Cancelled(_))), "{stopped:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "300000", "no interrupt is left behind");
}

#[test]
fn the_progress_handler_of_the_application_stays() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    let mut connection = hardened_sqlite::open_connection(&path).unwrap();
    let called = Arc::new(AtomicBool::new(false));
    let mine = called.clone();
    connection
        .progress_handler(
            1,
            Some(move || {
                mine.store(true, Ordering::SeqCst);
                false
            }),
        )
        .unwrap();
    check_with(&connection, Check::Full, &mut |_| ControlFlow::Continue(())).unwrap();
    called.store(false, Ordering::SeqCst);
    assert_eq!(text(&connection, "SELECT count(*) FROM t"), "600");
    assert!(called.load(Ordering::SeqCst));
}
