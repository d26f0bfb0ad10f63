//! The `hardened` command: SQL on databases opened through the hardened VFS, and what it would do where.
//!
//! Invariant: results go to standard output and everything else to standard error, where no byte of a database
//! reaches the terminal unescaped. The exit code tells the outcome, as [`EXIT_CODES`] says.

mod backup;
mod bench;
mod check;
mod checksum;
mod doctor;
mod examine;
mod failure;
mod journal;
mod json;
mod map;
mod print;
mod progress;
mod record;
mod recover;
mod sql;
mod table;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// The end of every help text.
const EXIT_CODES: &str = "\
Exit codes:
  0  success; also when the reader of the output went away, after which no statement runs
  1  an SQL statement failed, or its result could not be written
  2  the command line or the SQL text could not be understood
  3  the database could not be opened";

/// Opens SQLite databases safely on whatever filesystem they live
#[derive(Parser)]
#[command(name = "hardened", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(after_help = EXIT_CODES)]
    Sql(sql::Args),
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor(doctor::Args),
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Args),
    #[command(after_help = backup::EXIT_CODES)]
    Backup(backup::Args),
    #[command(after_help = backup::EXIT_CODES)]
    Restore(backup::RestoreArgs),
    #[command(after_help = recover::EXIT_CODES)]
    Recover(recover::Args),
    #[command(after_help = journal::EXIT_CODES)]
    Checkpoint(journal::CheckpointArgs),
    #[command(after_help = journal::EXIT_CODES)]
    Convert(journal::ConvertArgs),
    #[command(after_help = checksum::EXIT_CODES)]
    Checksum(checksum::Args),
    #[command(after_help = bench::EXIT_CODES)]
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = match command {
        Command::Sql(args) => sql::run(&args, &mut out).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args, &mut out),
        Command::Check(args) => check::run(&args, &mut out),
        Command::Backup(args) => backup::run(&args, &mut out),
        Command::Restore(args) => backup::restore(&args, &mut out),
        Command::Recover(args) => recover::run(&args, &mut out),
        Command::Checkpoint(args) => journal::checkpoint(&args, &mut out),
        Command::Convert(args) => journal::convert(&args, &mut out),
        Command::Checksum(args) => checksum::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
    };
    // What was printed before a failure belongs above its message.
    let flushed = out.flush().map_err(Failure::Output);
    match outcome.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to tell about a standard error that takes no bytes.
            let _ = write!(io::stderr(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parsed(arguments: &[&str]) -> Result<(), ErrorKind> {
        let line = ["hardened", "sql"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|_| ()).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sql_may_start_with_a_comment_and_a_misspelt_option_is_no_sql() {
        for sql in ["SELECT 1", "-- all\nSELECT 1", "-", ""] {
            assert_eq!(parsed(&["a.db", sql]), Ok(()), "{sql:?}");
            assert_eq!(parsed(&["--json", "a.db", sql, "--read-only"]), Ok(()));
        }
        assert_eq!(parsed(&["a.db", "--jsno"]), Err(ErrorKind::ValueValidation));
        assert_eq!(parsed(&["a.db", "SELECT 1", "--jsno"]), Err(ErrorKind::UnknownArgument));
        assert_eq!(parsed(&["a.db"]), Err(ErrorKind::MissingRequiredArgument));
    }

    #[test]
    fn option_values_are_checked() {
        let with = |option: &str, value: &str| parsed(&["a.db", "SELECT 1", option, value]);
        for option in ["--policy", "--fs", "--busy-timeout"] {
            assert_eq!(with(option, "nonsense"), Err(ErrorKind::ValueValidation));
        }
        assert_eq!(with("--policy", "auto"), Ok(()));
        assert_eq!(with("--fs", "auto"), Ok(()));
        assert_eq!(with("--busy-timeout", "2147483647"), Ok(()));
        assert_eq!(with("--busy-timeout", "2147483648"), Err(ErrorKind::ValueValidation));
    }
}
