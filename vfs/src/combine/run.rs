//! Bytes of a rollback journal that follow each other and have not been written yet.
//!
//! SQLite writes a page record in three pieces, and the header before them. A journal is small, or it is written in pieces of
//! [`MOST_BYTES`], which end at the end of a page of the kernel's: the next one then begins at one, and is not split.

/// As much waits before it is written.
const MOST_BYTES: usize = 1 << 20;

/// Room for a header and two pages of the usual size.
const FIRST: usize = 9 * 1024;

/// Memory of this size serves the next transaction as well.
const MOST_SPARE: usize = 64 * 1024;

/// Linux caches files in pages of this size or larger ones.
const PAGE: u64 = 4096;

/// One contiguous run of bytes.
#[derive(Debug, Default)]
pub(crate) struct Run {
    at: u64,
    bytes: Vec<u8>,
}

impl Run {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where it ends; 0 if nothing waits.
    pub(crate) fn end(&self) -> u64 {
        if self.is_empty() { 0 } else { self.at + self.bytes.len() as u64 }
    }

    /// Takes bytes in, and answers whether it has become so long that a [`Run::part`] of it is to be written. `None` if they
    /// do not continue or overwrite what waits, which has to be written first, or there is no memory for them.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) -> Option<bool> {
        if self.is_empty() {
            self.at = at;
        }
        let start = usize::try_from(at.checked_sub(self.at)?).ok()?;
        if start > self.bytes.len() {
            return None;
        }
        let end = start.checked_add(bytes.len())?;
        if start == self.bytes.len() {
            if self.bytes.capacity() == 0 {
                self.bytes.try_reserve(FIRST).ok()?;
            }
            self.bytes.try_reserve(bytes.len()).ok()?;
            self.bytes.extend_from_slice(bytes);
            return Some(end >= MOST_BYTES);
        }
        if end > self.bytes.len() {
            self.bytes.try_reserve(end - self.bytes.len()).ok()?;
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(start..end)?.copy_from_slice(bytes);
        Some(self.bytes.len() >= MOST_BYTES)
    }

    /// Everything that waits, and where it goes.
    pub(crate) fn whole(&self) -> Option<(u64, &[u8])> {
        (!self.is_empty()).then_some((self.at, self.bytes.as_slice()))
    }

    /// Everything that waits, to be written; [`Run::put_back`] if that fails.
    pub(crate) fn take(&mut self) -> (u64, Vec<u8>) {
        (self.at, std::mem::take(&mut self.bytes))
    }

    /// What [`Run::take`] has answered waits on.
    pub(crate) fn put_back(&mut self, (at, bytes): (u64, Vec<u8>)) {
        (self.at, self.bytes) = (at, bytes);
    }

    /// Takes the memory of bytes that nobody needs any more.
    pub(crate) fn reuse(&mut self, mut bytes: Vec<u8>) {
        if self.bytes.capacity() == 0 && bytes.capacity() <= MOST_SPARE {
            bytes.clear();
            self.bytes = bytes;
        }
    }

    /// What waits up to the last end of a page.
    pub(crate) fn part(&self) -> Option<(u64, &[u8])> {
        let rest = usize::try_from(self.end() % PAGE).unwrap_or(0);
        let part = self.bytes.get(..self.bytes.len().checked_sub(rest)?)?;
        if part.is_empty() { self.whole() } else { Some((self.at, part)) }
    }

    /// The first `length` bytes have been written.
    pub(crate) fn wrote(&mut self, length: usize) {
        let length = length.min(self.bytes.len());
        self.bytes.drain(..length);
        self.at += length as u64;
    }

    /// What lies at `size` or behind it is being cut off.
    pub(crate) fn cut(&mut self, size: u64) {
        let keep = usize::try_from(size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.truncate(keep);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.reuse(bytes);
    }

    /// Whether some of these bytes wait.
    pub(crate) fn touches(&self, at: u64, length: usize) -> bool {
        !self.is_empty() && at < self.end() && self.at < at.saturating_add(length as u64)
    }

    /// Puts the bytes that wait over those that were read from the file, of which the first `read` were there. How many are
    /// there now.
    pub(crate) fn cover(&self, at: u64, buffer: &mut [u8], read: usize) -> usize {
        if !self.touches(at, buffer.len()) {
            return read;
        }
        let (from, to) = (at.max(self.at), (at + buffer.len() as u64).min(self.end()));
        let range =
            |start: u64| Some(usize::try_from(from.checked_sub(start)?).ok()?..usize::try_from(to - start).ok()?);
        if let (Some(here), Some(there)) = (range(at), range(self.at)) {
            if let (Some(here), Some(there)) = (buffer.get_mut(here), self.bytes.get(there)) {
                here.copy_from_slice(there);
            }
        }
        // What lies between the end of the file and the run will be zeros.
        read.max(usize::try_from(to - at).unwrap_or(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_records_become_one_write() {
        let mut run = Run::default();
        for (at, piece) in [(0, &b"head"[..]), (4, b"page"), (8, b"sum"), (1, b"EAD")] {
            assert_eq!(run.put(at, piece), Some(false));
        }
        assert_eq!(run.whole(), Some((0, &b"hEADpagesum"[..])));
        run.wrote(11);
        assert_eq!((run.whole(), run.end()), (None, 0));
    }

    #[test]
    fn what_does_not_continue_it_has_to_wait_for_it() {
        let mut run = Run::default();
        run.put(100, b"abc");
        assert_eq!(run.put(104, b"x"), None);
        assert_eq!(run.put(99, b"xx"), None);
        assert_eq!(run.whole(), Some((100, &b"abc"[..])));
        assert_eq!(run.put(103, b"d"), Some(false));
    }

    #[test]
    fn a_long_one_is_written_up_to_the_end_of_a_page() {
        let mut run = Run::default();
        let mut at = 0;
        let mut due = false;
        while !due {
            due = run.put(at, &[7; 4104]).unwrap();
            at += 4104;
        }
        let (start, length) = run.part().map(|(start, part)| (start, part.len())).unwrap();
        assert_eq!((start, length % 4096), (0, 0));
        assert!(length >= MOST_BYTES - 4096 && (length as u64) < at);
        run.wrote(length);
        assert_eq!(run.whole().map(|(start, rest)| (start, start + rest.len() as u64)), Some((length as u64, at)));
    }

    #[test]
    fn a_read_finds_what_waits() {
        let mut run = Run::default();
        run.put(10, b"abcdef");
        // (from, length, bytes that the file has) and what is read.
        for (at, length, read, text) in [
            (0, 8, 8, (8, &b"........"[..])),
            (8, 4, 4, (4, &b"..ab"[..])),
            (8, 4, 2, (4, &b"..ab"[..])),
            (12, 2, 0, (2, &b"cd"[..])),
            (12, 8, 0, (4, &b"cdef...."[..])),
            (12, 8, 8, (8, &b"cdef...."[..])),
            (16, 4, 0, (0, &b"...."[..])),
        ] {
            let mut buffer = vec![b'.'; length];
            assert_eq!((run.cover(at, &mut buffer, read), buffer.as_slice()), text, "{at} {length} {read}");
        }
    }

    #[test]
    fn a_cut_forgets_what_lies_behind_it() {
        let mut run = Run::default();
        run.put(10, b"abcdef");
        run.cut(13);
        assert_eq!(run.whole(), Some((10, &b"abc"[..])));
        run.cut(4);
        assert!(run.is_empty());
    }
}
