//! What a command has done, for people or for programs.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use crate::failure::Failure;
use crate::table::printable;

/// One JSON document on a line of its own.
pub(crate) fn document(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(|error| Failure::Output(error.into()))?;
    writeln!(out).map_err(Failure::Output)
}

/// Its lines, with nothing in them that a terminal would obey.
pub(crate) fn lines(value: &impl Display, out: &mut impl Write) -> Result<(), Failure> {
    for line in value.to_string().lines() {
        writeln!(out, "{}", printable(line.as_bytes())).map_err(Failure::Output)?;
    }
    Ok(())
}
