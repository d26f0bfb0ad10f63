//! The map on a terminal, and as plain text.
//!
//! Invariant: neither cells nor legend are wider than a terminal of 40 columns or more, and with colours or without, the symbols of damage and orphans are there.

use std::io::{IsTerminal, stdout};

use hardened_sqlite::page_map::{PageKind, PageMap};

use super::cells::{cells, group};
use super::{caption, label, legend};

/// How many rows of cells there are at most.
const ROWS: usize = 16;

/// How wide names are, with the space around them, as in the other lines of the doctor.
const INDENT: usize = 14;

/// How wide an entry of the legend is.
const ENTRY: usize = 30;

/// So many damaged pages have a line of their own, and so many ranges of orphans are told.
const TOLD: usize = 8;

/// How it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Columns of the terminal.
    width: usize,
    colours: bool,
}

impl Style {
    /// What standard output can show.
    pub(crate) fn of_stdout() -> Style {
        let out = stdout();
        if !out.is_terminal() {
            return Style { width: 80, colours: false };
        }
        let width = rustix::termios::tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col));
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let colours = set("NO_COLOR").is_none() && set("TERM").is_some_and(|terminal| terminal != "dumb");
        // A terminal that does not know its width is as wide as most.
        Style { width: if width == 0 { 80 } else { width }, colours }
    }

    /// For [`Style::parse`].
    pub(crate) fn text(self) -> String {
        format!("{},{}", self.width, u8::from(self.colours))
    }

    /// What [`Style::text`] has written.
    pub(crate) fn parse(text: &str) -> Style {
        let (width, colours) = text.split_once(',').unwrap_or(("", ""));
        Style { width: width.parse().unwrap_or(80), colours: colours == "1" }
    }
}

/// What stands for a kind without colours.
fn symbol(kind: PageKind) -> char {
    match kind {
        PageKind::TableInterior => 'T',
        PageKind::TableLeaf => 't',
        PageKind::IndexInterior => 'I',
        PageKind::IndexLeaf => 'i',
        PageKind::Overflow => 'o',
        PageKind::FreeTrunk => ',',
        PageKind::FreeLeaf => '.',
        PageKind::PointerMap => 'p',
        PageKind::LockByte => 'L',
        PageKind::Orphan => '?',
        _ => '!',
    }
}

/// Its background, and the colour of its symbol, of the 256 that terminals have.
fn colours(kind: PageKind) -> (u8, u8) {
    match kind {
        PageKind::TableInterior => (19, 255),
        PageKind::TableLeaf => (33, 16),
        PageKind::IndexInterior => (22, 255),
        PageKind::IndexLeaf => (71, 16),
        PageKind::Overflow => (141, 16),
        PageKind::FreeTrunk => (245, 16),
        PageKind::FreeLeaf => (250, 16),
        PageKind::PointerMap => (94, 255),
        PageKind::LockByte => (236, 255),
        PageKind::Orphan => (220, 16),
        _ => (196, 231),
    }
}

/// Cells side by side.
fn drawn(kinds: impl Iterator<Item = PageKind>, style: Style) -> String {
    let (mut text, mut last) = (String::new(), None);
    for kind in kinds {
        if style.colours && last != Some(kind) {
            let (back, front) = colours(kind);
            text.push_str(&format!("\x1b[48;5;{back};38;5;{front}m"));
        }
        last = Some(kind);
        let alarming = matches!(kind, PageKind::Orphan | PageKind::Damaged);
        text.push(if style.colours && !alarming { ' ' } else { symbol(kind) });
    }
    if style.colours && last.is_some() {
        text.push_str("\x1b[0m");
    }
    text
}

/// The map, its legend, and where the damage is.
pub(crate) fn lines(map: &PageMap, style: Style) -> Vec<String> {
    let room = style.width.saturating_sub(INDENT);
    let columns = (room / 8 * 8).clamp(8, 128);
    let group = group(map.kinds().len(), columns * ROWS);
    let mut lines = vec![named("map", &caption(map, group))];
    if let Some(why) = map.unsettled() {
        lines.push(named("", &format!("{why}: it may show two states in one")));
    }
    let cells: Vec<_> = cells(map.kinds(), group).collect();
    for (row, cells) in cells.chunks(columns).enumerate() {
        let page = row * columns * group + 1;
        lines.push(format!("  {page:>10}  {}", drawn(cells.iter().copied(), style)));
    }
    let entries = (room / ENTRY).clamp(1, 3);
    for kinds in legend(map).chunks(entries) {
        let entry = |(kind, count): &(PageKind, u64)| {
            let text = format!("{:<16}{count:>8}", label(*kind));
            format!("{} {text:<width$}", drawn([*kind].into_iter(), style), width = ENTRY - 2)
        };
        let text: String = kinds.iter().map(entry).collect();
        lines.push(named("", text.trim_end()));
    }
    for page in map.pages(PageKind::Damaged).take(TOLD) {
        lines.push(named("damaged", &format!("page {page}: {}", map.why(page).unwrap_or("as those before it"))));
    }
    let more = map.count(PageKind::Damaged).saturating_sub(TOLD as u64);
    if more > 0 {
        lines.push(named("", &format!("and {more} more; --json names them")));
    }
    if let Some(orphans) = ranges(map.pages(PageKind::Orphan)) {
        lines.push(named("orphans", &orphans));
    }
    lines
}

fn named(name: &str, text: &str) -> String {
    format!("  {name:<12}{text}")
}

/// `page 3`, `pages 3, 5-9 and 12 more`.
fn ranges(pages: impl Iterator<Item = u32>) -> Option<String> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    let (mut count, mut more) = (0_u64, 0_u64);
    for page in pages {
        count += 1;
        let adjoining = ranges.last_mut().filter(|(_, last)| *last + 1 == page && more == 0);
        if let Some((_, last)) = adjoining {
            *last = page;
        } else if ranges.len() < TOLD {
            ranges.push((page, page));
        } else {
            more += 1;
        }
    }
    let range = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let text = ranges.iter().map(range).collect::<Vec<_>>().join(", ");
    match (count, more) {
        (0, _) => None,
        (1, _) => Some(format!("page {text}")),
        (_, 0) => Some(format!("pages {text}")),
        (_, more) => Some(format!("pages {text} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_told_as_such_and_end_somewhere() {
        let told = |pages: &[u32]| ranges(pages.iter().copied());
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[7]).unwrap(), "page 7");
        assert_eq!(told(&[3, 5, 6, 7]).unwrap(), "pages 3, 5-7");
        let odd: Vec<u32> = (0..20).map(|n| 2 * n + 1).collect();
        assert_eq!(told(&odd).unwrap(), "pages 1, 3, 5, 7, 9, 11, 13, 15 and 12 more");
    }

    #[test]
    fn a_style_survives_the_way_to_the_worker() {
        for style in [Style { width: 80, colours: false }, Style { width: 211, colours: true }] {
            assert_eq!(Style::parse(&style.text()), style);
        }
        assert_eq!(Style::parse("nonsense"), Style { width: 80, colours: false });
    }

    #[test]
    fn colours_change_only_where_kinds_do_and_damage_has_its_symbol_in_both() {
        use PageKind::{Damaged, TableLeaf};
        let kinds = [TableLeaf, TableLeaf, Damaged];
        let plain = drawn(kinds.into_iter(), Style { width: 80, colours: false });
        assert_eq!(plain, "tt!");
        let coloured = drawn(kinds.into_iter(), Style { width: 80, colours: true });
        assert_eq!(coloured, "\x1b[48;5;33;38;5;16m  \x1b[48;5;196;38;5;231m!\x1b[0m");
    }
}
