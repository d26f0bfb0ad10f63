//! SQLite's shell, and its `.recover`.
//!
//! Debian's and Ubuntu's shell has the command and no way to run it: the shared library that it uses was built without
//! sqlite_dbpage. So the library is built here from the source that comes with libsqlite3-sys, with that table, and laid over the
//! system's one for a run of the shell. Invariant: the shell's own code is the system's; what it says about the library's version
//! is what it wants to hear.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::require;

/// The shell, with a library that serves its `.recover`.
#[derive(Clone, Debug)]
pub struct Shell {
    program: PathBuf,
    library: PathBuf,
}

impl Shell {
    /// Finds the shell and builds the library, once per build of the tests; `None` after a `SKIPPED` line if there is no
    /// shell or no C compiler.
    ///
    /// # Panics
    /// If the library cannot be built, or the shell does not run with it.
    #[must_use]
    pub fn find() -> Option<Shell> {
        if !require::program("sqlite3") || !require::program("cc") {
            return None;
        }
        let program = require::find_program("sqlite3")?;
        let library = Path::new(env!("OUT_DIR")).join("recover-library");
        let shell = Shell { program, library };
        if !shell.library.exists() {
            shell.build();
        }
        let version = shell.command().arg(":memory:").arg("SELECT count(*) FROM sqlite_dbpage").output().unwrap();
        assert!(version.status.success(), "{}", String::from_utf8_lossy(&version.stderr));
        Some(shell)
    }

    fn build(&self) {
        // Other test programs may be building it too.
        let own = tempfile::tempdir_in(env!("OUT_DIR")).unwrap();
        let source = Path::new(env!("SQLITE3_SOURCE"));
        let features = ["DBPAGE_VTAB", "FTS3", "FTS4", "FTS5", "RTREE", "COLUMN_METADATA", "SESSION", "PREUPDATE_HOOK"];
        let features = features.map(|feature| format!("-DSQLITE_ENABLE_{feature}"));
        let more = ["-DSQLITE_ENABLE_UNLOCK_NOTIFY", "-DSQLITE_ENABLE_STMTVTAB"];
        run(Command::new("cc")
            .args(["-O2", "-w", "-shared", "-fPIC", "-o"])
            .arg(own.path().join("libsqlite3.so.0"))
            .args(features)
            .args(more)
            .arg(source.join("sqlite3.c"))
            .arg("-lm"));
        // The shell compares this with what it was compiled with.
        let version = Command::new(&self.program).arg("--version").output().unwrap();
        let version = String::from_utf8_lossy(&version.stdout);
        let words: Vec<&str> = version.split_whitespace().skip(1).take_while(|word| !word.starts_with('(')).collect();
        let answer = format!("const char *sqlite3_sourceid(void){{return \"{}\";}}", words.join(" "));
        std::fs::write(own.path().join("sourceid.c"), answer).unwrap();
        run(Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(own.path().join("sourceid.so"))
            .arg(own.path().join("sourceid.c")));
        // Whoever is first; the directories are the same.
        let _ = std::fs::rename(own.path(), &self.library);
    }

    /// The shell, to be given arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", &self.library).env("LD_PRELOAD", self.library.join("sourceid.so"));
        command
    }

    /// What a user does with a damaged database: `sqlite3 FROM .recover | sqlite3 TO`.
    ///
    /// # Errors
    /// If the programs cannot be run. What they say about the database is no error.
    pub fn recover(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut recover =
            self.command().arg(from).arg(".recover").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let sql = recover.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let write = self.command().arg(to).stdin(sql).stdout(Stdio::null()).stderr(Stdio::null()).status();
        recover.wait()?;
        write.map(drop)
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
