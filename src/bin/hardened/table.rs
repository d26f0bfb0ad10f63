//! Results as tables for people: a header, a rule, aligned columns.
//!
//! Invariants: no control character, and no character that reorders or hides text, reaches the output; and at
//! most a window of [`WINDOW_ROWS`] rows or about [`WINDOW_BYTES`] bytes is held. Widths are those of the widest
//! cell up to the end of the window, so a column may grow from one window to the next.

use crate::sql::ResultSink;
use hardened_sqlite::rusqlite::types::ValueRef;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Rows that are measured together.
const WINDOW_ROWS: usize = 1000;

/// Bytes of cells that are measured together, unless a single row has more.
const WINDOW_BYTES: usize = 1 << 20;

/// No column is padded beyond this width; a longer cell moves what is right of it.
const MAX_PADDING: usize = 100;

/// Bytes of a blob that are shown.
const BLOB_BYTES: usize = 16;

/// One value as it is shown.
struct Cell {
    text: String,
    width: usize,
    right: bool,
}

/// Writes result sets as tables, separated by an empty line.
pub(crate) struct Table<W, R> {
    out: W,
    real: R,
    header: Vec<Cell>,
    header_is_due: bool,
    widths: Vec<usize>,
    window: Vec<Vec<Cell>>,
    window_bytes: usize,
    is_first: bool,
}

impl<W: Write, R: FnMut(f64) -> String> Table<W, R> {
    /// A writer that shows a real number as `real` writes it.
    pub(crate) fn new(out: W, real: R) -> Self {
        Table {
            out,
            real,
            header: Vec::new(),
            header_is_due: false,
            widths: Vec::new(),
            window: Vec::new(),
            window_bytes: 0,
            is_first: true,
        }
    }

    fn cell(&mut self, value: ValueRef<'_>) -> Cell {
        match value {
            ValueRef::Null => Cell::left("NULL".to_owned()),
            ValueRef::Integer(number) => Cell::right(number.to_string()),
            ValueRef::Real(number) => Cell::right((self.real)(number)),
            ValueRef::Text(bytes) => Cell::left(printable(bytes)),
            ValueRef::Blob(bytes) => Cell::left(blob(bytes)),
        }
    }

    /// Writes the rows held, after the header if they are the first.
    fn write_window(&mut self) -> io::Result<()> {
        for row in self.window.iter().chain([&self.header]) {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.width.min(MAX_PADDING).max(*width);
            }
        }
        if std::mem::take(&mut self.header_is_due) {
            write_line(&mut self.out, &self.widths, &self.header)?;
            let rule: Vec<String> = self.widths.iter().map(|width| "-".repeat(*width)).collect();
            writeln!(self.out, "{}", rule.join("  "))?;
        }
        for row in self.window.drain(..) {
            write_line(&mut self.out, &self.widths, &row)?;
        }
        self.window_bytes = 0;
        self.out.flush()
    }
}

impl<W: Write, R: FnMut(f64) -> String> ResultSink for Table<W, R> {
    fn start(&mut self, columns: &[String]) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            writeln!(self.out)?;
        }
        let name = |column: &String| Cell::left(printable(column.as_bytes()));
        self.header = columns.iter().map(name).collect();
        self.header_is_due = true;
        self.widths = vec![0; columns.len()];
        Ok(())
    }

    fn row(&mut self, values: &[ValueRef<'_>]) -> io::Result<()> {
        let row: Vec<Cell> = values.iter().map(|value| self.cell(*value)).collect();
        self.window_bytes += row.iter().map(|cell| cell.text.len()).sum::<usize>();
        self.window.push(row);
        if self.window.len() >= WINDOW_ROWS || self.window_bytes >= WINDOW_BYTES {
            self.write_window()?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.write_window()
    }

    fn fail(&mut self, _message: &str) -> io::Result<()> {
        self.write_window()
    }

    fn changes(&mut self, rows: u64) -> io::Result<()> {
        self.is_first = false;
        writeln!(self.out, "rows changed: {rows}")
    }
}

impl Cell {
    fn left(text: String) -> Cell {
        let width = text.chars().count();
        Cell { text, width, right: false }
    }

    fn right(text: String) -> Cell {
        Cell { right: true, ..Cell::left(text) }
    }
}

fn write_line(out: &mut impl Write, widths: &[usize], row: &[Cell]) -> io::Result<()> {
    let last = row.len().saturating_sub(1);
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = width.saturating_sub(cell.width);
        if cell.right {
            write!(out, "{:padding$}{}", "", cell.text)?;
        } else if index == last {
            write!(out, "{}", cell.text)?;
        } else {
            write!(out, "{}{:padding$}", cell.text, "")?;
        }
        if index < last {
            write!(out, "  ")?;
        }
    }
    writeln!(out)
}

/// A blob as an SQL literal, cut after [`BLOB_BYTES`] bytes with its length behind.
fn blob(bytes: &[u8]) -> String {
    let mut text = String::from("x'");
    for byte in bytes.iter().take(BLOB_BYTES) {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > BLOB_BYTES {
        let _ = write!(text, "...' ({} bytes)", bytes.len());
    } else {
        text.push('\'');
    }
    text
}

/// Text on one line that a terminal only prints: control characters and those that reorder or hide others are
/// escaped as in Rust, bytes that are not UTF-8 as `\xff`. A backslash stands for itself.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_unprintable(c) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing into a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Control characters, line and paragraph separators, and the invisible marks that change the direction of text.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn table(bytes: &mut Vec<u8>) -> Table<&mut Vec<u8>, fn(f64) -> String> {
        Table::new(bytes, |real| format!("{real:?}"))
    }

    fn rendered(columns: &[&str], rows: &[&[ValueRef<'_>]]) -> String {
        let mut bytes = Vec::new();
        let mut sink = table(&mut bytes);
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        sink.start(&columns).unwrap();
        for row in rows {
            sink.row(row).unwrap();
        }
        sink.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn columns_are_aligned_by_characters_with_numbers_to_the_right() {
        let text = rendered(
            &["id", "name", "r"],
            &[
                &[ValueRef::Integer(7), ValueRef::Text("größer".as_bytes()), ValueRef::Real(1.5)],
                &[ValueRef::Integer(-123), ValueRef::Null, ValueRef::Real(10.25)],
                &[ValueRef::Null, ValueRef::Text(b""), ValueRef::Blob(&[1, 0xab])],
            ],
        );
        assert_eq!(
            text,
            "id    name    r\n\
             ----  ------  -------\n\
             \u{20}  7  größer      1.5\n\
             -123  NULL      10.25\n\
             NULL          x'01ab'\n"
        );
    }

    #[test]
    fn a_result_without_rows_shows_its_columns() {
        assert_eq!(rendered(&["a", "bc"], &[]), "a  bc\n-  --\n");
    }

    #[test]
    fn what_could_break_a_terminal_is_escaped() {
        let cases: &[(&[u8], &str)] = &[
            (b"a\nb\tc\r", r"a\nb\tc\r"),
            (b"\x1b[31m\x07\0\x7f", r"\u{1b}[31m\u{7}\u{0}\u{7f}"),
            ("\u{9b}2J".as_bytes(), r"\u{9b}2J"),
            ("x\u{202e}y\u{2066}\u{feff}".as_bytes(), r"x\u{202e}y\u{2066}\u{feff}"),
            (b"ok\xff\xc3", r"ok\xff\xc3"),
            (r"C:\dir 'ä' 日本".as_bytes(), r"C:\dir 'ä' 日本"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(printable(bytes), *expected);
        }
        let text = rendered(&["a\x1b[2J"], &[&[ValueRef::Text(b"\x1b[2J")]]);
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn a_long_blob_is_cut_and_its_length_told() {
        assert_eq!(blob(&[]), "x''");
        assert_eq!(blob(&[0xab; 16]), format!("x'{}'", "ab".repeat(16)));
        assert_eq!(blob(&[0xab; 17]), format!("x'{}...' (17 bytes)", "ab".repeat(16)));
    }

    #[test]
    fn tables_are_separated_by_an_empty_line() {
        let mut bytes = Vec::new();
        let mut sink = table(&mut bytes);
        for column in ["a", "b"] {
            sink.start(&[column.to_owned()]).unwrap();
            sink.row(&[ValueRef::Integer(1)]).unwrap();
            sink.end().unwrap();
        }
        assert_eq!(bytes, b"a\n-\n1\n\nb\n-\n1\n");
    }

    #[test]
    fn rows_are_written_when_the_window_is_full_and_the_header_once() {
        let mut bytes = Vec::new();
        let mut sink = table(&mut bytes);
        sink.start(&["n".to_owned(), "t".to_owned()]).unwrap();
        for number in 0..WINDOW_ROWS as i64 {
            let row = [ValueRef::Integer(number), ValueRef::Text(b"x")];
            sink.row(&row).unwrap();
        }
        assert!(sink.window.is_empty());
        sink.row(&[ValueRef::Integer(1234567), ValueRef::Null]).unwrap();
        sink.end().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), WINDOW_ROWS + 3);
        assert_eq!(text.matches("n    t").count(), 1);
        assert!(text.ends_with("999  x\n1234567  NULL\n"));
    }

    #[test]
    fn a_window_is_bounded_in_bytes_and_a_long_cell_pads_nothing() {
        let mut bytes = Vec::new();
        let mut sink = table(&mut bytes);
        sink.start(&["t".to_owned(), "n".to_owned()]).unwrap();
        let long = vec![b'x'; WINDOW_BYTES];
        sink.row(&[ValueRef::Text(b"short"), ValueRef::Integer(1)]).unwrap();
        sink.row(&[ValueRef::Text(&long), ValueRef::Integer(2)]).unwrap();
        assert!(sink.window.is_empty());
        sink.end().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2].len(), MAX_PADDING + 3);
        assert_eq!(lines[3].len(), WINDOW_BYTES + 3);
    }
}
