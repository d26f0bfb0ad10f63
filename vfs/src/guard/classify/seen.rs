//! What the caller found in the files.

use crate::guard::log::{Boot, Generation, Time};
use crate::guard::sums::Sums;
use std::collections::BTreeSet;

/// What the files are now.
///
/// It must be one moment: either no other connection can write meanwhile, or the caller looks at the time of change and
/// at the headers of journal and WAL before and after, and looks again if they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Page size of the database file.
    pub page_size: u32,
    /// Change counter in page 1; `None` if the file has no page 1.
    pub counter: Option<u32>,
    /// Size of the database in pages by page 1, if its version-valid-for number equals the change counter.
    pub page_count: Option<u32>,
    /// The rollback journal.
    pub journal: Journal,
    /// The WAL.
    pub wal: Wal,
    /// The boot id of this host.
    pub boot: Boot,
    /// Whether other hosts, or a server, may have lost what was written without this host being restarted.
    pub shared: bool,
    /// When the database file was last changed (ctime). `None` also where the filesystem may forget it, as with the
    /// mount option `lazytime`.
    pub changed: Option<Time>,
    /// When the log itself was last changed (ctime), looked at before anything is appended to it now.
    pub log_changed: Option<Time>,
    /// Look at every page the log names, even where nothing can have been lost.
    pub thorough: bool,
}

/// What a page of the database file is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageNow {
    /// Its sums.
    Image(Sums),
    /// The file ends before the page does.
    Beyond,
    /// It could not be read, and nothing is concluded from it.
    Unread,
}

/// The pages of the database file, read when they are asked for.
pub trait DatabasePages {
    /// The page with this number, from 1.
    fn page(&mut self, number: u32) -> PageNow;
}

impl<F: FnMut(u32) -> PageNow> DatabasePages for F {
    fn page(&mut self, number: u32) -> PageNow {
        self(number)
    }
}

/// The rollback journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Journal {
    /// There is none.
    Absent,
    /// It has no bytes.
    Empty,
    /// Its first byte is zero.
    Zeroed,
    /// It is no journal; SQLite would delete it.
    Garbage,
    /// It could not be read, and nothing is concluded.
    Unread,
    /// SQLite would roll it back, or delete it if its super-journal is missing.
    Hot(HotJournal),
}

/// A journal that SQLite would act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotJournal {
    /// The nonce in its first header.
    pub nonce: u32,
    /// Size of the database in pages that rolling back restores.
    pub initial_pages: u32,
    /// The pages that rolling back restores: valid records only, as SQLite counts them.
    pub covers: BTreeSet<u32>,
    /// It names a super-journal that does not exist: SQLite takes its transaction for committed.
    pub super_journal_missing: bool,
}

/// The WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wal {
    /// There is none.
    Absent,
    /// It has no bytes.
    Empty,
    /// It has bytes, and SQLite would recover nothing from them because of the header.
    BadHeader,
    /// It could not be read, and nothing is concluded.
    Unread,
    /// It has a valid header.
    Log(WalSeen),
}

/// A WAL with a valid header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSeen {
    /// Salts and checkpoint sequence of the header.
    pub generation: Generation,
    /// Frames that follow one another validly.
    pub valid_frames: u64,
    /// Frames up to the last commit among them.
    pub committed_frames: u64,
    /// Frames behind the first invalid one that carry the salts of the header.
    pub unreachable_frames: u64,
    /// Those among them that end a transaction.
    pub unreachable_commits: u64,
    /// Frames that were committed, if the WAL-index beside it is of the same generation and says so, else 0.
    pub visible_frames: u64,
    /// That index was made from the WAL as it is, so it proves nothing of what it may have lost before.
    pub index_recovered: bool,
    /// The pages that committed frames hold.
    pub pages: BTreeSet<u32>,
    /// The images of page 1 in valid frames.
    pub page1: Vec<Sums>,
    /// The change counters in the first and the last of these images.
    pub page1_counters: Option<(u32, u32)>,
}
