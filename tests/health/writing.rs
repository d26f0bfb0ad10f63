//! Checks while others write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// Writes until told to stop: inserts, deletes, long values, checkpoints of all kinds, VACUUM.
fn write(path: &Path, options: &Options, seed: u64, stop: &AtomicBool) {
    let connection = options.clone().busy_timeout(Duration::from_secs(60)).open_connection(path).unwrap();
    let mut state = seed;
    while !stop.load(Ordering::SeqCst) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (what, n) = ((state >> 33) % 23, (state >> 40) % 1000);
        let sql = match what {
            0 => "PRAGMA wal_checkpoint(PASSIVE)".to_owned(),
            1 => "PRAGMA wal_checkpoint(RESTART)".to_owned(),
            2 => "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
            3 => "DELETE FROM t WHERE id % 3 = 1 OR id > 1000".to_owned(),
            4..9 => format!("DELETE FROM t WHERE id BETWEEN {n} AND {n} + 50"),
            9..12 => format!("INSERT OR IGNORE INTO t(a, b) SELECT 'n', randomblob({n} * 3) FROM t LIMIT 8"),
            _ => format!("INSERT OR REPLACE INTO t VALUES ({n}, 'w{n}', randomblob({n}))"),
        };
        let done = if sql.starts_with("PRAGMA") {
            connection.query_row(&sql, [], |_| Ok(()))
        } else {
            connection.execute_batch(&sql)
        };
        // Locked: next time.
        if let Err(error) = done {
            let code = error.sqlite_error_code();
            assert_eq!(code, Some(rusqlite::ErrorCode::DatabaseBusy), "{sql}: {error}");
        }
    }
}

#[test]
fn checks_during_heavy_writing_give_no_false_alarm() {
    for (way, options) in ways() {
        // Where syncs take no time: what counts is how often files change under the check.
        let home = support::memory::directory();
        let path = database(&home, &options);
        let connection = options.clone().busy_timeout(Duration::from_secs(60)).open_connection(&path).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in [1, 2] {
                let (path, options, stop) = (&path, &options, &stop);
                scope.spawn(move || write(path, options, seed, stop));
            }
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for round in 0..8 {
                    for what in ALL {
                        match check(&connection, what) {
                            Ok(health) => {
                                assert!(health.is_ok() && health.notes.is_empty(), "{way}, {round}: {health}")
                            }
                            Err(Error::Busy(_)) => {}
                            Err(error) => panic!("{way}, {round}, {what}: {error}"),
                        }
                    }
                }
            }));
            stop.store(true, Ordering::SeqCst);
            checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}
