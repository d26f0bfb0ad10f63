//! The map as a picture: SVG, with nothing in it that would have to be fetched.
//!
//! Invariant: what is written is well-formed XML, whatever the name of the database; and no file is overwritten.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use hardened_sqlite::page_map::{PageKind, PageMap};

use super::cells::{cells, group};
use super::{caption, label, legend};
use crate::failure::Failure;
use crate::table::printable;

/// More cells would make the file large and the cells too small to be told apart.
const CELLS: usize = 8192;

/// In pixels: a cell, and from one cell to the next.
const CELL: usize = 10;
const PITCH: usize = 12;

/// Above and left of the cells, where title and page numbers stand.
const TOP: usize = 66;
const LEFT: usize = 84;

/// An entry of the legend.
const ENTRY: usize = 190;
const LINE: usize = 20;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.h{font-size:16px;font-weight:600}.n{font-size:10px;text-anchor:end}
.n,.m{fill:#59636e}.c{text-anchor:end}.bg{fill:#fff}.mark{stroke:#fff;stroke-width:1.6;fill:none}.orphan+.mark{stroke:#1f2328}
.table_interior{fill:#0a3a9e}.table_leaf{fill:#4c8dff}.index_interior{fill:#116329}.index_leaf{fill:#4ac26b}.overflow{fill:#a475f9}
.free_trunk{fill:#8c959f}.free_leaf{fill:#d1d9e0}.pointer_map{fill:#9a6700}.lock_byte{fill:#424a53}.orphan{fill:#f2c413}.damaged{fill:#e5251f}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.n,.m{fill:#9198a1}.bg{fill:#0d1117}.table_interior{fill:#2f62d9}
.index_interior{fill:#1f8a3f}.free_leaf{fill:#3d444d}.free_trunk{fill:#7d8590}.lock_byte{fill:#aab3bd}}
";

/// # Errors
/// There is something of this name already.
pub(crate) fn refuse_existing(file: &Path) -> Result<(), Failure> {
    match file.symlink_metadata() {
        Ok(_) => Err(Failure::Usage(format!(
            "--svg {}: it exists already, and is not overwritten; remove it or choose another name",
            file.display()
        ))),
        Err(_) => Ok(()),
    }
}

/// Writes the picture into a new file.
///
/// # Errors
/// There is such a file, or it cannot be written; then it is not there.
pub(crate) fn write(map: &PageMap, path: &Path, file: &Path) -> Result<(), Failure> {
    refuse_existing(file)?;
    let picture = drawn(map, path);
    let written = OpenOptions::new().write(true).create_new(true).open(file).and_then(|mut new| {
        new.write_all(picture.as_bytes()).inspect_err(|_| {
            // A part of a picture is worth nothing, and would be in the way of the next.
            let _ = std::fs::remove_file(file);
        })
    });
    written
        .map_err(|error: io::Error| Failure::Usage(format!("--svg {}: it cannot be written: {error}", file.display())))
}

/// Text for XML: without what XML does not allow, or reads as markup.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in printable(text.as_bytes()).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Of a text that has no room the middle is left out.
fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_owned();
    }
    let half = most.saturating_sub(1) / 2;
    let (start, end) = (letters.iter().take(half), letters.iter().skip(letters.len() - half));
    start.chain(&['…']).chain(end).collect()
}

fn drawn(map: &PageMap, path: &Path) -> String {
    let name = printable(path.as_os_str().as_encoded_bytes());
    let group = group(map.kinds().len(), CELLS);
    let cells: Vec<PageKind> = cells(map.kinds(), group).collect();
    let columns = ((cells.len() as f64 * 2.0).sqrt() as usize).next_multiple_of(8).clamp(32, 128);
    let (width, height) = (LEFT + columns * PITCH + 24, TOP + cells.len().div_ceil(columns) * PITCH + 16);
    let width = width.max(LEFT + 3 * ENTRY);
    let kinds = legend(map);
    let entries = ((width - LEFT) / ENTRY).max(1);
    let total = height + kinds.len().div_ceil(entries) * LINE + 16;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{total}\" viewBox=\"0 0 {width} {total}\" \
         role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"bg\" width=\"{width}\" height=\"{total}\"/>\n",
        escaped(&name)
    );
    let mut caption = caption(map, group);
    if let Some(why) = map.unsettled() {
        caption.push_str(&format!("; {why}: it may show two states in one"));
    }
    let title = escaped(&shortened(&name, (width - 48) / 10));
    // Writing into a string does not fail.
    let _ = writeln!(svg, "<text class=\"h\" x=\"24\" y=\"30\">{title}</text>");
    let _ = writeln!(svg, "<text class=\"m\" x=\"24\" y=\"50\">{}</text>\n<g id=\"pages\">", escaped(&caption));
    for (at, kind) in cells.iter().enumerate() {
        let (x, y) = (LEFT + at % columns * PITCH, TOP + at / columns * PITCH);
        let first = at * group + 1;
        if at % columns == 0 {
            let _ = writeln!(svg, "<text class=\"n\" x=\"{}\" y=\"{}\">{first}</text>", LEFT - 8, y + CELL - 1);
        }
        let last = (first + group - 1).min(map.kinds().len());
        let pages = if first == last { format!("page {first}") } else { format!("pages {first} to {last}") };
        let why = u32::try_from(first).ok().filter(|_| group == 1).and_then(|page| map.why(page));
        let why = why.map_or_else(String::new, |why| format!(": {}", escaped(why)));
        cell(&mut svg, *kind, x, y, &format!("<title>{pages}: {}{why}</title>", label(*kind)));
    }
    svg.push_str("</g>\n<g id=\"legend\">\n");
    for (at, (kind, count)) in kinds.into_iter().enumerate() {
        let (x, y) = (LEFT + at % entries * ENTRY, height + at / entries * LINE);
        cell(&mut svg, kind, x, y, "");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\">{}</text><text class=\"c\" x=\"{}\" y=\"{1}\">{count}</text>",
            x + PITCH + 6,
            y + CELL,
            label(kind),
            x + ENTRY - 24,
        );
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// Damage and orphans have a mark beside their colour.
fn cell(svg: &mut String, kind: PageKind, x: usize, y: usize, inner: &str) {
    let class = kind.name();
    let _ = write!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\"");
    svg.push_str(&if inner.is_empty() { "/>".to_owned() } else { format!(">{inner}</rect>") });
    match kind {
        PageKind::Damaged => {
            let _ = write!(svg, "<path class=\"mark\" d=\"M{} {}l6 6m0-6l-6 6\"/>", x + 2, y + 2);
        }
        PageKind::Orphan => {
            let _ = write!(svg, "<path class=\"mark\" d=\"M{} {}l6-6\"/>", x + 2, y + 8);
        }
        _ => {}
    }
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_picture() {
        assert_eq!(escaped("a<b>&\"c\"\u{1}\u{ffff}"), "a&lt;b&gt;&amp;&quot;c&quot;\\u{1}\u{fffd}");
        assert_eq!(shortened("short.db", 20), "short.db");
        assert_eq!(shortened("/a/very/long/path.db", 9), "/a/v…h.db");
    }
}
