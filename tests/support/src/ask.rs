//! One question to a rusqlite connection.

use rusqlite::Connection;
use rusqlite::types::Value;

/// The first value of the first row, as text.
///
/// # Panics
/// If the statement fails or has no row.
pub fn text(connection: &Connection, sql: &str) -> String {
    let value =
        connection.query_row(sql, [], |row| row.get::<_, Value>(0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}
