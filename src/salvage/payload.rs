//! Records from page to page: a cell and its chain of overflow pages
//! ([file format](https://www.sqlite.org/fileformat2.html#ovflpgs), section 1.6).
//!
//! Invariant: no page is visited twice for one record, and all records together visit no more than a few times as many pages
//! as there are, so that chains that damage has crossed take no longer than sound ones.

use std::cell::Cell as Counter;
use std::collections::HashSet;
use std::io;

use super::image::Reader;
use super::page::{Cell, be32};

/// Reads records.
pub(crate) struct Payloads<'a> {
    reader: &'a Reader<'a>,
    /// How many overflow pages may still be visited.
    left: Counter<u64>,
}

impl<'a> Payloads<'a> {
    pub(crate) fn new(reader: &'a Reader<'a>) -> Payloads<'a> {
        let pages = u64::from(reader.count());
        Payloads { reader, left: Counter::new(pages * 8 + 100_000) }
    }

    /// Puts the record of `cell` into `into`, and says whether all of it was there. `is_tree` tells pages of b-trees, which
    /// are no overflow pages.
    pub(crate) fn read(&self, cell: &Cell<'_>, is_tree: impl Fn(u32) -> bool, into: &mut Vec<u8>) -> io::Result<bool> {
        into.clear();
        into.extend_from_slice(cell.local);
        if cell.overflow == 0 {
            return Ok(into.len() as u64 == cell.length);
        }
        let mut seen = HashSet::new();
        let mut next = cell.overflow;
        let room = self.reader.usable().saturating_sub(4) as u64;
        while (into.len() as u64) < cell.length {
            if next == 0 || is_tree(next) || self.left.get() == 0 || !seen.insert(next) {
                return Ok(false);
            }
            self.left.set(self.left.get() - 1);
            let take = (cell.length - into.len() as u64).min(room) as usize;
            let found = self.reader.with(next, |page| {
                into.extend_from_slice(page.get(4..4 + take).unwrap_or(&[]));
                be32(page, 0).unwrap_or(0)
            })?;
            match found {
                Some(number) => next = number,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
