//! Results as JSON, one document on one line per result set, written row by row.
//!
//! Invariant: every line is a complete JSON document, also when a statement fails after its first rows, and no
//! value loses information: text that is not UTF-8 and blobs are given in hexadecimal, integers with all digits.

use crate::sql::ResultSink;
use hardened_sqlite::rusqlite::types::ValueRef;
use std::io::{self, Write};

/// Writes result sets as JSON lines.
pub(crate) struct JsonLines<W> {
    out: W,
    rows: u64,
}

impl<W: Write> JsonLines<W> {
    /// A writer that holds no rows back.
    pub(crate) fn new(out: W) -> Self {
        JsonLines { out, rows: 0 }
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, text)?;
        Ok(())
    }

    fn hex(&mut self, kind: &str, bytes: &[u8]) -> io::Result<()> {
        write!(self.out, "{{\"{kind}\":\"")?;
        for byte in bytes {
            write!(self.out, "{byte:02x}")?;
        }
        write!(self.out, "\"}}")
    }

    fn value(&mut self, value: ValueRef<'_>) -> io::Result<()> {
        match value {
            ValueRef::Null => write!(self.out, "null"),
            ValueRef::Integer(number) => write!(self.out, "{number}"),
            ValueRef::Real(number) if number.is_finite() => {
                serde_json::to_writer(&mut self.out, &number)?;
                Ok(())
            }
            // SQLite stores no NaN; the infinities have no JSON number.
            ValueRef::Real(number) if number < 0.0 => self.string("-Inf"),
            ValueRef::Real(_) => self.string("Inf"),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => self.string(text),
                Err(_) => self.hex("invalid_utf8", bytes),
            },
            ValueRef::Blob(bytes) => self.hex("blob", bytes),
        }
    }
}

impl<W: Write> ResultSink for JsonLines<W> {
    fn start(&mut self, columns: &[String]) -> io::Result<()> {
        self.rows = 0;
        write!(self.out, "{{\"columns\":")?;
        serde_json::to_writer(&mut self.out, columns)?;
        write!(self.out, ",\"rows\":[")
    }

    fn row(&mut self, values: &[ValueRef<'_>]) -> io::Result<()> {
        self.out.write_all(if self.rows == 0 { b"[" } else { b",[" })?;
        self.rows += 1;
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.write_all(b",")?;
            }
            self.value(*value)?;
        }
        self.out.write_all(b"]")
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out, "]}}")?;
        self.out.flush()
    }

    fn fail(&mut self, message: &str) -> io::Result<()> {
        write!(self.out, "],\"error\":")?;
        self.string(message)?;
        writeln!(self.out, "}}")?;
        self.out.flush()
    }

    fn changes(&mut self, rows: u64) -> io::Result<()> {
        writeln!(self.out, "{{\"changes\":{rows}}}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn rendered(columns: &[&str], rows: &[&[ValueRef<'_>]]) -> String {
        let mut bytes = Vec::new();
        let mut json = JsonLines::new(&mut bytes);
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        json.start(&columns).unwrap();
        for row in rows {
            json.row(row).unwrap();
        }
        json.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        let text = rendered(
            &["a", "b", "c", "d", "e", "f", "g"],
            &[&[
                ValueRef::Null,
                ValueRef::Integer(i64::MIN),
                ValueRef::Real(0.1),
                ValueRef::Real(f64::NEG_INFINITY),
                ValueRef::Text("ä\"\n\u{1b}".as_bytes()),
                ValueRef::Blob(&[0, 255]),
                ValueRef::Text(b"\xff"),
            ]],
        );
        assert_eq!(
            text,
            "{\"columns\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"],\"rows\":[[null,\
             -9223372036854775808,0.1,\"-Inf\",\"ä\\\"\\n\\u001b\",{\"blob\":\"00ff\"},\
             {\"invalid_utf8\":\"ff\"}]]}\n"
        );
    }

    #[test]
    fn reals_come_back_with_the_same_bits() {
        for bits in [1u64, 0x3fb9_9999_9999_999a, 0x7fef_ffff_ffff_ffff, 1 << 63] {
            let real = f64::from_bits(bits);
            let text = rendered(&["r"], &[&[ValueRef::Real(real)]]);
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            let back = document["rows"][0][0].as_f64().unwrap();
            assert_eq!(back.to_bits(), bits, "{text}");
        }
        assert!(rendered(&["r"], &[&[ValueRef::Real(2.0)]]).contains("[[2.0]]"));
    }

    #[test]
    fn an_empty_result_set_still_tells_its_columns() {
        assert_eq!(rendered(&["a\"b"], &[]), "{\"columns\":[\"a\\\"b\"],\"rows\":[]}\n");
    }

    #[test]
    fn a_failure_within_the_rows_still_leaves_a_whole_document() {
        let mut bytes = Vec::new();
        let mut json = JsonLines::new(&mut bytes);
        json.start(&["a".to_owned()]).unwrap();
        json.row(&[ValueRef::Integer(1)]).unwrap();
        json.row(&[ValueRef::Integer(2)]).unwrap();
        json.fail("disk \"I/O\" error").unwrap();
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["rows"][1][0], 2);
        assert_eq!(document["error"], "disk \"I/O\" error");
    }
}
