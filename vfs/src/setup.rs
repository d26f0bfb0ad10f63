//! What is set on a connection when it opens, and what happens if the filesystem refuses.
//!
//! Invariants: a database that is WAL on disk is never taken out of WAL because of an error; a database that this open has
//! just stamped as WAL is never left so if WAL does not work; what cannot be set is said, and the open goes on.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use libsqlite3_sys as ffi;

use crate::fs::Class;
use crate::main_file::MainFile;
use crate::policy::{Rule, Synchronous};

/// An SQL statement that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqlError {
    /// The extended result code.
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl SqlError {
    fn primary(&self) -> i32 {
        self.code & 0xff
    }
}

/// How the setup of a connection went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setup {
    /// There was nothing to set, so the database was not read.
    NotRun,
    /// The database was read; what could not be set is among the notes of the report.
    Done,
    /// The database could not be read.
    Failed {
        /// The extended SQLite result code.
        code: i32,
        /// SQLite's message.
        message: String,
    },
}

thread_local! {
    static LAST: RefCell<Setup> = const { RefCell::new(Setup::NotRun) };
}

/// How the setup of the last connection went that this thread opened, if its main database was ours; asking forgets it.
pub fn take_setup_here() -> Setup {
    LAST.with(|last| {
        last.try_borrow_mut().map_or(Setup::NotRun, |mut last| std::mem::replace(&mut *last, Setup::NotRun))
    })
}

fn record(setup: Setup) {
    LAST.with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = setup;
        }
    });
}

/// The part of a connection that the setup needs.
pub(crate) trait Sql {
    /// The first value of the first row.
    fn value(&self, sql: &str) -> Result<Option<String>, SqlError>;
    fn busy_timeout(&self, milliseconds: i32);
    fn read_only(&self) -> bool;
}

/// What the file on disk and its shim can do for the setup.
pub(crate) trait Disk {
    /// Whether page 1 on disk says WAL.
    fn stamped_wal(&self) -> bool;
    /// Stops offering shared memory.
    fn hide_shared_memory(&self);
}

/// An I/O error may pass: a server that restarts, a lock that is just given back.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// Applies the policy of `main` to its connection.
pub(crate) fn apply(sql: &dyn Sql, disk: &dyn Disk, main: &MainFile, pause: impl Fn(Duration)) {
    record(Setup::NotRun);
    let policy = main.policy();
    if policy.rule == Rule::Off {
        return;
    }
    sql.busy_timeout(i32::try_from(main.options.busy_timeout.as_millis()).unwrap_or(i32::MAX));
    if main.left_alone() || sql.read_only() {
        return;
    }
    let tries = Tries { sql, pause: &pause };
    let read = match policy.rule {
        Rule::Off => Ok(()),
        Rule::Wal => set_wal(&tries, disk, main),
        Rule::Rollback(journal) => set_rollback(&tries, main, &journal.to_string(), policy.floor),
    };
    // An error left on the connection would make sqlite3_open itself fail. Preparing nothing takes it away, and does not
    // read a schema that cannot be read.
    let _ = sql.value("");
    record(match read {
        Ok(()) => Setup::Done,
        Err(SqlError { code, message }) => Setup::Failed { code, message },
    });
}

/// An error means that the database could not be read.
fn set_rollback(tries: &Tries<'_>, main: &MainFile, journal: &str, floor: Synchronous) -> Result<(), SqlError> {
    let synchronous = format!("PRAGMA main.synchronous={}", floor.word());
    tries.value(&synchronous).inspect_err(|error| main.note(format!("{synchronous} failed: {error}")))?;
    if main.verdict.class != Class::Local {
        // What a server cuts off under a mapping is a SIGBUS.
        tries.set(main, "PRAGMA main.mmap_size=0");
    }
    // A new connection begins with DELETE.
    if journal != "delete" {
        tries.set(main, &format!("PRAGMA main.journal_mode={journal}"));
    }
    Ok(())
}

struct Tries<'a> {
    sql: &'a dyn Sql,
    pause: &'a dyn Fn(Duration),
}

impl Tries<'_> {
    /// Tries again after an I/O error or a lost race for the WAL-index.
    fn value(&self, statement: &str) -> Result<Option<String>, SqlError> {
        let mut left = TRIES;
        loop {
            left -= 1;
            match self.sql.value(statement) {
                Err(error) if left > 0 && matches!(error.primary(), ffi::SQLITE_IOERR | ffi::SQLITE_PROTOCOL) => {
                    (self.pause)(PAUSE);
                }
                other => return other,
            }
        }
    }

    fn set(&self, main: &MainFile, statement: &str) {
        if let Err(error) = self.value(statement) {
            main.note(format!("{statement} failed: {error}"));
        }
    }

    fn synchronous(&self, main: &MainFile, level: Synchronous) {
        self.set(main, &format!("PRAGMA main.synchronous={}", level.word()));
    }
}

/// An error means that the database could not be read.
fn set_wal(tries: &Tries<'_>, disk: &dyn Disk, main: &MainFile) -> Result<(), SqlError> {
    let floor = main.policy().floor;
    let mode = match tries.value("PRAGMA main.journal_mode") {
        Ok(mode) => mode.unwrap_or_default(),
        Err(error) => {
            // Not a matter of WAL, or a WAL database that must stay one: the application's first statement will meet it.
            main.note(format!("the journal mode could not be read: {error}"));
            return Err(error);
        }
    };
    if mode == "wal" {
        tries.synchronous(main, floor);
        return Ok(());
    }
    let already = disk.stamped_wal();
    let refused = match tries.value("PRAGMA main.journal_mode=WAL") {
        Ok(Some(mode)) if mode == "wal" => match tries.value("PRAGMA main.schema_version") {
            Ok(_) => None,
            Err(error) => Some(Refused::By(error)),
        },
        Ok(mode) => Some(Refused::Silently(mode.unwrap_or_default())),
        Err(error) => Some(Refused::By(error)),
    };
    match refused {
        None => tries.synchronous(main, floor),
        Some(Refused::By(error)) if !is_refusal_of_wal(&error) => {
            // Where the commit of the change has failed SQLite answers `wal` until it reads again.
            let _ = tries.sql.value("PRAGMA main.schema_version");
            let busy = matches!(error.primary(), ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED);
            main.note(if busy {
                format!("the database is in use and keeps journal_mode {mode}: {}", error.message)
            } else {
                format!("the database keeps journal_mode {mode}: {error}")
            });
        }
        Some(refused) => fall_back(tries, disk, main, already, &refused.cause()),
    }
    Ok(())
}

enum Refused {
    By(SqlError),
    Silently(String),
}

impl Refused {
    fn cause(&self) -> String {
        match self {
            Refused::By(error) => error.to_string(),
            Refused::Silently(mode) => format!("journal_mode=WAL answered \"{mode}\""),
        }
    }
}

/// The ways in which filesystems are known to refuse WAL.
fn is_refusal_of_wal(error: &SqlError) -> bool {
    matches!(error.primary(), ffi::SQLITE_PROTOCOL | ffi::SQLITE_IOERR | ffi::SQLITE_AUTH)
        || error.message.contains("not authorized")
}

fn fall_back(tries: &Tries<'_>, disk: &dyn Disk, main: &MainFile, already: bool, cause: &str) {
    if already {
        main.note(format!("WAL does not work here, but the database is a WAL database and stays one: {cause}"));
        return;
    }
    if disk.stamped_wal() && !take_back(tries, main) {
        // The WAL is still open, and SQLite will call the methods of its shared memory until it is closed.
        tries.set(main, "PRAGMA main.locking_mode=NORMAL");
        main.warn(
            "wal",
            format!("the filesystem refuses WAL, and the mark in the database could not be taken back: {cause}"),
        );
        return;
    }
    main.fall_back(cause);
    disk.hide_shared_memory();
    // The lock of EXCLUSIVE mode is given back by the first access after it ends.
    for statement in ["PRAGMA main.locking_mode=NORMAL", "PRAGMA main.schema_version"] {
        tries.set(main, statement);
    }
    tries.set(main, &format!("PRAGMA main.journal_mode={}", main.options.journal));
    tries.synchronous(main, Synchronous::Full);
    main.warn("wal", format!("the filesystem refuses WAL, so the database stays in DELETE mode: {cause}"));
}

/// Takes back the mark that we set a moment ago, unless somebody else has opened the database since. Where shared memory
/// does not work only EXCLUSIVE locking mode can open it again.
fn take_back(tries: &Tries<'_>, main: &MainFile) -> bool {
    tries.set(main, "PRAGMA main.locking_mode=EXCLUSIVE");
    match tries.value("PRAGMA main.journal_mode=DELETE") {
        Ok(mode) => mode.as_deref() == Some("delete"),
        Err(error) => {
            main.note(format!("PRAGMA main.journal_mode=DELETE failed: {error}"));
            false
        }
    }
}
