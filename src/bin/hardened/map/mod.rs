//! The map of pages that the doctor draws.
//!
//! Invariant: a cell that holds a damaged page shows damage, and one with an orphan shows that or damage, however many pages a
//! cell is.

mod cells;
mod svg;
mod text;

use std::path::Path;

use hardened_sqlite::fs::Class;
use hardened_sqlite::page_map::{PageKind, PageMap};
use serde_json::{Value, json};

use crate::examine::{Examination, Level};

pub(crate) use svg::{refuse_existing, write as write_svg};
pub(crate) use text::{Style, lines};

/// Pages told by their number in JSON, at most.
const MOST: usize = 1000;

/// What is read for a map that nobody has asked for, at most: on a disk of this host, and elsewhere.
const LIMITS: (u64, u64) = (1 << 30, 64 << 20);

/// When a map is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// If it does not take long.
    Quick,
    Never,
}

/// Draws it into what was seen. `accused`: pages that the guard proves to be torn or lost.
pub(crate) fn look(seen: &mut Examination, path: &Path, when: When, accused: &[(u32, &'static str)]) {
    let length = std::fs::metadata(path).map_or(0, |found| found.len());
    let local = seen.verdict.as_ref().is_some_and(|verdict| verdict.class == Class::Local);
    let limit = if local { LIMITS.0 } else { LIMITS.1 };
    match when {
        When::Never => return,
        When::Quick if length > limit => {
            return seen.file("map", format!("{} MiB are to be read for it: --map draws it", length >> 20));
        }
        When::Always | When::Quick => {}
    }
    let mut map = match PageMap::read(path) {
        Ok(map) => map,
        // What it is instead was said.
        Err(hardened_sqlite::Error::NotADatabase(_)) => return,
        Err(error) => {
            return seen.find(Level::Note, format!("no map of its pages could be drawn: {}", error.cause()), None);
        }
    };
    for (page, why) in accused {
        map.accuse(*page, why);
    }
    if map.kinds().is_empty() {
        return;
    }
    judge(seen, &map);
    seen.map = Some(map);
}

fn pages(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 page {one}"),
        count => format!("{count} pages {many}"),
    }
}

fn judge(seen: &mut Examination, map: &PageMap) {
    let (damaged, orphans) = (map.count(PageKind::Damaged), map.count(PageKind::Orphan));
    let again = "look again when nobody writes to it; `hardened check` waits for that";
    match map.unsettled() {
        Some(why) if damaged + orphans > 0 => {
            let text = format!("{}, and {why}", pages(damaged + orphans, "does not fit", "do not fit"));
            return seen.find(Level::Note, text, Some(again));
        }
        _ => {}
    }
    if damaged > 0 {
        let hint = "`hardened check` tells more; restore a backup, or save what is left with `hardened recover`";
        seen.find(Level::Problem, pages(damaged, "is damaged", "are damaged"), Some(hint));
    }
    let nowhere = pages(orphans, "belongs to no table and is not free", "belong to no table and are not free");
    match (orphans, damaged) {
        (0, _) => {}
        (_, 0) => seen.find(Level::Warning, nowhere, Some("it is space lost, and VACUUM gives it back")),
        _ => {
            let hint = "damage may have cut them off: `hardened recover` searches them for rows";
            seen.find(Level::Note, nowhere, Some(hint));
        }
    }
}

/// What a program wants to know of it.
pub(crate) fn as_json(map: &PageMap) -> Value {
    let counts: serde_json::Map<_, _> =
        PageKind::ALL.iter().map(|kind| (kind.name().to_owned(), map.count(*kind).into())).collect();
    let damaged: Vec<Value> =
        map.pages(PageKind::Damaged).take(MOST).map(|page| json!({ "page": page, "why": map.why(page) })).collect();
    let orphans: Vec<u32> = map.pages(PageKind::Orphan).take(MOST).collect();
    json!({
        "page_size": map.page_size(),
        "pages": map.kinds().len(),
        "counts": counts,
        "damaged": { "total": map.count(PageKind::Damaged), "pages": damaged },
        "orphans": { "total": map.count(PageKind::Orphan), "pages": orphans },
        "unsettled": map.unsettled(),
    })
}

/// What a kind is called in a legend.
fn label(kind: PageKind) -> &'static str {
    match kind {
        PageKind::TableInterior => "table, interior",
        PageKind::TableLeaf => "table, rows",
        PageKind::IndexInterior => "index, interior",
        PageKind::IndexLeaf => "index, keys",
        PageKind::Overflow => "overflow",
        PageKind::FreeTrunk => "free, list",
        PageKind::FreeLeaf => "free",
        PageKind::PointerMap => "pointer map",
        PageKind::LockByte => "lock bytes",
        PageKind::Orphan => "orphan",
        _ => "damaged",
    }
}

/// The kinds that a map has, and how many pages of each.
fn legend(map: &PageMap) -> Vec<(PageKind, u64)> {
    let all = PageKind::ALL.into_iter().map(|kind| (kind, map.count(kind)));
    all.filter(|(_, count)| *count > 0).collect()
}

/// What the map shows, in words.
fn caption(map: &PageMap, group: usize) -> String {
    let size = map.page_size();
    match (map.kinds().len(), group) {
        (1, _) => format!("1 page of {size} bytes"),
        (count, 1) => format!("{count} pages of {size} bytes, a cell is a page"),
        (count, group) => format!("{count} pages of {size} bytes, a cell is {group} pages"),
    }
}
