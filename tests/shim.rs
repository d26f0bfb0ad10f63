//! The shim forwards everything, mirrors what its base offers, and survives what a process does to SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use hardened_sqlite::hardened_vfs::{self, RegisterError};
use support::fault_vfs::{Call, FailSpec, FaultVfs};
use support::process::alone;
use support::sqlite::{self, Connection};

fn uri(path: &Path, parameters: &str) -> String {
    format!("file:{}?vfs=hardened{parameters}", path.display())
}

#[test]
fn the_file_offers_what_the_base_offers_and_hides_shared_memory_where_wal_is_forbidden() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let base = FaultVfs::register("unix-versions");
    for (version, hide, policy) in [
        (1, false, "off"),
        (2, false, "off"),
        (3, false, "off"),
        (2, true, "off"),
        (3, true, "off"),
        (3, false, "delete"),
        (2, false, "delete"),
        (3, false, "auto"),
    ] {
        base.io_version(version);
        base.hide_shm_map(hide);
        let path = home.path().join(format!("{version}{hide}{policy}.db"));
        let stock = Connection::open(path.to_str().unwrap(), Some("unix-versions")).unwrap().methods("main");
        let ours = Connection::open(&uri(&path, &format!("&base=unix-versions&policy={policy}")), None).unwrap();
        let ours = ours.methods("main");
        let shared_memory = stock.shared_memory && policy != "delete";
        assert_eq!(ours, sqlite::Methods { shared_memory, ..stock }, "version {version} hide {hide} policy {policy}");
        assert_eq!(stock.version, version);
    }
}

#[test]
fn uri_parameters_reach_the_base() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let characteristics = |parameters: &str| {
        let connection = Connection::open(&uri(&home.path().join("app.db"), parameters), None).unwrap();
        connection.methods("main").characteristics
    };
    const POWERSAFE_OVERWRITE: i32 = 0x1000;
    assert_ne!(characteristics("&psow=1") & POWERSAFE_OVERWRITE, 0);
    assert_eq!(characteristics("&psow=0") & POWERSAFE_OVERWRITE, 0);
    let model = home.path().join("model");
    std::fs::write(&model, "").unwrap();
    std::fs::set_permissions(&model, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let path = home.path().join("like.db");
    drop(Connection::open(&uri(&path, &format!("&modeof={}", model.display())), None).unwrap());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640, "modeof= is unix's own parameter");
}

#[test]
fn the_pure_shim_makes_the_calls_that_stock_makes() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let base = FaultVfs::register("unix-counting");
    let workload = "PRAGMA journal_mode=%; CREATE TABLE t(x); INSERT INTO t VALUES (randomblob(9000)); \
                    UPDATE t SET x=1; BEGIN; DELETE FROM t; ROLLBACK; VACUUM; PRAGMA integrity_check";
    for mode in ["delete", "truncate", "persist", "wal", "memory", "off"] {
        let counts = |name: &str, parameters: &str| {
            let before = base.counts();
            let path = home.path().join(format!("{name}-{mode}.db"));
            let connection = match parameters {
                "" => Connection::open(path.to_str().unwrap(), Some("unix-counting")),
                parameters => Connection::open(&uri(&path, parameters), None),
            };
            let connection = connection.unwrap();
            connection.rows(&workload.replace('%', mode)).unwrap();
            drop(connection);
            let after = base.counts();
            after.into_iter().map(|(call, n)| (call, n - before.get(&call).unwrap_or(&0))).collect::<Vec<_>>()
        };
        let stock = counts("stock", "");
        let mut shim = counts("shim", "&base=unix-counting&policy=off");
        // SQLite makes the path absolute before the URI is known to us, so the registered base does that.
        let at = shim.iter().position(|(call, _)| *call == Call::FullPathname);
        let stock_at = stock.iter().position(|(call, _)| *call == Call::FullPathname);
        if let (Some(at), Some(stock_at)) = (at, stock_at) {
            shim[at] = stock[stock_at];
        }
        // Our automatic extension asks every new connection whether it is ours: stock files pass that on to the base.
        let mut expected = stock;
        for (call, count) in &mut expected {
            *count -= u64::from(*call == Call::FileControl);
        }
        assert_eq!(shim, expected, "{mode}");
    }
}

#[test]
fn errors_of_the_base_come_through_unchanged() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let base = FaultVfs::register("unix-failing");
    let path = home.path().join("app.db");
    let ours = Connection::open(&uri(&path, "&base=unix-failing&policy=off"), None).unwrap();
    ours.rows("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    for (call, code) in [
        (Call::Write, 778),
        (Call::Sync, 1034),
        (Call::Lock, 3850),
        (Call::FileSize, 1802),
        (Call::Read, 266),
        (Call::Write, 13),
        (Call::Delete, 2570),
    ] {
        let fault = base.fail(call, FailSpec::code(code).times(1));
        let result = ours.rows("UPDATE t SET x = x + 1; PRAGMA cache_spill; SELECT * FROM t");
        if fault.seen() > 0 {
            assert_eq!(result.unwrap_err().code, code, "{call:?}");
        } else {
            panic!("{call:?} was not called");
        }
        base.clear();
        assert_eq!(ours.rows("PRAGMA integrity_check").unwrap(), ["ok"], "{call:?}");
    }
}

#[test]
fn journals_of_a_database_with_its_own_base_go_there_too() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let base = FaultVfs::register("unix-own");
    let main = Connection::open(&uri(&home.path().join("main.db"), ""), None).unwrap();
    main.rows(&format!("ATTACH '{}' AS n", uri(&home.path().join("n.db"), "&base=unix-own&fs=network"))).unwrap();
    main.rows("CREATE TABLE n.t(x)").unwrap();
    let before = base.counts();
    main.rows("INSERT INTO n.t VALUES (1)").unwrap();
    let after = base.counts();
    let grown = |call| after.get(&call).unwrap_or(&0) - before.get(&call).unwrap_or(&0);
    assert!(grown(Call::Delete) >= 1, "the journal is deleted through its base: {after:?}");
    assert!(grown(Call::Open) >= 1, "and opened there");
    let fault = base.fail(Call::Delete, FailSpec::code(2570).name("-journal"));
    assert!(main.rows("INSERT INTO n.t VALUES (2)").is_err());
    assert!(fault.seen() > 0);
    base.clear();
}

#[test]
fn a_base_that_is_not_there_or_is_hardened_itself_is_refused_with_a_message() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    for (base, message) in [("nowhere", "there is no VFS of that name"), ("hardened", "cannot be the base")] {
        let path = home.path().join("app.db");
        let error = Connection::open(&uri(&path, &format!("&base={base}")), None).unwrap_err();
        assert_eq!(error.code, 14);
        assert!(error.message.contains(message), "{error:?}");
        assert!(!path.exists());
    }
    assert_eq!(
        hardened_vfs::register_as("another", "base=nowhere".parse().unwrap()),
        Err(RegisterError::NoBase("nowhere".into()))
    );
    assert_eq!(
        hardened_vfs::register_as("another", "base=hardened".parse().unwrap()),
        Err(RegisterError::BaseIsHardened("hardened".into()))
    );
    assert_eq!(hardened_vfs::register_as("unix", Default::default()), Err(RegisterError::NameTaken("unix".into())));
}

#[test]
fn malformed_and_unsupported_options_are_refused_with_a_message() {
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    for (parameters, message) in [
        ("&policy=sometimes", "option `policy=sometimes` is not valid: expected one of auto, wal, delete, off"),
        ("&fs=", "option `fs=` is not valid"),
        ("&busy_timeout=soon", "expected milliseconds"),
        ("&busy_timeout=-1", "expected milliseconds"),
        ("&checksum=perhaps", "auto, on, off"),
        ("&guard=perhaps", "auto, off, on, strict"),
        ("&combine=perhaps", "auto, on, off"),
    ] {
        let error = Connection::open(&uri(&path, parameters), None).unwrap_err();
        assert_eq!(error.code, 14, "{parameters}");
        assert!(error.message.contains(message), "{parameters}: {error:?}");
        assert!(!path.exists(), "{parameters}: nothing was created");
        let main = Connection::open(":memory:", None).unwrap();
        assert!(main.rows(&format!("ATTACH '{}' AS n", uri(&path, parameters))).is_err(), "{parameters}");
        assert!(!path.exists(), "{parameters}: nothing was created");
    }
    // Parameters that are not ours stay SQLite's and the base's.
    Connection::open(&uri(&path, "&cache=private&whatever=1"), None).unwrap();
}

#[test]
fn a_refusal_is_told_by_the_vfs_itself_in_any_room() {
    hardened_vfs::register(Default::default()).unwrap();
    let error = Connection::open(&uri(Path::new("/nowhere/at/all.db"), ""), None).unwrap_err();
    let full = sqlite::last_error("hardened", 500);
    assert!(full.starts_with("/nowhere/at/all.db: the directory /nowhere/at does not exist"), "{full}");
    assert!(error.message.contains(&full), "{error:?}");
    assert_eq!(sqlite::last_error("hardened", 9), full[..8]);
    assert_eq!(sqlite::last_error("hardened", 1), "");
}

#[test]
fn registration_is_idempotent_and_thread_safe() {
    alone("registration_is_idempotent_and_thread_safe", || {
        let threads: Vec<_> =
            (0..16).map(|_| std::thread::spawn(|| hardened_vfs::register(Default::default()))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        let names = sqlite::vfs_names();
        assert_eq!(names.iter().filter(|name| *name == "hardened").count(), 1, "{names:?}");
        assert_eq!(names[0], "unix", "the default stays what it was");
        let other = hardened_vfs::register("policy=off".parse().unwrap()).unwrap_err();
        assert!(other.to_string().contains("policy=off"), "{other}");

        hardened_vfs::register_as("hardened-off", "policy=off".parse().unwrap()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        let off = Connection::open(path.to_str().unwrap(), Some("hardened-off")).unwrap();
        assert_eq!(off.rows("PRAGMA journal_mode").unwrap(), ["delete"]);
    });
}

#[test]
fn it_can_be_the_default_of_the_process_and_survives_a_restart_of_sqlite() {
    alone("it_can_be_the_default_of_the_process_and_survives_a_restart_of_sqlite", || {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        hardened_vfs::register_default(Default::default()).unwrap();
        let mode = |name: &str| Connection::open(name, None).unwrap().rows("PRAGMA journal_mode").unwrap();
        assert_eq!(mode(path.to_str().unwrap()), ["wal"]);
        assert_eq!(sqlite::vfs_names()[0], "hardened");

        sqlite::restart();
        assert_eq!(sqlite::vfs_names()[0], "unix", "SQLite forgets the default, as of any VFS");
        let other = home.path().join("other.db");
        assert_eq!(mode(&uri(&other, "")), ["wal"], "the VFS is there and sets what it sets");
        hardened_vfs::register_default(Default::default()).unwrap();
        let third = home.path().join("third.db");
        assert_eq!(mode(third.to_str().unwrap()), ["wal"]);
    });
}

#[test]
fn running_out_of_memory_is_an_error_and_never_worse() {
    alone("running_out_of_memory_is_an_error_and_never_worse", || {
        hardened_vfs::register(Default::default()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.db");
        Connection::open(&uri(&path, ""), None).unwrap().rows("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        let (mut failed, mut opened) = (0, 0);
        for kilobytes in (1..400).step_by(3) {
            sqlite::heap_limit(kilobytes * 1024);
            let result = Connection::open(&uri(&path, ""), None)
                .and_then(|connection| connection.rows("PRAGMA hardened_report; SELECT count(*) FROM t"));
            match result {
                Ok(rows) => {
                    assert_eq!(rows.last().map(String::as_str), Some("1"));
                    opened += 1;
                }
                Err(_) => failed += 1,
            }
            sqlite::heap_limit(0);
        }
        assert!(failed > 0 && opened > 0, "{failed} failed, {opened} opened");
        let after = Connection::open(&uri(&path, ""), None).unwrap();
        assert_eq!(after.rows("PRAGMA integrity_check").unwrap(), ["ok"]);
    });
}

#[test]
fn sqlites_error_log_hears_why_an_open_was_refused() {
    alone("sqlites_error_log_hears_why_an_open_was_refused", || {
        sqlite::collect_log();
        hardened_vfs::register(Default::default()).unwrap();
        let _ = Connection::open(&uri(Path::new("/nowhere/app.db"), ""), None).unwrap_err();
        let log = sqlite::log();
        let heard = log.iter().find(|(_, message)| message.starts_with("hardened: /nowhere/app.db"));
        let (code, message) = heard.unwrap_or_else(|| panic!("{log:?}"));
        assert_eq!(code & 0xff, 14);
        assert!(message.contains("does not exist") && message.contains("create it first"), "{message}");
    });
}

#[test]
fn the_open_apis_options_count_whatever_was_registered_and_plain_opens_get_what_was() {
    alone("the_open_apis_options_count_whatever_was_registered_and_plain_opens_get_what_was", || {
        hardened_vfs::register("policy=delete&busy_timeout=77".parse().unwrap()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let plain = Connection::open(&uri(&home.path().join("plain.db"), ""), None).unwrap();
        assert_eq!(plain.rows("PRAGMA journal_mode; PRAGMA busy_timeout").unwrap(), ["delete", "77"]);
        let ours = hardened_sqlite::open_connection(home.path().join("ours.db")).unwrap();
        let report = hardened_sqlite::report(&ours).unwrap();
        assert_eq!((report.journal_mode.as_deref(), report.busy_timeout), (Some("wal"), Some(2000)));
    });
}

#[test]
fn a_shim_above_may_hand_on_names_that_no_pager_made() {
    alone("a_shim_above_may_hand_on_names_that_no_pager_made", || {
        hardened_vfs::register(Default::default()).unwrap();
        support::renaming::register(c"renaming", c"hardened");
        let home = tempfile::tempdir().unwrap();
        for mode in ["DELETE", "WAL"] {
            let uri = format!("file:{}/{mode}.db?vfs=renaming", home.path().display());
            let connection = rusqlite::Connection::open(uri).unwrap();
            connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
            connection.execute_batch(&format!("PRAGMA journal_mode={mode}; INSERT INTO t VALUES (2)")).unwrap();
        }
    });
}
