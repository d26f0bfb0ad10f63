//! What was saved and what was lost.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A table of the damaged database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SavedTable {
    /// Its name.
    pub name: String,
    /// Rows that are in it again.
    pub rows: u64,
    /// Places in its b-tree where a page with rows should be and none of it was found: at least one row is missing for each,
    /// or it is in `lost_and_found`.
    pub gaps: u64,
}

/// Something that could not be created again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LostObject {
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    /// Its name, as far as it could be read.
    pub name: String,
    /// Why.
    pub cause: String,
    /// The SQL that was to create it.
    pub sql: String,
}

/// What a salvage found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Salvaged {
    /// The tables, in the order of the schema.
    pub tables: Vec<SavedTable>,
    /// Rows in the table [`Salvaged::lost_table`]: those of unknown tables, those that have no place in theirs (a second row
    /// with the same key), and what is left of incomplete ones.
    pub lost_and_found: u64,
    /// The table with these rows.
    pub lost_table: Option<String>,
    /// Rows that are in their table with NULL for values that could not be read.
    pub incomplete_rows: u64,
    /// Rows of which nothing, or nothing but the rowid, could be read, or that SQLite would not store.
    pub unreadable_rows: u64,
    /// Tables, indexes, views and triggers that are missing.
    pub lost_objects: Vec<LostObject>,
    /// Pages that were looked at.
    pub pages: u32,
    /// The schema was not where it belongs, or not all of it.
    pub schema_damaged: bool,
    /// The database header was not believed; page size and encoding were found out from the pages.
    pub header_damaged: bool,
}

impl Salvaged {
    /// Rows that are in their tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Whether nothing was found: neither a table nor a row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.lost_and_found == 0
    }

    /// Whether something is known to be missing or out of its place.
    #[must_use]
    pub fn lost_something(&self) -> bool {
        self.lost_and_found + self.incomplete_rows + self.unreadable_rows > 0
            || !self.lost_objects.is_empty()
            || self.schema_damaged
            || self.tables.iter().any(|table| table.gaps > 0)
    }
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows in {} tables saved", self.rows(), self.tables.len())?;
        if let Some(table) = &self.lost_table {
            write!(f, "; {} rows without a place are in the table {table}", self.lost_and_found)?;
        }
        if self.header_damaged {
            f.write_str("\nthe database header was damaged")?;
        }
        if self.schema_damaged {
            f.write_str("\nthe schema was damaged: tables may be missing, their rows without a place")?;
        }
        for table in &self.tables {
            write!(f, "\n{}: {} rows", table.name, table.rows)?;
            match table.gaps {
                0 => {}
                1 => f.write_str(", a part of the table was not found")?,
                gaps => write!(f, ", {gaps} parts of the table were not found")?,
            }
        }
        if self.incomplete_rows > 0 {
            write!(f, "\n{} rows have lost values, which are NULL now", self.incomplete_rows)?;
        }
        if self.unreadable_rows > 0 {
            write!(f, "\n{} rows could not be read", self.unreadable_rows)?;
        }
        for object in &self.lost_objects {
            write!(f, "\nthe {} {} is lost: {}", object.kind, object.name, object.cause)?;
        }
        Ok(())
    }
}
