//! Writing records. Invariant: what [`Encoder::append`] adds is one whole record or nothing.

use super::{
    Boot, Checkpointed, DURABLE, Done, Generation, HEADER_SIZE, Halted, Header, MAGIC, MAX_ALARM, MAX_MESSAGE,
    MAX_RECORD, Outcome, Pages, Pending, RECORD_HEADER, Record, VERSION, WalSynced, Which, Witness, Written, kind,
};
use std::fmt;

impl Header {
    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = Vec::with_capacity(HEADER_SIZE);
        out.extend(MAGIC);
        out.extend(VERSION.to_be_bytes());
        out.extend(self.page_size.to_be_bytes());
        out.extend(self.boot);
        out.extend(self.epoch.to_be_bytes());
        out.resize(HEADER_SIZE - 4, 0);
        out.extend(crc32c::crc32c(&out).to_be_bytes());
        let mut header = [0; HEADER_SIZE];
        for (byte, written) in header.iter_mut().zip(out) {
            *byte = written;
        }
        header
    }
}

/// What the body of a record is made of.
pub trait Body {
    /// The number of its kind.
    fn kind(&self) -> u16;
    /// Appends its bytes.
    fn encode(&self, out: &mut Vec<u8>);
}

/// The record would be longer than [`MAX_RECORD`]: its pages have to be spread over several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record of more than {MAX_RECORD} bytes")
    }
}

impl std::error::Error for TooLong {}

/// Numbers and encodes the records of one log.
#[derive(Clone, Debug)]
pub struct Encoder {
    epoch: u64,
    next: u64,
}

impl Encoder {
    /// For a log that has only its header so far.
    #[must_use]
    pub fn new(header: &Header) -> Encoder {
        Encoder { epoch: header.epoch, next: 1 }
    }

    /// For a log whose last record has the sequence number `last`; 0 if there is none.
    #[must_use]
    pub fn after(header: &Header, last: u64) -> Encoder {
        Encoder { epoch: header.epoch, next: last.wrapping_add(1) }
    }

    /// The sequence number of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Appends one record to `out` and answers its sequence number. `durable` is a promise: the log will be synced after
    /// this record and before anything that it announces is written.
    ///
    /// # Errors
    /// [`TooLong`]; then `out` and the numbering are as before.
    pub fn append(&mut self, out: &mut Vec<u8>, durable: bool, body: &impl Body) -> Result<u64, TooLong> {
        let start = out.len();
        out.extend([0; 4]);
        out.extend(body.kind().to_be_bytes());
        out.extend(if durable { DURABLE } else { 0 }.to_be_bytes());
        out.extend(self.next.to_be_bytes());
        out.extend(low(self.epoch).to_be_bytes());
        debug_assert_eq!(out.len() - start, RECORD_HEADER);
        body.encode(out);
        let len = (out.len() - start + 4).next_multiple_of(8);
        if len > MAX_RECORD {
            out.truncate(start);
            return Err(TooLong);
        }
        out.resize(start + len - 4, 0);
        let (_, record) = out.split_at_mut(start);
        for (byte, length) in record.iter_mut().zip(u32::try_from(len).unwrap_or(0).to_be_bytes()) {
            *byte = length;
        }
        let sum = crc32c::crc32c(record);
        out.extend(sum.to_be_bytes());
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        Ok(sequence)
    }
}

/// The part of an epoch that every record repeats.
pub(super) fn low(epoch: u64) -> u32 {
    (epoch & u64::from(u32::MAX)) as u32
}

#[inline]
fn put(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_witness(out: &mut Vec<u8>, witness: &Witness) {
    put_boot(out, &witness.boot);
    let time = witness.changed;
    out.extend(time.map_or(0, |time| time.seconds).to_be_bytes());
    put(out, time.map_or(0, |time| time.nanoseconds));
    put(out, time.map_or(0, |_| 1 + u32::from(witness.settled)));
    put64(out, witness.file_size);
}

fn put_boot(out: &mut Vec<u8>, boot: &Boot) {
    out.extend(boot);
}

fn put_generation(out: &mut Vec<u8>, generation: &Generation) {
    put(out, generation.salts[0]);
    put(out, generation.salts[1]);
    put(out, generation.sequence);
}

fn put_pages(out: &mut Vec<u8>, pages: &Pages) {
    put(out, u32::try_from(pages.len()).unwrap_or(u32::MAX));
    for entry in pages.iter() {
        put(out, entry.page);
        let flags = [entry.old.is_some(), entry.new.is_some(), entry.journaled];
        put(out, flags.iter().enumerate().map(|(bit, set)| u32::from(*set) << bit).sum());
        for sums in [entry.old, entry.new].into_iter().flatten() {
            let start = out.len();
            out.resize(start + 4 * sums.len(), 0);
            let (_, room) = out.split_at_mut(start);
            for (room, sum) in room.chunks_exact_mut(4).zip(sums) {
                room.copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
}

/// A text with its length, cut at a character to at most `max` bytes.
fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let text = text.get(..end).unwrap_or_default();
    put(out, u32::try_from(text.len()).unwrap_or(0));
    out.extend(text.as_bytes());
}

impl Body for Written {
    fn kind(&self) -> u16 {
        kind::WRITTEN
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_witness(out, &self.before);
        put(out, self.nonce);
        put(out, self.initial_pages);
        put(out, self.counter_before);
        put(out, self.counter_after);
        put(out, u32::from(self.exclusive));
        put_pages(out, &self.pages);
    }
}

impl Body for Done {
    fn kind(&self) -> u16 {
        kind::DONE
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.nonce);
        put(out, u32::from(self.outcome == Outcome::RolledBack));
        put_witness(out, &self.witness);
    }
}

impl Body for Pending {
    fn kind(&self) -> u16 {
        kind::PENDING
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_generation(out, &self.generation);
        put(out, u32::from(self.wal_synced));
        put(out, self.counter);
        put64(out, self.frames);
        put64(out, self.page1_frame);
        put_witness(out, &self.witness);
        put_pages(out, &self.page1);
    }
}

impl Body for Checkpointed {
    fn kind(&self) -> u16 {
        kind::CHECKPOINTED
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_generation(out, &self.generation);
        put(out, u32::from(self.complete));
        put_witness(out, &self.before);
        put_witness(out, &self.witness);
        put(out, self.counter);
        put_pages(out, &self.pages);
    }
}

impl Body for WalSynced {
    fn kind(&self) -> u16 {
        kind::WAL_SYNCED
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.salts[0]);
        put(out, self.salts[1]);
        put64(out, self.frames);
    }
}

impl Body for Halted {
    fn kind(&self) -> u16 {
        kind::HALTED
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put(
            out,
            match self.which {
                Which::Database => 0,
                Which::Journal => 1,
                Which::Wal => 2,
                Which::Directory => 3,
                Which::Other(number) => number,
            },
        );
        put(out, self.code);
        put_boot(out, &self.boot);
        put64(out, self.time);
        put_text(out, &self.message, MAX_MESSAGE);
    }
}

impl Body for Record {
    fn kind(&self) -> u16 {
        match self {
            Record::Written(body) => body.kind(),
            Record::Done(body) => body.kind(),
            Record::Pending(body) => body.kind(),
            Record::Checkpointed(body) => body.kind(),
            Record::WalSynced(body) => body.kind(),
            Record::Halted(body) => body.kind(),
            Record::Resumed => kind::RESUMED,
            Record::Alarm(_) => kind::ALARM,
            Record::Unknown(kind) => *kind,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Written(body) => body.encode(out),
            Record::Done(body) => body.encode(out),
            Record::Pending(body) => body.encode(out),
            Record::Checkpointed(body) => body.encode(out),
            Record::WalSynced(body) => body.encode(out),
            Record::Halted(body) => body.encode(out),
            Record::Resumed | Record::Unknown(_) => {}
            Record::Alarm(text) => put_text(out, text, MAX_ALARM),
        }
    }
}
