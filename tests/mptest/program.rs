//! SQLite's multi-process test program, compiled from its public source against the system's library, with a main() of ours
//! that loads the extension.
//!
//! Invariant: nothing of it is kept in this repository; `.ci/mptest` fetches it with apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program and its scripts, in a directory that goes away with the test program.
pub(crate) struct Mptest {
    home: tempfile::TempDir,
}

/// What stands in the program for a busy machine: how long its tasks wait for a lock, and it for them.
const PATIENCE: [(&str, &str); 3] = [
    ("#define DEFAULT_TIMEOUT 10000", "#define DEFAULT_TIMEOUT 60000"),
    ("nArg>=2 ? atoi(azArg[1]) : 10000", "nArg>=2 ? atoi(azArg[1]) : 60000"),
    ("waitForClient(0, 2000,", "waitForClient(0, 60000,"),
];

impl Mptest {
    /// `None`, after a `SKIPPED` line, where it cannot be had.
    pub(crate) fn get() -> Option<&'static Mptest> {
        // It runs on the system's library, so the other end of the dependency range makes no difference.
        if std::env::var_os("HARDENED_SKIP_MPTEST").is_some_and(|value| value == "1") {
            eprintln!("not run: HARDENED_SKIP_MPTEST=1");
            return None;
        }
        static BUILT: OnceLock<Result<Mptest, String>> = OnceLock::new();
        match BUILT.get_or_init(build) {
            Ok(mptest) => Some(mptest),
            Err(why) => {
                support::require::unavailable(&format!("SQLite's multi-process test program: {why}"));
                None
            }
        }
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.home.path().join("mptest")
    }

    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

fn build() -> Result<Mptest, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = output(&mut Command::new(here.join(".ci/mptest")))?;
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    for entry in fs::read_dir(fetched.trim()).map_err(|error| format!("{fetched}: {error}"))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let copied = path.file_name().map(|name| fs::copy(&path, home.path().join(name)));
        copied.transpose().map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let source = home.path().join("mptest.c");
    let mut text = fs::read_to_string(&source).map_err(|error| error.to_string())?;
    for (from, to) in PATIENCE {
        assert!(text.contains(from), "mptest.c has changed: no {from:?}");
        text = text.replace(from, to);
    }
    fs::write(&source, text).map_err(|error| error.to_string())?;
    let object = home.path().join("mptest.o");
    output(
        Command::new("cc")
            .args(["-O1", "-DHAVE_USLEEP", "-Dmain=mptest_main", "-c"])
            .arg(&source)
            .arg("-o")
            .arg(&object),
    )?;
    let mptest = Mptest { home };
    output(
        Command::new("cc")
            .arg(here.join("tests/mptest/load.c"))
            .arg(object)
            .arg("-o")
            .arg(mptest.program())
            .arg("-lsqlite3"),
    )?;
    Ok(mptest)
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
