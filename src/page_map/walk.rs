//! The trees, page by page.
//!
//! Invariant: a page gets its kind once. Pages that the sound ones lead to come first, then the free ones; what only damaged
//! pages lead to comes last, and is taken for nothing if it does not fit, without a word: the pointer is as likely wrong.

use std::io;

use hardened_vfs::checksum::sum;
use hardened_vfs::format::database::{self, AutoVacuum};

use super::PageKind;
use super::damage::Damage;
use super::fixed;
use crate::health::shape::{self, Shape};
use crate::salvage::header::Header;
use crate::salvage::image::{Image, Pages, Reader};
use crate::salvage::map::Span;
use crate::salvage::page::{Kind, Page};
use crate::salvage::payload::Payloads;
use crate::salvage::record::{Fields, Value};
use crate::salvage::schema;

/// A page that something leads to.
#[derive(Clone, Copy)]
struct Visit {
    page: u32,
    /// Where its rowids lie.
    span: Span,
    /// Whether it is of a table with rowids; `None` for a root that may be either.
    table: Option<bool>,
    /// Of the schema itself.
    schema: bool,
    /// What leads to it is damaged.
    doubtful: bool,
}

/// What became of reading a page.
pub(super) enum Read {
    Sound,
    /// Its bytes are not what was written.
    Wrong(String),
    /// There are no bytes.
    Gone(String),
}

pub(super) struct Walk<'a> {
    pub(super) image: &'a Image,
    pub(super) header: &'a Header,
    pub(super) kinds: Vec<PageKind>,
    pub(super) damage: Damage,
    pub(super) usable: usize,
    sums: bool,
    stack: Vec<Visit>,
    /// For the end.
    later: Vec<Visit>,
    roots: Vec<Visit>,
    /// The overflow pages of `holder`: the first, and how many there should be.
    pub(super) chains: Vec<(u32, u64)>,
    pub(super) holder: u32,
    /// Those of damaged pages.
    pub(super) doubtful_chains: Vec<(u32, u64)>,
    offsets: Vec<Option<usize>>,
    spare: Vec<Vec<u8>>,
}

impl<'a> Walk<'a> {
    /// What all pages are; none if the file is no database. The page size of `image` is that of `header`.
    ///
    /// # Errors
    /// Those of the file, if nothing of it can be read.
    pub(super) fn through(image: &'a Image, header: &'a Header) -> io::Result<(Vec<PageKind>, Damage)> {
        let mut first = vec![0; header.page_size as usize];
        if !image.read(1, &mut first)? {
            return Ok(Default::default());
        }
        let parsed = database::Header::parse(&first);
        if parsed.is_err() && !has_page_of_a_tree(image, header) {
            return Ok(Default::default());
        }
        let (count, said) = count(image, parsed.as_ref().ok());
        let mut walk = Walk {
            image,
            header,
            kinds: vec![PageKind::Orphan; count as usize],
            damage: Damage::default(),
            usable: (header.page_size as usize).saturating_sub(usize::from(header.reserved)),
            sums: usize::from(header.reserved) == sum::SIZE,
            stack: Vec::new(),
            later: Vec::new(),
            roots: Vec::new(),
            chains: Vec::new(),
            holder: 0,
            doubtful_chains: Vec::new(),
            offsets: Vec::new(),
            spare: Vec::new(),
        };
        walk.place_fixed_pages();
        let sure = parsed.is_ok();
        let visit = Visit { page: 1, span: Span::ALL, table: Some(true), schema: true, doubtful: false };
        walk.tree(visit);
        for root in std::mem::take(&mut walk.roots) {
            walk.tree(root);
        }
        walk.free_pages(sure);
        while let Some(visit) = walk.later.pop() {
            walk.tree(visit);
            for root in std::mem::take(&mut walk.roots) {
                walk.tree(Visit { doubtful: true, ..root });
            }
        }
        walk.doubtful_overflow();
        if let Err(error) = parsed {
            walk.accuse(1, || error.to_string());
        } else if said > count {
            walk.accuse(1, || format!("it says that there are {said} pages, and the file has not half as many"));
        }
        walk.pointer_maps();
        walk.missing_pages();
        Ok((walk.kinds, walk.damage))
    }

    pub(super) fn count(&self) -> u32 {
        self.kinds.len() as u32
    }

    pub(super) fn exists(&self, page: u32) -> bool {
        (1..=self.count()).contains(&page)
    }

    pub(super) fn kind(&self, page: u32) -> Option<PageKind> {
        self.kinds.get((page as usize).checked_sub(1)?).copied()
    }

    pub(super) fn set(&mut self, page: u32, kind: PageKind) {
        if let Some(place) = (page as usize).checked_sub(1).and_then(|at| self.kinds.get_mut(at)) {
            *place = kind;
        }
    }

    /// Whether nothing has led to it yet.
    pub(super) fn is_unclaimed(&self, page: u32) -> bool {
        self.kind(page) == Some(PageKind::Orphan)
    }

    pub(super) fn accuse(&mut self, page: u32, why: impl FnOnce() -> String) {
        if self.exists(page) {
            self.set(page, PageKind::Damaged);
            self.damage.add(page, why);
        }
    }

    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| vec![0; self.image.page_size()])
    }

    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        self.spare.push(buffer);
    }

    pub(super) fn read(&self, page: u32, into: &mut [u8]) -> Read {
        let size = self.image.page_size() as u64;
        let in_log = self.image.is_in_log(page);
        let end = u64::from(page) * size;
        if !in_log && self.image.length() + size <= end {
            return Read::Gone("it is missing: the file ends before it".to_owned());
        }
        match self.image.read(page, into) {
            Err(error) => Read::Gone(format!("it cannot be read: {error}")),
            Ok(false) => Read::Gone("it is missing: the file ends before it".to_owned()),
            Ok(true) if !in_log && self.image.length() < end => {
                Read::Wrong("it is cut off: the file ends within it".to_owned())
            }
            // A frame of the log has a checksum of its own, which was verified.
            Ok(true) if self.sums && !in_log && !sum::holds(into) => {
                Read::Wrong("it is not what was written: its checksum is wrong".to_owned())
            }
            Ok(true) => Read::Sound,
        }
    }

    fn place_fixed_pages(&mut self) {
        let size = self.image.page_size();
        if self.header.auto_vacuum != AutoVacuum::None {
            for page in 2..=self.count() {
                if fixed::is_pointer_map(page, size, self.usable) {
                    self.set(page, PageKind::PointerMap);
                }
            }
        }
        self.set(fixed::lock_byte_page(size), PageKind::LockByte);
    }

    /// Follows a tree from its root, or from where damage hid the rest of it.
    fn tree(&mut self, root: Visit) {
        let mut buffer = self.buffer();
        self.stack.push(root);
        while let Some(visit) = self.stack.pop() {
            self.visit(visit, &mut buffer);
            self.overflow(visit.doubtful);
        }
        self.give_back(buffer);
    }

    fn visit(&mut self, visit: Visit, buffer: &mut [u8]) {
        let Visit { page: number, .. } = visit;
        if !self.is_unclaimed(number) {
            if !visit.doubtful {
                self.accuse(number, || "it has two places: more than one page leads to it".to_owned());
            }
            return;
        }
        let mut wrong = match self.read(number, buffer) {
            Read::Sound => None,
            Read::Wrong(why) => Some(why),
            Read::Gone(why) => {
                if !visit.doubtful {
                    self.accuse(number, || why);
                }
                return;
            }
        };
        let bytes = buffer.get(..self.usable).unwrap_or_default();
        let page = Page::of(number, bytes).filter(|page| visit.table.is_none_or(|table| table == page.kind.is_table()));
        let table = page.map_or(visit.table, |page| Some(page.kind.is_table()));
        wrong = wrong.or_else(|| match page {
            None => Some(strange(number, bytes, visit.table)),
            Some(page) => malformed(number, &page, self.count(), self.usable),
        });
        if visit.doubtful && wrong.is_some() {
            return;
        }
        let mut offsets = std::mem::take(&mut self.offsets);
        if let Some(page) = page {
            self.set(number, kind_of(page.kind));
            page.offsets(&mut offsets);
            let under = Visit { table, doubtful: visit.doubtful || wrong.is_some(), ..visit };
            wrong = match page.kind.is_interior() {
                true => wrong.or(self.children(&page, &offsets, under)),
                false => wrong.or_else(|| in_order(&page, &offsets, visit.span)),
            };
            if page.kind.has_records() {
                self.spilled(number, &page, &offsets, wrong.is_some());
            }
            if visit.schema && page.kind == Kind::LeafTable {
                wrong = wrong.or(self.objects(&page, &offsets, under.doubtful));
            }
        }
        self.offsets = offsets;
        if let Some(why) = wrong {
            self.accuse(number, || why);
        }
    }

    /// Those of an interior page are visited next, or at the end if it is in doubt.
    fn children(&mut self, page: &Page<'_>, offsets: &[Option<usize>], under: Visit) -> Option<String> {
        let (mut wrong, mut low, mut below) = (None, under.span.low, Vec::with_capacity(offsets.len() + 1));
        let cells = offsets.iter().flatten().map(|offset| page.child(*offset));
        for (child, key) in cells.chain([(page.right_child(), under.span.high)]) {
            let high = if under.table == Some(true) { key } else { i64::MAX };
            if !self.exists(child) {
                wrong = wrong.or_else(|| Some(format!("it leads to page {child}, which the database does not have")));
            } else if matches!(self.kind(child), Some(PageKind::LockByte | PageKind::PointerMap)) {
                wrong = wrong.or_else(|| Some(format!("it leads to page {child}, which is never part of a tree")));
            } else {
                below.push(Visit { page: child, span: Span { low, high }, ..under });
            }
            if under.table == Some(true) {
                if key < low || key > under.span.high {
                    wrong = wrong.or_else(|| Some("its keys are out of order".to_owned()));
                }
                low = key;
            }
        }
        if wrong.is_some() || under.doubtful {
            // Where its keys cannot be believed, any rows are as good.
            let all = below.into_iter().map(|visit| Visit { span: Span::ALL, doubtful: true, ..visit });
            self.later.extend(all.rev());
        } else {
            self.stack.extend(below.into_iter().rev());
        }
        wrong
    }

    fn objects(&mut self, page: &Page<'_>, offsets: &[Option<usize>], doubtful: bool) -> Option<String> {
        let (image, header) = (self.image, self.header);
        let reader = Reader::new(image, header.reserved);
        let payloads = Payloads::new(&reader);
        let (mut record, mut fields, mut wrong) = (Vec::new(), Fields::default(), None);
        for offset in offsets.iter().flatten() {
            let Some(cell) = page.cell(*offset) else { continue };
            if payloads.read(&cell, |page| !self.exists(page), &mut record).is_err() {
                continue;
            }
            fields.find(&record);
            if doubtful && !schema::is_certain(&fields, &record, header.encoding) {
                continue;
            }
            let object = schema::object(&fields, &record, header.encoding);
            let root = match (&object, fields.value(&record, 3)) {
                (Some(object), _) => object.root,
                (None, Value::Integer(root)) => u32::try_from(root).unwrap_or(0),
                (None, _) => 0,
            };
            if self.exists(root) {
                let table = object.filter(|object| object.sort == schema::Sort::Index).map(|_| false);
                self.roots.push(Visit { page: root, span: Span::ALL, table, schema: false, doubtful });
            } else if root != 0 {
                // Views and virtual tables have none.
                wrong = wrong.or_else(|| Some(format!("it says that a table is on page {root}, which there is not")));
            }
        }
        wrong
    }

    /// Pages that the header tells of and the file does not have are nobody's only if they are free.
    fn missing_pages(&mut self) {
        let have = self.image.length().div_ceil(self.image.page_size() as u64);
        for page in u32::try_from(have + 1).unwrap_or(u32::MAX)..=self.count() {
            if self.is_unclaimed(page) && !self.image.is_in_log(page) {
                self.accuse(page, || "it is missing: the file ends before it".to_owned());
            }
        }
    }
}

/// How many pages are shown, and how many the header says that there are.
fn count(image: &Image, header: Option<&database::Header>) -> (u32, u32) {
    let have = image.length().div_ceil(image.page_size() as u64).min(u64::from(u32::MAX - 1)) as u32;
    let said = match image.frames() {
        0 => header.and_then(database::Header::trusted_page_count).unwrap_or(have),
        _ => image.count(),
    };
    // So that no number in a file decides how much memory is used.
    let most = have.saturating_add(image.pages_in_log() as u32).saturating_mul(2).saturating_add(4096);
    (said.min(most), said)
}

/// Whether any page is as SQLite leaves one of a tree.
fn has_page_of_a_tree(image: &Image, header: &Header) -> bool {
    let reader = Reader::new(image, header.reserved);
    (1..=image.count()).any(|number| {
        let found = reader.with(number, |bytes| {
            Page::of(number, bytes).is_some_and(|page| page.cells() > 0 && page.is_well_formed())
        });
        matches!(found, Ok(Some(true)))
    })
}

fn kind_of(kind: Kind) -> PageKind {
    match kind {
        Kind::InteriorTable => PageKind::TableInterior,
        Kind::LeafTable => PageKind::TableLeaf,
        Kind::InteriorIndex => PageKind::IndexInterior,
        Kind::LeafIndex => PageKind::IndexLeaf,
    }
}

/// What is wrong with a page that is none of its tree.
fn strange(number: u32, bytes: &[u8], table: Option<bool>) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return "it is all zeros".to_owned();
    }
    match (Page::of(number, bytes), table) {
        (Some(_), Some(true)) => "it is a page of an index in the tree of a table",
        (Some(_), _) => "it is a page of a table in the tree of an index",
        (None, _) => "it starts as no page of a tree does",
    }
    .to_owned()
}

fn malformed(number: u32, page: &Page<'_>, count: u32, usable: usize) -> Option<String> {
    if page.is_well_formed() {
        return None;
    }
    Some(match shape::of(page.bytes, number, count, usable) {
        Shape::Impossible(why) => why.to_owned(),
        Shape::Possible => "its cells and its free space do not add up".to_owned(),
    })
}

/// Whether the rowids of a leaf rise within their bounds.
fn in_order(page: &Page<'_>, offsets: &[Option<usize>], span: Span) -> Option<String> {
    let mut low = span.low;
    for rowid in offsets.iter().flatten().filter_map(|offset| page.cell(*offset)?.rowid) {
        if !(Span { low, high: span.high }).has(rowid) {
            return Some("its rows are out of order, or belong on another page".to_owned());
        }
        low = rowid;
    }
    None
}
