//! The loadable extension, built by the command that users are told to run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds `target/release/libhardened.so` of the workspace at `root`, once per process.
///
/// # Panics
/// If it cannot be built.
pub fn build(root: &Path) -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // The environment of a test run names another package and perhaps another target directory.
        let mut command = Command::new(cargo);
        command.arg("extension").current_dir(root).env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR");
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        root.join("target/release/libhardened.so")
    })
}
