//! What each page of a database is.
//!
//! The files are read as they are, the log laid over the database, and nothing else is done to them: no lock is taken, so that
//! nobody waits, and no file made, so that a log without an index stays one. Whether the database stood still meanwhile is
//! found out afterwards.
//!
//! Invariants: any bytes have a map, without a panic, in the time that it takes to read each page once and with a byte of memory
//! for each. A page is one thing. It is damaged only if its content contradicts its place: what rows say is not looked at.
//!
//! The rooms: `walk` follows the trees, `spill` their overflow pages, `free` the list of free pages and the pointer maps, `fixed`
//! knows the pages that have their place, `settled` whether anybody was writing.

mod damage;
pub(crate) mod fixed;
mod free;
mod settled;
mod spill;
mod walk;

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::ffi;

use crate::beside::with_ending;
use crate::error::{Detail, Error};
use crate::salvage::header;
use crate::salvage::image::Image;
use damage::Damage;
use settled::Stamp;
use walk::Walk;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum PageKind {
    /// Of the tree of a table, with pointers to others.
    TableInterior,
    /// Of the tree of a table, with rows.
    TableLeaf,
    /// Of the tree of an index or a table WITHOUT ROWID, with keys and pointers to others.
    IndexInterior,
    /// Of the tree of an index or a table WITHOUT ROWID, with keys.
    IndexLeaf,
    /// What has no room in the page of its row or key.
    Overflow,
    /// Free, and part of the list of free pages.
    FreeTrunk,
    /// Free.
    FreeLeaf,
    /// Says where the pointers to other pages are, in a database with auto_vacuum.
    PointerMap,
    /// Never used: locks are taken on its bytes.
    LockByte,
    /// In none of the trees and not on the list of free pages: lost space, or rows that damage has cut off.
    Orphan,
    /// Unreadable, with a wrong checksum, in two places, or not what stands where it is.
    Damaged,
}

impl PageKind {
    /// All of them, in the order of their declaration.
    pub const ALL: [PageKind; 11] = [
        PageKind::TableInterior,
        PageKind::TableLeaf,
        PageKind::IndexInterior,
        PageKind::IndexLeaf,
        PageKind::Overflow,
        PageKind::FreeTrunk,
        PageKind::FreeLeaf,
        PageKind::PointerMap,
        PageKind::LockByte,
        PageKind::Orphan,
        PageKind::Damaged,
    ];

    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PageKind::TableInterior => "table_interior",
            PageKind::TableLeaf => "table_leaf",
            PageKind::IndexInterior => "index_interior",
            PageKind::IndexLeaf => "index_leaf",
            PageKind::Overflow => "overflow",
            PageKind::FreeTrunk => "free_trunk",
            PageKind::FreeLeaf => "free_leaf",
            PageKind::PointerMap => "pointer_map",
            PageKind::LockByte => "lock_byte",
            PageKind::Orphan => "orphan",
            PageKind::Damaged => "damaged",
        }
    }
}

/// What each page of a database is.
#[derive(Clone, Debug)]
pub struct PageMap {
    page_size: u32,
    kinds: Vec<PageKind>,
    damage: Damage,
    unsettled: Option<&'static str>,
}

/// How often it is read anew because somebody was writing.
const ROUNDS: u32 = 4;

/// How long a writer is given before that.
const PAUSE: Duration = Duration::from_millis(60);

impl PageMap {
    /// Looks at every page of the database at `path`, links followed, as a reader would see it now: with the commits in its log. It
    /// may be in use, also in this process, and may be damaged however much. On systems other than Linux this process must not
    /// have it open.
    ///
    /// ```
    /// use hardened_sqlite::page_map::{PageKind, PageMap};
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("app.db");
    /// let connection = hardened_sqlite::open_connection(&path)?;
    /// connection.execute_batch("CREATE TABLE t(x); CREATE TABLE gone(x); DROP TABLE gone")?;
    /// let map = PageMap::read(&path)?;
    /// assert_eq!(map.kinds(), [PageKind::TableLeaf, PageKind::TableLeaf, PageKind::FreeTrunk]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotADatabase`] if it is none and nothing of one is in it; those of opening the files.
    pub fn read(path: &Path) -> Result<PageMap, Error> {
        let failed = |error: io::Error| Error::of_file(path, "it cannot be read", &error);
        let path = std::fs::canonicalize(path).map_err(failed)?;
        let mut round = 1;
        loop {
            let stamp = Stamp::of(&path).map_err(failed)?;
            if stamp.hot && round < ROUNDS {
                // Soon over, or not over at all.
                std::thread::sleep(PAUSE);
                round += 1;
                continue;
            }
            let mut image = Image::beside(&path, Some(&with_ending(&path, "-wal"))).map_err(failed)?;
            let mut map = PageMap::of(&mut image).map_err(failed)?;
            let unsettled = stamp.unsettled(&path, image.frames()).map_err(failed)?;
            if unsettled.is_some() && round < ROUNDS {
                std::thread::sleep(PAUSE);
                round += 1;
                continue;
            }
            if map.kinds.is_empty() && image.length() + image.frames() > 0 {
                let detail = Detail::of(&path, ffi::SQLITE_NOTADB, "it is not a database".to_owned());
                return Err(Error::NotADatabase(detail));
            }
            map.unsettled = unsettled;
            return Ok(map);
        }
    }

    /// Empty if there is nothing of a database in it.
    fn of(image: &mut Image) -> io::Result<PageMap> {
        let header = header::read(image)?;
        let page_size = header.page_size;
        let (kinds, damage) = Walk::through(image, &header)?;
        Ok(PageMap { page_size, kinds, damage, unsettled: None })
    }

    /// The size of a page in bytes.
    #[must_use]
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// What each page is, from page 1 on. Empty for a database without pages.
    #[must_use]
    pub fn kinds(&self) -> &[PageKind] {
        &self.kinds
    }

    /// How many pages are of a kind.
    #[must_use]
    pub fn count(&self, kind: PageKind) -> u64 {
        self.kinds.iter().filter(|page| **page == kind).count() as u64
    }

    /// The numbers of the pages of a kind, rising.
    pub fn pages(&self, kind: PageKind) -> impl Iterator<Item = u32> + '_ {
        (1..).zip(&self.kinds).filter(move |(_, page)| **page == kind).map(|(number, _)| number)
    }

    /// Why a page is taken for damaged. It is known of a thousand of them.
    #[must_use]
    pub fn why(&self, page: u32) -> Option<&str> {
        self.damage.why(page)
    }

    /// Marks a page as damaged, for a reason that its content does not show. One that there is not is let be.
    pub fn accuse(&mut self, page: u32, why: &str) {
        if let Some(kind) = (page as usize).checked_sub(1).and_then(|at| self.kinds.get_mut(at)) {
            *kind = PageKind::Damaged;
            self.damage.add(page, || why.to_owned());
        }
    }

    /// Why this may be two states in one, and damage no damage; `None` if nobody was writing while it was read.
    #[must_use]
    pub fn unsettled(&self) -> Option<&str> {
        self.unsettled
    }
}
