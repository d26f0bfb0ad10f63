//! The pages of one write to the database: which, how they were, how they will be.
//!
//! Invariant: all pages have the same size, and no page is there twice: the first image before and the last one after are
//! what counts.

use std::collections::BTreeMap;
use std::ops::Range;

use super::sums;

/// One page.
#[derive(Clone, Debug)]
struct Entry {
    number: u32,
    old: Option<Range<usize>>,
    new: Range<usize>,
}

/// Pages with the checksums of their sectors.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    entries: Vec<Entry>,
    index: BTreeMap<u32, usize>,
    sums: Vec<u32>,
    page_size: usize,
}

impl Pages {
    /// Adds a page, of which `old` is the content before if it is known.
    pub(crate) fn push(&mut self, number: u32, old: Option<&[u8]>, new: &[u8]) {
        let old = old.filter(|old| old.len() == new.len()).map(|old| self.sum(old));
        self.add(number, old, new);
    }

    fn sum(&mut self, page: &[u8]) -> Range<usize> {
        let start = self.sums.len();
        sums::append(page, &mut self.sums);
        start..self.sums.len()
    }

    fn add(&mut self, number: u32, old: Option<Range<usize>>, new: &[u8]) {
        if self.entries.is_empty() {
            self.page_size = new.len();
        } else if self.page_size != new.len() {
            return;
        }
        let new = self.sum(new);
        if let Some(entry) = self.index.get(&number).and_then(|index| self.entries.get_mut(*index)) {
            entry.new = new;
            return;
        }
        self.index.insert(number, self.entries.len());
        self.entries.push(Entry { number, old, new });
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.index.contains_key(&number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// Number, checksums before, checksums after.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u32, Option<&[u32]>, &[u32])> {
        self.entries.iter().map(|entry| {
            let of = |range: &Range<usize>| self.sums.get(range.clone()).unwrap_or_default();
            (entry.number, entry.old.as_ref().map(of), of(&entry.new))
        })
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.index.clear();
        self.sums.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_image_before_and_the_last_one_after_count() {
        let mut pages = Pages::default();
        let of = |byte: u8| {
            let mut sums = Vec::new();
            sums::append(&[byte; 1024], &mut sums);
            sums
        };
        pages.push(2, Some(&[1; 1024]), &[2; 1024]);
        pages.push(7, None, &[3; 1024]);
        pages.push(2, Some(&[2; 1024]), &[4; 1024]);
        pages.push(9, None, &[3; 512]);
        let seen: Vec<_> =
            pages.iter().map(|(number, old, new)| (number, old.map(<[u32]>::to_vec), new.to_vec())).collect();
        assert_eq!(seen, [(2, Some(of(1)), of(4)), (7, None, of(3))]);
        assert!(pages.has(7) && !pages.has(9));
        pages.clear();
        assert!(pages.is_empty() && !pages.has(2));
    }
}
