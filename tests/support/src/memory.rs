//! Directories in memory.

use tempfile::TempDir;

/// A new directory on tmpfs, if the machine has one for everybody, for tests that sync thousands of times and ask nothing of a
/// disk; otherwise where temporary files are. It goes when it is dropped.
///
/// # Panics
/// If none can be made.
pub fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a directory for temporary files")
}
