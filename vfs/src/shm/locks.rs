//! The eight locks of a WAL-index, bytes 120 to 127 of the -shm file.
//!
//! Invariant: `shared` and `exclusive` are what the handle holds, one bit per lock and no bit in both, besides the
//! checkpoint lock while [`IndexLocks::guarding`].
//!
//! SQLite 3.7.0 to 3.51.2 lets a writer begin the log anew while a checkpointer that has read the header of the index has
//! not begun to copy; that one then counts frames of the new log as copied that are not
//! (<https://www.sqlite.org/wal.html#walresetbug>). A log begins anew only under READ1 to READ4, all exclusive, and a
//! checkpointer holds CKPT from before it reads the header. So nobody gets the former here without the latter: the reset is
//! put off, as it is when a reader is in the way. And nobody who checkpoints gets READ0, without which nothing is copied, if
//! the salts of the index have changed since: a stock writer asks for no CKPT. With READ0 no reset can follow. The exceptions
//! are those in which the salts change with the checkpointer's knowledge: it recovers the index, or is alone. There BUSY would
//! be worse than wrong, since the last to close takes a checkpoint that was BUSY for one that had nothing to do.
//!
//! Recovery takes the lock of each mark, one after the other, and gives it back. Here it takes all of them at once, if it can, and
//! gives them back with its own lock: nobody can begin to read before that.
//!
//! A reader that moves its mark takes the lock of the mark exclusively, drops it and takes it shared, at once and with no
//! other lock. The drop waits for the call that follows, which then is one step from exclusive to shared; any other call
//! does it first.

use std::cell::Cell;
use std::ffi::c_int;

use libsqlite3_sys as ffi;

use crate::lock::{Bytes, Range};

/// The first lock byte.
const BASE: i64 = 120;
/// How many there are (SQLITE_SHM_NLOCK).
const COUNT: c_int = 8;
/// The dead-man switch.
pub(super) const SWITCH: Range = Range { start: BASE + COUNT as i64, length: 1 };
/// READ0 to READ4.
pub(super) const READERS: Range = Range { start: BASE + 3, length: 5 };

const WRITE: u8 = 1;
const CHECKPOINT: u8 = 1 << 1;
const RECOVER: u8 = 1 << 2;
const DATABASE_READERS: u8 = 1 << 3;
const CHECKPOINT_BYTE: Range = Range { start: BASE + 1, length: 1 };
/// READ1 to READ4: the readers that use the log.
const LOG_READERS: u8 = 0b1111_0000;

/// The locks of one connection.
#[derive(Debug, Default)]
pub(super) struct IndexLocks {
    shared: Cell<u8>,
    exclusive: Cell<u8>,
    /// The checkpoint lock is held for the length of a hold on the readers' locks.
    guarding: Cell<bool>,
    /// The salts before SQLite read the header for a checkpoint.
    generation: Cell<Option<Salts>>,
    /// SQLite has released the one exclusive lock that is held.
    released: Cell<bool>,
    /// The marks that recovery has, whether SQLite has taken them one after the other or not yet.
    marks: Cell<u8>,
}

/// What tells two generations of the log apart.
pub(super) type Salts = [u32; 2];

impl IndexLocks {
    /// xShmLock on `bytes`; `salts` reads those of the index, none if that cannot have changed.
    #[inline]
    pub(super) fn change(
        &self,
        bytes: &impl Bytes,
        offset: c_int,
        n: c_int,
        flags: c_int,
        salts: impl Fn() -> Option<Salts>,
    ) -> c_int {
        let Some((mask, range)) = locks(offset, n) else { return ffi::SQLITE_IOERR_SHMLOCK };
        if self.released.get() {
            if flags & ffi::SQLITE_SHM_SHARED != 0
                && flags & ffi::SQLITE_SHM_UNLOCK == 0
                && self.exclusive.get() == mask
            {
                return self.weaken(bytes, mask, range);
            }
            if !self.settle(bytes) {
                // Nothing else is held.
                return if flags & ffi::SQLITE_SHM_UNLOCK != 0 { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHMLOCK };
            }
        }
        let held = self.shared.get() | self.exclusive.get();
        if mask & self.marks.get() == mask {
            // They go with the lock of recovery.
            return ffi::SQLITE_OK;
        }
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            if self.shared.get() == 0 && self.exclusive.get() == mask && (mask & LOG_READERS).count_ones() == 1 {
                self.released.set(true);
                return ffi::SQLITE_OK;
            }
            if self.exclusive.get() & mask & RECOVER != 0 {
                // The header is the one that was just made, under WRITE.
                self.generation.set(salts());
                if let (true, Some((marks, range))) = (self.marks.get() != 0, locks(offset, COUNT - offset)) {
                    // Should that fail, no mark is taken for one that is held.
                    self.marks.set(0);
                    return self.unlock(bytes, marks, range);
                }
            }
            return if held & mask == 0 { ffi::SQLITE_OK } else { self.unlock(bytes, mask, range) };
        }
        if flags & ffi::SQLITE_SHM_SHARED != 0 {
            if self.shared.get() & mask == mask {
                return ffi::SQLITE_OK;
            }
            return answer(bytes.take(range, false), || self.shared.set(self.shared.get() | mask));
        }
        if self.exclusive.get() & RECOVER != 0 && mask & LOG_READERS == mask {
            let all = locks(offset, COUNT - offset);
            if let Some((marks, range)) = all.filter(|(marks, _)| held & marks == 0 && self.shared.get() == 0) {
                let took = || {
                    self.marks.set(marks);
                    self.exclusive.set(self.exclusive.get() | marks);
                };
                if answer(bytes.take(range, true), took) == ffi::SQLITE_OK {
                    return ffi::SQLITE_OK;
                }
            }
        }
        let resets = (mask & LOG_READERS).count_ones() > 1 && (self.exclusive.get() | mask) & CHECKPOINT == 0;
        if resets {
            if self.shared.get() & CHECKPOINT != 0 {
                return ffi::SQLITE_BUSY;
            }
            match answer(bytes.take(CHECKPOINT_BYTE, true), || self.guarding.set(true)) {
                ffi::SQLITE_OK => {}
                code => return code,
            }
        }
        let code = answer(bytes.take(range, true), || self.exclusive.set(self.exclusive.get() | mask));
        if code != ffi::SQLITE_OK {
            self.unguard(bytes);
        } else if self.exclusive.get() & CHECKPOINT != 0 {
            if mask & (CHECKPOINT | WRITE) != 0 {
                // With WRITE nobody begins the log anew any more, and SQLite reads the header after it.
                self.generation.set(salts());
            } else if mask == DATABASE_READERS && salts().is_some_and(|salts| self.generation.get() != Some(salts)) {
                self.unlock(bytes, mask, range);
                return ffi::SQLITE_BUSY;
            }
        }
        code
    }

    /// Whether a lock of a reader or that of a checkpoint is held: who takes WRITE then is about to write.
    pub(super) fn reads_or_checkpoints(&self) -> bool {
        self.shared.get() | self.exclusive.get() & CHECKPOINT != 0
    }

    /// Does what waits for the next call; `false` if that cannot be done, and then it waits on.
    #[inline]
    pub(super) fn settle(&self, bytes: &impl Bytes) -> bool {
        !self.released.get() || self.drop_released(bytes)
    }

    fn drop_released(&self, bytes: &impl Bytes) -> bool {
        let range = Range { start: BASE + i64::from(self.exclusive.get().trailing_zeros()), length: 1 };
        if bytes.release(range).is_err() {
            return false;
        }
        self.released.set(false);
        self.exclusive.set(0);
        true
    }

    /// From exclusive to shared.
    fn weaken(&self, bytes: &impl Bytes, mask: u8, range: Range) -> c_int {
        let code = answer(bytes.take(range, false), || {
            self.released.set(false);
            self.shared.set(mask);
            self.exclusive.set(0);
        });
        if code != ffi::SQLITE_OK {
            let _waits_on = self.settle(bytes);
        }
        code
    }

    #[inline]
    fn unlock(&self, bytes: &impl Bytes, mask: u8, range: Range) -> c_int {
        match bytes.release(range) {
            Ok(()) => {
                self.shared.set(self.shared.get() & !mask);
                self.exclusive.set(self.exclusive.get() & !mask);
                self.marks.set(self.marks.get() & !mask);
                if self.exclusive.get() & LOG_READERS == 0 {
                    self.unguard(bytes);
                }
                ffi::SQLITE_OK
            }
            Err(_) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }

    fn unguard(&self, bytes: &impl Bytes) {
        if self.guarding.replace(false) {
            // It goes at the latest with the handle.
            let _ = bytes.release(CHECKPOINT_BYTE);
        }
    }
}

/// Whether a lock of whoever is about to checkpoint, and no more, is asked for.
pub(super) fn is_checkpoint(offset: c_int, n: c_int, flags: c_int) -> bool {
    flags & (ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED) == 0 && (offset, n) == (1, 1)
}

/// Whether the lock of whoever writes to the log is asked for.
pub(super) fn writes(offset: c_int, n: c_int, flags: c_int) -> bool {
    let wanted = locks(offset, n).is_some_and(|(mask, _)| mask & WRITE != 0);
    wanted && flags & ffi::SQLITE_SHM_UNLOCK == 0 && flags & ffi::SQLITE_SHM_EXCLUSIVE != 0
}

#[inline]
fn locks(offset: c_int, n: c_int) -> Option<(u8, Range)> {
    let end = offset.checked_add(n)?;
    if offset < 0 || n < 1 || end > COUNT {
        return None;
    }
    let mask = (1_u32 << end) - (1_u32 << offset);
    Some((mask as u8, Range { start: BASE + i64::from(offset), length: i64::from(n) }))
}

#[inline]
fn answer(taken: std::io::Result<bool>, then: impl FnOnce()) -> c_int {
    match taken {
        Ok(true) => {
            then();
            ffi::SQLITE_OK
        }
        Ok(false) => ffi::SQLITE_BUSY,
        Err(error) => code_of(&error),
    }
}

#[cold]
fn code_of(error: &std::io::Error) -> c_int {
    match error.raw_os_error() {
        // To be tried again, as stock does with any error.
        Some(libc::ENOLCK | libc::ETIMEDOUT | libc::EBUSY) => ffi::SQLITE_BUSY,
        _ => ffi::SQLITE_IOERR_SHMLOCK,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const TAKE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE;
    const SHARE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_SHARED;
    const DROP: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE;
    const SHARE_DROP: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED;

    /// What each handle holds of bytes 120 to 128: 1 shared, 2 exclusive; and the calls made.
    #[derive(Default)]
    struct Kernel(RefCell<Vec<[u8; 9]>>, Cell<u32>);

    struct Mine<'a>(&'a Kernel, usize);

    impl Bytes for Mine<'_> {
        fn take(&self, range: Range, exclusive: bool) -> std::io::Result<bool> {
            self.0.1.set(self.0.1.get() + 1);
            let mut all = self.0.0.borrow_mut();
            let bytes = (range.start - BASE) as usize..(range.start - BASE + range.length) as usize;
            let others = all.iter().enumerate().filter(|(at, _)| *at != self.1);
            if others.flat_map(|(_, held)| &held[bytes.clone()]).any(|held| *held > u8::from(!exclusive)) {
                return Ok(false);
            }
            all[self.1][bytes].fill(1 + u8::from(exclusive));
            Ok(true)
        }
        fn release(&self, range: Range) -> std::io::Result<()> {
            self.0.1.set(self.0.1.get() + 1);
            let bytes = (range.start - BASE) as usize..(range.start - BASE + range.length) as usize;
            self.0.0.borrow_mut()[self.1][bytes].fill(0);
            Ok(())
        }
        fn taken(&self, _: Range) -> std::io::Result<bool> {
            Err(std::io::ErrorKind::Unsupported.into())
        }
    }

    fn two(kernel: &Kernel) -> [(IndexLocks, Mine<'_>); 2] {
        kernel.0.borrow_mut().resize(2, [0; 9]);
        [0, 1].map(|at| (IndexLocks::default(), Mine(kernel, at)))
    }

    fn change((locks, bytes): &(IndexLocks, Mine<'_>), offset: c_int, n: c_int, flags: c_int) -> c_int {
        locks.change(bytes, offset, n, flags, || Some([1, 2]))
    }

    #[test]
    fn a_log_is_not_begun_anew_while_somebody_checkpoints() {
        let kernel = Kernel::default();
        let [a, b] = two(&kernel);
        assert_eq!(change(&a, 1, 1, TAKE), ffi::SQLITE_OK);
        assert_eq!(change(&b, 4, 4, TAKE), ffi::SQLITE_BUSY);
        assert_eq!(kernel.0.borrow()[1], [0; 9], "nothing is left of the attempt");
        assert_eq!(change(&a, 4, 4, TAKE), ffi::SQLITE_OK, "the checkpointer itself may");
        assert_eq!(change(&a, 4, 4, DROP), ffi::SQLITE_OK);
        assert_eq!(kernel.0.borrow()[0][1], 2, "and keeps its lock");
        change(&a, 1, 1, DROP);
        assert_eq!(change(&b, 4, 4, TAKE), ffi::SQLITE_OK);
        assert_eq!(change(&a, 1, 1, TAKE), ffi::SQLITE_BUSY, "nobody begins to checkpoint meanwhile");
        assert_eq!(change(&b, 4, 4, DROP), ffi::SQLITE_OK);
        assert_eq!(kernel.0.borrow()[1], [0; 9]);
    }

    #[test]
    fn a_reader_in_the_way_leaves_no_checkpoint_lock_behind() {
        let kernel = Kernel::default();
        let [a, b] = two(&kernel);
        assert_eq!(change(&a, 5, 1, SHARE), ffi::SQLITE_OK);
        assert_eq!(change(&b, 4, 4, TAKE), ffi::SQLITE_BUSY);
        assert_eq!(kernel.0.borrow()[1], [0; 9]);
    }

    #[test]
    fn marks_and_recovery_take_no_lock_more_than_stock_takes() {
        let kernel = Kernel::default();
        let [a, b] = two(&kernel);
        assert_eq!(change(&a, 1, 1, TAKE), ffi::SQLITE_OK);
        kernel.1.set(0);
        for i in 3..8 {
            assert_eq!((change(&b, i, 1, TAKE), change(&b, i, 1, DROP)), (0, 0), "a mark, while somebody checkpoints");
        }
        assert_eq!(kernel.1.replace(0), 9, "the last is not dropped yet");
        change(&a, 1, 1, DROP);
        b.0.settle(&b.1);
        kernel.1.set(0);
        // Recovery, as SQLite does it now and as it did before 3.40.
        for (offset, n) in [(1, 2), (1, 7)] {
            assert_eq!((change(&b, offset, n, TAKE), change(&b, offset, n, DROP)), (0, 0));
        }
        assert_eq!(kernel.1.get(), 4);
    }

    #[test]
    fn recovery_has_all_marks_at_once_or_those_that_it_can_have() {
        let kernel = Kernel::default();
        let [a, b] = two(&kernel);
        let recover = |(offset, n)| {
            assert_eq!((change(&a, 0, 1, TAKE), change(&a, offset, n, TAKE)), (0, 0));
            kernel.1.set(0);
            let marks = (4..8).map(|mark| change(&a, mark, 1, TAKE) + change(&a, mark, 1, DROP)).collect::<Vec<_>>();
            assert_eq!((change(&a, offset, n, DROP), kernel.0.borrow()[0]), (0, [2, 0, 0, 0, 0, 0, 0, 0, 0]));
            assert_eq!(change(&a, 0, 1, DROP), 0);
            (marks, kernel.1.get())
        };
        for (offset, n) in [(1, 2), (2, 1)] {
            assert_eq!(recover((offset, n)), (vec![0; 4], 3), "the marks, all but WRITE, and WRITE");
        }
        assert_eq!(change(&b, 5, 1, SHARE), 0);
        assert_eq!(recover((1, 2)).0, [0, ffi::SQLITE_BUSY, 0, 0]);
        // Afterwards marks are what they were.
        change(&b, 5, 1, SHARE_DROP);
        assert_eq!((change(&a, 5, 1, SHARE), change(&b, 5, 1, TAKE)), (0, ffi::SQLITE_BUSY));
    }

    #[test]
    fn a_mark_goes_from_exclusive_to_shared_in_one_step() {
        let kernel = Kernel::default();
        let [a, b] = two(&kernel);
        assert_eq!((change(&a, 4, 1, TAKE), change(&a, 4, 1, DROP), change(&a, 4, 1, SHARE)), (0, 0, 0));
        assert_eq!(kernel.1.get(), 2);
        assert_eq!(kernel.0.borrow()[0], [0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!((change(&b, 4, 1, SHARE), change(&b, 4, 1, TAKE)), (ffi::SQLITE_OK, ffi::SQLITE_BUSY));
        assert_eq!((change(&a, 4, 1, SHARE_DROP), change(&b, 4, 1, SHARE_DROP)), (0, 0));
        assert_eq!(*kernel.0.borrow(), [[0; 9]; 2]);
    }

    #[test]
    fn a_mark_that_was_released_is_dropped_before_anything_else_is_done() {
        for (offset, n, flags) in [(4, 1, TAKE), (5, 1, SHARE), (0, 1, TAKE), (5, 1, DROP), (1, 1, DROP)] {
            let kernel = Kernel::default();
            let [a, b] = two(&kernel);
            assert_eq!((change(&a, 4, 1, TAKE), change(&a, 4, 1, DROP)), (0, 0));
            assert_eq!(change(&b, 4, 1, SHARE), ffi::SQLITE_BUSY, "still there");
            assert_eq!(change(&a, offset, n, flags), ffi::SQLITE_OK);
            let own = (offset, flags) == (4, TAKE);
            assert_eq!(change(&b, 4, 1, SHARE) == ffi::SQLITE_BUSY, own, "{offset} {flags}");
        }
        // With other locks, as in a checkpoint, nothing says what comes next.
        let kernel = Kernel::default();
        let [a, _] = two(&kernel);
        assert_eq!((change(&a, 1, 1, TAKE), change(&a, 4, 1, TAKE), change(&a, 4, 1, DROP)), (0, 0, 0));
        assert_eq!(kernel.0.borrow()[0], [0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_held_or_not_held_already_costs_no_call() {
        let kernel = Kernel::default();
        let [a, _] = two(&kernel);
        change(&a, 3, 1, SHARE);
        kernel.1.set(0);
        assert_eq!((change(&a, 3, 1, SHARE), change(&a, 4, 1, DROP)), (0, 0));
        assert_eq!(kernel.1.get(), 0);
        assert_eq!(change(&a, 8, 1, SHARE), ffi::SQLITE_IOERR_SHMLOCK);
    }

    #[test]
    fn a_checkpoint_copies_nothing_if_the_log_was_begun_anew_since_it_read_the_header() {
        let kernel = Kernel::default();
        let [(locks, bytes), _] = two(&kernel);
        let at = |salt, offset, flags| locks.change(&bytes, offset, 1, flags, || Some([salt, 0]));
        assert_eq!((at(1, 1, TAKE), at(2, 3, TAKE)), (ffi::SQLITE_OK, ffi::SQLITE_BUSY));
        assert_eq!(kernel.0.borrow()[0], [0, 2, 0, 0, 0, 0, 0, 0, 0]);
        // A checkpoint that keeps writers out reads it after it has done so.
        assert_eq!((at(2, 0, TAKE), at(2, 3, TAKE)), (ffi::SQLITE_OK, ffi::SQLITE_OK));
        assert_eq!((at(2, 3, DROP), at(3, 3, TAKE)), (ffi::SQLITE_OK, ffi::SQLITE_BUSY));
        // One that has made the index itself knows.
        assert_eq!((at(3, 2, TAKE), at(4, 2, DROP), at(4, 3, TAKE)), (0, 0, 0));
        // One that is alone has not been overtaken.
        at(4, 3, DROP);
        assert_eq!(locks.change(&bytes, 3, 1, TAKE, || None), ffi::SQLITE_OK);
    }
}
