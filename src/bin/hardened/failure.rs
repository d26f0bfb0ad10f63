//! How the command fails: the message, the hint and the exit code.
//!
//! Invariant: the text of a failure is safe for a terminal, whatever the database or the SQL put into it.

use crate::table::printable;
use hardened_sqlite::rusqlite;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Why the command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The SQL text could not be read or is not text that SQLite reads.
    Usage(String),
    /// The database could not be opened.
    Open {
        /// What happened.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// An SQL statement failed, or something else on an open database.
    Sql {
        /// What happened, with the place in the SQL text if SQLite tells it.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Standard output did not take the result.
    Output(io::Error),
}

impl Failure {
    /// The failure to open a database.
    pub(crate) fn open(error: &hardened_sqlite::Error) -> Failure {
        Failure::Open { message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }

    /// The failure of work on an open database.
    pub(crate) fn failed(error: &hardened_sqlite::Error) -> Failure {
        Failure::Sql { message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }

    /// The failure of a statement of `sql`.
    pub(crate) fn sql(error: &rusqlite::Error, sql: &str) -> Failure {
        Failure::Sql { message: sql_message(error, sql), hint: sql_hint(error).map(str::to_owned) }
    }

    /// The exit code, which the help text documents.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Sql { .. } | Failure::Output(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Open { .. } => 3,
        }
    }

    /// For the process that has started this one.
    ///
    /// # Errors
    /// Standard output, on which it is told, did not take something before.
    pub(crate) fn told(self) -> Result<Told, Failure> {
        let code = self.exit_code();
        match self {
            Failure::Output(_) => Err(self),
            Failure::Usage(message) => Ok(Told(code, message, None)),
            Failure::Open { message, hint } | Failure::Sql { message, hint } => Ok(Told(code, message, hint)),
        }
    }

    /// Whether the reader of standard output went away, which is how `head` ends a pipeline.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// A failure on its way from one process to another: the exit code, the message and the hint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told(u8, String, Option<String>);

impl From<Told> for Failure {
    fn from(Told(code, message, hint): Told) -> Failure {
        match code {
            1 => Failure::Sql { message, hint },
            2 => Failure::Usage(message),
            _ => Failure::Open { message, hint },
        }
    }
}

/// The message in SQLite's words. Where the place of the error is known it is given as line and column of `sql`,
/// of which the text in `error` is the part from the failing statement on.
fn sql_message(error: &rusqlite::Error, sql: &str) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, sql: rest, offset, .. } => {
            let skipped = sql.len().saturating_sub(rest.len());
            let at = skipped + usize::try_from(*offset).unwrap_or(0);
            let before = sql.get(..at).unwrap_or(sql);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("{msg} (line {line}, column {column} of the SQL)")
        }
        rusqlite::Error::SqliteFailure(code, Some(message)) => {
            format!("{message} (SQLite result code {})", code.extended_code)
        }
        rusqlite::Error::InvalidParameterCount(_, needed) => format!(
            "a statement expects values for {needed} parameters and the command has none: \
             write the values into the SQL"
        ),
        other => other.to_string(),
    }
}

fn sql_hint(error: &rusqlite::Error) -> Option<&'static str> {
    match error.sqlite_error_code()? {
        rusqlite::ErrorCode::DatabaseBusy => {
            Some("another connection holds a lock; --busy-timeout sets how long to wait for it")
        }
        _ => None,
    }
}

/// All lines of the report, each ended.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, hint) = match self {
            Failure::Usage(message) => (message.clone(), None),
            Failure::Open { message, hint } | Failure::Sql { message, hint } => (message.clone(), hint.as_deref()),
            Failure::Output(error) => (format!("the result could not be written: {error}"), None),
        };
        writeln!(f, "hardened: {}", printable(message.as_bytes()))?;
        match hint {
            Some(hint) => writeln!(f, "  hint: {}", printable(hint.as_bytes())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use hardened_sqlite::rusqlite::{Batch, Connection, fallible_iterator::FallibleIterator};

    fn first_failure(sql: &str) -> Failure {
        let connection = Connection::open_in_memory().unwrap();
        let mut batch = Batch::new(&connection, sql);
        loop {
            match batch.next() {
                Ok(Some(mut statement)) => {
                    if let Err(error) = statement.raw_execute() {
                        return Failure::sql(&error, sql);
                    }
                }
                Ok(None) => panic!("no failure"),
                Err(error) => return Failure::sql(&error, sql),
            }
        }
    }

    #[test]
    fn a_syntax_error_is_placed_in_the_whole_text() {
        let failure = first_failure("CREATE TABLE t(a);\n  DELETE FORM t;\n");
        assert_eq!(failure.to_string(), "hardened: near \"FORM\": syntax error (line 2, column 10 of the SQL)\n");
        let failure = first_failure("SELECT 'ä', b");
        assert!(failure.to_string().contains("(line 1, column 13 of the SQL)"), "{failure}");
    }

    #[test]
    fn a_message_that_comes_from_the_database_cannot_reach_the_terminal_raw() {
        let failure = first_failure(
            "CREATE TABLE t(a); CREATE TRIGGER r BEFORE INSERT ON t \
             BEGIN SELECT RAISE(ABORT, '\u{1b}[2J\nhardened: fine'); END; INSERT INTO t VALUES (1)",
        );
        let text = failure.to_string();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.starts_with(r"hardened: \u{1b}[2J\nhardened: fine (SQLite"), "{text:?}");
    }

    #[test]
    fn a_hint_has_a_line_of_its_own_and_each_failure_its_exit_code() {
        let open = Failure::Open { message: "no".into(), hint: Some("try".into()) };
        assert_eq!(open.to_string(), "hardened: no\n  hint: try\n");
        assert_eq!(open.exit_code(), 3);
        assert_eq!(first_failure("nonsense").exit_code(), 1);
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        let closed = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert!(closed.is_closed_output());
        let full = Failure::Output(io::Error::from_raw_os_error(28));
        assert!(!full.is_closed_output());
        assert_eq!(full.exit_code(), 1);
    }
}
