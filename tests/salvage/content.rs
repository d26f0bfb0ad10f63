//! What is in a database, as far as two of them can be compared.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// How often each row is there.
pub(crate) type Rows = BTreeMap<String, usize>;

/// A database.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// The rows of each table.
    pub(crate) tables: BTreeMap<String, Rows>,
    /// Of each of them how it is stored, and so would be in lost_and_found.
    stored: BTreeMap<String, BTreeMap<String, String>>,
    /// Of all tables of that name.
    pub(crate) lost_and_found: Rows,
    /// Tables, indexes, views and triggers by name.
    pub(crate) objects: Vec<String>,
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(value) => value.to_string(),
        // Stored as an integer where that says the same.
        ValueRef::Real(value) if value.fract() == 0.0 && value.abs() < 1e15 => (value as i64).to_string(),
        ValueRef::Real(value) => format!("{value:?}"),
        ValueRef::Text(value) => format!("'{}'", value.escape_ascii()),
        ValueRef::Blob(value) => format!("x'{}'", value.escape_ascii()),
    }
}

fn add(rows: &mut Rows, row: String) {
    *rows.entry(row).or_default() += 1;
}

fn names(connection: &Connection, sql: &str, table: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

impl Content {
    /// That of `path`; nothing if it cannot be read.
    pub(crate) fn of(path: &Path) -> Content {
        let mut content = Content::default();
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let objects = "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'lost\\_and\\_found%' ESCAPE '\\' \
                       AND name NOT LIKE ?1 ORDER BY 1";
        let Ok(mut statement) = connection.prepare(objects) else { return content };
        let Ok(found) = statement.query_map(["sqlite\\_%"], |row| row.get(0)) else { return content };
        content.objects = found.filter_map(Result::ok).collect();
        let tables = names(
            &connection,
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name <> ?1",
            "sqlite_sequence",
        );
        for table in tables {
            if table.starts_with("lost_and_found") {
                content.read_lost(&connection, &table);
                continue;
            }
            let all = names(&connection, "SELECT name FROM pragma_table_xinfo(?1)", &table);
            let by_key = "SELECT coalesce(name, '') FROM pragma_index_xinfo(?1)";
            let stored = match names(&connection, by_key, &table) {
                order if !order.is_empty() => order.iter().map(|name| quoted(name)).collect(),
                _ => stored_columns(&connection, &table),
            };
            let columns: Vec<String> = all.iter().map(|name| quoted(name)).collect();
            let (mut rows, mut as_stored) = (Rows::new(), BTreeMap::new());
            for (row, stored) in read(&connection, &table, &columns, &stored) {
                as_stored.insert(row.clone(), stored);
                add(&mut rows, row);
            }
            content.tables.insert(table.clone(), rows);
            content.stored.insert(table, as_stored);
        }
        content
    }

    fn read_lost(&mut self, connection: &Connection, table: &str) {
        let sql = format!("SELECT * FROM {}", quoted(table));
        let mut statement = connection.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Ok(Some(row)) = rows.next() {
            let fields = row.get::<_, i64>(2).unwrap_or(0) as usize;
            let values: Vec<_> = (4..columns.min(4 + fields)).map(|at| text(row.get_ref(at).unwrap())).collect();
            add(&mut self.lost_and_found, values.join("|"));
        }
    }

    /// How many rows of `original` are in the same table here, and how many are here at all.
    pub(crate) fn saved(&self, original: &Content) -> BTreeMap<String, (usize, usize)> {
        let mut lost = self.lost_and_found.clone();
        let mut saved = BTreeMap::new();
        for (table, rows) in &original.tables {
            let (mut here, mut found) = (0, 0);
            for (row, count) in rows {
                let in_table = self.tables.get(table).and_then(|rows| rows.get(row)).copied().unwrap_or(0).min(*count);
                here += in_table;
                if let Some(there) = lost.get_mut(&original.stored[table][row]) {
                    let take = (count - in_table).min(*there);
                    (*there, found) = (*there - take, found + take);
                }
            }
            saved.insert(table.clone(), (here, here + found));
        }
        saved
    }

    /// All rows, right or wrong.
    pub(crate) fn count(&self) -> usize {
        self.tables.values().chain([&self.lost_and_found]).flat_map(BTreeMap::values).sum()
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The columns that a record has, with NULL for the one that is the rowid.
fn stored_columns(connection: &Connection, table: &str) -> Vec<String> {
    let sql = "SELECT name, hidden, pk, upper(type), (SELECT sum(pk > 0) FROM pragma_table_xinfo(?1)) AS keys \
               FROM pragma_table_xinfo(?1)";
    let mut statement = connection.prepare(sql).unwrap();
    let mut rows = statement.query([table]).unwrap();
    let mut columns = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let (name, hidden): (String, i64) = (row.get(0).unwrap(), row.get(1).unwrap());
        let (key, kind, keys): (i64, String, i64) = (row.get(2).unwrap(), row.get(3).unwrap(), row.get(4).unwrap());
        match (hidden, key, kind.as_str(), keys) {
            (2, ..) => {}
            (_, 1, "INTEGER", 1) => columns.push("NULL".to_owned()),
            _ => columns.push(quoted(&name)),
        }
    }
    columns
}

fn read(connection: &Connection, table: &str, columns: &[String], stored: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let all = [columns, stored].concat().join(",");
    let Ok(mut statement) = connection.prepare(&format!("SELECT {all} FROM {} NOT INDEXED", quoted(table))) else {
        return found;
    };
    let Ok(mut rows) = statement.query([]) else { return found };
    while let Ok(Some(row)) = rows.next() {
        let values: Vec<_> = (0..columns.len() + stored.len()).map(|at| text(row.get_ref(at).unwrap())).collect();
        let (row, stored) = values.split_at(columns.len());
        found.push((row.join("|"), stored.join("|")));
    }
    found
}
