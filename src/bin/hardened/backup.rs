//! `hardened backup` and `hardened restore`: a verified copy of a database in use, and the way back.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use hardened_sqlite::backup::restore_with;
use hardened_sqlite::{Backup, Options};

use crate::check::Thoroughness;
use crate::failure::Failure;
use crate::print::{document, lines};
use crate::progress::Bar;

/// The end of the help texts.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  it is done, or nothing has changed since the last backup
  1  it could not be done; every backup and the database are as they were
  2  the command line could not be understood
  3  the database could not be opened";

/// Backs up a database that others may be using, and checks the copy before it takes its name
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The database file
    database: PathBuf,
    /// The file name of the backup
    backup: PathBuf,
    /// How many backups there are at most: the new one and the ones before it, as BACKUP.1, BACKUP.2 and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keep: u32,
    /// How the copy is checked
    #[arg(long, value_enum, default_value_t = Thoroughness::Quick)]
    verify: Thoroughness,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// Makes a database what a backup of it is; the old one is kept aside
#[derive(ClapArgs)]
pub(crate) struct RestoreArgs {
    /// The backup
    backup: PathBuf,
    /// The database file
    database: PathBuf,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// Runs `hardened backup`.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let options = Options::new().read_only(true);
    let connection = options.open_connection(&args.database).map_err(|error| Failure::open(&error))?;
    let backup = Backup::to(&args.backup).keep(args.keep).verify(args.verify.into());
    let mut bar = Bar::new(args.json);
    let report = backup.run_with(&connection, &mut |progress| bar.show(progress));
    drop(bar);
    let report = report.map_err(|error| Failure::failed(&error))?;
    if args.json {
        document(&report, out)?
    } else {
        lines(&report, out)?
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `hardened restore`.
pub(crate) fn restore(args: &RestoreArgs, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut bar = Bar::new(args.json);
    let report = restore_with(&args.backup, &args.database, &mut |progress| bar.show(progress));
    drop(bar);
    let report = report.map_err(|error| Failure::failed(&error))?;
    if args.json {
        document(&report, out)?;
    } else {
        let kept = report.kept.as_ref().map(|kept| format!("; what was there is kept as {}", kept.display()));
        let text = format!(
            "{} is what {} is ({}){}\n{}",
            report.path.display(),
            args.backup.display(),
            report.method,
            kept.unwrap_or_default(),
            report.health
        );
        lines(&text, out)?;
    }
    Ok(ExitCode::SUCCESS)
}
