//! The schema of a damaged database: the rows of sqlite_schema that can be found.
//!
//! Invariant: a row found here is not believed. What is done with its SQL is decided where it is run.

use std::borrow::Cow;

use hardened_vfs::format::database::TextEncoding;

use super::record::{Fields, Value};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Table,
    VirtualTable,
    Index,
    View,
    Trigger,
}

impl Sort {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Sort::Table => "table",
            Sort::VirtualTable => "virtual table",
            Sort::Index => "index",
            Sort::View => "view",
            Sort::Trigger => "trigger",
        }
    }
}

/// A row of sqlite_schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) sort: Sort,
    pub(crate) name: String,
    pub(crate) table: String,
    /// 0 for none.
    pub(crate) root: u32,
    /// None for the index of a constraint.
    pub(crate) sql: Option<String>,
}

/// Text of the database as a string; what is no text in this encoding is replaced.
pub(crate) fn decode(bytes: &[u8], encoding: TextEncoding) -> Cow<'_, str> {
    let units = |read: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied()).map(read);
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match encoding {
        TextEncoding::Utf16Le => Cow::Owned(units(u16::from_le_bytes)),
        TextEncoding::Utf16Be => Cow::Owned(units(u16::from_be_bytes)),
        _ => String::from_utf8_lossy(bytes),
    }
}

/// The same, if it is text in this encoding throughout: `None` if any byte would be lost.
pub(crate) fn decode_exactly(bytes: &[u8], encoding: TextEncoding) -> Option<String> {
    let read: fn([u8; 2]) -> u16 = match encoding {
        TextEncoding::Utf16Le => u16::from_le_bytes,
        TextEncoding::Utf16Be => u16::from_be_bytes,
        _ => return std::str::from_utf8(bytes).ok().map(str::to_owned),
    };
    if bytes.len() % 2 != 0 {
        return None;
    }
    let units = bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied()).map(read);
    char::decode_utf16(units).collect::<Result<String, _>>().ok()
}

/// Whether `sql` starts with this, whatever the case.
pub(crate) fn starts_with(sql: &str, words: &str) -> bool {
    sql.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}

/// What `sql` would create. SQLite writes these words so itself.
fn sort_of(sql: &str) -> Option<Sort> {
    [
        ("create table", Sort::Table),
        ("create virtual table", Sort::VirtualTable),
        ("create index", Sort::Index),
        ("create unique index", Sort::Index),
        ("create view", Sort::View),
        ("create trigger", Sort::Trigger),
    ]
    .into_iter()
    .find_map(|(words, sort)| starts_with(sql, words).then_some(sort))
}

/// The object that a record of sqlite_schema describes, if it is one.
pub(crate) fn object(fields: &Fields, record: &[u8], encoding: TextEncoding) -> Option<Object> {
    let text = |index| match fields.value(record, index) {
        Value::Text(bytes) => Some(decode(bytes, encoding).into_owned()),
        _ => None,
    };
    let sql = text(4);
    let said = text(0);
    let sort = match (sql.as_deref().and_then(sort_of), said.as_deref()) {
        (Some(sort), _) => sort,
        (None, Some("index")) if sql.is_none() => Sort::Index,
        _ => return None,
    };
    let name = text(1)?;
    let root = match fields.value(record, 3) {
        Value::Integer(root) => u32::try_from(root).unwrap_or(0),
        _ => 0,
    };
    let table = text(2).unwrap_or_else(|| name.clone());
    Some(Object { sort, name, table, root, sql })
}

/// Whether the record is a row of sqlite_schema and nothing else, judged without knowing where it was found.
pub(crate) fn is_certain(fields: &Fields, record: &[u8], encoding: TextEncoding) -> bool {
    let Value::Text(said) = fields.value(record, 0) else { return false };
    let said = decode(said, encoding);
    fields.len() == 5
        && matches!(&*said, "table" | "index" | "view" | "trigger")
        && object(fields, record, encoding).is_some_and(|object| object.sql.is_some() && !object.name.is_empty())
}
