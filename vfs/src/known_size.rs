//! How large the database is, where asking is a round trip.
//!
//! SQLite asks whenever it takes SHARED. A rollback transaction that changes the size changes the 16 bytes of the header that
//! begin with the change counter (<https://www.sqlite.org/fileformat2.html#file_change_counter>), as everybody does who writes
//! to the database; it is by them that SQLite itself knows that its cache is still good, and it reads them first.
//!
//! Invariant: a size is known only together with these bytes, and only if the file had it when the header held them; the
//! writes of this connection change both. In WAL mode none is known: there a checkpoint by others changes the size while the
//! lock is held.

/// What is read of the header when SHARED is taken, and where.
pub(crate) const HEADER: usize = 16;
pub(crate) const AT: u64 = 24;

type Bytes = [u8; HEADER];

/// The size as this connection knows it.
#[derive(Debug, Default)]
pub(crate) struct KnownSize {
    /// The bytes as they were read under the lock that is held.
    seen: Option<Bytes>,
    known: Option<(Bytes, u64)>,
    /// The base makes the file larger than it need be.
    never: bool,
}

impl KnownSize {
    /// These bytes were read from the file under a lock.
    pub(crate) fn saw(&mut self, bytes: &[u8]) {
        self.seen = Bytes::try_from(bytes).ok();
    }

    /// The lock was given back.
    pub(crate) fn unlocked(&mut self) {
        self.seen = None;
    }

    /// The size, if it is known.
    pub(crate) fn size(&self) -> Option<u64> {
        let seen = self.seen?;
        self.known.filter(|(bytes, _)| *bytes == seen && !self.never).map(|(_, size)| size)
    }

    /// The filesystem has told it.
    pub(crate) fn told(&mut self, size: u64) {
        self.known = self.seen.map(|bytes| (bytes, size));
    }

    /// This connection has written there.
    pub(crate) fn wrote(&mut self, at: u64, bytes: &[u8]) {
        let Some((header, size)) = &mut self.known else {
            self.seen = None;
            return;
        };
        *size = (*size).max(at + bytes.len() as u64);
        let from = AT.checked_sub(at).and_then(|from| usize::try_from(from).ok());
        let range = from.and_then(|from| bytes.get(from..from.checked_add(HEADER)?));
        if let Some(new) = range.and_then(|new| Bytes::try_from(new).ok()) {
            *header = new;
            self.seen = Some(new);
        } else if at < AT + HEADER as u64 && at + bytes.len() as u64 > AT {
            self.forget();
        }
    }

    /// This connection has cut it off.
    pub(crate) fn cut(&mut self, to: u64) {
        if let Some((_, size)) = &mut self.known {
            *size = to;
        }
    }

    pub(crate) fn forget(&mut self) {
        (self.seen, self.known) = (None, None);
    }

    /// From now on the filesystem is asked.
    pub(crate) fn give_up(&mut self) {
        self.never = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counter: u8) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[27] = counter;
        page
    }

    fn known() -> KnownSize {
        let mut size = KnownSize::default();
        size.saw(&page(1)[24..40]);
        assert_eq!(size.size(), None);
        size.told(1024);
        size
    }

    #[test]
    fn it_is_known_as_long_as_the_header_is_the_same() {
        let mut size = known();
        assert_eq!(size.size(), Some(1024));
        size.unlocked();
        assert_eq!(size.size(), None, "nothing was read under this lock");
        size.saw(&page(1)[24..40]);
        assert_eq!(size.size(), Some(1024));
        size.unlocked();
        size.saw(&page(2)[24..40]);
        assert_eq!(size.size(), None, "somebody else has written");
        size.told(2048);
        assert_eq!(size.size(), Some(2048));
    }

    #[test]
    fn own_writes_change_both() {
        let mut size = known();
        size.wrote(1024, &page(0));
        size.wrote(0, &page(2));
        size.unlocked();
        size.saw(&page(2)[24..40]);
        assert_eq!(size.size(), Some(1536));
        size.cut(512);
        assert_eq!(size.size(), Some(512));
    }

    #[test]
    fn a_write_to_a_part_of_the_header_is_not_followed() {
        for (at, length) in [(24, 4), (0, 28), (39, 1)] {
            let mut size = known();
            size.wrote(at, &vec![7; length]);
            size.saw(&page(1)[24..40]);
            assert_eq!(size.size(), None, "{at} {length}");
        }
    }

    #[test]
    fn a_write_before_the_size_was_told_leaves_it_unknown() {
        let mut size = KnownSize::default();
        size.saw(&page(1)[24..40]);
        size.wrote(0, &page(2));
        size.told(1024);
        size.saw(&page(1)[24..40]);
        assert_eq!(size.size(), None);
    }

    #[test]
    fn a_size_told_without_a_header_is_not_kept() {
        let mut size = KnownSize::default();
        size.told(1024);
        size.saw(&page(1)[24..40]);
        assert_eq!(size.size(), None);
    }
}
