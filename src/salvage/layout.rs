//! How the rows of a table are stored, as the new database says that has the same table.
//!
//! Invariant: a column has a field exactly if SQLite stores it, in the order in which it does: generated columns that are
//! not stored have none, and a table WITHOUT ROWID begins with its primary key.

use rusqlite::Connection;

use super::record::Fields;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    pub(super) key: Key,
    /// The most fields that its records have.
    pub(super) fields: usize,
}

/// A column that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) field: usize,
    /// Its value is computed, so none can be given.
    generated: bool,
    not_null: bool,
}

/// How rows are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// By a rowid that is this column (an index into `columns`), whose field is NULL.
    Alias(usize),
    /// By a rowid of this name; `None` if columns have all the names it could have.
    Rowid(Option<&'static str>),
    /// By the primary key: WITHOUT ROWID.
    Primary,
}

impl Layout {
    /// That of the table `name`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn of(connection: &Connection, name: &str) -> rusqlite::Result<Layout> {
        let mut statement =
            connection.prepare("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1)")?;
        let mut rows = statement.query([name])?;
        let (mut columns, mut places) = (Vec::new(), Vec::new());
        let (mut alias, mut keys, mut field) = (None, 0, 0);
        while let Some(row) = rows.next()? {
            let hidden: i64 = row.get(4)?;
            let (key, kind): (i64, String) = (row.get(3)?, row.get::<_, Option<String>>(1)?.unwrap_or_default());
            if key > 0 {
                keys += 1;
                alias = (kind.eq_ignore_ascii_case("integer")).then_some(columns.len());
            }
            // Generated and not stored.
            if hidden == 2 {
                places.push(None);
                continue;
            }
            places.push(Some(columns.len()));
            columns.push(Column { name: row.get(0)?, field, generated: hidden == 3, not_null: row.get(2)? });
            field += 1;
        }
        let mut layout = Layout { name: name.to_owned(), fields: columns.len(), columns, key: Key::Primary };
        let order = stored_order(connection, name)?;
        if !order.is_empty() {
            // SQLite stores no computed column twice, so each has one place.
            for (field, column) in order.iter().enumerate() {
                let column = usize::try_from(*column).ok().and_then(|column| places.get(column).copied().flatten());
                if let Some(column) = column.and_then(|column| layout.columns.get_mut(column)) {
                    column.field = field;
                }
            }
            layout.fields = order.len();
            return Ok(layout);
        }
        // INTEGER PRIMARY KEY DESC has an index and is no alias.
        let indexed = "SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk'";
        let indexed = connection.query_row(indexed, [name], |row| row.get::<_, i64>(0))? > 0;
        layout.key = match alias.filter(|_| keys == 1 && !indexed) {
            Some(column) => Key::Alias(column),
            None => Key::Rowid(
                ["_rowid_", "rowid", "oid"]
                    .into_iter()
                    .find(|name| !layout.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))),
            ),
        };
        Ok(layout)
    }

    /// Whether its pages are those of a table with rowids.
    pub(super) fn has_rowids(&self) -> bool {
        self.key != Key::Primary
    }

    /// Whether a record could be a row of it.
    pub(super) fn suits(&self, fields: &Fields) -> bool {
        if fields.len() == 0 || fields.len() > self.fields {
            return false;
        }
        self.columns.iter().enumerate().all(|(index, column)| {
            column.field >= fields.len()
                || match self.key {
                    Key::Alias(alias) if alias == index => fields.is_null(column.field),
                    _ => !column.not_null || !fields.is_null(column.field),
                }
        })
    }

    /// The statement that inserts a row with so many fields; those with a bit in `texts` are bound as blobs that are text.
    /// The rowid is parameter 1, the field `n` parameter `n + 2`. `None` if no column gets a value.
    pub(super) fn insert(&self, fields: usize, is_text: impl Fn(usize) -> bool) -> Option<String> {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        match self.key {
            Key::Rowid(Some(name)) => {
                names.push(name.to_owned());
                values.push("?1".to_owned());
            }
            Key::Alias(column) => {
                names.push(quoted(&self.columns.get(column)?.name));
                values.push("?1".to_owned());
            }
            Key::Rowid(None) | Key::Primary => {}
        }
        for (index, column) in self.columns.iter().enumerate() {
            if column.generated || column.field >= fields || self.key == Key::Alias(index) {
                continue;
            }
            names.push(quoted(&column.name));
            let parameter = column.field + 2;
            values.push(if is_text(column.field) {
                format!("CAST(?{parameter} AS TEXT)")
            } else {
                format!("?{parameter}")
            });
        }
        let (names, values) = (names.join(","), values.join(","));
        (!names.is_empty()).then(|| format!("INSERT INTO main.{}({names}) VALUES({values})", quoted(&self.name)))
    }
}

/// The columns in the order of a table WITHOUT ROWID; empty for any other table.
fn stored_order(connection: &Connection, name: &str) -> rusqlite::Result<Vec<i64>> {
    // Of all tables only these have an index of their own name.
    let mut statement = connection.prepare("SELECT cid FROM pragma_index_xinfo(?1) ORDER BY seqno")?;
    let order = statement.query_map([name], |row| row.get(0))?;
    order.collect()
}

/// A name as SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn layout(sql: &str) -> Layout {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        Layout::of(&connection, "t").unwrap()
    }

    #[test]
    fn only_a_lone_integer_primary_key_without_an_index_is_the_rowid() {
        assert_eq!(layout("CREATE TABLE t(b, a INTEGER PRIMARY KEY)").key, Key::Alias(1));
        assert_eq!(layout("CREATE TABLE t(a INTEGER PRIMARY KEY DESC)").key, Key::Rowid(Some("_rowid_")));
        assert_eq!(layout("CREATE TABLE t(a INT PRIMARY KEY)").key, Key::Rowid(Some("_rowid_")));
        assert_eq!(layout("CREATE TABLE t(a INTEGER, b, PRIMARY KEY(a, b))").key, Key::Rowid(Some("_rowid_")));
        assert_eq!(layout("CREATE TABLE t(_rowid_, rowid, oid)").key, Key::Rowid(None));
    }

    #[test]
    fn a_table_without_rowid_is_stored_with_its_key_first() {
        let layout = layout("CREATE TABLE t(a, b, c, d, PRIMARY KEY(d, b)) WITHOUT ROWID");
        let fields: Vec<_> = layout.columns.iter().map(|column| (column.name.as_str(), column.field)).collect();
        assert_eq!(fields, [("a", 2), ("b", 1), ("c", 3), ("d", 0)]);
        assert_eq!(layout.key, Key::Primary);
    }

    #[test]
    fn generated_columns_have_a_field_only_if_they_are_stored_and_are_never_given() {
        let layout = layout("CREATE TABLE t(a, v AS (a + 1), s AS (a + 2) STORED, b)");
        assert_eq!(layout.fields, 3);
        let insert = layout.insert(3, |_| false).unwrap();
        assert_eq!(insert, "INSERT INTO main.\"t\"(_rowid_,\"a\",\"b\") VALUES(?1,?2,?4)");
        assert_eq!(
            layout.insert(1, |_| true).unwrap(),
            "INSERT INTO main.\"t\"(_rowid_,\"a\") VALUES(?1,CAST(?2 AS TEXT))"
        );
    }
}
