//! Values on their way into the new database.
//!
//! Invariant: what arrives is what was stored, byte for byte, also text that is none in the encoding of the database. SQLite
//! takes text from us as UTF-8; UTF-16 that is not valid goes as a blob, which CAST makes text of without looking at it.

use std::collections::HashMap;

use hardened_vfs::format::database::TextEncoding;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use super::record::Value;
use super::schema::decode_exactly;

/// A value that can be bound.
#[derive(Debug)]
pub(super) struct Bound<'a> {
    value: Value<'a>,
    converted: Option<String>,
    /// It is bound as a blob and has to be made text.
    pub(super) cast: bool,
}

pub(super) fn bound(value: Value<'_>, encoding: TextEncoding) -> Bound<'_> {
    match (value, encoding) {
        (Value::Text(bytes), TextEncoding::Utf16Le | TextEncoding::Utf16Be) => {
            let converted = decode_exactly(bytes, encoding);
            let cast = converted.is_none();
            Bound { value, converted, cast }
        }
        _ => Bound { value, converted: None, cast: false },
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match (self.value, &self.converted) {
            (Value::Null, _) => ValueRef::Null,
            (Value::Integer(value), _) => ValueRef::Integer(value),
            (Value::Real(value), _) => ValueRef::Real(value),
            (Value::Text(_), Some(text)) => ValueRef::Text(text.as_bytes()),
            (Value::Text(bytes), None) if self.cast => ValueRef::Blob(bytes),
            (Value::Text(bytes), None) => ValueRef::Text(bytes),
            (Value::Blob(bytes), _) => ValueRef::Blob(bytes),
        }))
    }
}

/// Damage may ask for any number of statements.
const MOST_STATEMENTS: usize = 64;

/// Statements that insert rows, by the number of fields and which of them are cast.
pub(super) struct Inserts<'c> {
    connection: &'c Connection,
    /// None of them cast, as nearly all are.
    plain: HashMap<usize, Statement<'c>>,
    casting: HashMap<(usize, Vec<usize>), Statement<'c>>,
}

impl<'c> Inserts<'c> {
    pub(super) fn new(connection: &'c Connection) -> Inserts<'c> {
        Inserts { connection, plain: HashMap::new(), casting: HashMap::new() }
    }

    /// Runs the statement for `values`, whose first goes to parameter `first`. `sql` makes it, unless it is there already, and
    /// is told which values are to be cast; where it answers `None` nothing is done. `extra` is bound from parameter 1 on.
    pub(super) fn run(
        &mut self,
        values: &[Bound<'_>],
        extra: &[Option<i64>],
        sql: impl FnOnce(&dyn Fn(usize) -> bool) -> Option<String>,
    ) -> rusqlite::Result<bool> {
        let connection = self.connection;
        let make = |cast: &dyn Fn(usize) -> bool| sql(cast).map(|sql| connection.prepare(&sql)).transpose();
        let statement = if values.iter().any(|value| value.cast) {
            let cast: Vec<usize> =
                (0..values.len()).filter(|at| values.get(*at).is_some_and(|value| value.cast)).collect();
            let key = (values.len(), cast);
            if !self.casting.contains_key(&key) {
                let Some(statement) = make(&|at| key.1.binary_search(&at).is_ok())? else { return Ok(false) };
                if self.casting.len() >= MOST_STATEMENTS {
                    self.casting.clear();
                }
                self.casting.insert(key.clone(), statement);
            }
            self.casting.get_mut(&key)
        } else {
            if !self.plain.contains_key(&values.len()) {
                let Some(statement) = make(&|_| false)? else { return Ok(false) };
                if self.plain.len() >= MOST_STATEMENTS {
                    self.plain.clear();
                }
                self.plain.insert(values.len(), statement);
            }
            self.plain.get_mut(&values.len())
        };
        let Some(statement) = statement else { return Ok(false) };
        let parameters = statement.parameter_count();
        for (at, value) in extra.iter().enumerate().take(parameters) {
            statement.raw_bind_parameter(at + 1, value)?;
        }
        for (at, value) in values.iter().enumerate().take(parameters.saturating_sub(extra.len())) {
            statement.raw_bind_parameter(at + 1 + extra.len(), value)?;
        }
        statement.raw_execute()?;
        Ok(true)
    }
}
