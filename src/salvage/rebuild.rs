//! The objects of the schema, made again in the new database.
//!
//! Invariant: tables come before their rows, everything else after; what cannot be made is named in the report, with its SQL.

use super::Failure;
use super::bind::Inserts;
use super::fill::{Fill, Table, Which};
use super::layout::{Layout, quoted};
use super::output::is_refusal;
use super::report::LostObject;
use super::schema::{Object, Sort};

impl Fill<'_> {
    /// Creates the tables.
    pub(super) fn create_tables(&mut self) -> Result<(), Failure> {
        let objects = std::mem::take(&mut self.found.objects);
        let is_sequence = |object: &Object| object.name == "sqlite_sequence";
        // Made first it is there for AUTOINCREMENT and is not made twice.
        for first in [true, false] {
            for (number, object) in objects.iter().enumerate() {
                if object.sort != Sort::Table || is_sequence(object) != first {
                    continue;
                }
                match self.create_table(object) {
                    Ok(layout) => self.tables.push(Table::new(number, layout)),
                    Err(error) => self.missing(object, error)?,
                }
            }
        }
        self.tables.sort_by_key(|table| table.object);
        self.found.objects = objects;
        Ok(())
    }

    fn create_table(&self, object: &Object) -> rusqlite::Result<Layout> {
        self.output.create_object(object)?;
        Layout::of(self.output.connection(), &self.output.newest_table()?)
    }

    /// Notes that an object could not be created, if that is all.
    fn missing(&mut self, object: &Object, error: rusqlite::Error) -> Result<(), Failure> {
        if !is_refusal(&error) && error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseCorrupt) {
            return Err(error.into());
        }
        self.report.lost_objects.push(LostObject {
            kind: object.sort.word().to_owned(),
            name: object.name.clone(),
            cause: error.to_string(),
            sql: object.sql.clone().unwrap_or_default(),
        });
        Ok(())
    }

    /// Indexes, views, triggers and virtual tables.
    pub(super) fn create_the_rest(&mut self) -> Result<(), Failure> {
        self.write_sequence()?;
        let objects = self.found.objects.clone();
        for sort in [Sort::Index, Sort::View, Sort::VirtualTable, Sort::Trigger] {
            for object in objects.iter().filter(|object| object.sort == sort && object.sql.is_some()) {
                match self.output.create_object(object) {
                    Ok(()) => {}
                    Err(error) if sort == Sort::Index && is_duplicate(&error) => self.fill_under(object, error)?,
                    Err(error) => self.missing(object, error)?,
                }
            }
        }
        Ok(())
    }

    /// Creates a unique index on a table that has rows which it does not allow: the table is filled again with the index in
    /// place, and of rows with the same key all but one are lost.
    fn fill_under(&mut self, index: &Object, error: rusqlite::Error) -> Result<(), Failure> {
        let mut tables = std::mem::take(&mut self.tables);
        let Some(table) = tables.iter_mut().find(|table| table.is_of(index)) else {
            self.tables = tables;
            return self.missing(index, error);
        };
        for (from, to) in std::mem::take(&mut table.lost).into_iter().rev() {
            self.lost.forget(from, to)?;
        }
        self.output.connection().execute(&format!("DELETE FROM main.{}", quoted(&table.layout.name)), [])?;
        (table.rows, table.incomplete, table.unreadable) = (0, 0, 0);
        if let Err(error) = self.output.create_object(index) {
            self.missing(index, error)?;
        }
        let pages = self.trees.get(table.tree as usize).map(|tree| tree.pages.clone()).unwrap_or_default();
        let doubtful = std::mem::take(&mut table.doubtful);
        let mut inserts = Inserts::new(self.output.connection());
        let from = self.lost.mark();
        for (pages, which) in [(pages, Which::InPlace), (doubtful, Which::OutOfPlace)] {
            for leaf in pages {
                self.page(table, &mut inserts, leaf, which)?;
            }
        }
        table.lost.push((from, self.lost.mark()));
        self.tables = tables;
        Ok(())
    }

    /// What AUTOINCREMENT has reached: the larger of what the rows say and what was stored.
    fn write_sequence(&mut self) -> Result<(), Failure> {
        let connection = self.output.connection();
        for (name, reached) in std::mem::take(&mut self.sequence) {
            let update = "UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
            if connection.execute(update, (&name, reached))? == 0 {
                connection.execute("INSERT INTO main.sqlite_sequence(name, seq) VALUES(?1, ?2)", (&name, reached))?;
            }
        }
        Ok(())
    }
}

fn is_duplicate(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}
