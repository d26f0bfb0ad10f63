//! The rows of a page.
//!
//! Invariant: every cell that can be read at all is shown once; what is wrong with one cell does not hide the others.

use std::io;

use super::image::Reader;
use super::map::{Map, Span};
use super::page::{Kind, Page};
use super::payload::Payloads;
use super::record::Fields;

/// A row as it was found.
pub(super) struct Row<'a> {
    pub(super) rowid: Option<i64>,
    pub(super) record: &'a [u8],
    pub(super) fields: &'a Fields,
    /// All of it was there.
    pub(super) whole: bool,
}

/// Buffers that are used for one page after the other.
#[derive(Default)]
pub(super) struct Scratch {
    offsets: Vec<Option<usize>>,
    record: Vec<u8>,
    fields: Fields,
}

/// Reads rows.
pub(super) struct Rows<'a> {
    pub(super) reader: &'a Reader<'a>,
    payloads: Payloads<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(reader: &'a Reader<'a>) -> Rows<'a> {
        Rows { reader, payloads: Payloads::new(reader) }
    }

    /// Shows the rows of a page, and says how many cells could not be read; `map` tells which pages cannot be overflow pages.
    /// With `sample` only some of them, spread over the page. `each` ends it with an error.
    ///
    /// # Errors
    /// Those of the file, and of `each`.
    pub(super) fn of_page<E: From<io::Error>>(
        &self,
        number: u32,
        map: &Map,
        sample: bool,
        scratch: &mut Scratch,
        mut each: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let read = self.reader.with(number, |bytes| {
            let page = match map.is_damaged_leaf(number) {
                true => Some(Page::taken_for(number, bytes, Kind::LeafTable)),
                false => Page::of(number, bytes),
            };
            let Some(page) = page else { return Ok(0) };
            if !page.kind.has_records() {
                return Ok(0);
            }
            let Scratch { offsets, record, fields } = scratch;
            page.offsets(offsets);
            let step = if sample { (offsets.len() / 3).max(1) } else { 1 };
            let mut unreadable = 0;
            for offset in offsets.iter().step_by(step) {
                let Some(cell) = offset.and_then(|offset| page.cell(offset)) else {
                    unreadable += 1;
                    continue;
                };
                let mut whole = true;
                let record = if cell.overflow == 0 && cell.local.len() as u64 == cell.length {
                    cell.local
                } else {
                    whole = self.payloads.read(&cell, |page| map.is_in_tree(page), record)?;
                    record.as_slice()
                };
                // A wrong length matters only if it hides some of the values.
                whole = fields.find(record) || (whole && fields.len() > 0 && fields.all_there());
                each(&Row { rowid: cell.rowid, record, fields, whole })?;
            }
            Ok(unreadable)
        })?;
        read.unwrap_or(Ok(0))
    }

    /// Whether a page that says that it is none, or one of an index, is a leaf of a table all the same: as one it has records
    /// that are whole, with rowids of `span` and of the form that `suits`; more of them than as what it says it is.
    pub(super) fn is_damaged_leaf(&self, number: u32, span: Span, suits: impl Fn(&Fields) -> bool) -> io::Result<bool> {
        let found = self.reader.with(number, |bytes| {
            let (mut offsets, mut fields) = (Vec::new(), Fields::default());
            let mut count = |page: Page<'_>| {
                page.offsets(&mut offsets);
                let mut rows = 0;
                for cell in offsets.iter().flatten().filter_map(|offset| page.cell(*offset)) {
                    let whole = fields.find(cell.local) && cell.local.len() as u64 == cell.length;
                    rows += usize::from(whole && cell.rowid.is_none_or(|rowid| span.has(rowid)) && suits(&fields));
                }
                (rows, offsets.len())
            };
            let (rows, cells) = count(Page::taken_for(number, bytes, Kind::LeafTable));
            match Page::of(number, bytes) {
                Some(page) => rows > count(page).0,
                // Anything may look like a row or two.
                None => rows * 2 > cells,
            }
        })?;
        Ok(found == Some(true))
    }
}
