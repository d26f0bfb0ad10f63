//! What is known of a damaged database before a row is read: its pages, and its schema.
//!
//! Invariant: the schema is taken from where it belongs; only if something is missing there it is searched for elsewhere, and
//! then nothing replaces what was found before.

use std::collections::HashSet;

use hardened_vfs::format::database::TextEncoding;

use super::Failure;
use super::header::{self, Header};
use super::image::Reader;
use super::map::{Leaf, Map, Span, Tree};
use super::page::Kind;
use super::record::Value;
use super::rows::{Rows, Scratch};
use super::schema::{self, Object};

/// The number of the tree of sqlite_schema.
pub(super) const SCHEMA: u32 = 0;

/// What was found.
pub(super) struct Found {
    pub(super) map: Map,
    pub(super) objects: Vec<Object>,
    pub(super) schema_damaged: bool,
}

impl Found {
    /// Looks at every page, and corrects the encoding in `header` where the schema is written in another one.
    pub(super) fn search(
        reader: &Reader<'_>,
        header: &mut Header,
        each: &mut dyn FnMut(u32) -> Result<(), Failure>,
    ) -> Result<Found, Failure> {
        let mut stopped = None;
        let map = Map::read(reader, |page| match each(page) {
            Ok(()) => true,
            Err(failure) => {
                stopped = Some(failure);
                false
            }
        })?;
        let Some(mut map) = map else { return Err(stopped.unwrap_or(Failure::Stopped)) };
        map.read_freelist(reader, header.freelist_trunk, header.freelist_count)?;
        let rows = Rows::new(reader);
        let root = Leaf { page: 1, span: Span::ALL };
        let tree = map.walk(root, SCHEMA, true, &mut |leaf| {
            rows.is_damaged_leaf(leaf.page, leaf.span, |fields| fields.len() == 5)
        })?;
        let mut found = Found { map, objects: Vec::new(), schema_damaged: false };
        found.correct_encoding(&rows, &tree, header)?;
        for leaf in &tree.pages {
            found.read_page(&rows, leaf.page, header.encoding)?;
        }
        // An empty database has one page, a leaf without cells.
        let empty = tree.holes.is_empty() && found.objects.is_empty() && reader.count() <= 1;
        if !tree.holes.is_empty() || (found.objects.is_empty() && !empty) {
            found.schema_damaged = true;
            found.search_elsewhere(&rows, header)?;
        }
        Ok(found)
    }

    fn correct_encoding(&mut self, rows: &Rows<'_>, tree: &Tree, header: &mut Header) -> Result<(), Failure> {
        let mut votes: Vec<(TextEncoding, u32)> = Vec::new();
        let mut scratch = Scratch::default();
        for leaf in &tree.pages {
            rows.of_page(leaf.page, &self.map, false, &mut scratch, |row| -> Result<(), Failure> {
                if let Value::Text(text) = row.fields.value(row.record, 0) {
                    if let Some(encoding) = header::encoding_of(text) {
                        match votes.iter_mut().find(|vote| vote.0 == encoding) {
                            Some(vote) => vote.1 += 1,
                            None => votes.push((encoding, 1)),
                        }
                    }
                }
                Ok(())
            })?;
        }
        match votes.iter().max_by_key(|vote| vote.1) {
            Some((encoding, _)) if *encoding != header.encoding => {
                header.encoding = *encoding;
                header.sound = false;
            }
            None if header.encoding == TextEncoding::Unset => header.encoding = TextEncoding::Utf8,
            _ => {}
        }
        Ok(())
    }

    fn read_page(&mut self, rows: &Rows<'_>, page: u32, encoding: TextEncoding) -> Result<(), Failure> {
        let (mut seen, mut objects) = (0_u32, Vec::new());
        rows.of_page(page, &self.map, false, &mut Scratch::default(), |row| -> Result<(), Failure> {
            seen += 1;
            objects.extend(schema::object(row.fields, row.record, encoding));
            Ok(())
        })?;
        // Less than all of it are rows of the schema: damaged ones, or the page is another table's.
        if objects.len() < seen as usize {
            self.schema_damaged = true;
        }
        if objects.is_empty() && seen > 0 && page != 1 {
            self.map.give_up(page);
        }
        self.objects.append(&mut objects);
        Ok(())
    }

    /// Rows of the schema on pages that nothing leads to.
    fn search_elsewhere(&mut self, rows: &Rows<'_>, header: &Header) -> Result<(), Failure> {
        let mut scratch = Scratch::default();
        let pages: Vec<u32> = self
            .map
            .unowned()
            .filter(|page| self.map.kind(*page) == Some(Kind::LeafTable) && !self.map.is_free(*page))
            .collect();
        let mut names: HashSet<String> = self.objects.iter().map(|object| object.name.clone()).collect();
        let mut roots: HashSet<u32> = self.objects.iter().map(|object| object.root).collect();
        for page in pages {
            let (mut seen, mut objects) = (0_usize, Vec::new());
            rows.of_page(page, &self.map, false, &mut scratch, |row| -> Result<(), Failure> {
                seen += 1;
                if schema::is_certain(row.fields, row.record, header.encoding)
                    || (row.fields.len() == 5 && matches!(row.fields.value(row.record, 4), Value::Null))
                {
                    objects.extend(schema::object(row.fields, row.record, header.encoding));
                }
                Ok(())
            })?;
            if objects.is_empty() || objects.len() < seen || objects.iter().all(|object: &Object| object.sql.is_none())
            {
                continue;
            }
            self.map.adopt(page, SCHEMA);
            for object in objects {
                if names.insert(object.name.clone()) && (object.root == 0 || roots.insert(object.root)) {
                    self.objects.push(object);
                }
            }
        }
        Ok(())
    }
}
