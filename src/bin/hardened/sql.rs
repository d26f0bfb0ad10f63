//! `hardened sql`: runs SQL statements on one database and prints their results.
//!
//! Invariant: SQLite alone decides where a statement ends. Statements run in order until one fails; the results
//! printed up to then stand, and nothing after it runs.

use crate::failure::Failure;
use crate::json::JsonLines;
use crate::table::Table;
use hardened_sqlite::rusqlite::fallible_iterator::FallibleIterator;
use hardened_sqlite::rusqlite::types::ValueRef;
use hardened_sqlite::rusqlite::{Batch, Connection, Result as SqliteResult, Row, Statement};
use hardened_sqlite::{FsChoice, Options, PolicyChoice};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

/// Run SQL statements on a database and print their results
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The database file
    database: PathBuf,

    /// One or several SQL statements separated by `;`, or `-` to read them from standard input
    #[arg(value_name = "SQL", allow_hyphen_values = true, value_parser = sql_argument)]
    sql: String,

    /// Open the database for reading only
    #[arg(long)]
    read_only: bool,

    /// Fail if the database does not exist instead of creating it
    #[arg(long)]
    no_create: bool,

    /// Print one JSON document per result set, each on a line of its own
    ///
    /// {"columns":[...],"rows":[[...],...]}. A blob is {"blob":"hex"}, text that is not UTF-8
    /// {"invalid_utf8":"hex"}, an infinite real "Inf" or "-Inf". A document with an "error" member is that of a
    /// statement that failed after its first rows.
    #[arg(long)]
    json: bool,

    /// Print how many rows each statement changed
    #[arg(long)]
    changes: bool,

    /// Which journal mode to use: auto, wal, delete or off
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyChoice>,

    /// What filesystem to assume below the database: auto, local or network
    #[arg(long, value_name = "KIND")]
    fs: Option<FsChoice>,

    /// How long to wait for the lock of another connection, in milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=i32::MAX as u64))]
    busy_timeout: Option<u64>,

    /// The registered VFS that does the file I/O, instead of SQLite's default one
    #[arg(long, value_name = "VFS")]
    base: Option<String>,
}

/// SQL may start with a comment, `--`, and is told from a misspelt option by the space that follows.
fn sql_argument(text: &str) -> Result<String, String> {
    let is_option = text.len() > 1 && text.starts_with('-') && !text.contains(char::is_whitespace);
    if is_option { Err("this is neither an option of the command nor SQL".to_owned()) } else { Ok(text.to_owned()) }
}

/// The options of the VFS that the arguments ask for.
fn options(args: &Args) -> Options {
    let mut options = Options::new().read_only(args.read_only).create(!args.no_create);
    if let Some(policy) = args.policy {
        options = options.policy(policy);
    }
    if let Some(fs) = args.fs {
        options = options.fs(fs);
    }
    if let Some(milliseconds) = args.busy_timeout {
        options = options.busy_timeout(Duration::from_millis(milliseconds));
    }
    if let Some(base) = &args.base {
        options = options.base(base);
    }
    options
}

/// Where results go, in the order of their statements.
pub(crate) trait ResultSink {
    /// A result set with these columns begins.
    fn start(&mut self, columns: &[String]) -> io::Result<()>;
    /// The next row of the result set.
    fn row(&mut self, values: &[ValueRef<'_>]) -> io::Result<()>;
    /// The result set is complete.
    fn end(&mut self) -> io::Result<()>;
    /// The statement failed within the result set.
    fn fail(&mut self, message: &str) -> io::Result<()>;
    /// A statement changed so many rows.
    fn changes(&mut self, rows: u64) -> io::Result<()>;
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let sql = match args.sql.as_str() {
        "-" => read_sql(io::stdin().lock())?,
        text => text.to_owned(),
    };
    // SQLite reads up to the first NUL, and what follows would be skipped in silence.
    if sql.contains('\0') {
        let message = "the SQL contains a NUL character".to_owned();
        return Err(Failure::Usage(message));
    }
    let connection = options(args).open_connection(&args.database).map_err(|error| Failure::open(&error))?;
    if args.json {
        return execute(&connection, &sql, args.changes, &mut JsonLines::new(out));
    }
    // A connection of its own writes reals: SQLite alone knows how this version of it does.
    let own = |error| Failure::sql(&error, "");
    let scratch = Connection::open_in_memory().map_err(own)?;
    let mut cast = scratch.prepare("SELECT CAST(?1 AS TEXT)").map_err(own)?;
    let real = |number: f64| match cast.query_row([number], |row| row.get(0)) {
        Ok(text) => text,
        Err(_) => format!("{number:?}"),
    };
    execute(&connection, &sql, args.changes, &mut Table::new(out, real))
}

fn read_sql(mut input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    input
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Usage(format!("standard input could not be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::Usage(format!("the SQL on standard input is not UTF-8 at byte {at}"))
    })
}

/// Runs the statements of `sql` and gives their results to `sink`.
fn execute(connection: &Connection, sql: &str, changes: bool, sink: &mut impl ResultSink) -> Result<(), Failure> {
    let mut batch = Batch::new(connection, sql);
    while let Some(mut statement) = batch.next().map_err(|error| Failure::sql(&error, sql))? {
        let before = connection.total_changes();
        let has_columns = step_through(&mut statement, sql, sink)?;
        let counts = connection.total_changes() != before;
        let may_count = !has_columns && !statement.readonly();
        if changes && (counts || may_count) {
            let rows = if counts { connection.changes() } else { 0 };
            sink.changes(rows).map_err(Failure::Output)?;
        }
    }
    if connection.is_autocommit() {
        return Ok(());
    }
    Err(Failure::Sql {
        message: "the SQL ended within a transaction, which is rolled back".to_owned(),
        hint: Some("end the SQL with COMMIT".to_owned()),
    })
}

/// Runs one statement to its end; whether it has a result set.
fn step_through(statement: &mut Statement<'_>, sql: &str, sink: &mut impl ResultSink) -> Result<bool, Failure> {
    let mut started = false;
    let outcome = send_rows(statement, &mut started, sink);
    match outcome {
        Ok(()) if started => {}
        // Only now is the schema certain that the columns are those of.
        Ok(()) if statement.column_count() > 0 => {
            sink.start(&column_names(statement)).map_err(Failure::Output)?;
        }
        Ok(()) => return Ok(false),
        Err(Stopped::BySqlite(error)) => {
            let failure = Failure::sql(&error, sql);
            if let (true, Failure::Sql { message, .. }) = (started, &failure) {
                // The failure of the statement is the one to report.
                let _ = sink.fail(message);
            }
            return Err(failure);
        }
        Err(Stopped::ByOutput(error)) => return Err(Failure::Output(error)),
    }
    sink.end().map_err(Failure::Output)?;
    Ok(true)
}

/// What stopped a statement before its end.
enum Stopped {
    BySqlite(hardened_sqlite::rusqlite::Error),
    ByOutput(io::Error),
}

fn send_rows(statement: &mut Statement<'_>, started: &mut bool, sink: &mut impl ResultSink) -> Result<(), Stopped> {
    let mut rows = statement.query([]).map_err(Stopped::BySqlite)?;
    while let Some(row) = rows.next().map_err(Stopped::BySqlite)? {
        if !*started {
            // After the first step, which prepares the statement again if the schema has changed.
            let names = column_names(row.as_ref());
            sink.start(&names).map_err(Stopped::ByOutput)?;
            *started = true;
        }
        let values = values(row).map_err(Stopped::BySqlite)?;
        sink.row(&values).map_err(Stopped::ByOutput)?;
    }
    Ok(())
}

fn values<'row>(row: &'row Row<'_>) -> SqliteResult<Vec<ValueRef<'row>>> {
    (0..row.as_ref().column_count()).map(|index| row.get_ref(index)).collect()
}

/// The names of the columns. rusqlite panics on one that is not UTF-8, which a damaged or hostile schema can
/// hold; such a column is called by its number.
fn column_names(statement: &Statement<'_>) -> Vec<String> {
    let name = |index| statement.column_name(index).map(str::to_owned).ok();
    let all = 0..statement.column_count();
    all.map(|index| {
        let name = without_panic(|| name(index)).flatten();
        name.unwrap_or_else(|| format!("column {}", index + 1))
    })
    .collect()
}

thread_local! {
    /// Whether this thread expects a panic, of which nobody needs to read.
    static EXPECTS_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// The result of `call`, or `None` and not a word if it panics.
fn without_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !EXPECTS_PANIC.get() {
                report(panic);
            }
        }));
    });
    EXPECTS_PANIC.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    EXPECTS_PANIC.set(false);
    result.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn json(connection: &Connection, sql: &str, changes: bool) -> (String, Result<(), Failure>) {
        let mut bytes = Vec::new();
        let outcome = execute(connection, sql, changes, &mut JsonLines::new(&mut bytes));
        (String::from_utf8(bytes).unwrap(), outcome)
    }

    fn memory() -> Connection {
        Connection::open_in_memory().unwrap()
    }

    #[test]
    fn semicolons_in_strings_names_comments_and_triggers_end_no_statement() {
        let sql = "-- a; b\nCREATE TABLE \"x;y\"(a); ; /* ; */\n\
                   CREATE TRIGGER t AFTER DELETE ON \"x;y\" BEGIN SELECT 1; SELECT 2; END;\n\
                   INSERT INTO \"x;y\" VALUES ('p;''q'); SELECT a FROM [x;y] -- end;\n  \t\n";
        let (text, outcome) = json(&memory(), sql, false);
        outcome.unwrap();
        assert_eq!(text, "{\"columns\":[\"a\"],\"rows\":[[\"p;'q\"]]}\n");
    }

    #[test]
    fn sql_without_a_statement_prints_nothing() {
        for sql in ["", " \n", ";;", "-- only this", "/* and this */ ;"] {
            let (text, outcome) = json(&memory(), sql, true);
            outcome.unwrap();
            assert_eq!(text, "", "{sql:?}");
        }
    }

    #[test]
    fn nothing_runs_after_the_statement_that_fails() {
        let connection = memory();
        let sql = "CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (1); SELECT a FROM t; \
                   INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)";
        let (text, outcome) = json(&connection, sql, false);
        assert!(outcome.unwrap_err().to_string().contains("UNIQUE"));
        assert_eq!(text, "{\"columns\":[\"a\"],\"rows\":[[1]]}\n");
        let rows: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_failure_after_the_first_rows_is_told_in_the_document_too() {
        let sql = "SELECT abs(a) AS n FROM (SELECT 1 AS a UNION ALL SELECT -9223372036854775808)";
        let (text, outcome) = json(&memory(), sql, false);
        assert_eq!(outcome.unwrap_err().exit_code(), 1);
        assert!(text.starts_with("{\"columns\":[\"n\"],\"rows\":[[1]],\"error\":\"integer overflow"));
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn a_transaction_left_open_is_an_error() {
        let (_, outcome) = json(&memory(), "BEGIN; CREATE TABLE t(a)", false);
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains("rolled back") && text.contains("hint: "), "{text}");
    }

    #[test]
    fn changes_are_counted_for_each_statement_that_writes() {
        let sql = "CREATE TABLE t(a); INSERT INTO t VALUES (1), (2); UPDATE t SET a = 3 WHERE a > 9; \
                   DELETE FROM t WHERE a = 1 RETURNING a; SELECT 4 WHERE 0";
        let (text, outcome) = json(&memory(), sql, true);
        outcome.unwrap();
        let counts: Vec<&str> = text.lines().filter(|line| line.contains("changes")).collect();
        let expected = [0, 2, 0, 1].map(|rows| format!("{{\"changes\":{rows}}}"));
        assert_eq!(counts, expected);
    }

    #[test]
    fn columns_are_those_of_the_schema_at_the_first_step() {
        let connection = memory();
        for (insert, rows) in [("", "[]"), ("INSERT INTO t(b) VALUES (1)", "[[1,7]]")] {
            let create = format!("DROP TABLE IF EXISTS t; CREATE TABLE t(b); {insert}");
            connection.execute_batch(&create).unwrap();
            let mut statement = connection.prepare("SELECT * FROM t").unwrap();
            connection.execute_batch("ALTER TABLE t ADD COLUMN c DEFAULT 7").unwrap();
            let mut bytes = Vec::new();
            step_through(&mut statement, "", &mut JsonLines::new(&mut bytes)).unwrap();
            let expected = format!("{{\"columns\":[\"b\",\"c\"],\"rows\":{rows}}}\n");
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn a_column_name_that_is_not_utf8_is_replaced_by_its_number() {
        let connection = memory();
        let hostile = "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2); PRAGMA writable_schema = ON; \
                       UPDATE sqlite_schema SET sql = CAST(X'435245415445205441424C45207428612C2022FF2229' AS TEXT); \
                       PRAGMA writable_schema = RESET; SELECT * FROM t";
        let (text, outcome) = json(&connection, hostile, false);
        outcome.unwrap();
        assert_eq!(text, "{\"columns\":[\"a\",\"column 2\"],\"rows\":[[1,2]]}\n");
    }

    #[test]
    fn sql_on_standard_input_must_be_utf8() {
        assert_eq!(read_sql("SELECT 'ä'".as_bytes()).unwrap(), "SELECT 'ä'");
        let failure = read_sql(&b"SELECT '\xff'"[..]).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains("at byte 8"), "{failure}");
    }
}
