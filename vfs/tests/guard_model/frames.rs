//! What a WAL holds.

use crate::Page;
use hardened_vfs::guard::log::Generation;

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Frame {
    pub(crate) page: u32,
    pub(crate) image: Page,
    pub(crate) commit: bool,
    /// Whether the checksums up to here are right.
    pub(crate) valid: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Wal {
    Absent,
    Empty,
    Log { generation: Generation, frames: Vec<Frame>, synced: usize },
}

/// How many frames recovery keeps.
pub(crate) fn recovered(frames: &[Frame]) -> usize {
    let valid = frames.iter().take_while(|frame| frame.valid).count();
    frames[..valid].iter().rposition(|frame| frame.commit).map_or(0, |last| last + 1)
}
