//! When a database gets sums, gives them up, or changes its page size, in one transaction that does not fit into the cache.

use std::path::Path;

use super::file::{assert_sealed, content, fill, hardened, home, reserved, stock, value};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use support::fault_vfs::{Call, FailSpec, FaultVfs};

/// A database of two or three megabytes.
fn database(path: &Path, options: &str, page_size: u32, rows: u32) -> (String, String) {
    let connection = hardened(path, options);
    connection.execute_batch(&format!("PRAGMA page_size={page_size}")).unwrap();
    fill(&connection, rows, 400);
    content(&connection)
}

fn copy_over(from: &Path, to: &mut Connection) -> rusqlite::Result<()> {
    let from = hardened(from, "policy=off");
    to.execute_batch("PRAGMA cache_size=10")?;
    Backup::new(&from, to)?.step(-1).map(|outcome| assert_eq!(outcome, StepResult::Done))
}

#[test]
fn a_copy_over_another_database_brings_its_own_sums_page_size_and_content() {
    let mut copies = 0;
    for (from_sums, from_size) in
        [("on", 512), ("on", 4096), ("on", 65536), ("auto", 512), ("auto", 4096), ("auto", 65536)]
    {
        for (to_sums, to_size) in [("on", 1024), ("on", 4096), ("on", 65536), ("auto", 4096), ("auto", 65536)] {
            for to_rows in [10, 1500] {
                let (home, from) = home();
                let to = home.path().join("to.db");
                let why = format!("{from_sums} {from_size} over {to_sums} {to_size} with {to_rows} rows");
                let expected = database(&from, &format!("policy=off&checksum={from_sums}"), from_size, 1200);
                database(&to, &format!("policy=off&checksum={to_sums}"), to_size, to_rows);
                let mut connection = hardened(&to, "policy=delete");
                copy_over(&from, &mut connection).unwrap_or_else(|error| panic!("{why}: {error}"));
                assert_eq!(content(&connection), expected, "{why}");
                drop(connection);
                // A copy to another page size keeps SQLite's reserve of the target only where there is room for it.
                if reserved(&to) == 8 {
                    assert_sealed(&to, &why);
                } else {
                    assert_eq!(reserved(&to), 0, "{why}");
                }
                assert_eq!(reserved(&to), if from_sums == "on" { 8 } else { 0 }, "{why}");
                assert_eq!(content(&stock(&to)), expected, "{why}");
                copies += 1;
            }
        }
    }
    println!("{copies} copies");
}

#[test]
fn vacuum_changes_the_page_size_and_the_sums_stay_right() {
    let sizes = [512, 4096, 65536, 1024, 32768];
    let (_home, path) = home();
    let expected = database(&path, "policy=off&checksum=on", 4096, 1500);
    for size in sizes {
        let connection = hardened(&path, "policy=delete");
        connection.execute_batch(&format!("PRAGMA cache_size=10; PRAGMA page_size={size}; VACUUM")).unwrap();
        assert_eq!(value(&connection, "PRAGMA page_size").unwrap(), size.to_string());
        assert_eq!(content(&connection), expected, "{size}");
        drop(connection);
        assert_sealed(&path, &format!("{size}"));
    }
}

#[test]
fn a_change_that_fails_at_any_call_leaves_the_old_database_or_the_new_one() {
    let base = FaultVfs::register("unix-checksum");
    let mut outcomes = [0, 0];
    // Writes one by one, and as few as there can be.
    let ways = ["combine=off", "combine=on"];
    let changes = [("on", "auto"), ("auto", "on"), ("on", "on")];
    for (combine, (from_sums, to_sums)) in ways.into_iter().flat_map(|way| changes.map(|change| (way, change))) {
        let (home, from) = home();
        let old = home.path().join("old.db");
        let new_content = database(&from, &format!("policy=off&checksum={from_sums}"), 1024, 300);
        let old_content = database(&old, &format!("policy=off&checksum={to_sums}"), 1024, 250);
        for call in [Call::Write, Call::Sync] {
            // Ever further, until it goes through.
            for after in (0_u64..).map(|step| step + (step * step * step) / 7) {
                let why = format!("{from_sums} over {to_sums}, {combine}, {call:?} {after}");
                let to = home.path().join("to.db");
                std::fs::copy(&old, &to).unwrap();
                let mut connection = hardened(&to, &format!("policy=delete&base=unix-checksum&{combine}"));
                base.fail(call, FailSpec::code(rusqlite::ffi::SQLITE_FULL).skip(after));
                let result = copy_over(&from, &mut connection);
                let hit = result.is_err();
                // The disk is full for good: not even the rollback works, and what is left is a hot journal.
                let crashed = home.path().join("crashed.db");
                std::fs::copy(&to, &crashed).unwrap();
                let journal = home.path().join("to.db-journal");
                let hot = journal.exists();
                let _ = std::fs::remove_file(home.path().join("crashed.db-journal"));
                if hot {
                    std::fs::copy(&journal, home.path().join("crashed.db-journal")).unwrap();
                }
                base.clear();
                // A sync that has failed for good stops everything until all have closed.
                drop(connection);
                let expected = if result.is_ok() { &new_content } else { &old_content };
                for path in [&to, &crashed] {
                    let connection = hardened(path, "policy=delete");
                    assert_eq!(&content(&connection), expected, "{why}");
                    drop(connection);
                    if reserved(path) == 8 {
                        assert_sealed(path, &why);
                    }
                    assert_eq!(content(&stock(path)), *expected, "{why}");
                }
                outcomes[usize::from(result.is_ok())] += 1;
                if !hit {
                    break;
                }
            }
        }
    }
    assert!(outcomes[0] > 30 && outcomes[1] == 12, "{outcomes:?}");
    println!("{} failed, {} went through", outcomes[0], outcomes[1]);
}

#[test]
fn a_connection_that_saw_the_change_in_the_wal_alone_keeps_the_sums() {
    let (_home, path) = home();
    database(&path, "policy=off", 4096, 300);
    hardened(&path, "policy=off").execute_batch("CREATE TABLE plain(v); INSERT INTO plain VALUES (1)").unwrap();
    let old = hardened(&path, "fs=local");
    content(&old);
    let changer = hardened(&path, "fs=local&checksum=on");
    changer.execute_batch("PRAGMA wal_autocheckpoint=0; VACUUM").unwrap();
    // Reads page 1 in the WAL, which is then written to the database by the other connection.
    content(&old);
    changer.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    // A commit without page 1, which alone would tell.
    old.execute_batch("UPDATE plain SET v = 2; PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let expected = content(&old);
    assert_sealed(&path, "checkpointed by a connection that was open before");
    drop((old, changer));
    assert_eq!(content(&hardened(&path, "")), expected);
    assert_sealed(&path, "closed");
}

#[test]
fn commits_in_a_wal_left_behind_by_a_crash_are_recovered() {
    let (home, path) = home();
    let connection = hardened(&path, "fs=local&checksum=on");
    fill(&connection, 50, 300);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint=0").unwrap();
    for round in 0..20 {
        connection.execute_batch(&format!("UPDATE t SET x = x || {round} WHERE id % 3 = {round} % 3")).unwrap();
    }
    let expected = content(&connection);
    let crashed = home.path().join("crashed.db");
    std::fs::copy(&path, &crashed).unwrap();
    std::fs::copy(home.path().join("app.db-wal"), home.path().join("crashed.db-wal")).unwrap();
    let connection = hardened(&crashed, "fs=local");
    assert_eq!(content(&connection), expected, "every commit is there");
    drop(connection);
    assert_sealed(&crashed, "after recovery");
}
