//! The pages that pass between SQLite and one open database file.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::transaction::Transaction;
use super::{header, sum};
use crate::main_file::MainFile;
use crate::notice;
use crate::options::ChecksumChoice;
use crate::shim::below::Below;

/// Where a checkpoint stands. Within one the WAL hands page 1 over first, if the header has changed at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checkpoint {
    None,
    /// What is known of the header may be older than what another process has written.
    Begun,
    HeaderKnown,
}

/// The sums of one open database file. SQLite calls a file from one thread at a time.
pub(crate) struct Pages {
    /// The page size if the pages have sums, else 0.
    size: Cell<u32>,
    verify: Cell<bool>,
    checkpoint: Cell<Checkpoint>,
    transaction: RefCell<Transaction>,
    /// One page.
    buffer: RefCell<Vec<u8>>,
    /// Of the last wrong page that was told.
    told: Cell<i64>,
}

impl Pages {
    pub(crate) fn new(choice: ChecksumChoice) -> Pages {
        Pages {
            size: Cell::new(0),
            verify: Cell::new(choice != ChecksumChoice::Off),
            checkpoint: Cell::new(Checkpoint::None),
            transaction: RefCell::default(),
            buffer: RefCell::default(),
            told: Cell::new(-1),
        }
    }

    /// Whether the database has sums, by the last header that was seen.
    #[inline]
    pub(crate) fn sealed(&self) -> bool {
        self.size.get() != 0
    }

    /// Whether wrong sums are errors now.
    pub(crate) fn verifies(&self) -> bool {
        self.sealed() && self.verify.get()
    }

    pub(crate) fn set_verify(&self, on: bool) {
        self.verify.set(on);
    }

    /// SQLite has read `page` at `at`, with this result code.
    #[inline]
    pub(crate) fn read(&self, base: &Below<'_>, main: &MainFile, code: c_int, page: &[u8], at: i64) -> c_int {
        if (at != 0 && self.size.get() == 0) || code != ffi::SQLITE_OK {
            return code;
        }
        self.check(base, main, page, at)
    }

    fn check(&self, base: &Below<'_>, main: &MainFile, page: &[u8], at: i64) -> c_int {
        if at == 0 && page.len() >= 100 {
            self.size.set(header::sealed_size(page).unwrap_or(0));
            if self.size.get() == 0 && page.len() >= 512 && self.verify.get() && header::lost_its_mark(page) {
                return self.wrong(main, 0);
            }
        }
        let size = i64::from(self.size.get());
        if size == 0 || !self.verify.get() || self.transaction.borrow().unsettled {
            return ffi::SQLITE_OK;
        }
        if page.len() as i64 == size && at % size == 0 {
            if sum::holds(page) { ffi::SQLITE_OK } else { self.doubt(base, main, at) }
        } else if at < 100 || page.len() as i64 > size {
            // Fields of the header; or page 1 with the page size that the database had when it was opened.
            ffi::SQLITE_OK
        } else {
            self.check_around(base, main, at, page.len() as i64)
        }
    }

    /// SQLite has read a part of a page, of which alone nothing can be said.
    fn check_around(&self, base: &Below<'_>, main: &MainFile, at: i64, n: i64) -> c_int {
        let size = i64::from(self.size.get());
        let mut start = at - at % size;
        while start < at + n {
            match self.whole(base, start) {
                Err(ffi::SQLITE_IOERR_SHORT_READ) | Ok(true) => {}
                Ok(false) => return self.doubt(base, main, start),
                Err(code) => return code,
            }
            start += size;
        }
        ffi::SQLITE_OK
    }

    /// Reads a page into the buffer; whether its sum holds.
    fn whole(&self, base: &Below<'_>, at: i64) -> Result<bool, c_int> {
        self.with_buffer(|page| match base.read_into(page, at) {
            ffi::SQLITE_OK => Ok(sum::holds(page)),
            code => Err(code),
        })?
    }

    fn with_buffer<T>(&self, body: impl FnOnce(&mut [u8]) -> T) -> Result<T, c_int> {
        let mut buffer = self.buffer.borrow_mut();
        let size = self.size.get() as usize;
        if buffer.len() < size {
            let more = size - buffer.len();
            buffer.try_reserve_exact(more).map_err(|_| ffi::SQLITE_IOERR_NOMEM)?;
            buffer.resize(size, 0);
        }
        match buffer.get_mut(..size) {
            Some(page) => Ok(body(page)),
            None => Err(ffi::SQLITE_IOERR_NOMEM),
        }
    }

    /// A sum does not hold. In WAL mode page 1 may have come from the WAL, and sums been given up since the one in the
    /// database was last seen.
    fn doubt(&self, base: &Below<'_>, main: &MainFile, at: i64) -> c_int {
        let before = self.size.get();
        self.look(base);
        if self.size.get() != before {
            return ffi::SQLITE_OK;
        }
        self.wrong(main, at)
    }

    fn wrong(&self, main: &MainFile, at: i64) -> c_int {
        let number = at / i64::from(self.size.get()).max(1) + 1;
        let message = format!(
            "page {number} (at byte {at} of the file) does not have the content that was written: its checksum is wrong"
        );
        if self.told.replace(at) != at {
            notice::say(&main.speak, ffi::SQLITE_IOERR_DATA, &format!("{}: {message}", main.path.display()));
        }
        main.note(message);
        ffi::SQLITE_IOERR_DATA
    }

    /// Reads the header in the database file.
    fn look(&self, base: &Below<'_>) {
        let mut bytes = [0; 24];
        if base.read_into(&mut bytes, 0) == ffi::SQLITE_OK {
            self.size.set(header::sealed_size(&bytes).unwrap_or(0));
        }
    }

    /// Writes for SQLite.
    #[inline]
    pub(crate) fn write(&self, base: &Below<'_>, page: &[u8], at: i64) -> c_int {
        if at != 0 && self.size.get() == 0 && self.checkpoint.get() == Checkpoint::None {
            self.transaction.borrow_mut().bare = true;
            return base.write(page, at);
        }
        self.sealed_write(base, page, at).unwrap_or_else(|| base.write(page, at))
    }

    /// Writes a page with its sum, or leaves it to the caller to write it as it is.
    fn sealed_write(&self, base: &Below<'_>, page: &[u8], at: i64) -> Option<c_int> {
        let rollback = self.checkpoint.get() == Checkpoint::None;
        if at == 0 && page.len() >= 100 {
            if let Err(code) = self.page_one(base, page, rollback) {
                return Some(code);
            }
        } else if self.checkpoint.get() == Checkpoint::Begun {
            self.look(base);
        }
        if !rollback {
            self.checkpoint.set(Checkpoint::HeaderKnown);
        }
        let size = self.size.get() as usize;
        if size == 0 || page.len() != size || self.transaction.borrow().unsettled {
            if rollback && at != 0 {
                self.transaction.borrow_mut().bare = true;
            }
            return None;
        }
        let sum = sum::of(page);
        let stored = *page.last_chunk::<{ sum::SIZE }>()?;
        if stored == sum {
            return None;
        }
        if rollback {
            let end = at.saturating_add((size - sum::SIZE) as i64);
            self.transaction.borrow_mut().replace(end, stored);
        }
        let written = self.with_buffer(|copy| {
            copy.copy_from_slice(page);
            copy[size - sum::SIZE..].copy_from_slice(&sum);
            base.write(copy, at)
        });
        Some(written.unwrap_or_else(|code| code))
    }

    /// Page 1 is about to be written: from here on its header counts, also for the pages that came before it.
    fn page_one(&self, base: &Below<'_>, page: &[u8], rollback: bool) -> Result<(), c_int> {
        let (before, now) = (self.size.get(), header::sealed_size(page).unwrap_or(0));
        if before == now || !rollback {
            self.size.set(now);
            return Ok(());
        }
        let mut transaction = self.transaction.borrow_mut();
        // Refused before anything is changed: SQLite rolls back what it cannot finish.
        for replaced in transaction.take_replaced().ok_or(ffi::SQLITE_IOERR_WRITE)? {
            let code = base.write(&replaced.bytes, replaced.at);
            if code != ffi::SQLITE_OK {
                return Err(code);
            }
        }
        self.size.set(now);
        transaction.unsettled = now != 0 && (transaction.bare || before != 0 || page.len() != now as usize);
        Ok(())
    }

    /// Before the file is synced and the journal given up: gives every page its sum that was written without one.
    pub(crate) fn settle(&self, base: &Below<'_>) -> c_int {
        if !self.transaction.borrow().unsettled {
            return ffi::SQLITE_OK;
        }
        match self.settle_all(base) {
            Ok(()) => {
                self.transaction.borrow_mut().unsettled = false;
                ffi::SQLITE_OK
            }
            Err(code) => code,
        }
    }

    fn settle_all(&self, base: &Below<'_>) -> Result<(), c_int> {
        let (end, size) = (base.size()?, i64::from(self.size.get()));
        let mut at = 0;
        while size != 0 && at + size <= end {
            let code = self.with_buffer(|page| {
                let code = base.read_into(page, at);
                if code != ffi::SQLITE_OK || sum::holds(page) {
                    return code;
                }
                let sum = sum::of(page);
                base.write(&sum, at + size - sum::SIZE as i64)
            })?;
            if code != ffi::SQLITE_OK {
                return Err(code);
            }
            at += size;
        }
        Ok(())
    }

    pub(crate) fn cut(&self, size: i64) {
        self.transaction.borrow_mut().cut(size);
    }

    /// A lock was given back, down to `level`.
    pub(crate) fn unlocked(&self, level: c_int) {
        if level <= ffi::SQLITE_LOCK_SHARED {
            self.transaction.borrow_mut().end();
        }
    }

    /// A file control that tells where a transaction or a checkpoint stands.
    pub(crate) fn control(&self, base: &Below<'_>, op: c_int) -> c_int {
        match op {
            ffi::SQLITE_FCNTL_SYNC => return self.settle(base),
            ffi::SQLITE_FCNTL_COMMIT_PHASETWO => self.transaction.borrow_mut().end(),
            ffi::SQLITE_FCNTL_CKPT_START => self.checkpoint.set(Checkpoint::Begun),
            ffi::SQLITE_FCNTL_CKPT_DONE => self.checkpoint.set(Checkpoint::None),
            _ => {}
        }
        ffi::SQLITE_OK
    }

    /// Every page of the file whose sum is wrong, with the header that stands there now. Answers the page size, 0 without sums,
    /// and how many pages there are.
    pub(crate) fn scan(&self, base: &Below<'_>, bad: impl FnMut(i64)) -> Result<(i64, i64), c_int> {
        self.look(base);
        let sealed = self.size.get();
        if !self.sealed() {
            self.size.set(self.size_without_mark(base));
        }
        let (size, pages) = (i64::from(self.size.get()), self.scan_all(base, bad));
        self.size.set(sealed);
        Ok((size, pages?))
    }

    /// The page size of a database whose page 1 has lost its mark, else 0.
    fn size_without_mark(&self, base: &Below<'_>) -> u32 {
        let mut bytes = [0; 24];
        if base.read_into(&mut bytes, 0) != ffi::SQLITE_OK {
            return 0;
        }
        let Some(size) = header::size(&bytes) else { return 0 };
        self.size.set(size);
        let lost = self.with_buffer(|page| base.read_into(page, 0) == ffi::SQLITE_OK && header::lost_its_mark(page));
        if lost == Ok(true) { size } else { 0 }
    }

    fn scan_all(&self, base: &Below<'_>, mut bad: impl FnMut(i64)) -> Result<i64, c_int> {
        let (end, size) = (base.size()?, i64::from(self.size.get()));
        if size == 0 {
            return Ok(0);
        }
        for number in 0..end / size {
            // Read again: a checkpoint of another process may have been writing the page.
            let at = number * size;
            if !self.whole(base, at)? && !self.whole(base, at)? && !self.whole(base, at)? {
                bad(number + 1);
            }
        }
        Ok(end / size)
    }

    /// The number of reserved bytes that stands in the file; 0 if nothing can be read there.
    pub(crate) fn reserved(&self, base: &Below<'_>) -> u8 {
        let mut header = [0; 24];
        if base.read_into(&mut header, 0) == ffi::SQLITE_OK { header[20] } else { 0 }
    }
}
