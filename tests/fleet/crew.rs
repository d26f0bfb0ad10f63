//! Who is in a fleet: processes, each with some threads, each with a connection of its own.
//!
//! Invariant: a hand's number is its place in the fleet, so parent and children agree about it.

/// Which SQLite and which VFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The SQLite that is linked, on its own VFS.
    Stock,
    /// The same, on `hardened`.
    Hardened,
    /// The system's SQLite, on its own VFS.
    Old,
    /// The same, on `hardened`, which is loaded as an extension.
    OldHardened,
}

impl Kind {
    pub(crate) fn hardened(self) -> bool {
        matches!(self, Kind::Hardened | Kind::OldHardened)
    }
}

/// What a thread does until its process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    Write,
    Read,
    /// Checkpoints of all four kinds in turn, and now and then a VACUUM.
    Checkpoint,
    /// Opens, reads or writes or neither, and closes.
    Visit,
    /// Opens and closes the files behind SQLite's back, which drops all POSIX locks of its process.
    CloseRaw,
}

/// A thread.
pub(crate) type Hand = (Kind, Duty);
/// A process.
pub(crate) type Crew = &'static [Hand];

use Duty::{Checkpoint, CloseRaw, Read, Visit, Write};
use Kind::{Hardened, Old, OldHardened, Stock};

/// All kinds. Files are closed behind SQLite's back only where all connections of the process are hardened. The system's SQLite
/// may have the bug that a checkpoint loses commits when the log is begun anew (before 3.51.3), so on its own VFS it makes none.
const MIXED: &[Crew] = &[
    &[(Hardened, Write), (Hardened, Read), (Hardened, Checkpoint), (Hardened, CloseRaw)],
    &[(Stock, Write), (Stock, Read), (Stock, Checkpoint)],
    &[(Old, Write), (Old, Read)],
    &[(OldHardened, Write), (OldHardened, Checkpoint), (OldHardened, CloseRaw)],
    // Two libraries in one process.
    &[(Hardened, Write), (Hardened, Read), (Old, Write)],
    &[(Hardened, Visit), (Hardened, Visit), (Hardened, CloseRaw)],
    &[(Stock, Visit)],
    &[(Old, Visit)],
    &[(OldHardened, Visit)],
];

/// Every process closes the files behind SQLite's back.
const HARDENED_ALONE: &[Crew] = &[
    &[(Hardened, Write), (Hardened, Read), (Hardened, CloseRaw)],
    &[(Hardened, Write), (Hardened, Checkpoint), (Hardened, CloseRaw)],
    &[(Hardened, Visit), (Hardened, Write), (Hardened, CloseRaw)],
];

/// The same without `hardened`.
const STOCK_ALONE: &[Crew] = &[
    &[(Stock, Write), (Stock, Read), (Stock, CloseRaw)],
    &[(Stock, Write), (Stock, Checkpoint), (Stock, CloseRaw)],
    &[(Stock, Visit), (Stock, Write), (Stock, CloseRaw)],
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fleet {
    Mixed,
    HardenedAlone,
    StockAlone,
}

impl Fleet {
    pub(crate) const ALL: [Fleet; 3] = [Fleet::Mixed, Fleet::HardenedAlone, Fleet::StockAlone];

    pub(crate) fn crews(self) -> &'static [Crew] {
        match self {
            Fleet::Mixed => MIXED,
            Fleet::HardenedAlone => HARDENED_ALONE,
            Fleet::StockAlone => STOCK_ALONE,
        }
    }

    /// All hands, in the order of their numbers.
    pub(crate) fn hands(self) -> impl Iterator<Item = Hand> {
        self.crews().iter().flat_map(|crew| crew.iter().copied())
    }

    /// The number of the first hand of a process.
    pub(crate) fn first_hand(self, process: usize) -> usize {
        self.crews()[..process].iter().map(|crew| crew.len()).sum()
    }
}

/// The processes that do nothing but visit. When only these are there the last one to close is often met.
pub(crate) fn visits_only(crew: Crew) -> bool {
    crew.iter().all(|(_, duty)| matches!(duty, Visit | CloseRaw))
}

/// Two libraries in one process: connections stay open, because between the question whether a neighbour has locks and the close
/// it may take one (`docs/design.md`).
pub(crate) fn two_libraries(crew: Crew) -> bool {
    let old = |hand: &&Hand| matches!(hand.0, Old | OldHardened);
    let olds = crew.iter().filter(old).count();
    0 < olds && olds < crew.len()
}
