//! Names of the files beside a database.

use std::path::{Path, PathBuf};

/// The path of a database with something behind it, as in `-wal`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
