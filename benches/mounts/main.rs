//! Stock SQLite against hardened on a local disk and on mounts that are 0, 0.2, 1 and 5 ms away, written into `docs/benchmarks.md`
//! between its markers and as plots into `docs/benchmarks/`. `cargo bench --bench mounts`, as a user who may mount FUSE.
//!
//! What measures is the command itself, `hardened bench`. `HARDENED_BENCH_DIRS` names more directories, separated by colons, and
//! `HARDENED_BENCH_SECONDS` how long a row takes (6 unless set). `-- --print` writes no file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod machine;
mod page;
mod plots;
mod svg;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::fuse::{Mount, Options};
use support::require;
use tempfile::TempDir;

/// How long each answer of a mount takes, in milliseconds.
const LATENCIES: [f64; 4] = [0.0, 0.2, 1.0, 5.0];

/// How long names and attributes may be trusted there: what libfuse says unless told otherwise.
const CACHE: Duration = Duration::from_secs(1);

/// One table.
struct Place {
    heading: String,
    /// Of a mount of ours, in milliseconds.
    latency: Option<f64>,
    /// What `hardened bench --json` has printed.
    measured: Value,
}

/// A row of a table.
struct Row<'a>(&'a Value);

impl Place {
    fn rows(&self) -> Vec<Row<'_>> {
        self.measured["rows"].as_array().unwrap().iter().map(Row).collect()
    }

    fn row(&self, operation: &str) -> Row<'_> {
        self.rows().into_iter().find(|row| row.operation() == operation).unwrap()
    }
}

impl Row<'_> {
    fn operation(&self) -> &str {
        self.0["operation"].as_str().unwrap()
    }

    /// None for a side that has failed.
    fn of(&self, side: &str, what: &str) -> Option<f64> {
        self.0[side][what].as_f64()
    }

    /// Quartile, median, quartile.
    fn ratio(&self) -> Option<[f64; 3]> {
        let of = |what| self.of("ratio", what);
        Some([of("low")?, of("median")?, of("high")?])
    }
}

fn measure(directory: &Path, options: &[&str], seconds: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardened"));
    command.args(["bench", "--json", "--seconds", seconds]).args(options).arg(directory);
    let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The tables of `tests/requests.rs`.
fn requests() -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--profile", "bench", "--test", "requests", "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    command.args(["--", "--nocapture", "--exact", "a_transaction_waits_for_few_requests"]);
    let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let kept = text.lines().filter(|line| line.starts_with(['|', 'N']) || line.is_empty());
    kept.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn main() {
    let print_only = std::env::args().any(|argument| argument == "--print");
    let seconds = std::env::var("HARDENED_BENCH_SECONDS").unwrap_or_else(|_| "6".to_owned());
    let begun = machine::Begun::now();
    let mut places = Vec::new();
    let mut add = |heading: String, latency: Option<f64>, directory: &Path, options: &[&str]| {
        eprintln!("measuring: {heading}");
        places.push(Place { heading, latency, measured: measure(directory, options, &seconds) });
    };
    // The target directory is on a disk; /tmp may be in memory.
    let local = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    add("A local disk".to_owned(), None, local.path(), &[]);
    let heading = "The same disk with a rollback journal (`--policy delete`)".to_owned();
    add(heading, None, local.path(), &["--policy", "delete"]);
    assert!(require::fuse(), "the mounts are FUSE filesystems");
    for latency in LATENCIES {
        let (backing, at) = (TempDir::new_in(local.path()).unwrap(), TempDir::new_in(local.path()).unwrap());
        let options = Options::new(backing.path()).subtype("share").cache(CACHE);
        let mount = Mount::new(options.latency(Duration::from_secs_f64(latency / 1e3)), at.path()).unwrap();
        add(format!("A mount whose server answers after {latency} ms"), Some(latency), mount.path(), &[]);
    }
    for directory in std::env::split_paths(&std::env::var_os("HARDENED_BENCH_DIRS").unwrap_or_default()) {
        if !directory.as_os_str().is_empty() {
            add(format!("`{}`", directory.display()), None, &directory, &[]);
        }
    }
    let requests = requests();
    let measured = page::measured(&places, &begun, &seconds);
    if print_only {
        println!("{measured}\n\n{requests}");
        return;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    page::write(&docs.join("benchmarks.md"), &[("measured", &measured), ("requests", &requests)]);
    let pictures: PathBuf = docs.join("benchmarks");
    std::fs::create_dir_all(&pictures).unwrap();
    for (name, picture) in plots::all(&places) {
        std::fs::write(pictures.join(name), picture).unwrap();
    }
    eprintln!("written: docs/benchmarks.md, docs/benchmarks/*.svg");
}
