//! Runs a workload on a disk and keeps its ledger.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use libsqlite3_sys as ffi;
use std::ffi::c_int;

use super::disk::Disk;
use super::fault::Faults;
use super::ledger::{Boundary, Ledger};
use super::opener::Opener;
use super::session::{Content, Session};
use super::states::Log;
use super::workload::{FILES, Promise, Setting, Step, Workload};
use crate::sqlite::Failure;

/// A workload that has run.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What was run.
    pub workload: Workload,
    /// What reached the disk.
    pub log: Log,
    /// What a program was told.
    pub ledger: Ledger,
    /// What the settings promise.
    pub promise: Promise,
    /// The steps that failed, by their number.
    pub failures: Vec<(usize, Failure)>,
    /// What the connections saw in the end, if they could still read; equal to the end of the ledger unless faults struck.
    pub live: Option<Content>,
}

/// SQLite has one source of randomness for all connections of a process. While a workload is recorded from a seed, nobody
/// else may draw from it.
static RANDOMNESS: RwLock<()> = RwLock::new(());

/// Held while SQLite is used beside recordings.
pub(super) fn beside_recordings() -> RwLockReadGuard<'static, ()> {
    RANDOMNESS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody uses SQLite and makes its randomness repeat.
fn alone(seed: u64) -> RwLockWriteGuard<'static, ()> {
    let guard = RANDOMNESS.write().unwrap_or_else(PoisonError::into_inner);
    let number = (seed as c_int) | 1;
    // SAFETY: the operation takes an int and a connection or null.
    unsafe {
        let nobody: *mut ffi::sqlite3 = std::ptr::null_mut();
        ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_PRNG_SEED, number, nobody);
    }
    guard
}

struct Run<'a> {
    setting: &'a Setting,
    opener: &'a dyn Opener,
    disk: &'a Disk,
    sessions: Vec<Option<Session>>,
    reference: Session,
    ledger: Ledger,
}

/// Records a workload. The same arguments give the same log, if the opener adds no chance of its own.
///
/// # Panics
/// If the workload cannot even be set up, or a step fails although the disk does not.
pub fn record(workload: &Workload, opener: &dyn Opener, disk: &Disk, faults: Faults, seed: u64) -> Recording {
    let _alone = alone(seed);
    let setting = &workload.setting;
    disk.load(&Default::default());
    disk.set_up(setting.device, seed);
    let faultless = faults == Faults::default();
    let mut run = Run::prepare(workload, opener, disk, faults);
    let mut failures = Vec::new();
    for (number, step) in workload.steps.iter().enumerate() {
        if let Err(failure) = run.step(step) {
            assert!(!faultless, "{}, {}, step {number} {step:?}: {failure:?}", workload.name, opener.name());
            failures.push((number, failure));
        }
    }
    let live = run.sessions.iter().flatten().next().map(|session| session.content(setting.schemas()));
    let live = live.and_then(Result::ok);
    let log = disk.take_log();
    // The last closing is not part of the workload.
    run.sessions.clear();
    if faultless {
        let end = run.ledger.boundaries.last().map(|last| last.content);
        assert!(live.is_none() || live == end, "{}, {}: the database differs", workload.name, opener.name());
    }
    let promise = opener.promise(setting);
    Recording { workload: workload.clone(), log, ledger: run.ledger, promise, failures, live }
}

/// Records how databases are opened, read and closed; three times if that fails, as a program would try again.
pub(super) fn record_open(
    setting: &Setting,
    opener: &dyn Opener,
    disk: &Disk,
    begin: impl FnOnce(),
) -> (Log, Vec<(usize, Failure)>) {
    let _alone = alone(1);
    disk.set_up(setting.device, 1);
    begin();
    let mut failures = Vec::new();
    for number in 0..3 {
        match open(opener, disk, setting).and_then(|session| session.content(setting.schemas())) {
            Ok(_) => break,
            Err(failure) => failures.push((number, failure)),
        }
    }
    (disk.take_log(), failures)
}

impl<'a> Run<'a> {
    fn prepare(workload: &'a Workload, opener: &'a dyn Opener, disk: &'a Disk, faults: Faults) -> Self {
        let setting = &workload.setting;
        let reference = Session::open(":memory:").unwrap();
        reference.run(&setting.format()).unwrap();
        reference.run(&workload.before.join(";")).unwrap();
        if setting.databases > 1 {
            reference.run("ATTACH ':memory:' AS y").unwrap();
            let other = Session::open(":memory:").unwrap();
            other.run(&workload.before.join(";")).unwrap();
            copy(&other, &reference, "y");
        }
        if !setting.from_nothing {
            // Stock SQLite makes the databases: a VFS above may have to be given an existing one for some formats.
            for file in &FILES[..setting.databases] {
                let session = Session::open(&format!("file:{}?vfs={}", disk.path(file), disk.name())).unwrap();
                session.run(&setting.format()).unwrap();
                session.run(&format!("PRAGMA journal_mode={}", setting.journal.word())).unwrap();
                session.run(&workload.before.join(";")).unwrap();
            }
        }
        let mut run = Self { setting, opener, disk, sessions: Vec::new(), reference, ledger: Ledger::default() };
        if setting.from_nothing {
            // Nothing is there, so nothing is the first content.
            let nothing = Session::open(":memory:").unwrap().content(setting.schemas()).unwrap();
            run.ledger.boundaries.push(Boundary { content: nothing, acknowledged: Some(0) });
            disk.record(faults);
            run.open_all();
        } else {
            run.open_all();
            disk.record(faults);
            let content = run.reference.content(setting.schemas()).unwrap();
            run.ledger.boundaries.push(Boundary { content, acknowledged: Some(0) });
        }
        run
    }

    fn open_all(&mut self) {
        for _ in 0..self.setting.connections {
            let session = self.open().unwrap_or_else(|failure| panic!("{}: {failure:?}", self.opener.name()));
            self.sessions.push(Some(session));
        }
    }

    fn open(&self) -> Result<Session, Failure> {
        let session = open(self.opener, self.disk, self.setting)?;
        if self.setting.from_nothing {
            session.run(&self.setting.format())?;
        }
        session.run(&self.setting.pragmas())?;
        Ok(session)
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Commit { by, sql } => self.commit(*by, sql),
            Step::Neutral { by, sql } => {
                let Some(session) = &self.sessions[*by] else { return Ok(()) };
                session.run(sql)
            }
            Step::Reopen { by } => {
                self.sessions[*by] = None;
                self.sessions[*by] = Some(self.open()?);
                Ok(())
            }
            Step::Close { by } => {
                self.sessions[*by] = None;
                Ok(())
            }
        }
    }

    fn commit(&mut self, by: usize, sql: &[String]) -> Result<(), Failure> {
        let schemas = self.setting.schemas();
        let before = self.reference.content(schemas).unwrap();
        self.reference.run("BEGIN").unwrap();
        self.reference.run(&sql.join(";")).unwrap();
        let after = self.reference.content(schemas).unwrap();
        // A connection that could not be opened again.
        let Some(session) = &self.sessions[by] else {
            self.reference.run("ROLLBACK").unwrap();
            return Ok(());
        };
        let result =
            session.run("BEGIN").and_then(|()| session.run(&sql.join(";"))).and_then(|()| session.run("COMMIT"));
        let acknowledged = result.is_ok().then(|| self.disk.events());
        if result.is_err() && session.in_transaction() {
            let _ = session.run("ROLLBACK");
        }
        // A commit that failed may have happened all the same, and then what follows builds on it.
        let happened = result.is_ok() || (before != after && session.content(schemas).is_ok_and(|now| now == after));
        self.reference.run(if happened { "COMMIT" } else { "ROLLBACK" }).unwrap();
        self.ledger.boundaries.push(Boundary { content: after, acknowledged });
        if !happened {
            self.ledger.boundaries.push(Boundary { content: before, acknowledged: None });
        }
        result
    }
}

/// Opens the first database and attaches the others.
pub(super) fn open(opener: &dyn Opener, disk: &Disk, setting: &Setting) -> Result<Session, Failure> {
    let session = Session::open(&opener.uri(disk, FILES[0], setting))?;
    for (file, schema) in FILES.iter().zip(setting.schemas()).skip(1) {
        session.run(&format!("ATTACH '{}' AS {schema}", opener.uri(disk, file, setting)))?;
    }
    Ok(session)
}

/// Makes an attached schema a copy of another connection's main one, statement by statement.
fn copy(from: &Session, to: &Session, schema: &str) {
    // SAFETY: two open connections; the backup is finished at once.
    unsafe {
        let (main, schema) = (c"main", std::ffi::CString::new(schema).unwrap());
        let backup = ffi::sqlite3_backup_init(to.handle(), schema.as_ptr(), from.handle(), main.as_ptr());
        assert!(!backup.is_null());
        assert_eq!(ffi::sqlite3_backup_step(backup, -1), ffi::SQLITE_DONE);
        assert_eq!(ffi::sqlite3_backup_finish(backup), ffi::SQLITE_OK);
    }
}
