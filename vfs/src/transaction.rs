//! What the writes to a rollback journal tell about the transaction that it protects: its nonce, and how each page was
//! before.
//!
//! Invariant: an old image is one that was read from a page record of this journal as SQLite wrote it, so it is the page's
//! content before the transaction (<https://www.sqlite.org/fileformat2.html#the_rollback_journal>). The first record of a
//! page counts; there is no second one in the same journal.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::checksum::sum;
use crate::format::journal::{HEADER_SIZE, MAGIC};
use crate::guard::log::Witness;
use crate::guard::sums;

/// Room for so many sums serves the next transaction as well.
const MOST_SPARE: usize = 4096;

/// A write to the journal that is more than page records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Nothing,
    /// The header is overwritten with zeros: the transaction ends (journal_mode PERSIST).
    Zeroed,
}

/// The transaction that an open journal protects.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Of the first header.
    pub(crate) nonce: Option<u32>,
    pub(crate) initial_pages: u32,
    pub(crate) page_size: u32,
    /// The change counter of page 1 as it was before, if page 1 is among the old images.
    pub(crate) counter: Option<u32>,
    /// The change counter that was last recorded for page 1.
    pub(crate) counter_after: Option<u32>,
    /// The database file before its first page was written.
    pub(crate) before: Option<Witness>,
    /// In the database pages end with their checksum, whatever SQLite's copy of them ends with.
    pub(crate) sealed: bool,
    /// Nobody will ask how pages were.
    pub(crate) unrecorded: bool,
    /// Where the last write of four bytes ended, and what it said: a page number, if a page follows.
    number: Option<(u64, u32)>,
    old: BTreeMap<u32, Range<usize>>,
    sums: Vec<u32>,
}

impl Transaction {
    /// It is over; what is known of the database stays.
    pub(crate) fn end(&mut self) {
        let (sealed, unrecorded, mut sums) = (self.sealed, self.unrecorded, std::mem::take(&mut self.sums));
        sums.clear();
        sums.shrink_to(MOST_SPARE);
        *self = Transaction { sealed, unrecorded, sums, ..Transaction::default() };
    }

    /// A write to the journal.
    pub(crate) fn journal_wrote(&mut self, at: u64, bytes: &[u8]) -> Sign {
        let number = self.number.take();
        if let Ok(four) = <[u8; 4]>::try_from(bytes) {
            self.number = Some((at + 4, u32::from_be_bytes(four)));
            return Sign::Nothing;
        }
        if at == 0 {
            return self.header(bytes);
        }
        match number {
            Some((end, page)) if end == at && bytes.len() == self.page_size as usize => self.record(page, bytes),
            _ => {}
        }
        Sign::Nothing
    }

    fn header(&mut self, bytes: &[u8]) -> Sign {
        let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else { return Sign::Nothing };
        if bytes.len() == HEADER_SIZE && header.iter().all(|byte| *byte == 0) {
            return Sign::Zeroed;
        }
        // Before the first sync the magic number and the count of records are zeros.
        if header.starts_with(&MAGIC) || header[..12].iter().all(|byte| *byte == 0) {
            let field = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            self.end();
            (self.nonce, self.initial_pages, self.page_size) = (Some(field(12)), field(16), field(24));
        }
        Sign::Nothing
    }

    fn record(&mut self, page: u32, bytes: &[u8]) {
        if self.unrecorded || self.old.contains_key(&page) {
            return;
        }
        if page == 1 {
            self.counter = change_counter(bytes);
        }
        let start = self.sums.len();
        match bytes.split_last_chunk::<{ sums::SECTOR }>() {
            Some((rest, last)) if self.sealed => {
                let mut last = *last;
                last[sums::SECTOR - sum::SIZE..].copy_from_slice(&sum::of(bytes));
                sums::append(rest, &mut self.sums);
                sums::append(&last, &mut self.sums);
            }
            _ => sums::append(bytes, &mut self.sums),
        }
        self.old.insert(page, start..self.sums.len());
    }

    /// The sector checksums of a page as it was before the transaction.
    pub(crate) fn old(&self, page: u32) -> Option<&[u32]> {
        self.sums.get(self.old.get(&page)?.clone())
    }
}

/// The change counter in page 1.
pub(crate) fn change_counter(page: &[u8]) -> Option<u32> {
    let bytes = page.get(24..28)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(nonce: u32, pages: u32, page_size: u32) -> Vec<u8> {
        let mut header = vec![0; 512];
        for (at, field) in [(12, nonce), (16, pages), (20, 512), (24, page_size)] {
            header[at..at + 4].copy_from_slice(&field.to_be_bytes());
        }
        header
    }

    fn begun() -> Transaction {
        let mut transaction = Transaction::default();
        assert_eq!(transaction.journal_wrote(0, &header(7, 3, 1024)), Sign::Nothing);
        transaction
    }

    fn record(transaction: &mut Transaction, at: u64, page: u32, bytes: &[u8]) {
        transaction.journal_wrote(at, &page.to_be_bytes());
        transaction.journal_wrote(at + 4, bytes);
        transaction.journal_wrote(at + 4 + bytes.len() as u64, &[0; 4]);
    }

    #[test]
    fn the_first_record_of_a_page_is_how_it_was() {
        let mut transaction = begun();
        assert_eq!((transaction.nonce, transaction.initial_pages), (Some(7), 3));
        let mut first = vec![1; 1024];
        first[24..28].copy_from_slice(&[0, 0, 0, 9]);
        record(&mut transaction, 512, 1, &first);
        record(&mut transaction, 512 + 1032, 2, &[2; 1024]);
        record(&mut transaction, 512 + 2 * 1032, 2, &[3; 1024]);
        let mut two = Vec::new();
        sums::append(&[2; 1024], &mut two);
        assert_eq!(transaction.old(2), Some(&two[..]));
        assert_eq!(transaction.old(3), None);
        assert_eq!(transaction.counter, Some(9));
    }

    #[test]
    fn where_pages_have_checksums_the_old_image_has_its_own() {
        let mut transaction = begun();
        transaction.sealed = true;
        let mut page = vec![7; 1024];
        record(&mut transaction, 512, 2, &page);
        let sum = sum::of(&page);
        page[1016..].copy_from_slice(&sum);
        let mut image = Vec::new();
        sums::append(&page, &mut image);
        assert_eq!(transaction.old(2), Some(&image[..]));
    }

    #[test]
    fn a_page_that_no_number_precedes_is_not_a_record() {
        let mut transaction = begun();
        transaction.journal_wrote(512, &5_u32.to_be_bytes());
        transaction.journal_wrote(600, &[2; 1024]);
        transaction.journal_wrote(2000, &[2; 1024]);
        assert_eq!(transaction.old(5), None);
    }

    #[test]
    fn a_new_header_begins_a_new_transaction_and_a_zeroed_one_ends_it() {
        let mut transaction = begun();
        record(&mut transaction, 512, 2, &[2; 1024]);
        assert_eq!(transaction.journal_wrote(0, &[0; 28]), Sign::Zeroed);
        assert_eq!(transaction.journal_wrote(0, &header(8, 4, 1024)), Sign::Nothing);
        assert_eq!((transaction.nonce, transaction.old(2)), (Some(8), None));
        // The count of records, written after the first sync.
        transaction.journal_wrote(0, &[0xd9; 12]);
        assert_eq!(transaction.nonce, Some(8));
    }
}
