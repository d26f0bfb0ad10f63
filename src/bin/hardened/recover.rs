//! `hardened recover`: a damaged database becomes a sound one.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use hardened_sqlite::{Error, Recover, Salvage};

use crate::failure::Failure;
use crate::print::{document, lines};
use crate::progress::Bar;

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  nothing was wrong, or the database is sound again; what was saved and lost is printed
  1  it could not be recovered; it is as it was
  2  the command line could not be understood
  3  the database could not be opened";

/// Checks a copy of a database that nobody uses, and if it is damaged saves what can be saved; the damaged one is kept aside
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The database file
    database: PathBuf,
    /// Where there may be backups, the newest first, if nothing can be salvaged [default: DATABASE.bak, DATABASE.bak.1, …]
    #[arg(long = "backup", value_name = "FILE")]
    backups: Vec<PathBuf>,
    /// How many damaged databases are kept at most; all, unless this is given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_corrupt: Option<u32>,
    /// Leave out what is on the list of free pages: deleted rows, if the list is right
    #[arg(long)]
    ignore_freelist: bool,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut recover = Recover::new().salvage(Salvage::new().ignore_freelist(args.ignore_freelist));
    if !args.backups.is_empty() {
        recover = recover.backups(&args.backups);
    }
    if let Some(most) = args.keep_corrupt {
        recover = recover.keep_corrupt(most as usize);
    }
    let mut bar = Bar::new(args.json);
    let recovery = recover.run_with(&args.database, &mut |progress| bar.show(progress));
    drop(bar);
    let recovery = recovery.map_err(|error| match error {
        Error::CannotOpen(_) => Failure::open(&error),
        _ => Failure::failed(&error),
    })?;
    if args.json {
        document(&recovery, out)?
    } else {
        lines(&recovery, out)?
    }
    Ok(ExitCode::SUCCESS)
}
