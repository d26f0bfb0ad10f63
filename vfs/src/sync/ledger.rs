//! What was written to one file since its last good sync.
//!
//! Invariant: every byte written since then lies in exactly one span, whose checksum is that of the bytes as they were
//! written; or the ledger says that it has lost track. A failed sync can then be healed from the file's own cached content:
//! what still has its checksum may be written and synced again.

use std::collections::BTreeMap;

/// Beyond it a failed sync is not healed. 24 bytes each, as many as a checkpoint of a gigabyte needs.
const MOST_SPANS: usize = 1 << 18;

/// So many bytes are kept as they are: their checksums are taken only if a sync fails.
const MOST_KEPT: usize = 1 << 20;

/// One contiguous run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) at: u64,
    pub(crate) length: u64,
    /// CRC-32C of the bytes.
    pub(crate) sum: u32,
}

impl Span {
    fn end(&self) -> u64 {
        self.at + self.length
    }
}

/// The bytes of one file that are not known to be on disk.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    spans: BTreeMap<u64, Span>,
    /// The last writes of all, whose checksums have not been taken, in their order.
    kept: Vec<(u64, Vec<u8>)>,
    kept_bytes: usize,
    /// The span that is being appended to; not among the others.
    tail: Option<Span>,
    dirty: bool,
    lost_track: bool,
    /// Where the file was cut off.
    cut: Option<u64>,
}

impl Ledger {
    /// A write whose neighbours will be rewritten on their own, like a page.
    pub(crate) fn wrote(&mut self, at: u64, bytes: &[u8]) {
        self.settle();
        self.insert(Span { at, length: bytes.len() as u64, sum: crc32c::crc32c(bytes) });
    }

    /// The same, of bytes that nobody else needs any more. Most syncs succeed, and then nothing was computed.
    pub(crate) fn keep(&mut self, at: u64, bytes: Vec<u8>) {
        self.settle_tail();
        self.dirty = true;
        self.kept_bytes += bytes.len();
        self.kept.push((at, bytes));
        if self.kept_bytes > MOST_KEPT {
            self.settle();
        }
    }

    /// Something is about to be written.
    pub(crate) fn soil(&mut self) {
        self.dirty = true;
    }

    /// A write that mostly continues the one before, as those to a journal do.
    pub(crate) fn appended(&mut self, at: u64, bytes: &[u8]) {
        self.dirty = true;
        self.settle_kept();
        if let Some(tail) = &mut self.tail {
            if tail.end() == at {
                tail.sum = crc32c::crc32c_append(tail.sum, bytes);
                tail.length += bytes.len() as u64;
                return;
            }
        }
        self.settle_tail();
        self.tail = Some(Span { at, length: bytes.len() as u64, sum: crc32c::crc32c(bytes) });
    }

    fn settle(&mut self) {
        self.settle_tail();
        self.settle_kept();
    }

    fn settle_kept(&mut self) {
        if self.kept_bytes > 0 {
            self.kept_bytes = 0;
            for (at, bytes) in std::mem::take(&mut self.kept) {
                self.insert(Span { at, length: bytes.len() as u64, sum: crc32c::crc32c(&bytes) });
            }
        }
    }

    fn settle_tail(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.insert(tail);
        }
    }

    fn insert(&mut self, span: Span) {
        self.dirty = true;
        if self.lost_track || span.length == 0 {
            return;
        }
        while let Some(old) = self.spans.range(..span.end()).next_back().map(|(_, old)| *old) {
            if old.end() <= span.at {
                break;
            }
            if old.at < span.at || old.end() > span.end() {
                // A part of it keeps its bytes, but the checksum is that of the whole.
                self.lose_track();
                return;
            }
            self.spans.remove(&old.at);
        }
        if self.spans.len() >= MOST_SPANS {
            self.lose_track();
            return;
        }
        self.spans.insert(span.at, span);
    }

    fn lose_track(&mut self) {
        self.spans = BTreeMap::new();
        self.tail = None;
        (self.kept, self.kept_bytes) = (Vec::new(), 0);
        self.lost_track = true;
    }

    /// What lies beyond `size` is gone.
    pub(crate) fn truncated(&mut self, size: u64) {
        self.settle();
        self.dirty = true;
        self.cut = Some(size);
        self.spans.split_off(&size);
        if self.spans.last_key_value().is_some_and(|(_, last)| last.end() > size) {
            self.lose_track();
        }
    }

    /// Everything is on disk: the bytes that were kept, whose memory may serve again.
    pub(crate) fn synced(&mut self) -> Vec<(u64, Vec<u8>)> {
        match self.dirty {
            true => std::mem::take(self).kept,
            false => Vec::new(),
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// How large the file is, if it was cut off.
    pub(crate) fn size(&mut self) -> Option<u64> {
        self.settle_kept();
        let end = self.spans.last_key_value().map_or(0, |(_, last)| last.end());
        self.cut.map(|cut| cut.max(end).max(self.tail.map_or(0, |tail| tail.end())))
    }

    /// The spans in the order of the file, or `None` if track of them was lost.
    pub(crate) fn spans(&mut self) -> Option<Vec<Span>> {
        self.settle();
        (!self.lost_track).then(|| self.spans.values().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(writes: &[(u64, &[u8])]) -> Ledger {
        let mut ledger = Ledger::default();
        for (at, bytes) in writes {
            ledger.wrote(*at, bytes);
        }
        ledger
    }

    fn span(at: u64, bytes: &[u8]) -> Span {
        Span { at, length: bytes.len() as u64, sum: crc32c::crc32c(bytes) }
    }

    #[test]
    fn a_page_written_twice_counts_as_it_was_written_last() {
        let mut ledger = ledger(&[(4, b"aaaa"), (0, b"bbbb"), (4, b"cccc")]);
        assert_eq!(ledger.spans(), Some(vec![span(0, b"bbbb"), span(4, b"cccc")]));
        drop(ledger.synced());
        assert!(!ledger.is_dirty());
        assert_eq!(ledger.spans(), Some(vec![]));
    }

    #[test]
    fn pieces_of_a_journal_are_one_span() {
        let mut ledger = Ledger::default();
        for (at, piece) in [(0, &b"head"[..]), (4, b"page"), (8, b"sum"), (0, b"HEADpagesum")] {
            ledger.appended(at, piece);
        }
        assert_eq!(ledger.spans(), Some(vec![span(0, b"HEADpagesum")]));
    }

    #[test]
    fn what_was_overwritten_in_part_cannot_be_healed_until_the_next_sync() {
        for (at, bytes) in [(2, &b"xx"[..]), (2, b"xxxx"), (0, b"x")] {
            let mut ledger = ledger(&[(0, b"aaaa"), (at, bytes)]);
            assert_eq!(ledger.spans(), None, "{at}");
            assert!(ledger.is_dirty());
            drop(ledger.synced());
            ledger.wrote(0, b"a");
            assert!(ledger.spans().is_some());
        }
    }

    #[test]
    fn bytes_that_are_kept_count_as_if_their_checksums_had_been_taken() {
        let (mut ledger, mut kept) = (Ledger::default(), Ledger::default());
        for (at, bytes, keep) in
            [(0, &b"head"[..], false), (4, b"page", true), (8, b"more", true), (4, b"PAGE", true), (12, b"end", false)]
        {
            ledger.wrote(at, bytes);
            if keep {
                kept.keep(at, bytes.to_vec())
            } else {
                kept.appended(at, bytes)
            }
            assert!(kept.is_dirty());
        }
        assert_eq!(kept.spans(), ledger.spans());
        kept.keep(15, b"x".to_vec());
        kept.truncated(12);
        assert_eq!((kept.spans().map(|spans| spans.len()), kept.size()), (Some(3), Some(12)));
        assert_eq!(kept.synced().len(), 0, "their checksums were asked for");
        assert!(!kept.is_dirty());
    }

    #[test]
    fn no_more_than_a_limit_is_kept() {
        let mut ledger = Ledger::default();
        for at in 0..=MOST_KEPT as u64 / 65536 {
            assert!(ledger.kept_bytes <= MOST_KEPT);
            ledger.keep(at * 65536, vec![1; 65536]);
        }
        assert_eq!((ledger.kept_bytes, ledger.kept.len()), (0, 0));
        assert_eq!(ledger.spans().map(|spans| spans.len()), Some(17));
    }

    #[test]
    fn a_cut_forgets_what_lay_behind_it() {
        let mut whole = ledger(&[(0, b"aaaa"), (4, b"bbbb"), (8, b"cccc")]);
        whole.truncated(4);
        assert_eq!(whole.spans(), Some(vec![span(0, b"aaaa")]));
        assert_eq!(whole.size(), Some(4));
        whole.appended(4, b"dd");
        assert_eq!(whole.size(), Some(6));
        let mut through = ledger(&[(0, b"aaaa")]);
        through.truncated(2);
        assert_eq!(through.spans(), None);
        assert!(through.is_dirty());
    }

    #[test]
    fn more_spans_than_fit_are_given_up_and_stay_dirty() {
        let mut ledger = Ledger::default();
        for at in 0..=MOST_SPANS as u64 {
            ledger.wrote(2 * at, b"a");
        }
        assert_eq!(ledger.spans(), None);
        assert!(ledger.is_dirty());
    }
}
