//! What is remembered about the rollback transaction that is writing to the database.
//!
//! Page 1 is the first page that a commit writes, but pages that do not fit into the page cache are written before it, and so
//! may be all pages when a hot journal is rolled back. Whether those carry sums is known only when page 1 comes. Until then
//! they are written by what stands on disk, and this remembers how to mend it: the bytes that a sum has replaced, and that
//! there were pages without one.

use super::sum;

/// More pages than this written before their page 1 cannot be mended; the transaction is refused then.
const MOST: usize = 1 << 20;

/// The last bytes of a page, as SQLite wrote them.
pub(crate) struct Replaced {
    /// Where in the file they belong.
    pub(crate) at: i64,
    pub(crate) bytes: [u8; sum::SIZE],
}

#[derive(Default)]
pub(crate) struct Transaction {
    replaced: Vec<Replaced>,
    /// Some have not been remembered.
    forgotten: bool,
    /// A page was written without a sum.
    pub(crate) bare: bool,
    /// All pages must get their sums before the journal goes.
    pub(crate) unsettled: bool,
}

impl Transaction {
    /// A sum is about to replace these bytes.
    pub(crate) fn replace(&mut self, at: i64, bytes: [u8; sum::SIZE]) {
        if self.replaced.len() < MOST && self.replaced.try_reserve(1).is_ok() {
            self.replaced.push(Replaced { at, bytes });
        } else {
            self.forgotten = true;
        }
    }

    /// The file is cut: what lay behind must not be written again.
    pub(crate) fn cut(&mut self, size: i64) {
        self.replaced.retain(|replaced| replaced.at < size);
    }

    /// What to put back, in the order in which it was replaced; `None` if some of it is not known any more.
    pub(crate) fn take_replaced(&mut self) -> Option<Vec<Replaced>> {
        let replaced = std::mem::take(&mut self.replaced);
        (!self.forgotten).then_some(replaced)
    }

    /// It has ended.
    pub(crate) fn end(&mut self) {
        if self.bare || self.forgotten || !self.replaced.is_empty() {
            *self = Transaction::default();
        }
        self.unsettled = false;
    }
}
