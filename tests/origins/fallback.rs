//! A filesystem that refuses WAL when it is tried: each of the ways in which they do, and what the user is told.

#[path = "../../examples/wal_fallback.rs"]
mod wal_fallback;

use std::path::Path;
use std::sync::Mutex;

use hardened_sqlite::{Options, hardened_vfs, last_open_error};
use rusqlite::ffi;
use support::fault_vfs::{Call, FailSpec, FaultVfs};
use support::process::alone;
use tempfile::TempDir;
use wal_fallback::{advice, open};

fn base(name: &str) -> (&'static FaultVfs, Options) {
    hardened_vfs::register(Default::default()).unwrap();
    let base = FaultVfs::register(name);
    (base, Options::new().base(name))
}

/// Which call fails how, and what the user reads of it.
const REFUSALS: [(Call, i32, &str); 3] = [
    (Call::ShmLock, ffi::SQLITE_PROTOCOL, "locking protocol"),
    (Call::ShmMap, ffi::SQLITE_IOERR_SHMMAP, "disk I/O error"),
    (Call::ShmLock, ffi::SQLITE_IOERR_SHMLOCK, "disk I/O error"),
];

#[test]
fn each_refusal_leaves_a_working_database_and_says_why() {
    let home = TempDir::new().unwrap();
    let (base, options) = base("unix-origins-refusing");
    for (number, (call, code, cause)) in REFUSALS.into_iter().enumerate() {
        let _fault = base.fail(call, FailSpec::code(code));
        let db = open(&options, "The board", &home.path().join(format!("{number}.db"))).unwrap();
        let told = advice("The board", &db).unwrap();
        assert!(told.starts_with("The board is kept in a rollback journal") && told.contains(cause), "{told}");
        assert_eq!(db.report().synchronous.as_deref(), Some("FULL"));
        db.write(|tx| tx.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")).unwrap();
        assert_eq!(crate::integrity(&db), "ok");
        drop(db);
        base.clear();
    }
    // Refused without an error: the pragma answers with the mode that stays.
    base.hide_shm_map(true);
    let db = open(&options, "The board", &home.path().join("silent.db")).unwrap();
    assert!(advice("The board", &db).unwrap().contains("no shared memory"));
    drop(db);
    base.hide_shm_map(false);
    // Not authorized, at whichever file control carries the pragma.
    let fell = (0..40).filter(|skip| {
        let _fault = base.fail(Call::FileControl, FailSpec::code(ffi::SQLITE_AUTH).skip(*skip).times(1));
        let db = open(&options, "The board", &home.path().join(format!("forbidden-{skip}.db"))).unwrap();
        base.clear();
        advice("The board", &db).is_some_and(|told| told.contains("WAL was tried and refused"))
    });
    assert!(fell.count() > 0);
    // And when nothing refuses, nothing is said.
    let db = open(&options, "The board", &home.path().join("well.db")).unwrap();
    assert_eq!(advice("The board", &db), None);
}

#[test]
fn when_both_modes_fail_the_user_reads_what_where_and_what_to_do() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let (base, options) = base("unix-origins-broken");
    for (call, code) in [(Call::Lock, ffi::SQLITE_IOERR_LOCK), (Call::Read, ffi::SQLITE_IOERR_READ)] {
        drop(open(&options, "Notes", &path).unwrap());
        let _fault = base.fail(call, FailSpec::code(code));
        let message = open(&options, "Notes", &path).unwrap_err();
        assert!(message.starts_with(&format!("Notes could not be opened: {}", path.display())), "{message}");
        assert!(message.contains("disk I/O error") && message.contains("What to do: "), "{message}");
        base.clear();
    }
}

#[test]
fn the_last_error_is_kept_when_another_database_opens_well() {
    alone("fallback::the_last_error_is_kept_when_another_database_opens_well", || {
        let home = TempDir::new().unwrap();
        let nowhere = home.path().join("missing/app.db");
        let message = open(&Options::new(), "Notes", &nowhere).unwrap_err();
        assert!(message.contains("does not exist"), "{message}");
        let well = open(&Options::new(), "Board", &home.path().join("well.db")).unwrap();
        assert_eq!(last_open_error().unwrap().path(), Some(nowhere.as_path()));
        // An error of a statement is no error of an open.
        well.write(|tx| tx.execute_batch("nonsense")).unwrap_err();
        assert_eq!(last_open_error().unwrap().path(), Some(nowhere.as_path()));
    });
}

struct Said(Mutex<Vec<String>>);

impl log::Log for Said {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }
    fn flush(&self) {}
}

static SAID: Said = Said(Mutex::new(Vec::new()));

#[test]
fn each_database_is_warned_about_once_however_often_it_is_opened() {
    alone("fallback::each_database_is_warned_about_once_however_often_it_is_opened", || {
        log::set_logger(&SAID).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let home = TempDir::new().unwrap();
        let (base, options) = base("unix-origins-warning");
        let paths = ["board.db", "notes.db"].map(|name| home.path().join(name));
        for _ in 0..3 {
            for path in &paths {
                let _fault = base.fail(Call::ShmMap, FailSpec::code(ffi::SQLITE_IOERR_SHMMAP));
                drop(open(&options, "label", path).unwrap());
            }
        }
        let said = SAID.0.lock().unwrap();
        let about = |path: &Path| said.iter().filter(|line| line.contains(path.to_str().unwrap())).count();
        assert_eq!(paths.each_ref().map(|path| about(path)), [1, 1], "{said:?}");
        assert!(said.iter().all(|line| line.contains("the filesystem refuses WAL")), "{said:?}");
    });
}
