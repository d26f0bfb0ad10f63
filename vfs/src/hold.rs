//! Pages of a rollback transaction on their way to the database, kept in memory until all of them are known.
//!
//! Invariant: what is held is newer than the file, and nobody but the connection that holds it reads the file meanwhile: it
//! has the exclusive lock, and its journal is on disk. Everything held reaches the base before a sync, an unlock, a read of
//! it that is not a part of one page, a size query, a truncate or a close; losing it with the process is losing an
//! unfinished transaction. Page 1 goes last: while it is the old one, its change counter proves that nobody has committed
//! since, whatever happened to the journal.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// As much is held before it is written. A commit that is larger goes to the file in pieces of this size.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// Pages that have not been written yet.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pages: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    /// Memory of pages that have been written.
    spare: Vec<Vec<u8>>,
}

/// So many pages of a usual size leave their memory to the next transaction.
const MOST_SPARE: usize = 4;
const MOST_SPARE_BYTES: usize = 16384;

/// There was no memory for a copy of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MOST_BYTES
    }

    /// Holds a page; `page.len()` is the page size, the same for all.
    ///
    /// # Errors
    /// [`NoMemory`]; what was held before stays.
    pub(crate) fn put(&mut self, at: u64, page: &[u8]) -> Result<(), NoMemory> {
        if let Some(held) = self.pages.get_mut(&at) {
            if held.len() == page.len() {
                held.copy_from_slice(page);
                return Ok(());
            }
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.try_reserve_exact(page.len()).map_err(|_| NoMemory)?;
        copy.extend_from_slice(page);
        self.bytes += page.len();
        if let Some(before) = self.pages.insert(at, copy) {
            self.bytes -= before.len();
        }
        Ok(())
    }

    /// Reads from a page that is held. `None`: the bytes do not lie within one, and what is held has to be written first
    /// unless [`Held::misses`] them.
    pub(crate) fn read(&self, at: u64, length: usize) -> Option<&[u8]> {
        let (start, page) = self.pages.range(..=at).next_back()?;
        let from = usize::try_from(at - start).ok()?;
        page.get(from..from.checked_add(length)?)
    }

    /// Whether nothing of these bytes is held.
    pub(crate) fn misses(&self, at: u64, length: usize) -> bool {
        let end = at.saturating_add(length as u64);
        let last = self.pages.range(..end).next_back();
        last.is_none_or(|(start, page)| start + page.len() as u64 <= at)
    }

    /// The pages in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(at, page)| (*at, page.as_slice()))
    }

    /// The next pages to be written that stand side by side, at most [`MOST_BYTES`] of them, or one at a time: where they begin
    /// and end. In the order of the file, and page 1 last, with those that follow it, or not at all.
    pub(crate) fn next_run(&self, page_1: bool, together: bool) -> Option<(u64, u64)> {
        let after = |start: u64| {
            let mut end = start;
            for (at, page) in self.pages.range(start..) {
                let fits = end == start || (together && (end - start) as usize + page.len() <= MOST_BYTES);
                if *at != end || !fits {
                    break;
                }
                end += page.len() as u64;
            }
            end
        };
        let begins = if page_1 && together { after(0) } else { 1 };
        let start = match self.pages.range(begins.max(1)..).next() {
            Some((at, _)) => *at,
            None if page_1 => *self.pages.first_key_value()?.0,
            None => return None,
        };
        Some((start, after(start)))
    }

    /// The bytes of pages that stand side by side; `None` if there is no memory for them.
    pub(crate) fn piece(&self, start: u64, end: u64) -> Option<Cow<'_, [u8]>> {
        let mut pages = self.pages.range(start..end);
        let first = pages.next()?.1;
        if start + first.len() as u64 == end {
            return Some(Cow::Borrowed(first));
        }
        let mut piece = Vec::new();
        piece.try_reserve_exact(usize::try_from(end - start).ok()?).ok()?;
        self.pages.range(start..end).for_each(|(_, page)| piece.extend_from_slice(page));
        Some(Cow::Owned(piece))
    }

    /// The size of the pages that are held.
    pub(crate) fn page_size(&self) -> Option<usize> {
        self.pages.first_key_value().map(|(_, page)| page.len())
    }

    /// Lets go of the page at `at`, which has been written: its bytes.
    pub(crate) fn wrote(&mut self, at: u64) -> Vec<u8> {
        let page = self.pages.remove(&at).unwrap_or_default();
        self.bytes -= page.len();
        page
    }

    /// Takes the memory of a page that nobody needs any more.
    pub(crate) fn reuse(&mut self, page: Vec<u8>) {
        if self.spare.len() < MOST_SPARE && page.capacity() <= MOST_SPARE_BYTES {
            self.spare.push(page);
        }
    }

    /// Forgets what lies at `size` or behind it: it is being cut off.
    pub(crate) fn forget_from(&mut self, size: u64) {
        for page in self.pages.split_off(&size).into_values() {
            self.bytes -= page.len();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Held::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(pages: &[(u64, &[u8])]) -> Held {
        let mut held = Held::default();
        for (at, page) in pages {
            held.put(*at, page).unwrap_or_else(|_| unreachable!());
        }
        held
    }

    #[test]
    fn a_read_within_one_page_is_answered_from_it() {
        let held = held(&[(8, b"abcd"), (0, b"efgh")]);
        assert_eq!(held.read(8, 4), Some(&b"abcd"[..]));
        assert_eq!(held.read(9, 2), Some(&b"bc"[..]));
        assert_eq!(held.read(2, 4), None, "it goes beyond the page");
        assert_eq!(held.read(4, 1), None);
        for (at, length, misses) in [(4, 4, true), (3, 1, false), (2, 20, false), (12, 4, true), (5, 4, false)] {
            assert_eq!(held.misses(at, length), misses, "{at}, {length}");
        }
    }

    #[test]
    fn pages_leave_once_and_page_1_last() {
        let mut held = held(&[(8, b"old."), (0, b"efgh"), (8, b"new.")]);
        assert_eq!(held.bytes, 8);
        assert_eq!(held.iter().collect::<Vec<_>>(), [(0, &b"efgh"[..]), (8, b"new.")]);
        assert_eq!(held.next_run(true, false), Some((8, 12)), "page 1 is last");
        assert_eq!(held.wrote(8), b"new.");
        assert_eq!(held.next_run(true, false), Some((0, 4)));
        assert_eq!(held.next_run(false, false), None);
        held.forget_from(8);
        assert!(!held.is_empty());
        held.forget_from(0);
        assert!(held.is_empty());
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn pages_side_by_side_leave_together() {
        let held = held(&[(0, b"1..."), (4, b"2..."), (12, b"4..."), (16, b"5..."), (24, b"7...")]);
        assert_eq!((held.next_run(true, true), held.next_run(true, false)), (Some((12, 20)), Some((4, 8))));
        assert_eq!((held.next_run(false, true), held.next_run(false, false)), (Some((4, 8)), Some((4, 8))));
        assert_eq!(held.piece(12, 20).as_deref(), Some(&b"4...5..."[..]));
        assert!(matches!(held.piece(24, 28), Some(Cow::Borrowed(b"7..."))));
    }

    #[test]
    fn it_is_full_at_its_limit() {
        let mut held = Held::default();
        let page = vec![0; 65536];
        for number in 0..(MOST_BYTES / page.len()) as u64 {
            assert!(!held.is_full());
            assert_eq!(held.put(number * 65536, &page), Ok(()));
        }
        assert!(held.is_full());
        held.clear();
        assert!(!held.is_full());
    }
}
