//! A log folded into what it says about each page, the last transaction, the last checkpoint and the WAL.
//!
//! Invariant: what is *expected* of a page follows from an unbroken chain of records. It is forgotten wherever a writer
//! that is not in the log may have come in between: where the change counter jumps, where the file is not as it was left, where a
//! record's old image is not the one before, where a transaction has no end, where the host was restarted, and where the journal mode changed.
//! Images that are merely *known* are never forgotten.

mod fold;
mod transaction;

pub use transaction::{PageOf, Transaction};

use super::log::{Boot, End, Generation, Halted, Header, HeaderError, Reader, Time, Witness};
use super::sums;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where the sums of an image stand in [`Folded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    at: usize,
    /// The record that brought it.
    pub sequence: u64,
}

/// The last generation of the WAL with commits that are not in the database file, as far as the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingWal {
    /// Which.
    pub generation: Generation,
    /// Whether the header of the WAL is known to be on disk.
    pub wal_synced: bool,
    /// Change counter of page 1 in the database file.
    pub counter: u32,
    /// Committed frames that were visible.
    pub frames: u64,
    /// See [`super::log::Pending::page1_frame`].
    pub page1_frame: u64,
    /// The database file before these commits.
    pub witness: Witness,
    /// Page 1 in the database file before these commits.
    pub page1: Option<Image>,
    /// Whether a sync failed since, so that SQLite may have taken a commit back.
    pub halted: bool,
}

/// The last checkpoint that put a whole generation into the database file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which generation.
    pub generation: Generation,
    /// The database file after its writes.
    pub witness: Witness,
    /// Change counter of page 1 then.
    pub counter: u32,
    /// What its pages are expected to hold.
    pub expected: BTreeMap<u32, Image>,
}

/// What a log says.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The header of the log.
    pub header: Header,
    /// Why the log ends where it does.
    pub end: End,
    /// Bytes of the log that were read: where a writer goes on.
    pub length: usize,
    /// Number of the last record; 0 if there is none.
    pub last_sequence: u64,
    /// The last transaction in rollback mode, unless the database was in WAL mode later.
    pub transaction: Option<Transaction>,
    /// What pages are expected to hold after the finished transactions.
    pub expected: BTreeMap<u32, Image>,
    /// The WAL that must not be missing.
    pub pending: Option<PendingWal>,
    /// The last complete checkpoint, unless there were transactions in rollback mode later.
    pub checkpoint: Option<Checkpoint>,
    /// Frames known to be on disk, by salts.
    pub synced: HashMap<[u32; 2], u64>,
    /// Failed syncs that nobody has lifted.
    pub halts: Vec<Halted>,
    /// The last alarm that nobody has lifted.
    pub alarm: Option<String>,
    /// The last sight of the database file.
    pub witness: Option<Witness>,
    /// All times of change at which the database file was seen.
    pub times: BTreeSet<Time>,
    /// All change counters that were seen.
    pub counters: BTreeSet<u32>,
    /// The last boot id that was seen.
    pub boot: Boot,
    chains: BTreeMap<u32, Vec<Image>>,
    sums: Vec<u32>,
    partial: Option<(Generation, BTreeMap<u32, Image>)>,
}

impl Folded {
    /// Reads a whole log.
    ///
    /// # Errors
    /// [`HeaderError`], which is never a reason for an alarm.
    pub fn read(log: &[u8]) -> Result<Folded, HeaderError> {
        let mut reader = Reader::new(log)?;
        let mut folded = Folded::new(*reader.header());
        for logged in reader.by_ref() {
            folded.add(&logged);
        }
        folded.end = reader.end().unwrap_or(End::EndOfFile);
        folded.length = reader.read();
        Ok(folded)
    }

    /// What a log without records says.
    #[must_use]
    pub fn new(header: Header) -> Folded {
        Folded {
            header,
            end: End::EndOfFile,
            length: super::log::HEADER_SIZE,
            last_sequence: 0,
            transaction: None,
            expected: BTreeMap::new(),
            pending: None,
            checkpoint: None,
            synced: HashMap::new(),
            halts: Vec::new(),
            alarm: None,
            witness: None,
            times: BTreeSet::new(),
            counters: BTreeSet::new(),
            boot: header.boot,
            chains: BTreeMap::new(),
            sums: Vec::new(),
            partial: None,
        }
    }

    /// The sums of an image.
    #[must_use]
    pub fn sums_of(&self, image: Image) -> &[u32] {
        self.sums.get(image.at..image.at + sums::sectors(self.header.page_size)).unwrap_or_default()
    }

    /// The known images of a page in the order in which they were written; equal neighbours are one.
    #[must_use]
    pub fn chain(&self, page: u32) -> &[Image] {
        self.chains.get(&page).map(Vec::as_slice).unwrap_or_default()
    }

    /// The pages of which images are known.
    pub fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.chains.keys().copied()
    }

    /// Whether two images are the same.
    #[must_use]
    pub fn same(&self, a: Image, b: Image) -> bool {
        self.sums_of(a) == self.sums_of(b)
    }

    /// Adds an image to the chain of a page, or finds it as the chain's last.
    fn know(&mut self, page: u32, image: &[u32], sequence: u64) -> Image {
        if let Some(last) = self.chains.get(&page).and_then(|chain| chain.last()) {
            if self.sums_of(*last) == image {
                return *last;
            }
        }
        let known = Image { at: self.sums.len(), sequence };
        self.sums.extend_from_slice(image);
        self.chains.entry(page).or_default().push(known);
        known
    }
}
