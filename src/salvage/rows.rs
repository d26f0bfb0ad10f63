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
    offsets: Vec<usize>,
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

    /// Shows the rows of a page; `map` tells which pages cannot be overflow pages. With `first_rows` only some of them, spread
    /// over the page. `each` ends it with an error.
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
    ) -> Result<(), E> {
        let read = self.reader.with(number, |bytes| {
            // A page of no kind that is in a tree has been found to be a damaged leaf.
            let Some(page) = Page::of(number, bytes)
                .or_else(|| map.is_in_tree(number).then(|| Page::taken_for(number, bytes, Kind::LeafTable)))
            else {
                return Ok(());
            };
            if !page.kind.has_records() {
                return Ok(());
            }
            let Scratch { offsets, record, fields } = scratch;
            page.offsets(offsets);
            let step = if sample { (offsets.len() / 3).max(1) } else { 1 };
            for offset in offsets.iter().step_by(step) {
                let Some(cell) = page.cell(*offset) else { continue };
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
            Ok(())
        })?;
        read.unwrap_or(Ok(()))
    }

    /// Whether a page whose kind cannot be read is a leaf of a table all the same: it has cells, all of them records that
    /// are whole, and their rowids ascend within `span`.
    pub(super) fn is_damaged_leaf(&self, number: u32, span: Span) -> io::Result<bool> {
        let found = self.reader.with(number, |bytes| {
            let page = Page::taken_for(number, bytes, Kind::LeafTable);
            let (mut offsets, mut fields, mut before) = (Vec::new(), Fields::default(), None);
            page.offsets(&mut offsets);
            let mut sound = !offsets.is_empty() && offsets.len() == page.cells();
            for offset in offsets {
                let rowid = page.cell(offset).filter(|cell| {
                    fields.find(cell.local);
                    fields.len() > 0
                        && (cell.overflow != 0 || cell.local.len() as u64 == cell.length && fields.all_there())
                });
                let rowid = rowid.and_then(|cell| cell.rowid).filter(|rowid| span.has(*rowid));
                sound &= rowid.is_some_and(|rowid| before.is_none_or(|before| before < rowid));
                before = rowid;
            }
            sound
        })?;
        Ok(found == Some(true))
    }
}
