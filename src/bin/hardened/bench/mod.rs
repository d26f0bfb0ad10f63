//! `hardened bench`: stock SQLite against hardened in a directory of the user's.
//!
//! Rooms: `worker` the process that measures, `place` the directory and what is made in it, `subject` who is measured,
//! `workload` with what, `measure` how, `result` what came out.

mod measure;
mod place;
mod result;
mod subject;
mod worker;
mod workload;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use hardened_sqlite::PolicyChoice;

use crate::failure::Failure;

/// The end of the help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  it was measured; also where stock SQLite failed, which the table says
  1  hardened failed in at least one row, or the measurement did not come to its end
  2  the command line could not be understood
  3  a directory cannot be used; then nothing was measured";

/// Measures stock SQLite against hardened in a directory, for example on a network mount
///
/// Both work in turn, each on a database of its own, in a new directory `hardened-bench-...` that is removed again. Stock SQLite
/// gets the journal mode and the synchronous level that hardened chooses there, as a program would that knows the filesystem.
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Directories to measure in
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// How long each row of the table is measured, both sides together; a row takes longer where a few operations do
    #[arg(long, value_name = "N", default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Which journal mode hardened uses, and stock with it: auto, wal, delete or off
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    policy: PolicyChoice,
    /// Print one JSON document for each directory
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "this is not a number".to_owned())?;
    if (0.001..=3600.0).contains(&number) {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err("it has to be between 0.001 and 3600".to_owned())
    }
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<ExitCode, Failure> {
    if worker::is_this() {
        return worker::work(args, out);
    }
    worker::attend(args, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_number_within_bounds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "soon", "0", "-1", "NaN", "inf", "3601"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
