//! Which databases are open in this process.
//!
//! Invariants: an entry is found by the device and inode that its connection has open, as the connection says. It has at least
//! one handle; with the last one it becomes busy, under the same lock, and nobody gets it any more. Nothing slow happens under
//! the lock: whoever opens, creates or closes says so in it, and others wait for that one alone.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use hardened_vfs::{PerProcess, Report};
use rusqlite::{Connection, ffi};

use super::turns::Turns;
use super::{Closed, Database, Shared, closing};
use crate::beside::directory_of;
use crate::error::{Detail, Error};
use crate::options::Options;

/// Device and inode.
pub(super) type Identity = (u64, u64);

#[derive(Debug)]
enum Entry {
    Open(Arc<Shared>),
    /// Somebody opens or closes it.
    Busy(Arc<Gate>),
}

/// Opens once.
#[derive(Debug, Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn wait(&self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }
}

#[derive(Debug, Default)]
struct Open {
    entries: HashMap<Identity, Entry>,
    /// Files that are not there yet, of which this process is making one.
    creating: HashMap<PathBuf, Arc<Gate>>,
    /// Spellings that have led to open files, so that their filesystems have answered.
    spellings: HashMap<PathBuf, Identity>,
}

impl Open {
    fn know(&mut self, path: &Path, identity: Identity) {
        /// Nobody means more; a program that makes up spellings must not fill the memory.
        const MANY: usize = 1000;
        if !self.spellings.contains_key(path) && self.spellings.len() < MANY {
            self.spellings.insert(path.to_owned(), identity);
        }
    }
}

static OPEN: PerProcess<Open> = PerProcess::new(|_| Open::default());

/// An entry that this thread works on. Dropped, others may try.
struct Working(Identity, Arc<Gate>);

impl Working {
    /// Marks an entry that is not there or has just lost its last handle.
    fn on(identity: Identity, open: &mut Open) -> Working {
        let gate = Arc::new(Gate::default());
        open.entries.insert(identity, Entry::Busy(Arc::clone(&gate)));
        Working(identity, gate)
    }

    fn done(self, shared: Arc<Shared>) {
        OPEN.lock().entries.insert(self.0, Entry::Open(shared));
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        if matches!(open.entries.get(&self.0), Some(Entry::Busy(gate)) if Arc::ptr_eq(gate, &self.1)) {
            open.entries.remove(&self.0);
            open.spellings.retain(|_, identity| *identity != self.0);
        }
        drop(open);
        self.1.open();
    }
}

/// A file that this thread creates. Dropped, others look again.
struct Creating(PathBuf, Arc<Gate>);

impl Creating {
    /// None after waiting for somebody else who created it.
    fn begin(path: &Path) -> Option<Creating> {
        let path = place(path);
        let mut open = OPEN.lock();
        if let Some(gate) = open.creating.get(&path).map(Arc::clone) {
            drop(open);
            gate.wait();
            return None;
        }
        let gate = Arc::new(Gate::default());
        open.creating.insert(path.clone(), Arc::clone(&gate));
        Some(Creating(path, gate))
    }
}

/// Waits for somebody who is creating this file: it is there before its entry is. Whether there was one.
fn is_being_created(path: &Path) -> bool {
    if OPEN.lock().creating.is_empty() {
        return false;
    }
    let path = place(path);
    let gate = OPEN.lock().creating.get(&path).map(Arc::clone);
    gate.is_some_and(|gate| {
        gate.wait();
        true
    })
}

impl Drop for Creating {
    fn drop(&mut self) {
        OPEN.lock().creating.remove(&self.0);
        self.1.open();
    }
}

/// Where a file that is not there will be, whatever its directory is called.
fn place(path: &Path) -> PathBuf {
    match (std::fs::canonicalize(directory_of(path)), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

/// A handle of the database at `path`.
pub(super) fn open(options: &Options, path: &Path) -> Result<Database, Error> {
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Ok(Database::of(Arc::new(shared(options, path, None, connect(options, path)?)?)));
    }
    if !OPEN.lock().spellings.contains_key(path) {
        answers(options, path)?;
    }
    let mut look = identity(path);
    loop {
        let Some(identity) = look else {
            let creating = Creating::begin(path);
            // Somebody may just have created it.
            look = self::identity(path);
            if creating.is_none() || look.is_some() {
                continue;
            }
            let connection = connect(options, path)?;
            look = self::identity(path);
            match claim(options, path, look) {
                Some(Ok(working)) => match finish(options, path, connection, working)? {
                    Some(database) => return Ok(database),
                    None => continue,
                },
                Some(Err(found)) => return found,
                None => continue,
            }
        };
        if is_being_created(path) {
            look = self::identity(path);
            continue;
        }
        match claim(options, path, Some(identity)) {
            Some(Ok(working)) => {
                let connection = connect(options, path)?;
                if let Some(database) = finish(options, path, connection, working)? {
                    return Ok(database);
                }
                look = self::identity(path);
            }
            Some(Err(found)) => return found,
            None => look = self::identity(path),
        }
    }
}

/// The entry: to be made, found, or none after waiting for somebody else who worked on it.
fn claim(
    options: &Options,
    path: &Path,
    identity: Option<Identity>,
) -> Option<Result<Working, Result<Database, Error>>> {
    let identity = identity?;
    let mut open = OPEN.lock();
    match open.entries.get(&identity) {
        None => Some(Ok(Working::on(identity, &mut open))),
        Some(Entry::Open(shared)) => Some(Err(match options.difference(&shared.options) {
            Some(difference) => Err(other_options(path, shared, &difference)),
            None => {
                let database = count(shared);
                open.know(path, identity);
                Ok(database)
            }
        })),
        Some(Entry::Busy(gate)) => {
            let gate = Arc::clone(gate);
            drop(open);
            gate.wait();
            None
        }
    }
}

fn other_options(path: &Path, shared: &Shared, difference: &str) -> Error {
    let cause = format!("it is open in this process with other options: asked for {difference}");
    let mut detail = Detail::of(&shared.path, ffi::SQLITE_MISUSE, cause).reached_through(path);
    detail.hint =
        Some("open it with the same options everywhere, or use open_connection for a connection of its own".into());
    Error::OtherOptions(detail)
}

/// One handle more. Under the lock of the cache.
fn count(shared: &Arc<Shared>) -> Database {
    shared.handles.fetch_add(1, Ordering::Relaxed);
    Database::of(Arc::clone(shared))
}

/// One handle more, of one that there is.
pub(super) fn another(shared: &Arc<Shared>) -> Database {
    let _counting = OPEN.lock();
    count(shared)
}

/// The entry is made, unless the connection has another file: it was replaced in between.
fn finish(options: &Options, path: &Path, connection: Connection, working: Working) -> Result<Option<Database>, Error> {
    let identity = working.0;
    let mut shared = shared(options, path, Some(identity), connection)?;
    let report = shared.report.get_mut().unwrap_or_else(PoisonError::into_inner);
    if report.identity.is_some_and(|opened| opened != identity) {
        return Ok(None);
    }
    let shared = Arc::new(shared);
    let database = Database::of(Arc::clone(&shared));
    working.done(shared);
    Ok(Some(database))
}

fn connect(options: &Options, path: &Path) -> Result<Connection, Error> {
    crate::open::open_first(options, path)
}

fn shared(options: &Options, path: &Path, identity: Option<Identity>, connection: Connection) -> Result<Shared, Error> {
    let report = match identity {
        Some(_) => crate::report(&connection)?,
        None => Report::in_memory(&path.display().to_string(), rusqlite::version()),
    };
    let wal = report.journal_mode.as_deref() == Some("wal");
    // Later opens and whoever changes the working directory must not change what it means.
    let path =
        if identity.is_some() { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) } else { path.into() };
    Ok(Shared {
        path,
        options: options.clone(),
        identity,
        forks: hardened_vfs::forks(),
        handles: AtomicUsize::new(1),
        writer: Turns::new(1, vec![connection]),
        readers: wal.then(|| Turns::new(options.shared.readers, Vec::new())),
        report: Mutex::new(report),
    })
}

/// One handle less; the last one closes.
pub(super) fn close(shared: &Arc<Shared>) -> Result<Closed, Error> {
    if shared.forks != hardened_vfs::forks() {
        // The parent's. What a thread of the parent may hold is not touched.
        std::mem::forget(Arc::clone(shared));
        return Ok(Closed::not_last());
    }
    let mut open = OPEN.lock();
    if shared.handles.fetch_sub(1, Ordering::Relaxed) > 1 {
        return Ok(Closed::not_last());
    }
    let working = shared.identity.map(|identity| Working::on(identity, &mut open));
    drop(open);
    let closed = closing::close(shared);
    drop(working);
    closed
}

pub(super) fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// An error if the filesystem does not answer in time; any other problem is left to the open.
fn answers(options: &Options, path: &Path) -> Result<(), Error> {
    match hardened_vfs::fs::answers(path, options.vfs.fs_timeout) {
        Err(problem @ hardened_vfs::fs::Problem::NoAnswer(_)) => {
            let mut detail = Detail::of(path, ffi::SQLITE_CANTOPEN, problem.to_string());
            detail.hint = Some("see whether the server can be reached, or open it later".into());
            detail.not_local = true;
            Err(Error::CannotOpen(detail))
        }
        _ => Ok(()),
    }
}
