//! SQLite appends a frame to the log in two writes, 24 bytes of header and the page, with nothing in between. The header
//! waits here for its page, so that a frame costs one call.
//!
//! Invariant: a header waits only where SQLite's next call on the log is the write of its page: at the end of what this
//! connection has written. A header in the middle is a checksum that is mended before a commit, after which no call need
//! follow; it is never held.

use crate::format::wal::{FRAME_HEADER_SIZE, HEADER_SIZE};

/// The frame that is being appended.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    waiting: Option<(u64, [u8; FRAME_HEADER_SIZE])>,
    /// Where the last frame written ends.
    end: u64,
    /// Where the page begins, or goes on, whose header was the last, and how much of it has been written.
    page: Option<(u64, usize)>,
    buffer: Vec<u8>,
}

impl Frame {
    /// The header of the log has been written: frames begin behind it.
    pub(crate) fn restarted(&mut self) {
        (self.waiting, self.end, self.page) = (None, HEADER_SIZE as u64, None);
    }

    /// Whether a write at `at` is of the page whose header was the last.
    pub(crate) fn is_page(&self, at: u64) -> bool {
        self.page.is_some_and(|(next, _)| next == at)
    }

    /// Holds the header of a frame at `at`; `false` if it must be written as it is.
    pub(crate) fn hold(&mut self, at: u64, header: &[u8; FRAME_HEADER_SIZE]) -> bool {
        debug_assert!(self.waiting.is_none(), "each header is followed by its page");
        self.page = Some((at + FRAME_HEADER_SIZE as u64, 0));
        let appends = at >= self.end;
        if appends {
            self.waiting = Some((at, *header));
        }
        appends
    }

    /// The header that waits and the bytes behind it, and where they go; `None` if these bytes do not follow on a header,
    /// or there is no memory for both.
    pub(crate) fn whole(&mut self, at: u64, page: &[u8]) -> Option<(u64, &[u8])> {
        let (start, header) = self.waiting?;
        if at != start + FRAME_HEADER_SIZE as u64 {
            return None;
        }
        self.buffer.clear();
        self.buffer.try_reserve(FRAME_HEADER_SIZE + page.len()).ok()?;
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(page);
        self.waiting = None;
        Some((start, &self.buffer))
    }

    /// So many bytes have been written here, which are no header.
    pub(crate) fn wrote(&mut self, at: u64, length: usize) {
        let end = at + length as u64;
        self.end = self.end.max(end);
        // Only the first part of a page may be as long as a page, and then what is left is longer than a header.
        let have = self.page.filter(|(next, _)| *next == at).map(|(_, before)| before + length);
        let whole = |have: usize| (512..=65536).contains(&have) && have.is_power_of_two();
        self.page = have.filter(|have| !whole(*have)).map(|have| (end, have));
    }

    /// A header that waits for a page that does not come.
    pub(crate) fn left(&mut self) -> Option<(u64, [u8; FRAME_HEADER_SIZE])> {
        self.waiting.take()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADER: [u8; FRAME_HEADER_SIZE] = [7; FRAME_HEADER_SIZE];

    #[test]
    fn a_header_at_the_end_waits_for_its_page() {
        let mut frame = Frame::default();
        frame.restarted();
        for at in [32, 32 + 536] {
            assert!(frame.hold(at, &HEADER));
            let (start, bytes) = frame.whole(at + 24, &[1; 512]).unwrap();
            assert_eq!((start, bytes.len(), &bytes[..24], &bytes[24..]), (at, 536, &HEADER[..], &[1; 512][..]));
            frame.wrote(at + 24, 512);
            assert_eq!(frame.left(), None);
        }
    }

    #[test]
    fn a_part_of_a_page_is_no_header_however_long_it_is() {
        let mut frame = Frame::default();
        frame.restarted();
        let mut at = 32;
        for parts in [[24, 488], [488, 24], [100, 412]] {
            assert!(!frame.is_page(at) && frame.hold(at, &HEADER));
            let _written = frame.left();
            at += 24;
            for part in parts {
                assert!(frame.is_page(at));
                frame.wrote(at, part);
                at += part as u64;
            }
        }
        assert!(!frame.is_page(at));
    }

    #[test]
    fn a_header_in_the_middle_is_written_as_it_is() {
        let mut frame = Frame::default();
        frame.wrote(32, 3 * 536);
        assert!(!frame.hold(32 + 536, &HEADER) && !frame.hold(32 + 2 * 536, &HEADER));
        assert!(frame.hold(32 + 3 * 536, &HEADER));
        assert!(frame.whole(32, &[1; 512]).is_none(), "not its page");
        assert_eq!(frame.left(), Some((32 + 3 * 536, HEADER)));
        frame.restarted();
        assert!(frame.hold(32, &HEADER));
    }
}
