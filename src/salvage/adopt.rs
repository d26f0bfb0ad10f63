//! Pages with rows that no tree leads to, or more than one.
//!
//! Invariant: a page gets a table only if everything speaks for one and nothing for another: the table has a gap there, the
//! page's rows have its form, and all tables are known. What is not proven stays without a table, in `lost_and_found`.

use std::collections::{HashMap, HashSet};

use super::Failure;
use super::fill::Table;
use super::map::{Map, Span, Tree};
use super::page::Kind;
use super::rows::{Rows, Scratch};

/// Damage crosses few pointers; a file made to have many is not worth the time.
pub(super) const MOST_WANTED: usize = 1000;

/// What the rows of a page look like.
#[derive(Debug, Default)]
struct Look {
    /// The least and the greatest rowid.
    rowids: Option<(i64, i64)>,
    /// Positions of the tables whose rows they could all be.
    suits: HashSet<usize>,
}

/// Looks at a page; `among` are the positions of the tables that could have it.
fn look(
    page: u32,
    map: &Map,
    (tables, among): (&[Table], &[usize]),
    rows: &Rows<'_>,
    exactly: bool,
) -> Result<Look, Failure> {
    let mut look = Look { rowids: None, suits: HashSet::new() };
    let tables: Vec<_> = among.iter().filter_map(|number| Some((*number, tables.get(*number)?))).collect();
    let mut count = 0_usize;
    // How many rows could be one of the table, and how many have all of its fields.
    let mut tally = vec![(0_usize, 0_usize); tables.len()];
    rows.of_page(page, map, false, &mut Scratch::default(), |row| -> Result<(), Failure> {
        count += 1;
        if let Some(rowid) = row.rowid {
            let (least, greatest) = look.rowids.get_or_insert((rowid, rowid));
            *least = rowid.min(*least);
            *greatest = rowid.max(*greatest);
        }
        for ((_, table), (suit, complete)) in tables.iter().zip(&mut tally) {
            *suit += usize::from(table.layout.has_rowids() == row.rowid.is_some() && table.layout.suits(row.fields));
            *complete += usize::from(table.layout.fields == row.fields.len());
        }
        Ok(())
    })?;
    for ((number, _), (suit, complete)) in tables.iter().zip(&tally) {
        if count > 0 && *suit == count && (!exactly || complete * 2 > count) {
            look.suits.insert(*number);
        }
    }
    Ok(look)
}

/// What is known of pages that two trees want.
pub(super) struct Wanted<'a> {
    looks: HashMap<u32, Look>,
    tables: &'a [Table],
}

impl<'a> Wanted<'a> {
    pub(super) fn read(pages: &[u32], map: &Map, tables: &'a [Table], rows: &Rows<'_>) -> Result<Wanted<'a>, Failure> {
        let mut looks = HashMap::new();
        let all: Vec<usize> = (0..tables.len()).collect();
        for page in pages.iter().take(MOST_WANTED) {
            looks.insert(*page, look(map.first_leaf(*page), map, (tables, &all), rows, false)?);
        }
        Ok(Wanted { looks, tables })
    }

    /// Whether the page has its place rather in the second of two trees.
    pub(super) fn is_better(&self, page: u32, first: (u32, Span), second: (u32, Span)) -> bool {
        let Some(look) = self.looks.get(&page) else { return false };
        let judge = |(tree, span): (u32, Span)| {
            let table = self.tables.iter().position(|table| table.tree == tree);
            let suits = table.is_some_and(|table| look.suits.contains(&table));
            let fits = look.rowids.is_none_or(|(least, greatest)| span.has(least) && span.has(greatest));
            (suits, fits)
        };
        judge(second) > judge(first)
    }
}

/// Whether all tables are known, and all pages that are free: then a page that nobody owns has lost its tree by damage.
fn all_is_known(map: &Map, all_tables: bool) -> bool {
    map.freelist_is_whole && all_tables
}

/// Pages that belong to a table for certain although nothing leads to them: the page, the position of the table, and where
/// in it they stand.
pub(super) fn homeless(
    map: &Map,
    tables: &[Table],
    trees: &[Tree],
    rows: &Rows<'_>,
    all_tables: bool,
) -> Result<Vec<(u32, usize, Span)>, Failure> {
    let mut found = Vec::new();
    let holes = |tree: u32| trees.get(tree as usize).map_or(&[][..], |tree| tree.holes.as_slice());
    let damaged: Vec<usize> =
        tables.iter().enumerate().filter(|(_, table)| !holes(table.tree).is_empty()).map(|table| table.0).collect();
    if !all_is_known(map, all_tables) || damaged.is_empty() {
        return Ok(found);
    }
    // Its entries may look like the rows of a table without rowids.
    let is_table = |tree: usize| tables.iter().any(|table| table.tree as usize == tree);
    let damaged_index =
        trees.iter().enumerate().skip(1).any(|(number, tree)| !tree.holes.is_empty() && !is_table(number));
    for page in map.unowned().filter(|page| !map.is_free(*page)) {
        let look = look(page, map, (tables, &damaged), rows, true)?;
        let alike: Vec<usize> = damaged.iter().copied().filter(|table| look.suits.contains(table)).collect();
        let mut places = alike.iter().filter_map(|number| {
            let table = tables.get(*number)?;
            let hole = holes(table.tree).iter().find(|hole| match look.rowids {
                Some((least, greatest)) => hole.has(least) && hole.has(greatest),
                None => !damaged_index,
            })?;
            Some((page, *number, *hole))
        });
        // At the end of a table much would fit; between two rows that are there, little.
        if let (Some(place), None) = (places.next(), places.next()) {
            if alike.len() == 1 || place.2.is_bounded() {
                found.push(place);
            }
        }
    }
    Ok(found)
}

/// Pages with nothing but entries of damaged indexes on tables that have lost nothing.
pub(super) fn entries_of_whole_tables(map: &Map, tables: &[Table], trees: &[Tree], all_tables: bool) -> HashSet<u32> {
    let is_whole = |table: &Table| trees.get(table.tree as usize).is_some_and(|tree| tree.holes.is_empty());
    if !all_is_known(map, all_tables) || !tables.iter().all(is_whole) {
        return HashSet::new();
    }
    map.unowned()
        .filter(|page| !map.is_free(*page) && matches!(map.kind(*page), Some(Kind::LeafIndex | Kind::InteriorIndex)))
        .collect()
}
