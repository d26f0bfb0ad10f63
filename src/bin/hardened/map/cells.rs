//! Pages in cells, as many in each as it takes to have room.

use hardened_sqlite::page_map::PageKind;

/// How many pages are in a cell, a power of two, so that there are at most `most` cells.
pub(super) fn group(pages: usize, most: usize) -> usize {
    let mut group = 1_usize;
    while pages.div_ceil(group) > most.max(1) {
        group *= 2;
    }
    group
}

/// What each cell shows: damage, else orphans, else what most of its pages are.
pub(super) fn cells(kinds: &[PageKind], group: usize) -> impl ExactSizeIterator<Item = PageKind> + '_ {
    kinds.chunks(group.max(1)).map(of)
}

fn of(pages: &[PageKind]) -> PageKind {
    for alarming in [PageKind::Damaged, PageKind::Orphan] {
        if pages.contains(&alarming) {
            return alarming;
        }
    }
    let count = |kind: &PageKind| pages.iter().filter(|page| *page == kind).count();
    // Of equals the first.
    PageKind::ALL.into_iter().rev().max_by_key(count).unwrap_or(PageKind::Orphan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PageKind::{Damaged, FreeLeaf, Orphan, TableInterior, TableLeaf};

    #[test]
    fn a_cell_shows_the_worst_of_its_pages_and_else_what_most_are() {
        let shown = |kinds: &[PageKind]| cells(kinds, 4).collect::<Vec<_>>();
        assert_eq!(shown(&[FreeLeaf, FreeLeaf, TableLeaf, FreeLeaf]), [FreeLeaf]);
        assert_eq!(shown(&[FreeLeaf, TableLeaf]), [TableLeaf]);
        assert_eq!(shown(&[TableLeaf, TableLeaf, TableInterior, Orphan]), [Orphan]);
        assert_eq!(shown(&[Damaged, Orphan, Orphan, Orphan, TableLeaf]), [Damaged, TableLeaf]);
    }

    #[test]
    fn there_are_never_more_cells_than_have_room() {
        for pages in [0, 1, 63, 64, 65, 1024, 1025, 262_144, 4_294_967_294] {
            for most in [1, 64, 1024] {
                let group = group(pages, most);
                assert!(pages.div_ceil(group) <= most, "{pages} in {most}");
                assert!(group == 1 || pages.div_ceil(group / 2) > most, "{pages} in {most}: {group} is too many");
            }
        }
    }
}
