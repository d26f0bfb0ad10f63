//! Which page belongs to which b-tree.
//!
//! Invariant: a page belongs to one tree at most, and is in it once, whatever its pages say about one another. Where two
//! trees have a pointer to the same page, it goes to the one in which its keys have their place.

use std::collections::{HashMap, HashSet};
use std::io;

use super::image::Reader;
use super::page::{Kind, Page, be32};

/// Nobody's.
const NOBODY: u32 = u32::MAX;

/// Rowids greater than `low` and not greater than `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Span {
    pub(crate) const ALL: Span = Span { low: i64::MIN, high: i64::MAX };

    pub(crate) fn is_bounded(self) -> bool {
        self.low > i64::MIN && self.high < i64::MAX
    }

    pub(crate) fn has(self, rowid: i64) -> bool {
        (rowid > self.low || self.low == i64::MIN) && rowid <= self.high
    }
}

/// A page with rows, and where in the tree it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) page: u32,
    /// Of the rowids that it should hold; all, in a tree without rowids.
    pub(super) span: Span,
}

/// What was found of a tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Its table has rowids.
    pub(super) rowids: bool,
    /// Pages with rows, in order; those of interior pages of a tree without rowids come last.
    pub(super) pages: Vec<Leaf>,
    /// Where rows are missing: a pointer leads nowhere, or to a page of another kind.
    pub(super) holes: Vec<Span>,
    /// Pages that another tree has.
    pub(super) contested: Vec<Leaf>,
}

impl Tree {
    /// The pages of it that another tree has.
    pub(super) fn contested(&self) -> impl Iterator<Item = u32> + '_ {
        self.contested.iter().map(|leaf| leaf.page)
    }
}

/// All pages.
pub(super) struct Map {
    kinds: Vec<u8>,
    owners: Vec<u32>,
    /// The children of interior pages, each with the largest rowid under it.
    children: HashMap<u32, Vec<(u32, i64)>>,
    free: Vec<bool>,
    /// Leaves of tables whose kind cannot be read, or is another one.
    damaged_leaves: HashSet<u32>,
    /// All pages that the header says are free have been found, so that others are not.
    pub(super) freelist_is_whole: bool,
}

impl Map {
    /// Looks at every page.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn read(reader: &Reader<'_>, mut each: impl FnMut(u32) -> bool) -> io::Result<Option<Map>> {
        let count = reader.count();
        let mut map = Map {
            kinds: vec![0; count as usize + 1],
            owners: vec![NOBODY; count as usize + 1],
            children: HashMap::new(),
            free: vec![false; count as usize + 1],
            damaged_leaves: HashSet::new(),
            freelist_is_whole: false,
        };
        let mut offsets = Vec::new();
        for number in 1..=count {
            if number % 1024 == 0 && !each(number) {
                return Ok(None);
            }
            let found = reader.with(number, |bytes| {
                let page = Page::of(number, bytes)?;
                let mut children = Vec::new();
                if page.kind.is_interior() {
                    page.offsets(&mut offsets);
                    // From the last to the first: where a pointer is lost the child lies before the next one.
                    let mut next = (page.right_child(), i64::MAX);
                    children.push(next);
                    for offset in offsets.iter().rev() {
                        next = offset.map_or((0, next.1), |offset| page.child(offset));
                        children.push(next);
                    }
                    children.reverse();
                }
                Some((page.kind, children))
            })?;
            if let Some((kind, children)) = found.flatten() {
                if let Some(place) = map.kinds.get_mut(number as usize) {
                    *place = kind as u8 + 1;
                }
                if kind.is_interior() {
                    map.children.insert(number, children);
                }
            }
        }
        Ok(Some(map))
    }

    pub(super) fn kind(&self, page: u32) -> Option<Kind> {
        const KINDS: [Kind; 4] = [Kind::InteriorIndex, Kind::InteriorTable, Kind::LeafIndex, Kind::LeafTable];
        let at = usize::from(*self.kinds.get(page as usize)?).checked_sub(1)?;
        KINDS.get(at).copied()
    }

    fn exists(&self, page: u32) -> bool {
        page > 0 && (page as usize) < self.kinds.len()
    }

    pub(super) fn owner(&self, page: u32) -> Option<u32> {
        self.owners.get(page as usize).copied().filter(|owner| *owner != NOBODY)
    }

    fn set_owner(&mut self, page: u32, owner: u32) {
        if let Some(place) = self.owners.get_mut(page as usize) {
            *place = owner;
        }
    }

    pub(super) fn is_free(&self, page: u32) -> bool {
        self.free.get(page as usize).copied().unwrap_or(false)
    }

    /// Whether it is a page of a b-tree that somebody owns.
    pub(super) fn is_in_tree(&self, page: u32) -> bool {
        self.owner(page).is_some()
    }

    /// Walks the list of free pages. `count` is how many there should be.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn read_freelist(&mut self, reader: &Reader<'_>, first: u32, count: u32) -> io::Result<()> {
        let (mut trunk, mut found) = (first, 0_u32);
        while self.exists(trunk) && !self.is_free(trunk) && found <= count {
            let mut listed = Vec::new();
            let next = reader.with(trunk, |page| {
                let leaves = be32(page, 4).unwrap_or(0).min(page.len() as u32 / 4);
                listed.extend((0..leaves as usize).filter_map(|leaf| be32(page, 8 + 4 * leaf)));
                be32(page, 0).unwrap_or(0)
            })?;
            listed.push(trunk);
            for page in listed {
                if !self.is_free(page) && self.exists(page) {
                    found += 1;
                    if let Some(free) = self.free.get_mut(page as usize) {
                        *free = true;
                    }
                }
            }
            trunk = next.unwrap_or(0);
        }
        self.freelist_is_whole = trunk == 0 && found == count;
        Ok(())
    }

    /// Gives a root to a tree before any is walked: no other tree gets it. `false` if it has an owner already.
    pub(super) fn claim_root(&mut self, root: u32, tree: u32) -> bool {
        let free = self.exists(root) && self.owner(root).is_none();
        if free {
            self.set_owner(root, tree);
        }
        free
    }

    /// Whether it is a leaf of a table whatever it says itself.
    pub(super) fn is_damaged_leaf(&self, page: u32) -> bool {
        self.damaged_leaves.contains(&page)
    }

    /// Walks the tree of `root`, which it owns or which nobody does. `damaged_leaf` says whether a page that is of no known
    /// kind, or of that of an index, is a leaf of a table all the same.
    pub(super) fn walk(
        &mut self,
        root: Leaf,
        tree: u32,
        rowids: bool,
        damaged_leaf: &mut dyn FnMut(Leaf) -> io::Result<bool>,
    ) -> io::Result<Tree> {
        let mut found = Tree { rowids, ..Tree::default() };
        let mut interior = Vec::new();
        let mut stack = vec![root];
        while let Some(at) = stack.pop() {
            if !self.exists(at.page) {
                found.holes.push(at.span);
                continue;
            }
            match self.owner(at.page) {
                None => {}
                Some(owner) if owner == tree && at == root => {}
                Some(owner) if owner == tree => {
                    found.holes.push(at.span);
                    continue;
                }
                Some(_) => {
                    found.contested.push(at);
                    continue;
                }
            }
            match self.kind(at.page) {
                kind if rowids && kind.is_none_or(|kind| !kind.is_table()) && damaged_leaf(at)? => {
                    self.damaged_leaves.insert(at.page);
                    found.pages.push(at);
                }
                Some(kind) if kind.is_table() != rowids => {
                    found.holes.push(at.span);
                    continue;
                }
                Some(kind) if kind.is_interior() => {
                    let mut low = at.span.low;
                    let children = self.children.get(&at.page).map_or(&[][..], Vec::as_slice);
                    let from = stack.len();
                    for (child, key) in children {
                        let span = if rowids { Span { low, high: (*key).min(at.span.high) } } else { Span::ALL };
                        if *child != 0 {
                            low = *key;
                        }
                        stack.push(Leaf { page: *child, span });
                    }
                    if let Some(new) = stack.get_mut(from..) {
                        new.reverse();
                    }
                    if !rowids {
                        interior.push(at);
                    }
                }
                Some(_) => found.pages.push(at),
                None => {
                    found.holes.push(at.span);
                    continue;
                }
            }
            self.set_owner(at.page, tree);
        }
        found.pages.append(&mut interior);
        Ok(found)
    }

    /// Takes a page with everything under it from the tree that has it.
    fn release(&mut self, top: u32, owner: u32) -> HashSet<u32> {
        let mut released = HashSet::new();
        let mut stack = vec![top];
        while let Some(page) = stack.pop() {
            if self.owner(page) == Some(owner) {
                self.set_owner(page, NOBODY);
                released.insert(page);
                stack.extend(self.children.get(&page).into_iter().flatten().map(|(child, _)| *child));
            }
        }
        released
    }

    /// Settles what two trees want. `better` says whether a page has its place rather in the second of two trees, where the
    /// first has it.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn settle(
        &mut self,
        trees: &mut [Tree],
        is_root: impl Fn(u32) -> bool,
        better: impl Fn(u32, (u32, Span), (u32, Span)) -> bool,
    ) -> io::Result<()> {
        let mut left = super::adopt::MOST_WANTED;
        for tree in 0..trees.len() as u32 {
            let wanted =
                trees.get_mut(tree as usize).map(|tree| std::mem::take(&mut tree.contested)).unwrap_or_default();
            for wanted in wanted {
                let rowids = trees.get(tree as usize).is_some_and(|tree| tree.rowids);
                let of_kind = self.kind(wanted.page).is_some_and(|kind| kind.is_table() == rowids);
                let theirs = match self.owner(wanted.page) {
                    Some(owner) if owner != tree && left > 0 && of_kind && !is_root(wanted.page) => {
                        left -= 1;
                        trees
                            .get(owner as usize)
                            .and_then(|tree| self.place(tree, wanted.page))
                            .map(|span| (owner, span))
                    }
                    _ => None,
                };
                if let Some((owner, span)) = theirs {
                    if better(wanted.page, (owner, span), (tree, wanted.span)) {
                        let released = self.release(wanted.page, owner);
                        if let Some(theirs) = trees.get_mut(owner as usize) {
                            theirs.pages.retain(|leaf| !released.contains(&leaf.page));
                            theirs.holes.push(span);
                        }
                    }
                }
                let Some(mine) = trees.get_mut(tree as usize) else { continue };
                // What still has an owner is contested again, and stays where it is.
                let more = self.walk(wanted, tree, rowids, &mut |_| Ok(false))?;
                mine.pages.extend(more.pages);
                mine.holes.extend(more.holes);
                mine.holes.extend(more.contested.iter().map(|leaf| leaf.span));
            }
        }
        Ok(())
    }

    /// Where a page stands in a tree: that of the first leaf under it, which begins where it does.
    fn place(&self, tree: &Tree, top: u32) -> Option<Span> {
        let mut page = top;
        for _ in 0..64 {
            if let Some(leaf) = tree.pages.iter().find(|leaf| leaf.page == page) {
                return Some(leaf.span);
            }
            page = self.children.get(&page)?.first()?.0;
        }
        None
    }

    /// The first page with rows under this one.
    pub(super) fn first_leaf(&self, top: u32) -> u32 {
        let mut page = top;
        for _ in 0..64 {
            match self.children.get(&page).and_then(|children| children.first()) {
                Some((child, _)) => page = *child,
                None => break,
            }
        }
        page
    }

    /// For each page that nobody owns and some other such page points to, that page.
    pub(super) fn parents(&self) -> HashMap<u32, u32> {
        let mut parents = HashMap::new();
        let mut interior: Vec<_> = self.children.iter().filter(|(page, _)| self.owner(**page).is_none()).collect();
        interior.sort_unstable_by_key(|(page, _)| **page);
        for (page, children) in interior {
            for (child, _) in children {
                if child != page && self.owner(*child).is_none() {
                    parents.entry(*child).or_insert(*page);
                }
            }
        }
        parents
    }

    /// The pages with records that nobody owns.
    pub(super) fn unowned(&self) -> impl Iterator<Item = u32> + '_ {
        (1..self.kinds.len() as u32)
            .filter(|page| self.owner(*page).is_none() && self.kind(*page).is_some_and(Kind::has_records))
    }

    pub(super) fn adopt(&mut self, page: u32, tree: u32) {
        self.set_owner(page, tree);
    }

    /// The page turned out to belong elsewhere.
    pub(super) fn give_up(&mut self, page: u32) {
        self.damaged_leaves.remove(&page);
        self.set_owner(page, NOBODY);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::image::InMemory;
    use super::*;

    /// An interior page of a table with these children, the last of them on the right.
    fn interior(children: &[(u32, u8)], right: u32) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..8].copy_from_slice(&[5, 0, 0, 0, children.len() as u8, 0, 0, 0]);
        page[8..12].copy_from_slice(&right.to_be_bytes());
        for (number, (child, key)) in children.iter().enumerate() {
            let at = 500 - 8 * number;
            page[12 + 2 * number..14 + 2 * number].copy_from_slice(&(at as u16).to_be_bytes());
            page[at..at + 4].copy_from_slice(&child.to_be_bytes());
            page[at + 4] = *key;
        }
        page
    }

    fn leaf() -> Vec<u8> {
        let mut page = vec![0; 512];
        page[0] = 13;
        page
    }

    #[test]
    fn circles_and_pages_that_are_missing_are_gaps_and_each_page_is_found_once() {
        // Page 2 is the root; of its children one is itself, one twice the same leaf, one does not exist.
        let pages = [leaf(), interior(&[(3, 10), (2, 20), (3, 30), (99, 40)], 4), leaf(), leaf()];
        let image = InMemory { bytes: pages.concat(), page_size: 512 };
        let reader = Reader::new(&image, 0);
        let mut map = Map::read(&reader, |_| true).unwrap().unwrap();
        let root = Leaf { page: 2, span: Span::ALL };
        let tree = map.walk(root, 1, true, &mut |_| Ok(false)).unwrap();
        let found: Vec<_> = tree.pages.iter().map(|leaf| (leaf.page, leaf.span.low, leaf.span.high)).collect();
        assert_eq!(found, [(3, i64::MIN, 10), (4, 40, i64::MAX)]);
        let gaps: Vec<_> = tree.holes.iter().map(|span| (span.low, span.high)).collect();
        assert_eq!(gaps, [(10, 20), (20, 30), (30, 40)]);
    }

    #[test]
    fn a_page_goes_to_the_tree_in_which_it_fits_and_leaves_a_gap_in_the_other() {
        // Both roots want page 4.
        let pages = [leaf(), interior(&[(4, 10)], 5), interior(&[(4, 10)], 6), leaf(), leaf(), leaf()];
        let image = InMemory { bytes: pages.concat(), page_size: 512 };
        let reader = Reader::new(&image, 0);
        let mut map = Map::read(&reader, |_| true).unwrap().unwrap();
        let mut walk = |page, tree| map.walk(Leaf { page, span: Span::ALL }, tree, true, &mut |_| Ok(false)).unwrap();
        let mut trees = [walk(2, 0), walk(3, 1)];
        assert_eq!(trees[1].contested().collect::<Vec<_>>(), [4]);
        map.settle(&mut trees, |page| page < 4, |_, _, _| true).unwrap();
        assert_eq!((map.owner(4), trees[0].holes.len(), trees[1].holes.len()), (Some(1), 1, 0));
        assert!(trees[1].pages.iter().any(|leaf| leaf.page == 4) && !trees[0].pages.iter().any(|leaf| leaf.page == 4));
    }
}
