//! What a page of a tree can be, looked at alone (<https://www.sqlite.org/fileformat2.html#b_tree_pages>).
//!
//! Invariant: no page that SQLite writes as part of a tree is refused. A page that is accepted may still be wrong in every
//! cell: this finds pages that were overwritten, cut off or zeroed in part, not those that lie.

/// What a page seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Part of a tree, or nothing that could be told from one: overflow, free, zeros.
    Possible,
    /// Not part of a tree, and not the start of anything else either. Only a free page may have such content.
    Impossible(&'static str),
}

use Shape::{Impossible, Possible};

fn be16(page: &[u8], at: usize) -> Option<usize> {
    let bytes = page.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}

fn be32(page: &[u8], at: usize) -> Option<u32> {
    let bytes = page.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Looks at page `number` of a database of `count` pages, of which `usable` bytes are SQLite's.
pub(crate) fn of(page: &[u8], number: u32, count: u32, usable: usize) -> Shape {
    let at = if number == 1 { 100 } else { 0 };
    let Some(kind) = page.get(at).copied() else { return Impossible("it is cut off") };
    // An overflow page or one of the free list begins with the number of the next.
    let may_be_a_number = number != 1 && u32::from(kind) <= count >> 24;
    let header = match kind {
        2 | 5 => 12,
        10 | 13 => 8,
        _ if may_be_a_number => return Possible,
        _ => return Impossible("it starts as no page does"),
    };
    if may_be_a_number {
        Possible
    } else {
        tree(page, at, header, count, usable).unwrap_or(Impossible("it is cut off"))
    }
}

fn tree(page: &[u8], at: usize, header: usize, count: u32, usable: usize) -> Option<Shape> {
    let (cells, pointers) = (be16(page, at + 3)?, at + header);
    let content = match be16(page, at + 5)? {
        0 => 65536,
        content => content,
    };
    let end = pointers + 2 * cells;
    if end > content || content > usable {
        return Some(Impossible("its cells do not fit into it"));
    }
    if header == 12 && !(1..=count).contains(&be32(page, at + 8)?) {
        return Some(Impossible("it leads to a page that the database does not have"));
    }
    for pointer in page.get(pointers..end)?.chunks_exact(2) {
        let cell = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
        if cell < content || cell + 4 > usable {
            return Some(Impossible("a cell is not where cells are"));
        }
    }
    let mut free = be16(page, at + 1)?;
    while free != 0 {
        let (next, size) = (be16(page, free)?, be16(page, free + 2)?);
        if free < content || free + size > usable || (next != 0 && next < free + size) {
            return Some(Impossible("its free space is not where it can be"));
        }
        free = next;
    }
    Some(Possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..8].copy_from_slice(&[13, 0, 0, 0, 2, 1, 0xf0, 0]);
        page[8..12].copy_from_slice(&[1, 0xf8, 1, 0xf0]);
        page
    }

    #[test]
    fn a_leaf_is_possible_and_loses_that_with_any_field_out_of_bounds() {
        assert_eq!(of(&leaf(), 2, 9, 512), Possible);
        for (at, byte) in [(0, 7), (3, 4), (5, 3), (8, 0), (9, 0xff), (1, 1)] {
            let mut page = leaf();
            page[at] = byte;
            assert_ne!(of(&page, 2, 9, 512), Possible, "byte {at} = {byte}");
        }
    }

    #[test]
    fn overflow_free_and_zeroed_pages_are_possible_and_page_1_starts_later() {
        for number in [0_u32, 5] {
            let mut page = vec![0xee; 512];
            page[..4].copy_from_slice(&number.to_be_bytes());
            assert_eq!(of(&page, 2, 9, 512), Possible);
            assert_ne!(of(&page, 1, 9, 512), Possible);
        }
        // With that many pages a 2 may begin the number of one.
        let page = vec![2; 512];
        assert_eq!(of(&page, 2, 3 << 24, 512), Possible);
        assert_ne!(of(&page, 2, 1 << 24, 512), Possible);
        assert_ne!(of(&[], 2, 9, 512), Possible);
    }

    #[test]
    fn any_bytes_have_a_shape() {
        // A linear congruential generator, seed 1.
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut page = leaf();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % 16;
                page[at] = (state >> 56) as u8;
            }
            let _ = of(&page, 2, 9, 512);
        }
    }
}
