//! The pages of a record, with their sums in one flat buffer.

use crate::guard::sums;

/// Page numbers with the sums of an old and a new image each. Can be cleared and filled again without allocating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    sectors: usize,
    entries: Vec<Slot>,
    sums: Vec<u32>,
}

/// Where the sums of an entry start in the flat buffer: the old ones first, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    page: u32,
    at: usize,
    old: bool,
    new: bool,
    journaled: bool,
}

/// One page of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number.
    pub page: u32,
    /// Its image before, if known.
    pub old: Option<&'a [u32]>,
    /// Its image after, if known.
    pub new: Option<&'a [u32]>,
    /// Whether the transaction's journal holds the old image, so that rolling back restores it. SQLite does not journal
    /// a page that was free before the transaction, and rolling back leaves such a page as it is.
    pub journaled: bool,
}

impl Pages {
    /// No pages, for a database of this page size.
    #[must_use]
    pub fn new(page_size: u32) -> Pages {
        Pages { sectors: sums::sectors(page_size), entries: Vec::new(), sums: Vec::new() }
    }

    /// The same, with memory for so many.
    pub(crate) fn with_room(page_size: u32, pages: usize) -> Pages {
        let mut made = Pages::new(page_size);
        made.entries.reserve(pages);
        made.sums.reserve(2 * pages * made.sectors);
        made
    }

    /// Adds a page of which the journal has the old image, and the sums of that are known.
    pub(crate) fn push_journaled(&mut self, page: u32, old: Option<&[u32]>, new: &[u8]) {
        let (at, old) = (self.sums.len(), old.filter(|old| old.len() == self.sectors));
        self.sums.extend_from_slice(old.unwrap_or_default());
        let new = self.push_image(Some(new));
        self.entries.push(Slot { page, at, old: old.is_some(), new, journaled: true });
    }

    /// Adds a page. Sums of another page size are left out.
    pub fn push(&mut self, entry: Entry<'_>) {
        let fits = |sums: Option<&[u32]>| sums.is_some_and(|sums| sums.len() == self.sectors);
        let (old, new) = (fits(entry.old), fits(entry.new));
        let at = self.sums.len();
        self.sums.extend_from_slice(entry.old.filter(|_| old).unwrap_or_default());
        self.sums.extend_from_slice(entry.new.filter(|_| new).unwrap_or_default());
        self.entries.push(Slot { page: entry.page, at, old, new, journaled: entry.journaled });
    }

    /// Adds a page whose images are given. An image of another page size is left out.
    pub fn push_images(&mut self, page: u32, old: Option<&[u8]>, new: Option<&[u8]>, journaled: bool) {
        let at = self.sums.len();
        let old = self.push_image(old);
        let new = self.push_image(new);
        self.entries.push(Slot { page, at, old, new, journaled });
    }

    fn push_image(&mut self, image: Option<&[u8]>) -> bool {
        let Some(image) = image.filter(|image| image.len() == self.sectors * sums::SECTOR) else { return false };
        sums::append(image, &mut self.sums);
        true
    }

    /// How many pages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Removes all pages and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.sums.clear();
    }

    /// The pages in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|slot| {
            let (old_at, new_at) = (slot.at, slot.at + if slot.old { self.sectors } else { 0 });
            Entry {
                page: slot.page,
                old: self.sums.get(old_at..old_at + self.sectors).filter(|_| slot.old),
                new: self.sums.get(new_at..new_at + self.sectors).filter(|_| slot.new),
                journaled: slot.journaled,
            }
        })
    }
}
