//! The directory that is measured, and the one that is made in it.
//!
//! Invariant: everything that is written is in a directory that did not exist before, and goes with it, after an error, a panic
//! or a stop too. Nothing else is touched.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hardened_sqlite::fs;

use crate::failure::Failure;

/// How long a filesystem may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that two databases with their journals need, and what they grow in a second by at most.
const NEEDED: u64 = 64 << 20;
const NEEDED_EACH_SECOND: u64 = 16 << 20;

/// A new directory in the one that is measured; removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Room(PathBuf);

impl Room {
    /// # Errors
    /// The directory is none, does not answer, cannot be written to, or has too little space for measuring so long.
    pub(crate) fn new(directory: &Path, seconds: Duration) -> Result<Room, Failure> {
        let failed = |cause: String, hint: &str| Failure::Open {
            message: format!("{}: {cause}", directory.display()),
            hint: Some(hint.to_owned()),
        };
        // Before anything else looks at it: a server may not answer.
        if let Err(problem) = fs::classify(directory, PATIENCE) {
            return Err(failed(problem.to_string(), "check the path and the mount"));
        }
        let real = match directory.canonicalize() {
            Ok(real) if real.is_dir() => real,
            Ok(_) => {
                return Err(failed("it is not a directory".into(), "name the directory that a database would be in"));
            }
            Err(error) => return Err(failed(error.to_string(), "name a directory that exists")),
        };
        let needed = NEEDED + NEEDED_EACH_SECOND * seconds.as_secs();
        // A filesystem that tells no size tells no free space either.
        if let (Ok(1..), Ok(free)) = (fs2::total_space(&real), fs2::available_space(&real)) {
            if free < needed {
                let cause = format!("{} MiB are needed and {} MiB are free", needed >> 20, free >> 20);
                return Err(failed(cause, "make room there, or measure for a shorter time (--seconds)"));
            }
        }
        let room = real.join(format!("hardened-bench-{}", std::process::id()));
        match std::fs::create_dir(&room) {
            Ok(()) => Ok(Room(room)),
            Err(error) => Err(failed(format!("no directory can be made in it: {error}"), advice(&error))),
        }
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "it is mounted read-only; name a directory that can be written to",
        io::ErrorKind::AlreadyExists => "remove hardened-bench-... there, which a run has left, and try again",
        io::ErrorKind::StorageFull => "make room there",
        _ => "check the directory's mode and owner",
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            // Nothing is left to tell about a standard error that takes no bytes.
            let _ = writeln!(io::stderr(), "hardened: {} could not be removed: {error}", self.0.display());
        }
    }
}
