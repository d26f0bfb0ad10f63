//! `hardened check`: is the database sound?

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use hardened_sqlite::health::{self, Health};
use hardened_sqlite::{Check, Options};

use crate::failure::Failure;
use crate::print::{document, lines};
use crate::progress::Bar;

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  nothing wrong was found
  1  something is wrong, or the check did not come to its end
  2  the command line could not be understood
  3  a database could not be opened";

/// Checks databases, also while others use them, and changes nothing
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The database files
    #[arg(required = true, value_name = "DATABASE")]
    databases: Vec<PathBuf>,
    /// What is checked
    #[arg(long, value_enum, default_value_t = Thoroughness::Full)]
    level: Thoroughness,
    /// Make the indexes anew that do not agree with their tables, if nothing else is wrong
    #[arg(long)]
    repair_indexes: bool,
    /// Print one JSON document for each database
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Thoroughness {
    /// Every page and row
    Quick,
    /// And whether the indexes agree with their tables
    Full,
    /// Every page once, with its checksum if it has one
    Pages,
}

impl From<Thoroughness> for Check {
    fn from(level: Thoroughness) -> Check {
        match level {
            Thoroughness::Quick => Check::Quick,
            Thoroughness::Full => Check::Full,
            Thoroughness::Pages => Check::Pages,
        }
    }
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut sound = true;
    for database in &args.databases {
        // Reading only, but to repair.
        let options = Options::new().create(false).read_only(!args.repair_indexes);
        let connection = options.open_connection(database).map_err(|error| Failure::open(&error))?;
        let mut bar = Bar::new(args.json);
        let mut check = || {
            health::check_with(&connection, args.level.into(), &mut |progress| bar.show(progress))
                .map_err(|error| Failure::failed(&error))
        };
        let mut found = check()?;
        if args.repair_indexes && found.is_index_only() {
            tell(&found, args.json, out)?;
            health::reindex(&connection, &found).map_err(|error| Failure::failed(&error))?;
            found = check()?;
        }
        drop(bar);
        tell(&found, args.json, out)?;
        sound &= found.is_ok();
    }
    Ok(ExitCode::from(u8::from(!sound)))
}

fn tell(health: &Health, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json { document(health, out) } else { lines(health, out) }
}
