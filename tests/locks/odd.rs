//! Filesystems that refuse locks, grant all of them, or keep those of the dead.

use hardened_sqlite::report;
use rusqlite::{Connection, OpenFlags};
use support::fuse::{Fault, Mount, Op, Options, What};
use support::require;
use support::second::Library;
use tempfile::TempDir;

use super::{STOCK, code, open, peer};

/// A FUSE mount that keeps locks itself, with a database on it.
struct Odd {
    /// As long as somebody has the file open the kernel does not forget it: locks that nobody gives up belong to a node, and
    /// the next look would find another one.
    _known: std::fs::File,
    mount: Mount,
    _backing: TempDir,
    _at: TempDir,
}

impl Odd {
    fn new() -> Odd {
        let (backing, at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mount = Mount::new(Options::new(backing.path()).subtype("oddfs").forward_locks(true), at.path()).unwrap();
        let path = mount.path().join("app.db");
        assert_eq!(code(&open(&path, STOCK), "CREATE TABLE t(x); INSERT INTO t VALUES (1)"), 0);
        Odd { _known: std::fs::File::open(path).unwrap(), mount, _backing: backing, _at: at }
    }

    fn path(&self) -> std::path::PathBuf {
        self.mount.path().join("app.db")
    }

    fn refused(&self, vfs: &str) -> String {
        let uri = format!("file:{}?{vfs}", self.path().display());
        Connection::open_with_flags(uri, OpenFlags::default()).unwrap_err().to_string()
    }
}

fn prepared() -> bool {
    // Registers the VFS, which `refused` does not.
    drop(open(std::path::Path::new(":memory:"), "vfs=hardened"));
    require::root_and_fuse()
}

#[test]
fn where_locks_of_an_open_file_are_refused_those_of_the_base_are_taken_and_the_report_says_so() {
    if !prepared() {
        return;
    }
    for errno in [libc_errno::ENOLCK, libc_errno::ENOSYS, libc_errno::EOPNOTSUPP, libc_errno::EINVAL] {
        let odd = Odd::new();
        let fault = odd.mount.fault(Fault::on(Op::Setlk).errno(errno).times(1));
        let db = open(&odd.path(), "vfs=hardened");
        assert_eq!(fault.seen(), 1, "{errno}");
        let report = report(&db).unwrap();
        assert!(report.locks.contains("the base VFS `unix`") && report.locks.contains("refuses"), "{}", report.locks);
        assert_eq!(code(&db, "INSERT INTO t VALUES (2)"), 0);
        let mut other = peer(&odd.path(), STOCK);
        assert_eq!(code(&db, "BEGIN IMMEDIATE"), 0);
        assert_eq!(other.run("BEGIN IMMEDIATE"), rusqlite::ffi::SQLITE_BUSY, "they lock");
        let error = odd.refused("vfs=hardened&locks=ofd");
        assert!(error.contains("locks=ofd") && error.contains("oddfs"), "{error}");
    }
}

#[test]
fn where_no_locks_can_be_had_the_open_says_so_instead_of_being_busy_for_ever() {
    if !prepared() {
        return;
    }
    for errno in [libc_errno::ENOLCK, libc_errno::ENOSYS, libc_errno::EOPNOTSUPP, libc_errno::EINVAL] {
        let odd = Odd::new();
        odd.mount.fault(Fault::on(Op::Setlk).errno(errno));
        let stock = open(&odd.path(), STOCK);
        let told = code(&stock, "SELECT * FROM t");
        assert!(told != 0, "stock: {told}");
        let error = odd.refused("vfs=hardened");
        assert!(error.contains("takes no locks") && error.contains("nolock=1"), "{errno}: {error}");
        odd.refused("vfs=hardened&locks=ofd");
        let alone = open(&odd.path(), "vfs=hardened&nolock=1");
        assert_eq!(code(&alone, "INSERT INTO t VALUES (2)"), 0, "the way out works");
    }
}

#[test]
fn locks_that_lock_nothing_are_found_before_anything_is_written() {
    if !prepared() {
        return;
    }
    let odd = Odd::new();
    odd.mount.fault(Fault::on(Op::Setlk).what(What::GrantLock));
    let (a, b) = (open(&odd.path(), STOCK), peer(&odd.path(), STOCK));
    let mut b = b;
    assert_eq!((code(&a, "BEGIN EXCLUSIVE"), b.run("BEGIN EXCLUSIVE")), (0, 0), "stock lets both in");
    drop((a, b));
    for locks in ["", "&locks=ofd"] {
        let error = odd.refused(&format!("vfs=hardened{locks}"));
        assert!(error.contains("lock nothing") && error.contains("nolock=1"), "{error}");
    }
    let uri = format!("file:{}?vfs=hardened&mode=ro", odd.path().display());
    let reader = Connection::open_with_flags(uri, OpenFlags::default()).unwrap();
    assert_eq!(code(&reader, "SELECT * FROM t"), 0);
    let notes = report(&reader).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("lock nothing")), "{notes:?}");
    // At one's own risk.
    assert_eq!(code(&open(&odd.path(), "vfs=hardened&locks=posix"), "INSERT INTO t VALUES (2)"), 0);
}

#[test]
fn the_trial_leaves_nothing_and_is_made_once_for_a_mount() {
    if !prepared() {
        return;
    }
    let odd = Odd::new();
    let names = || std::fs::read_dir(odd.mount.path()).unwrap().count();
    let before = names();
    let locks = || {
        let seen = odd.mount.counters().get(Op::Setlk);
        drop(open(&odd.path(), "vfs=hardened&guard=off"));
        odd.mount.counters().get(Op::Setlk) - seen
    };
    let (first, second) = (locks(), locks());
    assert!(first > second, "{first} {second}");
    assert_eq!(names(), before);
}

#[test]
fn a_lock_that_a_killed_process_has_left_is_named() {
    if !prepared() {
        return;
    }
    let odd = Odd::new();
    let mut killed = peer(&odd.path(), STOCK);
    assert_eq!((killed.run("BEGIN EXCLUSIVE"), killed.run("INSERT INTO t VALUES (2)")), (0, 0));
    odd.mount.fault(Fault::on(Op::Flush));
    odd.mount.fault(Fault::on(Op::Release));
    killed.kill();
    let stock = open(&odd.path(), STOCK);
    assert_eq!(code(&stock, "SELECT * FROM t"), rusqlite::ffi::SQLITE_BUSY);
    let db = open(&odd.path(), "vfs=hardened");
    assert_eq!(code(&db, "SELECT * FROM t"), rusqlite::ffi::SQLITE_BUSY);
    let notes = report(&db).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("no process of this host holds")), "{notes:?}");
}

/// There the kernel's list of locks does not have them, and the question does not tell whose they are.
#[test]
fn closing_drops_no_lock_of_a_neighbour_where_a_server_keeps_them() {
    if !prepared() {
        return;
    }
    let odd = Odd::new();
    let busy = |other: &mut crate::actors::Other| other.run("BEGIN IMMEDIATE") == rusqlite::ffi::SQLITE_BUSY;
    let mut other = peer(&odd.path(), STOCK);
    for _ in 0..3 {
        let neighbour = open(&odd.path(), STOCK);
        assert_eq!(code(&neighbour, "BEGIN IMMEDIATE"), 0);
        drop(open(&odd.path(), "vfs=hardened&locks=ofd"));
        assert!(busy(&mut other), "a neighbour in the same library");
        drop(neighbour);
        let Some(library) = Library::load() else { return };
        let neighbour = library.open(&odd.path());
        assert_eq!(neighbour.exec("BEGIN IMMEDIATE"), 0);
        drop(open(&odd.path(), "vfs=hardened&locks=ofd"));
        assert!(busy(&mut other), "a neighbour in another library");
    }
}

/// What is kept for a neighbour is asked about again at later opens and closes: on its own filesystem.
#[test]
fn a_server_that_does_not_answer_keeps_nobody_from_databases_elsewhere() {
    if !prepared() {
        return;
    }
    let (odd, home) = (Odd::new(), TempDir::new().unwrap());
    let neighbour = open(&odd.path(), STOCK);
    assert_eq!(code(&neighbour, "BEGIN; SELECT * FROM t"), 0);
    // Closing it would drop the neighbour's lock.
    drop(open(&odd.path(), "vfs=hardened&locks=ofd"));
    let hold = odd.mount.hold(Op::Getlk);
    let (say, hear) = std::sync::mpsc::channel();
    let elsewhere = home.path().join("app.db");
    let thread = std::thread::spawn(move || {
        drop(open(&elsewhere, "vfs=hardened&fs=local"));
        say.send(()).unwrap();
    });
    let answer = hear.recv_timeout(std::time::Duration::from_secs(30));
    hold.release();
    thread.join().unwrap();
    assert!(answer.is_ok(), "an open waits for another filesystem");
}

/// What somebody in the way of `db` is told: the code, and the note in the report if there is one.
fn told(db: &Connection) -> (i32, Option<String>) {
    let code = code(db, "BEGIN IMMEDIATE; ROLLBACK");
    (code, report(db).unwrap().notes.into_iter().find(|note| note.contains("no process of this host holds")))
}

#[test]
fn a_filesystem_that_keeps_locks_itself_frees_those_of_a_killed_process_and_a_living_one_is_not_called_dead() {
    if !prepared() {
        return;
    }
    for vfs in [STOCK, "vfs=hardened"] {
        let odd = Odd::new();
        let mut holder = peer(&odd.path(), vfs);
        assert_eq!((holder.run("BEGIN IMMEDIATE"), holder.run("INSERT INTO t VALUES (2)")), (0, 0));
        let db = open(&odd.path(), "vfs=hardened");
        assert_eq!(told(&db), (rusqlite::ffi::SQLITE_BUSY, None), "{vfs}");
        let released = odd.mount.counters().get(Op::Release);
        holder.kill();
        // Those of the base and of the locks: the kernel sends them when the process is gone already.
        assert!(odd.mount.wait_counted(Op::Release, released + 2, std::time::Duration::from_secs(60)) || vfs == STOCK);
        let free = (0..1000).any(|_| code(&db, "BEGIN IMMEDIATE; ROLLBACK") == 0);
        assert!(free, "{vfs}");
        assert_eq!(told(&db), (0, None), "{vfs}");
    }
}

#[test]
fn a_filesystem_that_forgets_locks_only_by_their_owner_keeps_those_of_a_killed_process_and_they_are_named() {
    if !prepared() {
        return;
    }
    for (vfs, kept) in [(STOCK, false), ("vfs=hardened&locks=posix", false), ("vfs=hardened", true)] {
        // The kernel names an open file by where it is in memory. If the next one gets the same place, the filesystem takes it
        // for the one that has the lock.
        let told = (0..10).map(|_| after_a_kill(vfs)).find(|(code, _)| !kept || *code != 0);
        let (code, note) = told.expect("a lock that is kept");
        assert_eq!((code == rusqlite::ffi::SQLITE_BUSY, note.is_some()), (kept, kept), "{vfs}: {code} {note:?}");
        if let Some(note) = note {
            assert!(note.contains("fuse.oddfs") && note.contains("mount it again"), "{note}");
        }
    }
}

/// What a connection is told after another one was killed in a transaction, and the filesystem has heard only which process it was.
fn after_a_kill(vfs: &str) -> (i32, Option<String>) {
    let odd = Odd::new();
    let mut killed = peer(&odd.path(), vfs);
    assert_eq!((killed.run("BEGIN IMMEDIATE"), killed.run("INSERT INTO t VALUES (2)")), (0, 0));
    // What is left are the FLUSH requests, which name the process and not the open file.
    odd.mount.fault(Fault::on(Op::Release));
    killed.kill();
    let db = open(&odd.path(), "vfs=hardened");
    told(&db)
}

/// Numbers of Linux, so that the root crate needs no libc.
mod libc_errno {
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOLCK: i32 = 37;
    pub(super) const ENOSYS: i32 = 38;
    pub(super) const EOPNOTSUPP: i32 = 95;
}
