//! Rows on their way from pages to tables.
//!
//! Invariant: rows that stand where they belong come first, so that one which damage has put elsewhere, or has given another
//! rowid, takes no place from them.

use std::collections::HashSet;

use hardened_vfs::format::database::TextEncoding;

use super::bind::{Inserts, bound};
use super::find::Found;
use super::image::Reader;
use super::layout::Layout;
use super::lost::{self, Lost};
use super::map::{Leaf, Span, Tree};
use super::output::{Output, is_refusal};
use super::record::{Fields, Value};
use super::report::{Salvaged, SavedTable};
use super::rows::{Row, Rows, Scratch};
use super::schema::{Object, Sort, decode};
use super::{Failure, adopt};

/// A table that is being filled.
pub(super) struct Table {
    /// Which object of the schema it is; its tree has the next number.
    pub(super) object: usize,
    pub(super) tree: u32,
    pub(super) layout: Layout,
    /// Pages with rows that do not stand where they belong.
    pub(super) doubtful: Vec<Leaf>,
    /// Pages of its tree that have no row of it.
    foreign: HashSet<u32>,
    pub(super) rows: u64,
    pub(super) incomplete: u64,
    pub(super) unreadable: u64,
    /// Its rows in lost_and_found, by the marks before and behind.
    pub(super) lost: Vec<(i64, i64)>,
}

/// Which rows of a page are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that stand where they belong.
    InPlace,
    /// The others.
    OutOfPlace,
}

/// The work on a new database.
pub(super) struct Fill<'a> {
    pub(super) output: &'a Output,
    pub(super) encoding: TextEncoding,
    pub(super) report: &'a mut Salvaged,
    pub(super) found: &'a mut Found,
    pub(super) rows: Rows<'a>,
    pub(super) tables: Vec<Table>,
    pub(super) trees: Vec<Tree>,
    pub(super) lost: Lost<'a>,
    /// What was stored in sqlite_sequence.
    pub(super) sequence: Vec<(String, i64)>,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        output: &'a Output,
        encoding: TextEncoding,
        report: &'a mut Salvaged,
        found: &'a mut Found,
        reader: &'a Reader<'a>,
    ) -> Fill<'a> {
        let lost = Lost::new(output.connection(), encoding);
        let (tables, trees, sequence) = (Vec::new(), Vec::new(), Vec::new());
        Fill { output, encoding, report, found, rows: Rows::new(reader), tables, trees, lost, sequence }
    }

    /// Finds the pages of each table and index.
    pub(super) fn find_trees(&mut self) -> Result<(), Failure> {
        let Found { map, objects, .. } = &mut *self.found;
        let mut roots = HashSet::from([1]);
        let mut own = Vec::new();
        for (number, object) in objects.iter().enumerate() {
            let tree = number as u32 + 1;
            let rowids = match object.sort {
                Sort::Table => {
                    self.tables.iter().find(|table| table.tree == tree).map(|table| table.layout.has_rowids())
                }
                Sort::Index => Some(false),
                _ => None,
            };
            own.push(
                rowids.filter(|_| object.root > 1 && roots.insert(object.root) && map.claim_root(object.root, tree)),
            );
        }
        let mut trees = vec![Tree { rowids: true, ..Tree::default() }];
        for (number, (object, rowids)) in objects.iter().zip(own).enumerate() {
            trees.push(match rowids {
                None if object.sort == Sort::Table => Tree { holes: vec![Span::ALL], ..Tree::default() },
                None => Tree::default(),
                Some(rowids) => {
                    let root = Leaf { page: object.root, span: Span::ALL };
                    let rows = &self.rows;
                    let layout = self.tables.iter().find(|table| table.object == number).map(|table| &table.layout);
                    let suits = |fields: &Fields| layout.is_some_and(|layout| layout.suits(fields));
                    let damaged_leaf = &mut |leaf: Leaf| rows.is_damaged_leaf(leaf.page, leaf.span, suits);
                    let tree = map.walk(root, number as u32 + 1, rowids, damaged_leaf)?;
                    if map.kind(root.page).is_some_and(|kind| kind.is_table() != rowids) {
                        map.give_up(root.page);
                    }
                    tree
                }
            });
        }
        let contested: Vec<u32> = trees.iter().flat_map(Tree::contested).collect();
        if !contested.is_empty() {
            let wanted = adopt::Wanted::read(&contested, map, &self.tables, &self.rows)?;
            let is_better = |page, first, second| wanted.is_better(page, first, second);
            map.settle(&mut trees, |page| roots.contains(&page), is_better)?;
        }
        self.trees = trees;
        Ok(())
    }

    /// Fills the tables from their own pages.
    pub(super) fn tables(&mut self, each: &mut dyn FnMut(u32) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut done = 0;
        let mut tables = std::mem::take(&mut self.tables);
        for table in &mut tables {
            let pages = self.trees.get(table.tree as usize).map(|tree| tree.pages.clone()).unwrap_or_default();
            let mut inserts = Inserts::new(self.output.connection());
            let from = self.lost.mark();
            for leaf in pages {
                done += 1;
                if done % 256 == 0 {
                    each(done)?;
                }
                self.page(table, &mut inserts, leaf, Which::InPlace)?;
            }
            table.lost.push((from, self.lost.mark()));
            if let Some(tree) = self.trees.get_mut(table.tree as usize).filter(|_| !table.foreign.is_empty()) {
                tree.pages.retain(|leaf| !table.foreign.contains(&leaf.page));
            }
        }
        self.tables = tables;
        Ok(())
    }

    /// Whether there is no table whose rows would have to be without one.
    fn all_tables(&self) -> bool {
        !self.found.schema_damaged && self.report.lost_objects.is_empty()
    }

    /// Pages that have lost their table, rows whose place is doubtful, and the rest.
    pub(super) fn others(&mut self, ignore_freelist: bool) -> Result<(), Failure> {
        let mut tables = std::mem::take(&mut self.tables);
        let homeless = adopt::homeless(&self.found.map, &tables, &self.trees, &self.rows, self.all_tables())?;
        for (page, number, span) in homeless {
            let Some(table) = tables.get_mut(number) else { continue };
            self.found.map.adopt(page, table.tree);
            let leaf = Leaf { page, span };
            if let Some(tree) = self.trees.get_mut(table.tree as usize) {
                tree.pages.push(leaf);
            }
            let from = self.lost.mark();
            self.page(table, &mut Inserts::new(self.output.connection()), leaf, Which::InPlace)?;
            table.lost.push((from, self.lost.mark()));
        }
        for table in &mut tables {
            let mut inserts = Inserts::new(self.output.connection());
            let from = self.lost.mark();
            for leaf in table.doubtful.clone() {
                self.page(table, &mut inserts, leaf, Which::OutOfPlace)?;
            }
            table.lost.push((from, self.lost.mark()));
        }
        self.tables = tables;
        self.lost_pages(ignore_freelist)
    }

    /// All rows of pages that nobody owns.
    fn lost_pages(&mut self, ignore_freelist: bool) -> Result<(), Failure> {
        let map = &self.found.map;
        let parents = map.parents();
        let entries = adopt::entries_of_whole_tables(map, &self.tables, &self.trees, self.all_tables());
        let mut scratch = Scratch::default();
        for page in map.unowned().filter(|page| !entries.contains(page)) {
            if ignore_freelist && map.is_free(page) {
                continue;
            }
            let mut root = page;
            // No tree is deeper, but parents may be in a circle.
            for _ in 0..64 {
                match parents.get(&root) {
                    Some(parent) => root = *parent,
                    None => break,
                }
            }
            let lost = &mut self.lost;
            self.rows.of_page(page, map, false, &mut scratch, |row| keep(lost, root, page, row).map(drop))?;
        }
        Ok(())
    }

    /// Puts rows of a page into the table.
    pub(super) fn page(
        &mut self,
        table: &mut Table,
        inserts: &mut Inserts<'_>,
        leaf: Leaf,
        which: Which,
    ) -> Result<(), Failure> {
        let mut scratch = Scratch::default();
        if which == Which::InPlace && self.is_foreign(table, leaf, &mut scratch)? {
            self.found.map.give_up(leaf.page);
            table.foreign.insert(leaf.page);
            if let Some(tree) = self.trees.get_mut(table.tree as usize) {
                tree.holes.push(leaf.span);
            }
            return Ok(());
        }
        let root = self.found.objects.get(table.object).map_or(leaf.page, |object| object.root);
        let is_sequence = table.layout.name == "sqlite_sequence";
        let (mut before, mut out_of_place) = (None, false);
        let Fill { rows, found, lost, encoding, sequence, .. } = self;
        let unreadable = rows.of_page(leaf.page, &found.map, false, &mut scratch, |row| -> Result<(), Failure> {
            let in_place = match row.rowid {
                Some(rowid) => leaf.span.has(rowid) && before.is_none_or(|before| before < rowid),
                None => true,
            };
            if in_place {
                before = row.rowid;
            }
            out_of_place |= !in_place;
            if in_place != (which == Which::InPlace) {
                return Ok(());
            }
            // What its table has no column for would be lost there.
            let fits = row.fields.len() > 0 && row.fields.len() <= table.layout.fields;
            table.unreadable += u64::from(row.fields.len() == 0);
            let inserted = match is_sequence {
                _ if !fits => Ok(false),
                true => Ok(note_sequence(sequence, row, *encoding)),
                false => insert(&table.layout, inserts, row, *encoding),
            };
            match inserted {
                Ok(true) => {
                    table.rows += 1;
                    table.incomplete += u64::from(!row.whole);
                    if !row.fields.all_there() {
                        keep(lost, root, leaf.page, row)?;
                    }
                }
                Ok(false) => table.unreadable += u64::from(!keep(lost, root, leaf.page, row)?),
                Err(error) if is_refusal(&error) => {
                    table.unreadable += u64::from(!keep(lost, root, leaf.page, row)?);
                }
                Err(error) => return Err(error.into()),
            }
            Ok(())
        })?;
        if which == Which::InPlace {
            table.unreadable += unreadable;
            if out_of_place {
                table.doubtful.push(leaf);
            }
        }
        Ok(())
    }

    /// Whether no row of the page can be one of the table.
    fn is_foreign(&self, table: &Table, leaf: Leaf, scratch: &mut Scratch) -> Result<bool, Failure> {
        // Nearly always the first few show that it is not.
        for sample in [true, false] {
            let (mut rows, mut suit) = (0, 0);
            self.rows.of_page(leaf.page, &self.found.map, sample, scratch, |row| -> Result<(), Failure> {
                rows += 1;
                suit += u32::from(table.layout.suits(row.fields));
                Ok(())
            })?;
            if suit > 0 || rows == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Completes the report.
    pub(super) fn end(self) {
        for table in &self.tables {
            let gaps = self.trees.get(table.tree as usize).map_or(0, |tree| tree.holes.len());
            let name = table.layout.name.clone();
            self.report.incomplete_rows += table.incomplete;
            self.report.unreadable_rows += table.unreadable;
            self.report.tables.push(SavedTable { name, rows: table.rows, gaps: gaps as u64 });
        }
        self.report.lost_and_found = self.lost.rows;
        self.report.lost_table = self.lost.table.clone();
    }
}

impl Table {
    pub(super) fn new(object: usize, layout: Layout) -> Table {
        let tree = object as u32 + 1;
        let (doubtful, foreign, lost) = (Vec::new(), HashSet::new(), Vec::new());
        Table { object, tree, layout, doubtful, foreign, rows: 0, incomplete: 0, unreadable: 0, lost }
    }

    /// The table of an index, a trigger or an entry by name.
    pub(super) fn is_of(&self, object: &Object) -> bool {
        self.layout.name.eq_ignore_ascii_case(&object.table)
    }
}

/// Keeps a row among the lost; `false` if SQLite would not have it there either.
fn keep(lost: &mut Lost<'_>, root: u32, page: u32, row: &Row<'_>) -> Result<bool, Failure> {
    // An entry of an index without a field is nothing.
    if row.rowid.is_none() && row.fields.len() == 0 {
        return Ok(false);
    }
    let found = lost::Found { root, page, rowid: row.rowid, fields: row.fields, record: row.record };
    match lost.keep(&found) {
        Ok(()) => Ok(true),
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Inserts a row; `false` if it has no value that can be given.
fn insert(layout: &Layout, inserts: &mut Inserts<'_>, row: &Row<'_>, encoding: TextEncoding) -> rusqlite::Result<bool> {
    let count = row.fields.len();
    let mut values = Vec::with_capacity(count);
    values.extend((0..count).map(|field| bound(row.fields.value(row.record, field), encoding)));
    inserts.run(&values, &[row.rowid], |cast| layout.insert(count, cast))
}

/// Keeps a row of sqlite_sequence, which is written when all tables have had their rows; `false` if it is none.
fn note_sequence(sequence: &mut Vec<(String, i64)>, row: &Row<'_>, encoding: TextEncoding) -> bool {
    match (row.fields.value(row.record, 0), row.fields.value(row.record, 1)) {
        (Value::Text(name), Value::Integer(reached)) => {
            sequence.push((decode(name, encoding).into_owned(), reached));
            true
        }
        _ => false,
    }
}
