//! Rows whose table is not known, or in which they have no place: the table `lost_and_found`.
//!
//! Invariant: a row that was read is in its table or here. The columns are those that `.recover` of SQLite's shell uses:
//! `rootpgno` (the top of the tree), `pgno` (its page), `nfield`, `id` (its rowid, or NULL), and its fields `c0`, `c1`, ….

use hardened_vfs::format::database::TextEncoding;
use rusqlite::Connection;

use super::bind::{Bound, Inserts, bound};
use super::layout::quoted;
use super::record::{Fields, Value};

/// More columns a table cannot have, less the four; what is in fields beyond is counted in `nfield` only.
const MOST_COLUMNS: usize = 1_990;

/// A row that is lost.
pub(super) struct Found<'a> {
    pub(super) root: u32,
    pub(super) page: u32,
    pub(super) rowid: Option<i64>,
    pub(super) fields: &'a Fields,
    pub(super) record: &'a [u8],
}

/// Where lost rows go.
pub(super) struct Lost<'c> {
    connection: &'c Connection,
    encoding: TextEncoding,
    inserts: Inserts<'c>,
    /// The name, once there is a table.
    pub(super) table: Option<String>,
    columns: usize,
    /// Rowid of the last row.
    last: i64,
    pub(super) rows: u64,
}

impl<'c> Lost<'c> {
    pub(super) fn new(connection: &'c Connection, encoding: TextEncoding) -> Lost<'c> {
        let inserts = Inserts::new(connection);
        Lost { connection, encoding, inserts, table: None, columns: 0, last: 0, rows: 0 }
    }

    /// Keeps a row.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn keep(&mut self, found: &Found<'_>) -> rusqlite::Result<()> {
        let count = found.fields.len().min(MOST_COLUMNS);
        let name = self.make_room(count)?;
        let mut values: Vec<Bound<'_>> = Vec::with_capacity(count + 4);
        let numbers = [i64::from(found.root), i64::from(found.page), found.fields.len() as i64];
        values.extend(numbers.map(|number| bound(Value::Integer(number), self.encoding)));
        values.push(bound(found.rowid.map_or(Value::Null, Value::Integer), self.encoding));
        values.extend((0..count).map(|field| bound(found.fields.remains(found.record, field), self.encoding)));
        self.inserts.run(&values, &[], |cast| {
            let places: Vec<_> = (0..count + 4)
                .map(|at| if cast(at) { format!("CAST(?{} AS TEXT)", at + 1) } else { format!("?{}", at + 1) })
                .collect();
            let columns: String = (0..count).map(|field| format!(",c{field}")).collect();
            let into = quoted(&name);
            Some(format!("INSERT INTO main.{into}(rootpgno,pgno,nfield,id{columns}) VALUES({})", places.join(",")))
        })?;
        self.last = self.connection.last_insert_rowid();
        self.rows += 1;
        Ok(())
    }

    /// Rows that are kept from now on are those behind this.
    pub(super) fn mark(&self) -> i64 {
        self.last
    }

    /// Forgets the rows between two marks.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn forget(&mut self, from: i64, to: i64) -> rusqlite::Result<()> {
        if let Some(name) = &self.table {
            let sql = format!("DELETE FROM main.{} WHERE rowid > ?1 AND rowid <= ?2", quoted(name));
            self.rows -= (self.connection.execute(&sql, [from, to])? as u64).min(self.rows);
        }
        Ok(())
    }

    fn make_room(&mut self, fields: usize) -> rusqlite::Result<String> {
        let name = match &self.table {
            Some(name) => name.clone(),
            None => {
                let name = self.free_name()?;
                let columns: String = (0..fields).map(|field| format!(", c{field}")).collect();
                self.connection.execute_batch(&format!(
                    "CREATE TABLE main.{}(rootpgno INTEGER, pgno INTEGER, nfield INTEGER, id INTEGER{columns})",
                    quoted(&name)
                ))?;
                self.columns = fields;
                self.table = Some(name.clone());
                name
            }
        };
        while self.columns < fields {
            let column = format!("ALTER TABLE main.{} ADD COLUMN c{}", quoted(&name), self.columns);
            self.connection.execute_batch(&column)?;
            self.columns += 1;
        }
        Ok(name)
    }

    fn free_name(&self) -> rusqlite::Result<String> {
        let mut taken =
            self.connection.prepare("SELECT count(*) FROM main.sqlite_master WHERE name = ?1 COLLATE NOCASE")?;
        let mut name = "lost_and_found".to_owned();
        let mut number = 0;
        while taken.query_row([&name], |row| row.get::<_, i64>(0))? > 0 {
            name = format!("lost_and_found_{number}");
            number += 1;
        }
        Ok(name)
    }
}
