//! Opens databases under labels of the program's own, as a program does that has several, and tells the user in its own words when
//! one cannot be opened or is not in the mode that it would have on a local disk.
//!
//! `cargo run --example wal_fallback -- FILE...`

use std::error::Error;
use std::path::Path;

use hardened_sqlite::{Database, Options};

/// Opens one; a text for the user if it cannot be done.
pub(crate) fn open(options: &Options, label: &str, path: &Path) -> Result<Database, String> {
    options.open(path).map_err(|error| error.user_message(&format!("{label} could not be opened")))
}

/// What the user should know about the mode of an open database; nothing if all is as it should be.
pub(crate) fn advice(label: &str, db: &Database) -> Option<String> {
    let report = db.report();
    if report.journal_mode.as_deref() == Some("wal") {
        return None;
    }
    Some(format!("{label} is kept in a rollback journal, which is safe and slower: {}", report.reason))
}

#[allow(dead_code, reason = "the tests use the rest")]
fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args_os().skip(1) {
        let label = path.to_string_lossy().into_owned();
        match open(&Options::new(), &label, path.as_ref()) {
            Ok(db) => println!("{}", advice(&label, &db).unwrap_or_else(|| format!("{label} is in WAL mode"))),
            Err(message) => eprintln!("{message}"),
        }
    }
    if let Some(error) = hardened_sqlite::last_open_error() {
        eprintln!("The last that failed: {error}");
    }
    Ok(())
}
