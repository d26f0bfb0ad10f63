//! What the look at a path has found, for the open that follows it.
//!
//! SQLite asks for the full path and opens the file of that name next, on the same thread. What was seen of the file before is
//! compared with the one that is open then, as if it had been looked at a moment later.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::probe::Found;

const MOMENT: Duration = Duration::from_secs(1);

/// A path, and what was found there.
#[derive(Debug)]
pub(crate) struct FirstLook {
    pub(super) path: PathBuf,
    /// When it was seen.
    pub(super) since: Instant,
    /// The file, if there is one; no link, and on the mount of its directory.
    pub(crate) file: Option<Found>,
    /// Device and inode of its directory.
    pub(crate) inside: (u64, u64),
    /// Its directory, if it had to be opened and may be read.
    pub(crate) directory: Option<File>,
}

thread_local! {
    static KEPT: Cell<Option<FirstLook>> = const { Cell::new(None) };
}

pub(super) fn keep(look: FirstLook) {
    // A thread that ends keeps nothing.
    let _ended = KEPT.try_with(|kept| kept.set(Some(look)));
}

/// What the last look of this thread has found, if it was at this path and a moment ago; it is forgotten.
pub(crate) fn take(path: &Path) -> Option<FirstLook> {
    let kept = KEPT.try_with(Cell::take).ok().flatten()?;
    (kept.path == path && kept.since.elapsed() < MOMENT).then_some(kept)
}
