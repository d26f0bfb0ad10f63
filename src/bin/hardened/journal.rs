//! `hardened checkpoint` and `hardened convert`: the log and the journal mode of a database.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use hardened_sqlite::rusqlite::Connection;
use hardened_sqlite::{Options, PolicyChoice, report};
use serde::Serialize;

use crate::failure::Failure;
use crate::print::{document, lines};

/// The end of the help texts.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  others use the database, or it could not be done; nothing is lost
  2  the command line could not be understood
  3  the database could not be opened";

/// Copies the log of a WAL database into the database file
#[derive(ClapArgs)]
pub(crate) struct CheckpointArgs {
    /// The database file
    database: PathBuf,
    /// How far to go, and for whom to wait
    #[arg(long, value_enum, default_value_t = Mode::Truncate)]
    mode: Mode,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// As far as nobody has to wait
    Passive,
    /// All of it; waits for writers
    Full,
    /// And the log begins anew; waits for readers too
    Restart,
    /// And its file is emptied
    Truncate,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::Passive => "PASSIVE",
            Mode::Full => "FULL",
            Mode::Restart => "RESTART",
            Mode::Truncate => "TRUNCATE",
        }
    }
}

/// Takes a database into another journal mode, for good
///
/// For example before it is copied to where WAL is not safe. A program that opens it with hardened on a local disk makes it a
/// WAL database again.
#[derive(ClapArgs)]
pub(crate) struct ConvertArgs {
    /// The database file
    database: PathBuf,
    /// The journal mode
    #[arg(value_enum)]
    to: Journal,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Journal {
    /// A write-ahead log
    Wal,
    /// A rollback journal
    Delete,
}

#[derive(Serialize)]
struct Checkpointed {
    path: PathBuf,
    /// Others kept it from going all the way.
    busy: bool,
    /// Pages in the log, and how many of them are in the database file.
    log: i64,
    copied: i64,
}

impl fmt::Display for Checkpointed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self {
            Checkpointed { log: ..0, .. } => write!(f, "{path} is not a WAL database: it has no log"),
            Checkpointed { busy: true, log, copied, .. } => {
                write!(f, "{path}: {copied} of {log} pages of the log are in the database; others use the rest")
            }
            Checkpointed { log: 0, .. } => write!(f, "{path}: the log is empty"),
            Checkpointed { log, copied, .. } => {
                write!(f, "{path}: {copied} of {log} pages of the log are in the database")
            }
        }
    }
}

#[derive(Serialize)]
struct Converted {
    path: PathBuf,
    journal_mode: String,
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: journal mode {}", self.path.display(), self.journal_mode)
    }
}

/// Runs `hardened checkpoint`.
pub(crate) fn checkpoint(args: &CheckpointArgs, out: &mut impl Write) -> Result<ExitCode, Failure> {
    // As it is: an open would make a database on a local disk one with a log.
    let connection = open(&args.database, Options::new().policy(PolicyChoice::Off))?;
    let sql = format!("PRAGMA main.wal_checkpoint({})", args.mode.word());
    let done = connection
        .query_row(&sql, [], |row| {
            let path = args.database.clone();
            Ok(Checkpointed { path, busy: row.get::<_, i64>(0)? != 0, log: row.get(1)?, copied: row.get(2)? })
        })
        .map_err(|error| Failure::sql(&error, &sql))?;
    if args.json {
        document(&done, out)?
    } else {
        lines(&done, out)?
    }
    Ok(ExitCode::from(u8::from(done.busy || done.copied < done.log)))
}

/// Runs `hardened convert`.
pub(crate) fn convert(args: &ConvertArgs, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let (policy, wanted) = match args.to {
        Journal::Wal => (PolicyChoice::Auto, "wal"),
        Journal::Delete => (PolicyChoice::Delete, "delete"),
    };
    let connection = open(&args.database, Options::new().policy(policy))?;
    let report = report(&connection).map_err(|error| Failure::failed(&error))?;
    let journal_mode = report.journal_mode.unwrap_or_default();
    if journal_mode != wanted {
        let why = report.notes.last().unwrap_or(&report.reason);
        let message = format!("{}: the journal mode stays {journal_mode}: {why}", args.database.display());
        return Err(Failure::Sql { message, hint: None });
    }
    let done = Converted { path: args.database.clone(), journal_mode };
    if args.json {
        document(&done, out)?
    } else {
        lines(&done, out)?
    }
    Ok(ExitCode::SUCCESS)
}

fn open(database: &Path, options: Options) -> Result<Connection, Failure> {
    options.create(false).open_connection(database).map_err(|error| Failure::open(&error))
}
