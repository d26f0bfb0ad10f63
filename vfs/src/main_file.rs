//! What is known about one open main database: shared by its shim file, its journal's and its WAL's.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::fs::Verdict;
use crate::notice;
use crate::options::Options;
use crate::policy::{Policy, Rule};
use crate::refusal::Refusal;

/// How the database was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
    /// The user promised that nobody writes.
    Immutable,
    /// The user switched locking off.
    NoLock,
}

impl Access {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Access::ReadWrite => "read-write",
            Access::ReadOnly => "read-only",
            Access::Immutable => "immutable",
            Access::NoLock => "nolock",
        }
    }
}

/// One open main database.
pub(crate) struct MainFile {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) verdict: Arc<Verdict>,
    pub(crate) access: Access,
    pub(crate) base: String,
    /// Set if the open is refused: then no base file is behind it.
    pub(crate) refusal: Option<Refusal>,
    /// Opened by ourselves to take it out of WAL: nothing is chosen, but no shared memory is offered, whatever other
    /// automatic extensions do with the connection.
    pub(crate) converting: bool,
    /// Where warnings go besides the `log` crate.
    pub(crate) speak: notice::Speak,
    /// policy=off, known without a lock.
    off: bool,
    policy: Mutex<Policy>,
    notes: Mutex<Vec<String>>,
    /// Rollback journals and WAL files open now for this database.
    journals: AtomicU32,
    atomic_batch: AtomicBool,
    /// Address of the handle of the connection, 0 until SQLite tells it.
    connection: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MainFile {
    pub(crate) fn new(
        path: PathBuf,
        options: Options,
        verdict: Arc<Verdict>,
        policy: Policy,
        access: Access,
        base: String,
        speak: notice::Speak,
    ) -> Self {
        let off = policy.rule == Rule::Off;
        let (policy, notes) = (Mutex::new(policy), Mutex::default());
        let (journals, atomic_batch) = (AtomicU32::new(0), AtomicBool::new(false));
        MainFile {
            path,
            options,
            verdict,
            access,
            base,
            refusal: None,
            converting: false,
            speak,
            off,
            policy,
            notes,
            journals,
            atomic_batch,
            connection: AtomicUsize::new(0),
        }
    }

    pub(crate) fn hides_shared_memory(&self) -> bool {
        self.converting || lock(&self.policy).hides_shared_memory()
    }

    pub(crate) fn policy(&self) -> Policy {
        lock(&self.policy).clone()
    }

    /// Read-only databases and those whose locks the user switched off keep their mode.
    pub(crate) fn left_alone(&self) -> bool {
        self.access != Access::ReadWrite
    }

    pub(crate) fn fall_back(&self, cause: &str) {
        let mut policy = lock(&self.policy);
        *policy = policy.fall_back(self.options.journal, cause);
    }

    /// Remembers something for the report.
    pub(crate) fn note(&self, note: String) {
        let mut notes = lock(&self.notes);
        if !notes.contains(&note) && notes.len() < 64 {
            notes.push(note);
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// Remembers it, and says it once per database, process and kind.
    pub(crate) fn warn(&self, kind: &'static str, message: String) {
        notice::once(&self.speak, &self.path, kind, &message);
        self.note(message);
    }

    /// Says it once, for what the report shows elsewhere.
    pub(crate) fn warn_only(&self, kind: &'static str, message: &str) {
        notice::once(&self.speak, &self.path, kind, message);
    }

    /// Whether pages may be written to the database now: only while a journal, a WAL or an atomic batch can undo or redo
    /// them. Without one the application has found a way to journal_mode OFF or MEMORY that no pragma of ours saw.
    pub(crate) fn may_write_pages(&self) -> bool {
        self.off
            || self.journals.load(Ordering::Relaxed) > 0
            || self.atomic_batch.load(Ordering::Relaxed)
            || STRAY.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn set_atomic_batch(&self, on: bool) {
        self.atomic_batch.store(on, Ordering::Relaxed);
    }

    /// Remembers where the handle of the connection stands.
    pub(crate) fn remember_connection(&self, address: usize) {
        self.connection.store(address, Ordering::Relaxed);
    }

    /// The address told by SQLITE_FCNTL_PDB.
    pub(crate) fn connection_address(&self) -> usize {
        self.connection.load(Ordering::Relaxed)
    }

    /// Whether WAL must not come into being, on disk or in memory.
    pub(crate) fn forbids_wal(&self) -> bool {
        let rollback = matches!(lock(&self.policy).rule, Rule::Rollback(_));
        rollback && !self.left_alone()
    }
}

/// Journals that are open and whose database could not be found: somewhere above us another shim renames files. Then no
/// write can be refused for want of a journal.
static STRAY: AtomicU32 = AtomicU32::new(0);

/// The open databases, each with the addresses of its journal's and its WAL's name. The addresses are only compared:
/// a shim above may hand on names that no pager made, and sqlite3_database_file_object() must not be asked about those.
static OPEN: Mutex<Vec<(Weak<MainFile>, [usize; 2])>> = Mutex::new(Vec::new());

/// Remembers an open database.
pub(crate) fn remember(main: &Arc<MainFile>, journals: [usize; 2]) {
    let mut open = lock(&OPEN);
    open.retain(|(main, _)| main.strong_count() > 0);
    open.push((Arc::downgrade(main), journals));
}

/// The databases that a journal or WAL protects: the one whose pager opens it, known by the address of the name, or, where
/// another shim above hides that from us, all whose journal or WAL has this name.
pub(crate) fn by_journal(address: usize, journal: &Path) -> Vec<Arc<MainFile>> {
    let mine = lock(&OPEN).iter().filter(|(_, names)| names.contains(&address)).find_map(|(main, _)| main.upgrade());
    if let Some(main) = mine {
        return vec![main];
    }
    let name = journal.as_os_str().as_bytes();
    let Some(database) = [&b"-journal"[..], b"-wal"].iter().find_map(|suffix| name.strip_suffix(*suffix)) else {
        return Vec::new();
    };
    let open = lock(&OPEN);
    open.iter()
        .filter_map(|(main, _)| main.upgrade())
        .filter(|main| main.path.as_os_str().as_bytes() == database)
        .collect()
}

/// An open rollback journal or WAL, counted by the databases it protects until dropped.
pub(crate) struct Journal(Vec<Arc<MainFile>>);

impl Journal {
    pub(crate) fn opened(owners: Vec<Arc<MainFile>>) -> Self {
        if owners.is_empty() {
            STRAY.fetch_add(1, Ordering::Relaxed);
        }
        for main in &owners {
            main.journals.fetch_add(1, Ordering::Relaxed);
        }
        Journal(owners)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.0.is_empty() {
            STRAY.fetch_sub(1, Ordering::Relaxed);
        }
        for main in &self.0 {
            main.journals.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
