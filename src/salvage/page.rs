//! B-tree pages ([file format](https://www.sqlite.org/fileformat2.html#b_tree_pages), section 1.6).
//!
//! Invariant: whatever the bytes are, no offset taken from them is used before it is known to lie within the page.

use super::record::varint;

/// What a page of a b-tree is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InteriorIndex,
    InteriorTable,
    LeafIndex,
    LeafTable,
}

impl Kind {
    pub(crate) fn of(byte: u8) -> Option<Kind> {
        match byte {
            2 => Some(Kind::InteriorIndex),
            5 => Some(Kind::InteriorTable),
            10 => Some(Kind::LeafIndex),
            13 => Some(Kind::LeafTable),
            _ => None,
        }
    }

    pub(crate) fn is_interior(self) -> bool {
        matches!(self, Kind::InteriorIndex | Kind::InteriorTable)
    }

    /// Whether it belongs to a table with rowids.
    pub(crate) fn is_table(self) -> bool {
        matches!(self, Kind::InteriorTable | Kind::LeafTable)
    }

    /// Whether its cells hold records.
    pub(crate) fn has_records(self) -> bool {
        self != Kind::InteriorTable
    }
}

/// A page of a b-tree. The bytes end where the reserved ones begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) kind: Kind,
    /// Where its header starts: after the database header on page 1.
    start: usize,
}

/// A cell as far as it lies on its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell<'a> {
    /// Of a table's leaf.
    pub(crate) rowid: Option<i64>,
    /// Length of the whole record in bytes, as declared.
    pub(crate) length: u64,
    /// What is on the page.
    pub(crate) local: &'a [u8],
    /// The first overflow page, 0 for none.
    pub(crate) overflow: u32,
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?)))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl<'a> Page<'a> {
    /// The page `number`, whose usable bytes are `bytes`.
    pub(crate) fn of(number: u32, bytes: &'a [u8]) -> Option<Page<'a>> {
        let start = start_of(number);
        let kind = Kind::of(*bytes.get(start)?)?;
        Some(Page { bytes, kind, start })
    }

    /// The same as if its first byte were that of `kind`.
    pub(crate) fn taken_for(number: u32, bytes: &'a [u8], kind: Kind) -> Page<'a> {
        Page { bytes, kind, start: start_of(number) }
    }

    /// How many cells it says it has, at most as many as have room.
    pub(crate) fn cells(&self) -> usize {
        be16(self.bytes, self.start + 3).unwrap_or(0).min(self.bytes.len().saturating_sub(8) / 6)
    }

    fn pointers(&self) -> usize {
        self.start + if self.kind.is_interior() { 12 } else { 8 }
    }

    /// Where its cells are, in order: `None` for a pointer that cannot be right, or is the same as one before.
    pub(crate) fn offsets(&self, into: &mut Vec<Option<usize>>) {
        into.clear();
        let pointers = self.pointers();
        for index in 0..self.cells() {
            let at = pointers + 2 * index;
            into.push(be16(self.bytes, at).filter(|offset| *offset > at && *offset < self.bytes.len()));
        }
        if !into.is_sorted_by(|a, b| a > b) && !into.is_sorted_by(|a, b| a < b) {
            let mut seen = vec![false; self.bytes.len()];
            for place in into {
                let again =
                    place.and_then(|offset| seen.get_mut(offset)).is_some_and(|seen| std::mem::replace(seen, true));
                if again {
                    *place = None;
                }
            }
        }
    }

    /// The child behind all cells, of an interior page.
    pub(crate) fn right_child(&self) -> u32 {
        be32(self.bytes, self.start + 8).unwrap_or(0)
    }

    /// The child left of the cell at `offset`, of an interior page, and the largest rowid in it if that is what the cell says.
    pub(crate) fn child(&self, offset: usize) -> (u32, i64) {
        let key = varint(self.bytes.get(offset + 4..).unwrap_or(&[])).0;
        (be32(self.bytes, offset).unwrap_or(0), key as i64)
    }

    /// The cell with a record at `offset`.
    pub(crate) fn cell(&self, offset: usize) -> Option<Cell<'a>> {
        let mut at = offset + if self.kind.is_interior() { 4 } else { 0 };
        let (length, size) = varint(self.bytes.get(at..)?);
        at += size;
        // Longer is no record; what SQLite's own recovery takes instead may still show some of its fields.
        let length = match length {
            0x7fff_ff01..=0xffff_ffff => length & 0x3fff,
            0x1_0000_0000.. => 0,
            _ => length,
        };
        let rowid = match self.kind {
            Kind::LeafTable => {
                let (rowid, size) = varint(self.bytes.get(at..)?);
                at += size;
                Some(rowid as i64)
            }
            _ => None,
        };
        let rest = self.bytes.get(at..)?;
        let local = usize::try_from(local(length, self.bytes.len(), self.kind)).ok()?;
        // A record says itself how long it is: a length that reaches over the end of the page may be all that is wrong.
        let here = rest.get(..local).unwrap_or(rest);
        let overflow = if local as u64 == length { 0 } else { be32(rest, local).unwrap_or(0) };
        Some(Cell { rowid, length, local: here, overflow })
    }

    /// Whether everything on the page is as SQLite would have left it: from the start of the content to the end of the page,
    /// each byte is in one cell or one free block, but for as many as the header says.
    pub(crate) fn is_well_formed(&self) -> bool {
        let usable = self.bytes.len();
        let field = |at| be16(self.bytes, self.start + at).unwrap_or(usize::MAX);
        let (cells, content) = (field(3), if field(5) == 0 { 65_536 } else { field(5) });
        if cells > usable / 4 || self.pointers() + 2 * cells > content || content > usable {
            return false;
        }
        let mut extents = Vec::with_capacity(cells);
        for index in 0..cells {
            let Some(offset) = be16(self.bytes, self.pointers() + 2 * index) else { return false };
            // No cell is shorter: a smaller one is followed by bytes that are not used.
            let end = self.end_of(offset).map(|end| end.max(offset + 4));
            let Some(end) = end.filter(|end| *end <= usable && offset >= content) else { return false };
            extents.push((offset, end));
        }
        let mut free = field(1);
        while free != 0 {
            let (Some(next), Some(size)) = (be16(self.bytes, free), be16(self.bytes, free.saturating_add(2))) else {
                return false;
            };
            if size < 4 || free + size > usable || free < content || (next != 0 && next <= free) {
                return false;
            }
            extents.push((free, free + size));
            free = next;
        }
        extents.sort_unstable();
        let used: usize = extents.iter().map(|(start, end)| end - start).sum();
        let apart = extents.windows(2).all(|pair| matches!(pair, [(_, end), (next, _)] if end <= next));
        apart
            && self
                .bytes
                .get(self.start + 7)
                .is_some_and(|fragments| used + usize::from(*fragments) == usable - content)
    }

    fn end_of(&self, offset: usize) -> Option<usize> {
        let mut at = offset + if self.kind.is_interior() { 4 } else { 0 };
        let (length, size) = varint(self.bytes.get(at..)?);
        at += size;
        if self.kind == Kind::InteriorTable {
            return Some(at);
        }
        if self.kind == Kind::LeafTable {
            at += varint(self.bytes.get(at..)?).1;
        }
        let local = local(length, self.bytes.len(), self.kind);
        at = at.checked_add(usize::try_from(local).ok()?)?;
        at.checked_add(if local == length { 0 } else { 4 })
    }
}

fn start_of(number: u32) -> usize {
    if number == 1 { 100 } else { 0 }
}

/// How much of a record of `length` bytes is on its page (section 1.6, "B-tree cell format").
fn local(length: u64, usable: usize, kind: Kind) -> u64 {
    let usable = usable as u64;
    let most = match kind {
        Kind::LeafTable => usable.saturating_sub(35),
        _ => (usable.saturating_sub(12) * 64 / 255).saturating_sub(23),
    };
    if length <= most {
        return length;
    }
    let least = (usable.saturating_sub(12) * 32 / 255).saturating_sub(23);
    let spread = least + (length.saturating_sub(least)) % usable.saturating_sub(4).max(1);
    if spread <= most { spread } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_into_the_header_or_behind_the_page_are_left_out() {
        let mut bytes = vec![0; 512];
        bytes[..12].copy_from_slice(&[13, 0, 0, 0, 4, 0, 0, 0, 0, 3, 2, 1]);
        bytes[12..16].copy_from_slice(&[1, 0, 1, 0]);
        let page = Page { bytes: &bytes, kind: Kind::LeafTable, start: 0 };
        let mut offsets = Vec::new();
        page.offsets(&mut offsets);
        assert_eq!(
            offsets,
            [None, None, Some(256), None],
            "3 lies in the header, 513 behind the page, and the last is the same again"
        );
    }

    #[test]
    fn a_length_that_reaches_over_the_end_gives_what_is_there() {
        let mut bytes = vec![0; 512];
        bytes[500] = 100;
        bytes[501] = 5;
        let page = Page { bytes: &bytes, kind: Kind::LeafTable, start: 0 };
        let cell = page.cell(500);
        assert_eq!(
            cell.map(|cell| (cell.rowid, cell.length, cell.local.len(), cell.overflow)),
            Some((Some(5), 100, 10, 0))
        );
    }
}
