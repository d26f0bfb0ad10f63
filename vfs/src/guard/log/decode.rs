//! Reading a log. Invariant: no bytes make it panic, and it ends at the first record that a writer of this log did not
//! write there whole.

use super::encode::low;
use super::{
    Boot, Checkpointed, DURABLE, Done, Entry, Generation, HEADER_SIZE, Halted, Header, HeaderError, MAGIC, MAX_ALARM,
    MAX_MESSAGE, MAX_RECORD, MIN_RECORD, MUST_UNDERSTAND, Outcome, Pages, Pending, RECORD_HEADER, Record, Time,
    VERSION, WalSynced, Which, Witness, Written, kind,
};
use crate::guard::sums;
use std::fmt;

impl Header {
    /// Reads the header from the first bytes of a log.
    ///
    /// # Errors
    /// [`HeaderError`], none of which is a reason for an alarm.
    pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        let start = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if !MAGIC.starts_with(start) {
            return Err(HeaderError::NotGuard);
        }
        let Some(bytes) = bytes.get(..HEADER_SIZE) else {
            return Err(HeaderError::Truncated { have: bytes.len() });
        };
        let mut fields = Fields(bytes.get(MAGIC.len()..).unwrap_or_default());
        let header = (fields.u32(), fields.u32(), fields.boot(), fields.u64());
        let (covered, mut sum) = (bytes.get(..HEADER_SIZE - 4).unwrap_or_default(), Fields(bytes));
        sum.take(HEADER_SIZE - 4);
        let (Some(version), Some(page_size), Some(boot), Some(epoch)) = header else {
            return Err(HeaderError::Senseless);
        };
        if sum.u32() != Some(crc32c::crc32c(covered)) {
            return Err(HeaderError::BadChecksum);
        }
        match version {
            0 => Err(HeaderError::Senseless),
            VERSION if page_size.is_power_of_two() && (512..=65536).contains(&page_size) => {
                Ok(Header { page_size, boot, epoch })
            }
            VERSION => Err(HeaderError::Senseless),
            version => Err(HeaderError::Newer { version }),
        }
    }
}

/// A record with what was written around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its number, from 1.
    pub sequence: u64,
    /// Whether the log was synced after it and before what it announces was written.
    pub durable: bool,
    /// What it says.
    pub record: Record,
}

/// Why a reader went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The file ends with the last record.
    EndOfFile,
    /// What follows is no whole record: the tail that a crash tore, or damage.
    Torn,
    /// What follows is left over from an older log in the same file.
    OtherEpoch,
    /// The next record has another number than the next. No writer leaves that.
    OutOfSequence,
    /// A whole record of a kind that must be understood and is not. The log must not be written to.
    NotUnderstood {
        /// The number of the kind.
        kind: u16,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::EndOfFile => f.write_str("the end of the file"),
            End::Torn => f.write_str("a record that is not whole"),
            End::OtherEpoch => f.write_str("a record of an older log"),
            End::OutOfSequence => f.write_str("a record out of sequence"),
            End::NotUnderstood { kind } => write!(f, "a record of kind {kind}, which a later version wrote"),
        }
    }
}

/// Reads the records of a log one after another.
///
/// ```
/// use hardened_vfs::guard::log::{Encoder, End, Header, Reader, Record};
///
/// let header = Header { page_size: 4096, boot: [7; 16], epoch: 1 };
/// let mut log = header.encode().to_vec();
/// Encoder::new(&header).append(&mut log, false, &Record::Resumed)?;
/// log.extend([0; 100]);
/// let mut reader = Reader::new(&log)?;
/// assert_eq!(reader.by_ref().map(|logged| logged.record).collect::<Vec<_>>(), [Record::Resumed]);
/// assert_eq!((reader.end(), reader.read()), (Some(End::Torn), log.len() - 100));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    header: Header,
    log: &'a [u8],
    read: usize,
    last: u64,
    end: Option<End>,
}

impl<'a> Reader<'a> {
    /// Reads the header; the records are read on demand.
    ///
    /// # Errors
    /// As [`Header::parse`].
    pub fn new(log: &'a [u8]) -> Result<Reader<'a>, HeaderError> {
        Ok(Reader { header: Header::parse(log)?, log, read: HEADER_SIZE, last: 0, end: None })
    }

    /// The header of the log.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes the header and the records read so far have: where a writer goes on.
    #[must_use]
    pub fn read(&self) -> usize {
        self.read
    }

    /// The number of the last record that was read, 0 before the first.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last
    }

    /// Why there is no further record, once there is none.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    fn step(&mut self) -> Result<Logged, End> {
        let rest = self.log.get(self.read..).unwrap_or_default();
        if rest.is_empty() {
            return Err(End::EndOfFile);
        }
        let (whole, covered) = bounded(rest).ok_or(End::Torn)?;
        let mut fields = Fields(covered);
        let start = (fields.u32(), fields.u16(), fields.u16(), fields.u64(), fields.u32());
        let (Some(_), Some(kind), Some(flags), Some(sequence), Some(epoch)) = start else { return Err(End::Torn) };
        if epoch != low(self.header.epoch) {
            return Err(End::OtherEpoch);
        }
        if sequence != self.last.wrapping_add(1) {
            return Err(End::OutOfSequence);
        }
        let record = match body(kind, &mut fields, sums::sectors(self.header.page_size)) {
            Known(Some(record)) => record,
            // The checksum is right, so a writer meant something else by this kind.
            Known(None) => return Err(End::NotUnderstood { kind }),
            Foreign if flags & MUST_UNDERSTAND != 0 => return Err(End::NotUnderstood { kind }),
            Foreign => Record::Unknown(kind),
        };
        self.read += whole;
        self.last = sequence;
        Ok(Logged { sequence, durable: flags & DURABLE != 0, record })
    }
}

impl Iterator for Reader<'_> {
    type Item = Logged;

    fn next(&mut self) -> Option<Logged> {
        if self.end.is_some() {
            return None;
        }
        self.step().map_err(|end| self.end = Some(end)).ok()
    }
}

/// The length of the record at the start of `rest` and the bytes before its checksum, if it is whole.
fn bounded(rest: &[u8]) -> Option<(usize, &[u8])> {
    let len = Fields(rest).u32()? as usize;
    if len % 8 != 0 || !(MIN_RECORD..=MAX_RECORD).contains(&len) || len < RECORD_HEADER + 4 {
        return None;
    }
    let (covered, sum) = rest.get(..len)?.split_at_checked(len - 4)?;
    (Fields(sum).u32()? == crc32c::crc32c(covered)).then_some((len, covered))
}

enum Parsed {
    /// A kind of this version; `None` if its body is not one.
    Known(Option<Record>),
    Foreign,
}
use Parsed::{Foreign, Known};

fn body(kind: u16, fields: &mut Fields<'_>, sectors: usize) -> Parsed {
    Known(match kind {
        kind::WRITTEN => fields.written(sectors).map(Record::Written),
        kind::DONE => fields.done().map(Record::Done),
        kind::PENDING => fields.pending(sectors).map(Record::Pending),
        kind::CHECKPOINTED => fields.checkpointed(sectors).map(Record::Checkpointed),
        kind::WAL_SYNCED => fields.wal_synced().map(Record::WalSynced),
        kind::HALTED => fields.halted().map(Record::Halted),
        kind::RESUMED => Some(Record::Resumed),
        kind::ALARM => fields.text(MAX_ALARM).map(Record::Alarm),
        _ => return Foreign,
    })
}

/// Bytes from which fields are taken in their order; `None` at the end. Bytes after the last field that is known are
/// left alone: a later writer may add fields there.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn boot(&mut self) -> Option<Boot> {
        self.array()
    }

    fn text(&mut self, max: usize) -> Option<String> {
        let len = self.u32()? as usize;
        let bytes = self.take(len).filter(|bytes| bytes.len() <= max)?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }

    fn witness(&mut self) -> Option<Witness> {
        let boot = self.boot()?;
        let time = Time { seconds: self.array().map(i64::from_be_bytes)?, nanoseconds: self.u32()? };
        let known = self.u32()?;
        Some(Witness {
            boot,
            changed: (1..=2).contains(&known).then_some(time),
            settled: known == 2,
            file_size: self.u64()?,
        })
    }

    fn generation(&mut self) -> Option<Generation> {
        Some(Generation { salts: [self.u32()?, self.u32()?], sequence: self.u32()? })
    }

    fn pages(&mut self, sectors: usize) -> Option<Pages> {
        let count = self.u32()?;
        let mut pages = Pages::new(u32::try_from(sectors * sums::SECTOR).ok()?);
        let mut images = Vec::with_capacity(2 * sectors);
        for _ in 0..count {
            let (page, flags) = (self.u32()?, self.u32()?);
            let (old, new) = (flags & 1 != 0, flags & 2 != 0);
            images.clear();
            for _ in 0..sectors * (usize::from(old) + usize::from(new)) {
                images.push(self.u32()?);
            }
            let (first, second) = images.split_at_checked(sectors).unwrap_or((&images, &[]));
            let (old, new) = match (old, new) {
                (true, true) => (Some(first), Some(second)),
                (true, false) => (Some(first), None),
                (false, true) => (None, Some(first)),
                (false, false) => (None, None),
            };
            pages.push(Entry { page, old, new, journaled: flags & 4 != 0 });
        }
        Some(pages)
    }

    fn written(&mut self, sectors: usize) -> Option<Written> {
        Some(Written {
            before: self.witness()?,
            nonce: self.u32()?,
            initial_pages: self.u32()?,
            counter_before: self.u32()?,
            counter_after: self.u32()?,
            exclusive: self.u32()? != 0,
            pages: self.pages(sectors)?,
        })
    }

    fn done(&mut self) -> Option<Done> {
        let nonce = self.u32()?;
        let outcome = match self.u32()? {
            0 => Outcome::Committed,
            1 => Outcome::RolledBack,
            _ => return None,
        };
        Some(Done { nonce, outcome, witness: self.witness()? })
    }

    fn pending(&mut self, sectors: usize) -> Option<Pending> {
        Some(Pending {
            generation: self.generation()?,
            wal_synced: self.u32()? != 0,
            counter: self.u32()?,
            frames: self.u64()?,
            page1_frame: self.u64()?,
            witness: self.witness()?,
            page1: self.pages(sectors)?,
        })
    }

    fn checkpointed(&mut self, sectors: usize) -> Option<Checkpointed> {
        Some(Checkpointed {
            generation: self.generation()?,
            complete: self.u32()? != 0,
            before: self.witness()?,
            witness: self.witness()?,
            counter: self.u32()?,
            pages: self.pages(sectors)?,
        })
    }

    fn wal_synced(&mut self) -> Option<WalSynced> {
        Some(WalSynced { salts: [self.u32()?, self.u32()?], frames: self.u64()? })
    }

    fn halted(&mut self) -> Option<Halted> {
        Some(Halted {
            which: match self.u32()? {
                0 => Which::Database,
                1 => Which::Journal,
                2 => Which::Wal,
                3 => Which::Directory,
                other => Which::Other(other),
            },
            code: self.u32()?,
            boot: self.boot()?,
            time: self.u64()?,
            message: self.text(MAX_MESSAGE)?,
        })
    }
}
