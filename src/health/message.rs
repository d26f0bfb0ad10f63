//! The words of `PRAGMA integrity_check` and `quick_check`, sorted.
//!
//! What is not recognised counts as damage: a wrong alarm costs a look, a missed one data.

use super::finding::{Finding, Kind};

/// The trees of a schema: the first page of each, its name, and whether it is an index.
#[derive(Debug, Default)]
pub(super) struct Trees(pub(super) Vec<(u32, String, bool)>);

/// One row of the answer. Only what is about pages has several lines; names in the others may contain anything.
pub(super) fn findings(row: &str, trees: &Trees) -> Vec<Finding> {
    if row == "ok" {
        return Vec::new();
    }
    match row.strip_prefix("*** in database ") {
        Some(_) => row.lines().skip(1).filter(|line| !line.is_empty()).map(|line| of_page(line, trees)).collect(),
        None => vec![of_row(row, trees)],
    }
}

/// Where a failed read stands in SQLite's words; the number is a result code.
const UNREADABLE: &str = "unable to get the page. error code=";

/// The result code of a page that could not be read, in an answer of the check.
pub(super) fn unreadable(row: &str) -> Option<i32> {
    let (_, rest) = row.split_once(UNREADABLE)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| rest.get(..end).unwrap_or(rest));
    digits.parse().ok()
}

fn of_page(line: &str, trees: &Trees) -> Finding {
    let kind = if line.starts_with("Freelist: ") || line.starts_with("Main freelist: ") {
        Kind::FreeList
    } else if line.starts_with("Page ") && (line.ends_with(": never used") || line.ends_with(" is never used")) {
        Kind::Unused
    } else {
        // A page that two trees claim belongs to one of them only.
        let shared = line.contains("2nd reference");
        match number_after(line, "Tree ").and_then(|root| trees.0.iter().find(|(page, ..)| *page == root)) {
            Some((_, name, true)) if !shared => Kind::Index { index: name.clone() },
            Some((_, name, false)) => Kind::Tree { table: Some(name.clone()) },
            _ => Kind::Tree { table: None },
        }
    };
    Finding::new(kind, line)
}

fn number_after(line: &str, word: &str) -> Option<u32> {
    line.strip_prefix(word)?.split(' ').next()?.parse().ok()
}

/// What stands before the name of an index at the end of a row.
const ABOUT_INDEX: [&str; 5] = [
    " missing from index ",
    "wrong # of entries in index ",
    "non-unique entry in index ",
    " values differ from index ",
    "rowid not at end-of-record for row ",
];

fn of_row(row: &str, trees: &Trees) -> Finding {
    let kind = if let Some(index) = index_of(row) {
        Kind::Index { index }
    } else if of_content(row, trees) {
        Kind::Content
    } else if row.contains("inverted index for FTS") || row.contains("In RTree ") {
        Kind::VirtualTable
    } else if row.starts_with("row not in PRIMARY KEY order for ") || row.starts_with("rowid out of order") {
        Kind::Tree { table: row.rsplit_once(" for ").map(|(_, table)| table.to_owned()) }
    } else {
        Kind::Other
    };
    Finding::new(kind, row)
}

fn index_of(row: &str) -> Option<String> {
    if !(row.starts_with("row ") || ABOUT_INDEX.iter().any(|about| row.starts_with(about))) {
        return None;
    }
    ABOUT_INDEX.iter().find_map(|about| {
        let (_, name) = row.split_once(about)?;
        // Of this one the number of the row comes first.
        if *about == ABOUT_INDEX[4] { Some(name.split_once(" of index ")?.1.to_owned()) } else { Some(name.to_owned()) }
    })
}

/// A row that breaks a rule: `NULL value in t.c`, `TEXT value in t.c`, `CHECK constraint failed in t`.
fn of_content(row: &str, trees: &Trees) -> bool {
    let table = |name: &str| trees.0.iter().any(|(_, table, index)| !index && table == name);
    if let Some(name) = row.strip_prefix("CHECK constraint failed in ") {
        return table(name);
    }
    const VALUES: [&str; 7] = ["NULL", "NUMERIC", "TEXT", "non-NUMERIC", "non-TEXT", "non-INT", "non-BLOB"];
    let value = VALUES.iter().find_map(|value| row.strip_prefix(value)?.strip_prefix(" value in "));
    value.is_some_and(|column| column.match_indices('.').any(|(dot, _)| column.get(..dot).is_some_and(table)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn kinds(row: &str) -> Vec<Kind> {
        let trees = Trees(vec![(2, "t".into(), false), (3, "i".into(), true), (5, "a.b".into(), false)]);
        findings(row, &trees).into_iter().map(|finding| finding.kind).collect()
    }

    fn index(name: &str) -> Vec<Kind> {
        vec![Kind::Index { index: name.into() }]
    }

    #[test]
    fn what_is_said_about_an_index_is_told_apart_with_its_name() {
        assert_eq!(kinds("row 7 missing from index i"), index("i"));
        assert_eq!(kinds("wrong # of entries in index odd name\nof lines"), index("odd name\nof lines"));
        assert_eq!(kinds("non-unique entry in index i"), index("i"));
        assert_eq!(kinds("row 3 values differ from index i"), index("i"));
        assert_eq!(kinds("rowid not at end-of-record for row 5 of index i"), index("i"));
        assert_eq!(kinds("*** in database main ***\nTree 3 page 9 cell 2: Rowid 5 out of order"), index("i"));
    }

    #[test]
    fn a_page_with_two_owners_is_never_only_an_index() {
        let row =
            "*** in database main ***\nTree 3 page 9 cell 2: 2nd reference to page 4\nTree 2 page 2: Extends off end";
        assert_eq!(kinds(row), [Kind::Tree { table: None }, Kind::Tree { table: Some("t".into()) }]);
    }

    #[test]
    fn free_pages_lost_pages_and_rows_are_told_apart() {
        let row =
            "*** in database main ***\nFreelist: size is 3 but should be 4\nPage 8: never used\nPage 9 is never used\n";
        assert_eq!(kinds(row), [Kind::FreeList, Kind::Unused, Kind::Unused]);
        assert_eq!(kinds("NULL value in t.c"), [Kind::Content]);
        assert_eq!(kinds("TEXT value in a.b.c"), [Kind::Content]);
        assert_eq!(kinds("CHECK constraint failed in t"), [Kind::Content]);
        assert_eq!(kinds("NULL value in nobody.c"), [Kind::Other]);
        assert_eq!(kinds("malformed inverted index for FTS5 table main.f"), [Kind::VirtualTable]);
        assert_eq!(kinds("ok"), []);
        assert_eq!(kinds("something new"), [Kind::Other]);
    }

    #[test]
    fn the_code_of_an_unreadable_page_is_found() {
        let row =
            "*** in database main ***\nTree 2 page 5: unable to get the page. error code=8202\nPage 4: never used";
        assert_eq!(unreadable(row), Some(8202));
        assert_eq!(unreadable("Tree 2 page 5: Extends off end"), None);
    }
}
