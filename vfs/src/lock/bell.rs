//! Turns of those who wait for a database on SMB, where a question about a lock is a lock for a moment and never tells whose it is in
//! the way.
//!
//! So there are no tickets as in the `queue`: who is refused twice takes one byte far behind any database, the bell, unless
//! somebody else has it. A writer that has had its share of the time tries to take it too. If it cannot, somebody waits, and the
//! writer begins nothing until the bell is free, or for a bounded time.
//!
//! Who was refused RESERVED and has slept in SQLite's busy handler tries that byte before SHARED: the same statement tries again,
//! and without RESERVED it would only be in the way of the one who writes.
//!
//! Invariants: no lock of SQLite's own depends on the bell. Who has it never stands back. A bell for which somebody has stood back
//! in vain is not heard for [`FORGET`]; the server drops that of a process that dies.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use libsqlite3_sys as ffi;

use super::apart::is_free;
use super::queue::{FAR, FORGET, SHORTEST};
use super::spell::Spell;
use super::watch::{Watch, Woke, pace};
use super::{Bytes, RESERVED, Range};

const BELL: Range = Range { start: FAR, length: 1 };

/// One connection, as one that waits and as one that writes.
#[derive(Debug)]
pub(super) struct Bell {
    spell: Spell,
    /// Tells who sleeps; nothing is watched.
    watch: Arc<Watch>,
    rings: Cell<bool>,
    /// When it was rung by somebody who did not come.
    deaf: Cell<Option<Instant>>,
}

impl Bell {
    pub(super) fn new() -> Bell {
        let watch = Arc::new(Watch::new(None));
        Bell { spell: Spell::default(), watch, rings: Cell::default(), deaf: Cell::default() }
    }

    /// Before SHARED: whether that is of any use.
    pub(super) fn pass(&self, bytes: &impl Bytes) -> io::Result<bool> {
        let slept = self.watch.woke() == Woke::Slept;
        if self.spell.has_given_up() {
            self.served(bytes);
        }
        let share_is_over = self.spell.had().is_some_and(|had| had >= SHORTEST);
        let deaf = self.deaf.get().is_some_and(|since| since.elapsed() < FORGET);
        if share_is_over && !self.rings.get() && !deaf {
            self.spell.stands_back();
            // What goes wrong here is no reason not to go on.
            let came = self.wait(bytes).unwrap_or(true);
            self.deaf.set((!came).then(Instant::now));
        }
        if slept && !self.spell.reads() {
            return is_free(bytes, RESERVED);
        }
        Ok(true)
    }

    /// Until nobody rings; `false` if somebody does in vain.
    fn wait(&self, bytes: &impl Bytes) -> io::Result<bool> {
        let until = Instant::now() + self.spell.patience();
        loop {
            let asked = Instant::now();
            if is_free(bytes, BELL)? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            std::thread::sleep(pace(asked.elapsed()));
        }
    }

    /// After xLock.
    pub(super) fn tried(&self, bytes: &impl Bytes, wanted: i32, code: i32) {
        if wanted == ffi::SQLITE_LOCK_RESERVED {
            self.spell.asks();
        }
        match (wanted, code) {
            (ffi::SQLITE_LOCK_SHARED, ffi::SQLITE_OK) => {
                let has_all = self.spell.enters();
                if has_all {
                    self.served(bytes);
                }
            }
            (ffi::SQLITE_LOCK_RESERVED, ffi::SQLITE_OK) => {
                self.served(bytes);
                self.spell.writes();
            }
            (ffi::SQLITE_LOCK_SHARED | ffi::SQLITE_LOCK_RESERVED, ffi::SQLITE_BUSY) => {
                if self.spell.is_refused(Instant::now()) && !self.rings.get() {
                    self.rings.set(bytes.take_apart(BELL).unwrap_or(false));
                }
                self.watch.for_turn(BELL.start);
            }
            _ => {}
        }
    }

    /// After xUnlock to NONE.
    pub(super) fn left(&self, bytes: &impl Bytes) {
        if self.spell.leaves() {
            self.served(bytes);
        }
    }

    /// The connection is closed.
    pub(super) fn close(&self, bytes: &impl Bytes) {
        self.served(bytes);
    }

    fn served(&self, bytes: &impl Bytes) {
        self.spell.is_served();
        self.watch.had();
        if self.rings.take() {
            let _ = bytes.release(BELL);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::manner::Manner;
    use super::super::ofd::Handle;
    use super::super::watch::sleep;
    use super::super::{Locks, Upgrade};
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    const OK: i32 = ffi::SQLITE_OK;
    const BUSY: i32 = ffi::SQLITE_BUSY;
    const NONE: i32 = ffi::SQLITE_LOCK_NONE;
    const SHARED: i32 = ffi::SQLITE_LOCK_SHARED;

    type Connection = Locks<Handle>;

    /// The kernel's locks of open files are those of a server whose client shares no handle.
    fn open(path: &Path) -> Connection {
        let handle = Handle::low(path, Manner { read_only: false, apart: true }).unwrap();
        Locks::new(handle, Upgrade::Apart).in_turns()
    }

    fn begin(file: &Connection) -> i32 {
        let code = match file.lock(SHARED) {
            OK => file.lock(ffi::SQLITE_LOCK_RESERVED),
            code => code,
        };
        if code != OK {
            file.unlock(NONE);
        }
        code
    }

    fn rings(file: &Connection) -> bool {
        file.bell.as_ref().unwrap().rings.get()
    }

    fn connections<const N: usize>() -> (tempfile::NamedTempFile, [Connection; N]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let connections = std::array::from_fn(|_| open(file.path()));
        (file, connections)
    }

    /// What SQLite's busy handler does.
    fn slept(microseconds: i32) {
        sleep(microseconds, |time| {
            std::thread::sleep(Duration::from_micros(time.unsigned_abs().into()));
            time
        });
    }

    #[test]
    fn one_of_those_that_are_refused_twice_rings_until_it_has_had_its_turn() {
        let (_file, [writer, a, b]) = connections();
        assert_eq!(begin(&writer), OK);
        assert_eq!((begin(&a), rings(&a)), (BUSY, false), "once may be chance");
        assert_eq!((begin(&a), rings(&a)), (BUSY, true));
        assert_eq!((begin(&b), begin(&b), rings(&b)), (BUSY, BUSY, false));
        writer.unlock(NONE);
        assert_eq!((begin(&a), rings(&a)), (OK, false));
        a.unlock(NONE);
    }

    #[test]
    fn a_writer_that_has_had_its_share_stands_back_for_who_rings_and_once_only_if_nobody_comes() {
        let (_file, [writer, waiting]) = connections();
        let deaf = || writer.bell.as_ref().unwrap().deaf.get();
        let end = Instant::now() + Duration::from_secs(60);
        while deaf().is_none() {
            assert!(Instant::now() < end, "it never waits");
            assert_eq!(begin(&writer), OK);
            assert_eq!(begin(&waiting), BUSY);
            writer.unlock(NONE);
        }
        let since = deaf();
        assert_eq!((begin(&writer), deaf()), (OK, since));
        writer.unlock(NONE);
    }

    #[test]
    fn who_has_slept_for_reserved_does_not_come_in_between_while_somebody_has_it() {
        let (_file, [writer, waiting]) = connections();
        assert_eq!(begin(&writer), OK);
        // On a machine that is stopped for a second it has not slept for a lock.
        let stays_out = (0..9).any(|_| {
            assert_eq!(begin(&waiting), BUSY);
            slept(1000);
            waiting.lock(SHARED) == BUSY || waiting.unlock(NONE) != OK
        });
        assert!(stays_out, "it would be in the way");
        assert_eq!(waiting.lock(SHARED), OK, "another statement, that may want to read");
        waiting.unlock(NONE);
        writer.unlock(NONE);
        assert_eq!(begin(&waiting), OK);
    }

    #[test]
    fn who_asks_about_a_writer_is_not_taken_for_one() {
        let (file, [dead, waits, reader]) = connections();
        assert_eq!((begin(&dead), begin(&waits)), (OK, BUSY));
        // As a server does for one that was killed; its journal is hot.
        dead.unlock(NONE);
        assert_eq!(reader.lock(SHARED), OK);
        // As the one that waits does before SHARED.
        assert!(waits.bytes.take_apart(RESERVED).unwrap());
        assert_eq!(reader.reserved(), Ok(false));
        waits.bytes.release(RESERVED).unwrap();
        let path = file.path();
        let wrong = std::thread::scope(|scope| {
            let asks = || {
                let one = open(path);
                while one.lock(SHARED) != OK {}
                (0..2000).filter(|_| one.reserved() != Ok(false)).count()
            };
            let threads = [scope.spawn(asks), scope.spawn(asks)];
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(wrong, [0, 0]);
    }

    #[test]
    fn who_may_only_read_reads_and_is_refused_what_a_writer_has() {
        let (file, [writer]) = connections();
        let handle = Handle::low(file.path(), Manner { read_only: true, apart: false }).unwrap();
        let reader = Locks::new(handle, Upgrade::Apart);
        assert_eq!((reader.lock(SHARED), begin(&writer)), (OK, OK));
        assert!(![OK, BUSY].contains(&reader.lock(ffi::SQLITE_LOCK_RESERVED)), "not a shared lock in its place");
        assert_eq!(writer.lock(ffi::SQLITE_LOCK_EXCLUSIVE), BUSY, "the reader is seen");
        reader.unlock(NONE);
        assert_eq!(writer.lock(ffi::SQLITE_LOCK_EXCLUSIVE), OK);
        writer.unlock(NONE);
    }

    #[test]
    fn a_close_gives_back_what_was_taken_and_the_bell() {
        let (_file, [writer, rings, third]) = connections();
        assert_eq!((begin(&writer), begin(&rings), begin(&rings)), (OK, BUSY, BUSY));
        assert!(self::rings(&rings));
        assert_eq!(rings.close_with(Box::new(|| OK)), OK);
        assert!(is_free(&third.bytes, BELL).unwrap());
        assert!(!is_free(&third.bytes, RESERVED).unwrap(), "the writer's");
        assert_eq!(writer.close_with(Box::new(|| OK)), OK);
        assert_eq!(begin(&third), OK);
        assert_eq!(third.lock(ffi::SQLITE_LOCK_EXCLUSIVE), OK);
        third.unlock(NONE);
    }
}
