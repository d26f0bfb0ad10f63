//! Frames of a transaction that SQLite has written without a checksum; `shim/unsummed.rs` says why and what becomes of them.
//!
//! Invariant: [`Unsummed`] spans all frames of the transaction that have none and stand before the frame written last.

use crate::format::wal::FRAME_HEADER_SIZE;

/// The frames at the end of a transaction whose headers have zeros: where the first and the last of them begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsummed {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Unsummed {
    /// What there is after the header of a frame was written at `at`.
    pub(crate) fn after(before: Option<Unsummed>, at: u64, header: &[u8; FRAME_HEADER_SIZE]) -> Option<Unsummed> {
        if header[8..] != [0; 16] {
            return None;
        }
        // Behind a rollback to a savepoint frames are written over, and those before them stay.
        let first = before.map_or(at, |before| before.first.min(at));
        Some(Unsummed { first, last: at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_a_checksum_are_counted_from_the_first_that_stays() {
        let (zeros, sound) = ([0; FRAME_HEADER_SIZE], [1; FRAME_HEADER_SIZE]);
        let all = |at: &[u64]| at.iter().fold(None, |before, at| Unsummed::after(before, *at, &zeros));
        assert_eq!(all(&[100, 200, 300]), Some(Unsummed { first: 100, last: 300 }));
        assert_eq!(all(&[100, 200, 300, 200]), Some(Unsummed { first: 100, last: 200 }), "a savepoint within them");
        assert_eq!(all(&[300, 400, 100, 200]), Some(Unsummed { first: 100, last: 200 }), "a savepoint before them");
        assert_eq!(Unsummed::after(all(&[100]), 200, &sound), None);
    }
}
