//! The new database.
//!
//! Invariant: it is a file of its own that nobody else knows, written in one transaction. SQL from the damaged schema may
//! create what it says and do nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hardened_vfs::format::database::{AutoVacuum, TextEncoding};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags, ffi};

use super::header::Header;
use super::schema::{Object, Sort};

/// An open new database.
pub(super) struct Output {
    connection: Connection,
    /// SQL of the damaged database is running.
    foreign: Arc<AtomicBool>,
}

impl Output {
    /// Creates it; the file must be missing or empty.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn create(path: &Path, header: &Header) -> rusqlite::Result<Output> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        let encoding = match header.encoding {
            TextEncoding::Utf16Le => "UTF-16le",
            TextEncoding::Utf16Be => "UTF-16be",
            _ => "UTF-8",
        };
        let auto_vacuum = match header.auto_vacuum {
            AutoVacuum::None => 0,
            AutoVacuum::Full => 1,
            AutoVacuum::Incremental => 2,
        };
        // Of a new file the journal in memory is one page: those that are added have no old content.
        connection.execute_batch(&format!(
            "PRAGMA encoding = '{encoding}';
             PRAGMA page_size = {};
             PRAGMA auto_vacuum = {auto_vacuum};
             PRAGMA journal_mode = MEMORY;
             PRAGMA synchronous = OFF;
             PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA cache_size = -65536;
             PRAGMA threads = 2;
             PRAGMA foreign_keys = OFF;
             PRAGMA ignore_check_constraints = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA cell_size_check = OFF;
             PRAGMA writable_schema = ON;",
            header.page_size,
        ))?;
        let foreign = Arc::new(AtomicBool::new(false));
        guard(&mut connection, Arc::clone(&foreign))?;
        connection.execute_batch("BEGIN")?;
        Ok(Output { connection, foreign })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Creates an object of the damaged schema.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn create_object(&self, object: &Object) -> rusqlite::Result<()> {
        let Some(sql) = &object.sql else { return Ok(()) };
        if object.sort == Sort::VirtualTable {
            // Creating it would create its shadow tables, which are there already.
            let insert =
                "INSERT INTO main.sqlite_master(type, name, tbl_name, rootpage, sql) VALUES('table', ?1, ?1, 0, ?2)";
            return self.connection.execute(insert, [&object.name, sql]).map(drop);
        }
        self.foreign.store(true, Ordering::Relaxed);
        let created = self.connection.execute(sql, []);
        self.foreign.store(false, Ordering::Relaxed);
        created.map(drop)
    }

    /// The table that was created last.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn newest_table(&self) -> rusqlite::Result<String> {
        let sql = "SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY rowid DESC LIMIT 1";
        self.connection.query_row(sql, [], |row| row.get(0))
    }

    /// Commits, and closes it.
    ///
    /// # Errors
    /// Those of SQLite.
    pub(super) fn finish(self, header: &Header) -> rusqlite::Result<()> {
        self.connection.execute_batch(&format!(
            "PRAGMA user_version = {}; PRAGMA application_id = {}; COMMIT",
            header.user_version, header.application_id
        ))?;
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// Whether SQLite refused this row or object and could go on with others.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.extended_code & 0xff,
            ffi::SQLITE_ERROR | ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG | ffi::SQLITE_AUTH
        ),
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::MultipleStatement
        | rusqlite::Error::NulError(_)
        | rusqlite::Error::ExecuteReturnedResults
        | rusqlite::Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

#[allow(clippy::needless_pass_by_ref_mut)]
fn guard(connection: &mut Connection, foreign: Arc<AtomicBool>) -> rusqlite::Result<()> {
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if !foreign.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        match context.action {
            AuthAction::CreateTable { .. }
            | AuthAction::CreateIndex { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::Reindex { .. }
            | AuthAction::Read { .. } => Authorization::Allow,
            AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. }
                if table_name.starts_with("sqlite_") =>
            {
                Authorization::Allow
            }
            AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => {
                Authorization::Allow
            }
            _ => Authorization::Deny,
        }
    }))
}
