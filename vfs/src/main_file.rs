//! What is known about one open main database: shared by its shim file, its journal's and its WAL's.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::fs::{Class, Verdict};
use crate::generation::Generation;
use crate::in_flight::InFlight;
use crate::known_size::KnownSize;
use crate::lock::fork::{self, PerProcess};
use crate::notice;
use crate::options::{CombineChoice, GuardChoice, Options};
use crate::policy::{Policy, Rule};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::sync::directory::Directory;

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
    handle: AtomicUsize,
    /// Whose locks are taken, for the report.
    pub(crate) locks: String,
    /// Writes that follow each other are sent as one: each is a round trip.
    pub(crate) combines: bool,
    /// What is written to a rollback journal waits for its sync, and pages side by side are written as one.
    pub(crate) gathers: bool,
    known_size: Mutex<KnownSize>,
    /// Whether the file is the operating system's under its path.
    pub(crate) native: bool,
    /// SQLite has read the header before it took a lock, and it is SQLite's own.
    pub(crate) plain: AtomicBool,
    /// An alarm of the guard has stopped writing until the user has decided.
    pub(crate) blocked: AtomicBool,
    /// What is shared with the other connections to this database; `None` where nothing is protected.
    pub(crate) shared: Option<Arc<Shared>>,
    in_flight: Mutex<InFlight>,
    /// Whether pages are held in memory: asked before each read.
    pub(crate) holds: AtomicBool,
    /// A transaction has ended since the lock was last given back.
    ended: AtomicBool,
    /// The guard's record does not say yet that the last transaction has ended: asked at each unlock.
    pub(crate) over: AtomicBool,
    /// The connection was told to keep its locks.
    told_exclusive: AtomicBool,
    /// The lock held on the main file.
    pub(crate) level: AtomicI32,
    /// A shared WAL-index is mapped.
    pub(crate) indexed: AtomicBool,
    /// The files that are open, by their names.
    pub(crate) generation: Generation,
    /// It was told that they have moved.
    pub(crate) moved: AtomicBool,
    /// The -shm file was cut off under the mapping: what was read from it since means nothing, so nothing is read or written
    /// any more. Set by a signal handler.
    pub(crate) index_lost: Arc<AtomicBool>,
    /// Addresses of the states of the open files, 0 while there is none.
    pub(crate) files: [AtomicUsize; 3],
}

/// The files of a connection, as places in [`MainFile::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Database,
    Journal,
    Wal,
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
        let combines = match options.combine {
            CombineChoice::Auto => verdict.class != Class::Local,
            CombineChoice::On => true,
            CombineChoice::Off => false,
        } && !off;
        let gathers = options.combine != CombineChoice::Off;
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
            handle: AtomicUsize::new(0),
            locks: String::new(),
            combines,
            gathers,
            known_size: Mutex::default(),
            native: false,
            plain: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            shared: None,
            in_flight: Mutex::default(),
            holds: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            over: AtomicBool::new(false),
            told_exclusive: AtomicBool::new(false),
            level: AtomicI32::new(0),
            indexed: AtomicBool::new(false),
            generation: Generation::default(),
            moved: AtomicBool::new(false),
            index_lost: Arc::default(),
            files: Default::default(),
        }
    }

    /// Its directory, where it is one of the operating system's and may be read.
    pub(crate) fn directory(&self) -> Option<Arc<Directory>> {
        self.shared.as_ref().and_then(|shared| shared.directory())
    }

    /// Whether the connection is in EXCLUSIVE locking mode, as far as can be seen: it was told so, or it has kept its lock
    /// between two transactions.
    pub(crate) fn may_be_exclusive(&self) -> bool {
        self.told_exclusive.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn told_locking_mode(&self, value: &str) {
        self.told_exclusive.store(!value.eq_ignore_ascii_case("normal"), Ordering::Relaxed);
    }

    pub(crate) fn transaction_ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The lock was lowered to this level.
    pub(crate) fn lowered(&self, level: i32) {
        self.level.fetch_min(level, Ordering::Relaxed);
        if level == 0 {
            if let Some(mut size) = self.known_size() {
                size.unlocked();
            }
        }
        self.ended.store(false, Ordering::Relaxed);
    }

    /// What this connection has in flight. Nothing that calls SQLite may run while it is held.
    #[inline]
    pub(crate) fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        lock(&self.in_flight)
    }

    /// How large the database is, as far as this connection knows; `None` where asking is cheap, where there may be a WAL, whose
    /// checkpoint by others changes the size under our lock, and where this connection writes without passing by here.
    pub(crate) fn known_size(&self) -> Option<MutexGuard<'_, KnownSize>> {
        let follows = match self.access {
            Access::ReadWrite => self.shared.is_some(),
            Access::ReadOnly | Access::Immutable => true,
            Access::NoLock => false,
        };
        let knows = self.combines && self.native && follows && matches!(lock(&self.policy).rule, Rule::Rollback(_));
        knows.then(|| lock(&self.known_size))
    }

    /// Whether the guard's record is kept with as few requests as it takes to know what is in flight.
    pub(crate) fn is_sparing(&self) -> bool {
        self.combines && self.native && self.options.guard == GuardChoice::Auto
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

    /// Remembers where the handle of the connection stands, and the handle.
    pub(crate) fn remember_connection(&self, address: usize, handle: usize) {
        self.connection.store(address, Ordering::Relaxed);
        self.handle.store(handle, Ordering::Relaxed);
    }

    /// The handle of the connection, only to be compared; 0 if SQLite has not told it.
    pub(crate) fn connection_handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
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
#[derive(Default)]
struct Open {
    mine: Vec<(Weak<MainFile>, [usize; 2])>,
    /// In a forked child: those of its parent.
    inherited: Vec<Inherited>,
}

#[derive(Clone)]
struct Inherited {
    main: usize,
    path: PathBuf,
    names: [usize; 2],
}

static OPEN: PerProcess<Open> = PerProcess::new(|parent| {
    let Some(parent) = parent else { return Open::default() };
    let open = parent.mine.iter().filter_map(|(main, names)| {
        let main = main.upgrade()?;
        Some(Inherited { main: Arc::as_ptr(&main) as usize, path: main.path.clone(), names: *names })
    });
    Open { mine: Vec::new(), inherited: parent.inherited.iter().cloned().chain(open).collect() }
});

/// Whether a database has been open on which writes are combined, or whose client remembers names.
#[inline]
pub(crate) fn any_is_remote() -> bool {
    REMOTE.load(Ordering::Relaxed)
}

static REMOTE: AtomicBool = AtomicBool::new(false);

/// Remembers an open database.
pub(crate) fn remember(main: &Arc<MainFile>, journals: [usize; 2]) {
    if main.combines || main.verdict.is_smb() {
        REMOTE.store(true, Ordering::Relaxed);
    }
    let mut open = OPEN.lock();
    open.mine.retain(|(main, _)| main.strong_count() > 0);
    open.mine.push((Arc::downgrade(main), journals));
}

/// Whether a journal or WAL belongs to a connection that a forked child has from its parent: nobody but the parent may make
/// one or delete it.
pub(crate) fn is_inherited(address: usize, journal: &Path) -> bool {
    if fork::count() == 0 {
        return false;
    }
    let open = OPEN.lock();
    let mut mine = open.mine.iter().filter_map(|(main, names)| Some((main.upgrade()?, names)));
    if address != 0 && mine.any(|(_, names)| names.contains(&address)) {
        return false;
    }
    if address != 0 && open.inherited.iter().any(|inherited| inherited.names.contains(&address)) {
        return true;
    }
    let is = |path: &Path| {
        let rest = journal.as_os_str().as_bytes().strip_prefix(path.as_os_str().as_bytes());
        matches!(rest, Some(b"-journal" | b"-wal"))
    };
    let mine = open.mine.iter().filter_map(|(main, _)| main.upgrade()).any(|main| is(&main.path));
    !mine && open.inherited.iter().any(|inherited| is(&inherited.path))
}

/// A forked child has closed a connection of its parent's: the names of its journals may be given to others now.
pub(crate) fn forget_inherited(main: &Arc<MainFile>) {
    OPEN.lock().inherited.retain(|inherited| inherited.main != Arc::as_ptr(main) as usize);
}

thread_local! {
    /// The main file that this thread has asked for a lock or its size last.
    static TOUCHED: Cell<*const MainFile> = const { Cell::new(std::ptr::null()) };
}

/// Remembers that this thread works on `main`: SQLite opens a -wal right after it has locked its database.
pub(crate) fn touch(main: &Arc<MainFile>) {
    TOUCHED.set(Arc::as_ptr(main));
}

/// The databases that a journal or WAL protects: the one whose pager opens it, known by the address of the name, or, where
/// that tells nothing, all whose journal or WAL has this name.
pub(crate) fn by_journal(address: usize, journal: &Path) -> Vec<Arc<MainFile>> {
    let mine =
        OPEN.lock().mine.iter().filter(|(_, names)| names.contains(&address)).find_map(|(main, _)| main.upgrade());
    if let Some(main) = mine {
        return vec![main];
    }
    let name = journal.as_os_str().as_bytes();
    let Some(database) = [&b"-journal"[..], b"-wal"].iter().find_map(|suffix| name.strip_suffix(*suffix)) else {
        return Vec::new();
    };
    let named = by_name(|path| path == database);
    match working(&named) {
        Some(main) => vec![main],
        None => named,
    }
}

/// Of several connections to one database, the one that a call on its journal or WAL comes from: nobody but the holder of
/// RESERVED writes a journal, and SQLite has just used the main file of the connection that opens one.
fn working(candidates: &[Arc<MainFile>]) -> Option<Arc<MainFile>> {
    let reserved = libsqlite3_sys::SQLITE_LOCK_RESERVED;
    let mut writers = candidates.iter().filter(|main| main.level.load(Ordering::Relaxed) >= reserved);
    if let (Some(writer), None) = (writers.next(), writers.next()) {
        return Some(Arc::clone(writer));
    }
    let touched = TOUCHED.get();
    candidates.iter().find(|main| std::ptr::eq(Arc::as_ptr(main), touched)).cloned()
}

fn by_name(is: impl Fn(&[u8]) -> bool) -> Vec<Arc<MainFile>> {
    let open = OPEN.lock();
    let open = open.mine.iter().filter_map(|(main, _)| main.upgrade());
    open.filter(|main| is(main.path.as_os_str().as_bytes())).collect()
}

/// The connection whose journal or WAL of this name is about to be deleted.
pub(crate) fn by_deleted(name: &Path) -> Option<(Arc<MainFile>, Role)> {
    let name = name.as_os_str().as_bytes();
    let (database, role) = match (name.strip_suffix(b"-journal"), name.strip_suffix(b"-wal")) {
        (Some(database), _) => (database, Role::Journal),
        (None, Some(database)) => (database, Role::Wal),
        (None, None) => return None,
    };
    working(&by_name(|path| path == database)).map(|main| (main, role))
}

/// The connections in a transaction whose super-journal this may be, by the database it is named after.
pub(crate) fn by_super_journal(name: &Path) -> Vec<Arc<MainFile>> {
    let name = name.as_os_str().as_bytes();
    let writers = by_name(|path| name.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"-mj")));
    let exclusive = libsqlite3_sys::SQLITE_LOCK_EXCLUSIVE;
    writers.into_iter().filter(|main| main.level.load(Ordering::Relaxed) >= exclusive).collect()
}

/// The open databases of one connection.
pub(crate) fn of_connection(handle: usize) -> Vec<Arc<MainFile>> {
    let mut open = by_name(|_| handle != 0);
    open.retain(|main| main.connection_handle() == handle);
    open
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

    /// The database it protects, if that is known for certain.
    pub(crate) fn owner(&self) -> Option<&Arc<MainFile>> {
        match self.0.as_slice() {
            [owner] => Some(owner),
            _ => None,
        }
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
