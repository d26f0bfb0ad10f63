//! The guard's record while the database is open: what is added to it, and when it begins anew.
//!
//! Invariant: a record is in the file before the write that it tells about, and what says that something is over is synced
//! before that something can vanish. Whatever goes wrong with the record itself never fails a write, unless the user asked
//! for `strict`: then what cannot be recorded is not written.

use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;

use super::log::{
    Body, Boot, Checkpointed, Done, Encoder, End, Generation, Halted, Header, HeaderError, Pending, Reader, Record,
    Time, WalSynced, Which, Written,
};
use super::store::{Company, Store};
use crate::options::GuardChoice;

/// A record that has grown beyond this begins anew.
const LARGE: u64 = 256 * 1024;

/// A record that has grown beyond this is given up.
const TOO_LARGE: u64 = 256 * 1024 * 1024;

/// The page size of a record that begins before the database has one.
const ANY_PAGE_SIZE: u32 = 4096;

/// What somebody has left.
pub(crate) struct Left {
    pub(crate) bytes: Vec<u8>,
    pub(crate) changed: Option<Time>,
    pub(crate) company: Company,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    On,
    Strict,
}

/// How much care a record takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Care {
    /// Other processes may add at the same moment: there is no lock of the database's that keeps them out.
    turn: bool,
    /// It is synced before anything else happens.
    durable: bool,
}

/// The record of one database, for all connections of this process.
pub(crate) struct Keeper {
    mode: Mode,
    store: Box<dyn Store>,
    /// Asked for when something is recorded.
    boot: fn() -> Boot,
    header: Option<Header>,
    /// Where the record ends as far as this process knows; 0: it has to begin.
    end: u64,
    sequence: u64,
    buffer: Vec<u8>,
    /// The generation whose commits are not in the database yet.
    pending: Option<Pending>,
    /// The frames of a generation that are known to be on disk.
    synced: Option<WalSynced>,
    /// When it was recorded, if the record is to be made once more.
    unsettled: Option<Instant>,
    /// A halt that is in the record and was not lifted.
    halt: Option<Halted>,
    /// This process has halted.
    halted: bool,
    alarmed: Option<String>,
    /// Why no record is kept any more.
    broken: Option<i32>,
}

impl Keeper {
    pub(crate) fn new(choice: GuardChoice, boot: fn() -> Boot, store: Box<dyn Store>) -> Keeper {
        let mode = match choice {
            GuardChoice::Off => Mode::Off,
            GuardChoice::Auto | GuardChoice::On => Mode::On,
            GuardChoice::Strict => Mode::Strict,
        };
        Keeper {
            mode,
            store,
            boot,
            header: None,
            end: 0,
            sequence: 0,
            buffer: Vec::new(),
            pending: None,
            synced: None,
            unsettled: None,
            halt: None,
            halted: false,
            alarmed: None,
            broken: None,
        }
    }

    /// Whether pages are recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.mode != Mode::Off
    }

    /// Whether nothing may be written that is not in the record.
    pub(crate) fn is_strict(&self) -> bool {
        self.mode == Mode::Strict
    }

    /// In one word, or why not.
    pub(crate) fn describe(&self) -> String {
        let mode = match self.mode {
            Mode::Off => "off",
            Mode::On => "on",
            Mode::Strict => "strict",
        };
        match self.broken {
            Some(code) => format!("{mode}, but its record cannot be kept (code {code})"),
            None => mode.to_owned(),
        }
    }

    /// Pages of a rollback transaction that are about to be written.
    ///
    /// # Errors
    /// The code of what went wrong, if nothing may be written without a record, as for all that follow.
    pub(crate) fn written(&mut self, page_size: u32, written: &Written) -> Result<(), i32> {
        self.add(Care { turn: false, durable: self.is_strict() }, page_size, written)
    }

    /// The journal of the transaction is gone.
    pub(crate) fn done(&mut self, done: &Done) {
        let _ = self.add(Care { turn: false, durable: self.is_strict() }, 0, done);
    }

    /// The generation that has commits which are not in the database, as far as this process knows.
    pub(crate) fn pending_salts(&self) -> Option<[u32; 2]> {
        self.pending.as_ref().map(|pending| pending.generation.salts)
    }

    /// Whether the generation is recorded, and the record need not be made better: one that was made too soon after the last
    /// change of the database cannot tell a later change from it, and one without the first commit of page 1 (`page_1`)
    /// cannot tell that it is missing.
    pub(crate) fn has_recorded(&self, salts: [u32; 2], page_1: bool) -> bool {
        let soon = |since: &Instant| since.elapsed() < Duration::from_millis(25);
        match &self.pending {
            // What was carried over from before a restart of the host is made once more.
            Some(pending) if pending.witness.boot != (self.boot)() => false,
            Some(pending) if pending.generation.salts == salts && (pending.page1_frame > 0 || !page_1) => {
                pending.witness.settled || pending.witness.changed.is_none() || self.unsettled.as_ref().is_none_or(soon)
            }
            _ => false,
        }
    }

    /// The first commit of a WAL generation, or the first after a checkpoint of all before it, has been made.
    pub(crate) fn pending(&mut self, page_size: u32, pending: Pending) -> Result<(), i32> {
        // Without it a power cut leaves no proof that a checkpoint was lost: nothing else tells that nobody wrote after it.
        let durable = self.is_strict() || pending.witness.settled;
        let added = self.add(Care { turn: true, durable }, page_size, &pending);
        // Once more at most.
        self.unsettled = (!pending.witness.settled && self.unsettled.is_none()).then(Instant::now);
        self.pending = Some(pending);
        added
    }

    /// Pages of a checkpoint are written and about to be synced.
    pub(crate) fn checkpointed(&mut self, page_size: u32, checkpointed: &Checkpointed) -> Result<(), i32> {
        // Synced in any mode: what says that commits are pending must not outlive the log.
        let added = self.add(Care { turn: true, durable: true }, page_size, checkpointed);
        if checkpointed.complete && added.is_ok() {
            (self.pending, self.unsettled) = (None, None);
        }
        added
    }

    /// The log was synced.
    pub(crate) fn wal_synced(&mut self, synced: &WalSynced) {
        let _ = self.add(Care { turn: true, durable: false }, 0, synced);
        self.note_synced(synced.clone());
    }

    fn note_synced(&mut self, synced: WalSynced) {
        match &mut self.synced {
            Some(known) if known.salts == synced.salts => known.frames = known.frames.max(synced.frames),
            known => *known = Some(synced),
        }
    }

    /// A sync has failed for good: told to others in any mode.
    pub(crate) fn halted(&mut self, which: Which, code: i32, message: &str) {
        self.halted = true;
        let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
        let (code, message) = (code.unsigned_abs(), message.to_owned());
        self.tell(&Halted { which, code, boot: (self.boot)(), time, message });
    }

    /// Damage was found: others must not write either, until the user has decided.
    pub(crate) fn alarm(&mut self, text: &str) {
        self.alarmed = Some(text.to_owned());
        self.tell(&Record::Alarm(text.to_owned()));
    }

    fn tell(&mut self, body: &impl Body) {
        let mode = std::mem::replace(&mut self.mode, Mode::On);
        let _ = self.add(Care { turn: true, durable: true }, 0, body);
        self.mode = mode;
    }

    /// A halt that another process has recorded.
    pub(crate) fn halt_of_another(&self) -> Option<String> {
        let halt = self.halt.as_ref().filter(|_| !self.halted)?;
        Some(halt.message.clone())
    }

    /// An alarm that is in the record.
    pub(crate) fn alarmed(&self) -> Option<&str> {
        self.alarmed.as_deref()
    }

    fn add(&mut self, care: Care, page_size: u32, body: &impl Body) -> Result<(), i32> {
        if self.mode == Mode::Off {
            return Ok(());
        }
        if self.broken.is_none() {
            match self.try_add(care, page_size, body) {
                // Somebody judges it or closes it: only this record is missing.
                Err(ffi::SQLITE_BUSY) => return if self.is_strict() { Err(ffi::SQLITE_BUSY) } else { Ok(()) },
                added => self.broken = added.err(),
            }
            if self.broken.is_some() {
                // A record with a gap would tell less than the truth.
                self.forget();
            }
        }
        match self.broken {
            Some(code) if self.is_strict() => Err(code),
            _ => Ok(()),
        }
    }

    fn try_add(&mut self, care: Care, page_size: u32, body: &impl Body) -> Result<(), i32> {
        self.open_patiently()?;
        if care.turn && !self.take_turn() {
            // Two at once would write over each other.
            return Err(ffi::SQLITE_BUSY);
        }
        let added = self.catch_up().and_then(|()| self.put(care, page_size, body));
        if care.turn {
            self.store.welcome();
        }
        added
    }

    /// Empties the record or takes it away, unless it is of a later version.
    fn forget(&mut self) {
        let ours = self.broken != Some(ffi::SQLITE_NOTADB) && matches!(self.store.open(false), Ok(true));
        if ours && self.store.company() != Company::Others {
            if self.store.truncate().is_err() {
                self.store.remove();
            }
            self.end = 0;
            self.store.welcome();
        }
    }

    /// Whoever is alone with it keeps others out for a moment.
    fn open_patiently(&mut self) -> Result<(), i32> {
        for _ in 0..1000 {
            match self.store.open(true) {
                Err(ffi::SQLITE_BUSY) => std::thread::yield_now(),
                opened => return opened.map(|_| ()),
            }
        }
        Err(ffi::SQLITE_BUSY)
    }

    /// Another process keeps its turn for the length of one write and sync.
    fn take_turn(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(10);
        let began = Instant::now();
        let mut tries = 0_u32;
        while !self.store.turn() {
            tries += 1;
            if tries < 1000 {
                std::thread::yield_now();
            } else if began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            } else {
                return false;
            }
        }
        true
    }

    fn put(&mut self, care: Care, page_size: u32, body: &impl Body) -> Result<(), i32> {
        let other_size = self.header.is_some_and(|header| page_size != 0 && header.page_size != page_size);
        if self.end > LARGE || other_size {
            // Nobody else adds now: the database's lock or the turn keeps them out. They follow when they see that it has
            // shrunk.
            self.begin_anew()?;
        }
        if self.end > TOO_LARGE {
            return Err(ffi::SQLITE_TOOBIG);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let header = match self.header {
            Some(header) if self.end > 0 => header,
            _ => self.first(page_size, &mut buffer),
        };
        let mut encoder = Encoder::after(&header, self.sequence);
        let sequence = encoder.append(&mut buffer, care.durable, body).map_err(|_| ffi::SQLITE_TOOBIG)?;
        self.store.write(self.end, &buffer)?;
        self.sequence = sequence;
        self.end += buffer.len() as u64;
        self.buffer = buffer;
        if care.durable { self.store.sync() } else { Ok(()) }
    }

    /// The header, and what is still true of the record before.
    fn first(&mut self, page_size: u32, buffer: &mut Vec<u8>) -> Header {
        let page_size = if page_size == 0 { ANY_PAGE_SIZE } else { page_size };
        let header = Header { page_size, boot: (self.boot)(), epoch: new_epoch() };
        buffer.extend(header.encode());
        self.header = Some(header);
        self.sequence = 0;
        let mut encoder = Encoder::new(&header);
        let pending = self.pending.as_ref().map(|pending| encoder.append(buffer, false, pending));
        let synced = self.synced.as_ref().map(|synced| encoder.append(buffer, false, synced));
        for sequence in [pending, synced].into_iter().flatten().flatten() {
            self.sequence = sequence;
        }
        header
    }

    fn begin_anew(&mut self) -> Result<(), i32> {
        self.store.truncate()?;
        self.end = 0;
        self.sequence = 0;
        self.header = None;
        Ok(())
    }

    /// Looks for what others have added.
    pub(crate) fn look(&mut self) {
        if matches!(self.store.open(false), Ok(true)) {
            let _ = self.catch_up();
        }
    }

    /// Reads what others have added.
    fn catch_up(&mut self) -> Result<(), i32> {
        let size = self.store.size()?;
        if size == self.end {
            return Ok(());
        }
        let bytes = self.read(size)?;
        let mut reader = match Reader::new(&bytes) {
            Ok(reader) => reader,
            Err(HeaderError::Newer { .. }) => return Err(ffi::SQLITE_NOTADB),
            // Torn at its very start, or not a record at all: it is written over.
            Err(_) => return self.begin_anew(),
        };
        self.header = Some(*reader.header());
        (self.pending, self.synced, self.halt) = (None, None, None);
        for logged in reader.by_ref() {
            match logged.record {
                Record::Pending(pending) => self.pending = Some(pending),
                Record::Checkpointed(checkpointed) if checkpointed.complete => self.pending = None,
                Record::WalSynced(synced) => self.note_synced(synced),
                Record::Halted(halted) => self.halt = Some(halted),
                Record::Alarm(text) => self.alarmed = Some(text),
                Record::Resumed => (self.halt, self.alarmed) = (None, None),
                _ => {}
            }
        }
        if matches!(reader.end(), Some(End::NotUnderstood { .. })) {
            return Err(ffi::SQLITE_NOTADB);
        }
        self.end = reader.read() as u64;
        self.sequence = reader.last_sequence();
        Ok(())
    }

    fn read(&self, size: u64) -> Result<Vec<u8>, i32> {
        let mut bytes = Vec::new();
        let length = usize::try_from(size.min(TOO_LARGE)).map_err(|_| ffi::SQLITE_TOOBIG)?;
        bytes.try_reserve_exact(length).map_err(|_| ffi::SQLITE_NOMEM)?;
        bytes.resize(length, 0);
        self.store.read(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The record that somebody has left, and who else has it open. Alone, it stays locked until [`Keeper::judged`].
    ///
    /// # Errors
    /// SQLITE_BUSY while somebody else is judging it; the code of a record that cannot be read.
    pub(crate) fn left(&mut self) -> Result<Option<Left>, i32> {
        if !self.store.open(false)? {
            return Ok(None);
        }
        let changed = self.store.changed();
        let company = self.store.judge()?;
        let read = self.store.size().and_then(|size| self.read(size));
        let followed = self.catch_up();
        match (read, followed) {
            (Ok(bytes), Ok(())) => Ok(Some(Left { bytes, changed, company })),
            (Err(code), _) | (_, Err(code)) => {
                self.broken = Some(code);
                self.store.judged();
                self.store.welcome();
                Err(code)
            }
        }
    }

    /// What was left has been judged. If nothing speaks against it the record begins anew, with what is known of the
    /// generation whose log is there.
    pub(crate) fn judged(&mut self, company: Company, there: Option<Generation>) {
        let clean = self.alarmed.is_none() && self.halt.is_none();
        if clean && company != Company::Others {
            self.pending = self.pending.take().filter(|pending| Some(pending.generation) == there);
            self.synced = self.synced.take().filter(|_| self.pending.is_some());
            let page_size = self.header.map_or(0, |header| header.page_size);
            if self.begin_anew().is_ok() && self.pending.is_some() {
                let _ = self.carry_over(page_size);
            }
        }
        self.store.judged();
        if company == Company::Alone {
            self.store.welcome();
        }
    }

    fn carry_over(&mut self, page_size: u32) -> Result<(), i32> {
        let mut buffer = Vec::new();
        self.first(page_size, &mut buffer);
        self.store.write(0, &buffer)?;
        self.end = buffer.len() as u64;
        self.store.sync()
    }

    /// A halt was lifted: the database was opened by somebody alone, and what the failed sync concerned is on disk now.
    pub(crate) fn resumed(&mut self) {
        self.tell(&Record::Resumed);
        // After it was added, since adding may have read the record once more.
        (self.halt, self.halted, self.alarmed) = (None, false, None);
    }

    /// The process closes the database.
    pub(crate) fn close(&mut self) {
        self.look();
        let over = self.alarmed.is_none() && self.halt.is_none() && !self.halted && self.pending.is_none();
        // It is removed where it is empty, too.
        if over && matches!(self.store.open(false), Ok(true)) && self.store.company() == Company::Alone {
            self.store.remove();
        }
        self.store.close();
    }
}

/// Tells one record from the one before it in the same file.
fn new_epoch() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Each state of the standard library's is seeded by the system's randomness.
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
