//! `hardened recover`: a damaged database becomes a sound one.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use hardened_sqlite::Recover;

use crate::failure::Failure;
use crate::print::{document, lines};
use crate::progress::Bar;

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  the database is sound: it was, or it is now; what was lost is printed
  1  it could not be recovered, and is as it was
  2  the command line could not be understood";

/// Checks a copy of a database, and if that is damaged puts what can be saved in its place
///
/// Nobody may have the database open. The damaged one is kept beside it.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The database file
    database: PathBuf,
    /// Backups, the newest first, used if nothing can be salvaged; DATABASE.bak, DATABASE.bak.1 and so on unless given
    #[arg(long, value_name = "FILE")]
    backup: Vec<PathBuf>,
    /// How many damaged databases are kept at most; all unless given
    #[arg(long, value_name = "N")]
    keep_corrupt: Option<usize>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut recover = Recover::new();
    if !args.backup.is_empty() {
        recover = recover.backups(&args.backup);
    }
    if let Some(most) = args.keep_corrupt {
        recover = recover.keep_corrupt(most);
    }
    let mut bar = Bar::new(args.json);
    let recovery = recover.run_with(&args.database, &mut |progress| bar.show(progress));
    drop(bar);
    let recovery = recovery.map_err(|error| Failure::failed(&error))?;
    if args.json {
        document(&recovery, out)?
    } else {
        lines(&recovery, out)?
    }
    Ok(ExitCode::SUCCESS)
}
