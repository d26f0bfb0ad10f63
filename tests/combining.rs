//! What is spared where each request is a round trip, and must not be: what a connection knows of a database's size, and the
//! journal that it makes by itself.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;

use actors::{Actor, HARDENED, HARDENED_ELSEWHERE, STOCK, STOCK_ELSEWHERE};
use support::fuse::{Fault, Mount, Op, Options, What};
use support::require;
use tempfile::TempDir;

const MORE: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300) \
                    INSERT INTO t SELECT randomblob(4000) FROM n";

#[test]
fn a_connection_in_wal_mode_asks_how_large_others_have_made_the_database() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    Actor::open(&path, STOCK).ok("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    let mut one = Actor::with(&path, HARDENED, "fs=local&combine=on", false);
    one.ok("PRAGMA journal_mode = DELETE; INSERT INTO t VALUES (2); SELECT x FROM t");
    assert_eq!(one.ok("PRAGMA journal_mode = WAL"), "wal");
    one.ok("PRAGMA wal_autocheckpoint = 0; SELECT x FROM t");
    let mut other = Actor::with(&path, HARDENED_ELSEWHERE, "fs=local&combine=on", false);
    other.ok("PRAGMA wal_autocheckpoint = 0");
    other.ok(MORE);
    assert_eq!(other.ok("PRAGMA wal_checkpoint(TRUNCATE)"), "0");
    one.ok("INSERT INTO t VALUES (3)");
    // With the size that it had, SQLite takes the checkpoint for one of a corrupt log.
    assert_eq!(one.sql("PRAGMA wal_checkpoint"), Ok(vec!["0".into()]));
    assert_eq!(one.ok("SELECT count(*) FROM t"), "303");
}

#[test]
fn a_file_of_one_byte_is_an_empty_database_as_with_stock() {
    for (kind, parameters) in [(STOCK, ""), (HARDENED, "fs=network&combine=on"), (HARDENED, "fs=network&combine=off")] {
        let home = TempDir::new().unwrap();
        let path = home.path().join("app.db");
        std::fs::write(&path, "\n").unwrap();
        let mut actor = Actor::with(&path, kind, parameters, false);
        actor.ok("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
        assert_eq!(actor.ok("SELECT count(*) FROM t"), "1", "{parameters}");
    }
}

#[test]
fn pages_that_a_server_loses_after_a_sync_are_an_alarm_with_guard_on_and_a_note_otherwise() {
    if !require::fuse() {
        return;
    }
    for (kind, guard) in [(STOCK_ELSEWHERE, ""), (HARDENED_ELSEWHERE, "guard=auto"), (HARDENED_ELSEWHERE, "guard=on")] {
        let homes = [(); 3].map(|()| TempDir::new().unwrap());
        let mount = |at: &TempDir| Mount::new(Options::new(homes[0].path()).subtype("share"), at.path()).unwrap();
        Actor::open(&homes[0].path().join("app.db"), STOCK_ELSEWHERE).ok("CREATE TABLE t(i INTEGER PRIMARY KEY, x); \
            WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000) \
            INSERT INTO t SELECT x, zeroblob(300) FROM n");
        let before = mount(&homes[1]);
        let mut one = Actor::with(&before.path().join("app.db"), kind, guard, false);
        one.ok("UPDATE t SET x = randomblob(300) WHERE i = 1");
        let lost = before.fault(Fault::on(Op::Write).name("app.db").skip(1).times(1).what(What::DropWrite));
        one.ok("UPDATE t SET x = randomblob(300) WHERE i IN (100, 500, 900, 1300)");
        assert_eq!(lost.seen(), 1, "{guard}");
        one.kill();
        drop(before);
        // With nothing of it in a cache.
        let after = mount(&homes[2]);
        let mut two = Actor::with(&after.path().join("app.db"), kind, guard, false);
        let written = two.sql("INSERT INTO t VALUES (5000, 1)");
        let report = if guard.is_empty() { String::new() } else { two.ok("PRAGMA hardened_report") };
        // SQLITE_IOERR_DATA.
        assert_eq!(written.err(), (guard == "guard=on").then_some(8202), "{guard}");
        let named = ["is not; SQLite without the guard may have", "reached the disk not at all"];
        let found = named.map(|words| report.contains(words));
        assert_eq!(found, [guard == "guard=auto", guard == "guard=on"], "{guard}: {report}");
    }
}

#[test]
fn a_journal_is_for_those_who_may_read_and_write_the_database_now() {
    use std::os::unix::fs::PermissionsExt;
    for (kind, parameters) in [(STOCK, ""), (HARDENED, "fs=network&combine=on")] {
        let home = TempDir::new().unwrap();
        let (path, journal) = (home.path().join("app.db"), home.path().join("app.db-journal"));
        Actor::open(&path, STOCK).ok("CREATE TABLE t(x)");
        let mut actor = Actor::with(&path, kind, parameters, false);
        for mode in [0o600, 0o640, 0o666] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            actor.ok("BEGIN; INSERT INTO t VALUES (1)");
            assert_eq!(std::fs::metadata(&journal).unwrap().permissions().mode() & 0o777, mode, "{parameters}");
            actor.ok("COMMIT");
        }
    }
}
