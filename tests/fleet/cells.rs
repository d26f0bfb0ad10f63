//! What the hands of a fleet tell each other and the test beside the database: numbers in shared memory, which outlive a SIGKILL.
//!
//! Invariant: each number has one hand that stores it. A commit counts as acknowledged from the moment that its number is
//! stored, which is after COMMIT has returned.

use std::path::Path;
use std::sync::atomic::Ordering;

use support::board::Board;

/// One number of a hand.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Cell {
    /// The last transaction that it has begun to write.
    Begun,
    /// The last that it knows to be committed.
    Acknowledged,
    /// How many it has done of each, in all its lives.
    Commits,
    Reads,
    Checkpoints,
    Vacuums,
    Opens,
    /// Closes after which there was no log.
    LastCloses,
    /// Files opened and closed behind SQLite's back.
    RawCloses,
    Busy,
}

pub(crate) const COUNTED: [(Cell, &str); 8] = [
    (Cell::Commits, "commits"),
    (Cell::Reads, "reads"),
    (Cell::Checkpoints, "checkpoints"),
    (Cell::Vacuums, "vacuums"),
    (Cell::Opens, "opens"),
    (Cell::LastCloses, "last closes"),
    (Cell::RawCloses, "raw closes"),
    (Cell::Busy, "times busy"),
];

const EACH: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells {
    board: Board,
    hands: usize,
}

impl Cells {
    pub(crate) fn create(path: &Path, hands: usize) -> Cells {
        Cells { board: Board::create(path, hands * EACH).unwrap(), hands }
    }

    pub(crate) fn open(path: &Path, hands: usize) -> Cells {
        Cells { board: Board::open(path).unwrap(), hands }
    }

    pub(crate) fn get(&self, hand: usize, cell: Cell) -> u64 {
        self.board.at(hand * EACH + cell as usize).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, hand: usize, cell: Cell, value: u64) {
        self.board.at(hand * EACH + cell as usize).store(value, Ordering::SeqCst);
    }

    pub(crate) fn count(&self, hand: usize, cell: Cell) {
        self.board.at(hand * EACH + cell as usize).fetch_add(1, Ordering::SeqCst);
    }

    /// That number of every hand.
    pub(crate) fn all(&self, cell: Cell) -> Vec<u64> {
        (0..self.hands).map(|hand| self.get(hand, cell)).collect()
    }
}
