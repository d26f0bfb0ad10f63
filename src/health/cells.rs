//! The check of cells that SQLite can make whenever it reads a page, left out while it checks all pages anyway.
//!
//! A check begins with every cell of every tree, for which SQLite does without `cell_size_check` itself. What comes then reads pages
//! again and again, as the entries of an index lead to rows in random order, and checked the same cells each time.

use rusqlite::Connection;

/// `cell_size_check` is off on the connection as long as this lives.
pub(super) struct Unchecked<'c>(&'c Connection);

impl<'c> Unchecked<'c> {
    /// `None` if it is off anyway, or statements are running: the pragma has all statements prepared again, which a running
    /// one may take for a reason to stop.
    pub(super) fn on(connection: &'c Connection) -> Option<Unchecked<'c>> {
        let on = connection.query_row("PRAGMA cell_size_check", [], |row| row.get::<_, bool>(0));
        if !on.unwrap_or(false) || connection.is_busy() {
            return None;
        }
        let off = connection.execute_batch("PRAGMA cell_size_check = OFF");
        off.is_ok().then(|| Unchecked(connection))
    }
}

impl Drop for Unchecked<'_> {
    fn drop(&mut self) {
        // It takes no lock and reads nothing, so there is nothing for it to fail of.
        let _ = self.0.execute_batch("PRAGMA cell_size_check = ON");
    }
}
