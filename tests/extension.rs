//! The loadable extension in other people's hosts: the sqlite3 shell and Python, on a database file made by them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

use support::{fuse, require};

fn extension() -> &'static Path {
    support::extension::build(Path::new(env!("CARGO_MANIFEST_DIR")))
}

fn shell(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let load = format!(".load {}", extension().display());
    Command::new("sqlite3").arg(":memory:").arg(load).args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The Python that Debian built, whose sqlite3 module can load extensions.
fn python(script: &str) -> Option<Output> {
    let can = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)";
    let python = ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|python| Command::new(python).args(["-c", can]).output().is_ok_and(|output| output.status.success()));
    let Some(python) = python else {
        require::unavailable("a Python whose sqlite3 can load extensions");
        return None;
    };
    let load = format!(
        "import sqlite3, sys\nhost = sqlite3.connect(':memory:')\nhost.enable_load_extension(True)\n\
         host.load_extension({:?})\n",
        extension().display().to_string()
    );
    Some(Command::new(python).arg("-c").arg(load + script).output().unwrap())
}

#[test]
fn it_calls_no_function_that_the_host_may_lack() {
    if !require::program("nm") {
        return;
    }
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(extension()).output().unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    assert!(symbols.contains(" U "), "nm told something");
    assert!(!symbols.contains("sqlite3_"), "{symbols}");
}

#[test]
fn the_shell_opens_a_database_of_its_own_making_with_the_right_mode() {
    if !require::program("sqlite3") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    let made = Command::new("sqlite3").arg(&path).arg("CREATE TABLE t(x); INSERT INTO t VALUES (1)").status().unwrap();
    assert!(made.success());
    let open = format!(".open file:{}?vfs=hardened", path.display());
    let output = shell(
        &[&open, "INSERT INTO t VALUES (2); SELECT count(*) FROM t; PRAGMA journal_mode; PRAGMA synchronous;"],
        &[],
    );
    assert_eq!(lines(&output), ["2", "wal", "1"]);
    let json = lines(&shell(&[&open, "PRAGMA hardened_report"], &[])).join("");
    let report = hardened_sqlite::Report::from_json(&json).unwrap();
    assert_eq!(report.journal_mode.as_deref(), Some("wal"));
    assert_ne!(report.sqlite, rusqlite::version(), "the host's own SQLite, not ours: {}", report.sqlite);
}

#[test]
fn the_environment_sets_the_defaults_and_the_default_vfs() {
    if !require::program("sqlite3") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db").display().to_string();
    let open = format!(".open {path}");
    let question = "PRAGMA journal_mode; PRAGMA busy_timeout; PRAGMA synchronous; CREATE TABLE IF NOT EXISTS t(x);";
    let plain = shell(&[&open, question], &[]);
    assert_eq!(lines(&plain), ["delete", "0", "2"], "loading alone changes nothing");
    let default = shell(&[&open, question], &[("HARDENED_DEFAULT", "1"), ("HARDENED_OPTIONS", "busy_timeout=77")]);
    assert_eq!(lines(&default), ["wal", "77", "1"]);
    let delete = shell(
        &[&open, question],
        &[("HARDENED_DEFAULT", "1"), ("HARDENED_OPTIONS", "policy=delete&busy_timeout=5000")],
    );
    assert_eq!(lines(&delete), ["delete", "5000", "2"]);
    let off = shell(&[&open, question], &[("HARDENED_DEFAULT", "1"), ("HARDENED_OPTIONS", "policy=off")]);
    assert_eq!(lines(&off), ["delete", "0", "2"]);
    for (name, value, message) in [
        ("HARDENED_OPTIONS", "policy=sometimes", "expected one of auto, wal, delete, off"),
        ("HARDENED_OPTIONS", "polizy=off", "the options are policy, fs"),
        ("HARDENED_DEFAULT", "yes", "expected 0 or 1"),
    ] {
        let output = shell(&[], &[(name, value)]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(name) && errors.contains(message), "{errors}");
    }
}

#[test]
fn the_shell_is_told_why_an_open_is_refused() {
    if !require::program("sqlite3") {
        return;
    }
    let output = shell(&[".open file:/nowhere/app.db?vfs=hardened", "SELECT 1;"], &[]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("hardened: /nowhere/app.db: the directory /nowhere does not exist (create it first)"),
        "{errors}"
    );
}

#[test]
fn loading_it_twice_is_harmless() {
    if !require::program("sqlite3") {
        return;
    }
    let load = format!(".load {}", extension().display());
    let home = tempfile::tempdir().unwrap();
    let open = format!(".open file:{}?vfs=hardened", home.path().join("app.db").display());
    let output = shell(&[&load, &open, &load, "PRAGMA journal_mode;"], &[]);
    assert_eq!(lines(&output), ["wal"]);
}

#[test]
fn python_opens_a_database_of_its_own_making_locally_and_on_fuse() {
    if !require::root_and_fuse() {
        return;
    }
    let (home, backing, point) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = fuse::Mount::new(fuse::Options::new(backing.path()).subtype("sshfs"), point.path()).unwrap();
    let script = format!(
        r#"
for directory in ({:?}, {:?}):
    path = directory + "/app.db"
    made = sqlite3.connect(path)
    made.executescript("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
    made.close()
    db = sqlite3.connect("file:" + path + "?vfs=hardened", uri=True)
    db.execute("INSERT INTO t VALUES (2)")
    db.commit()
    asked = db.execute("PRAGMA journal_mode=WAL")
    print(db.execute("SELECT sum(x) FROM t").fetchone()[0], asked.description[0][0], asked.fetchall(),
          db.execute("PRAGMA synchronous").fetchone()[0])
    db.close()
try:
    sqlite3.connect("file:/nowhere/app.db?vfs=hardened", uri=True)
except sqlite3.OperationalError as error:
    print(error)
"#,
        home.path().display().to_string(),
        mount.path().display().to_string()
    );
    let Some(output) = python(&script) else { return };
    let lines = lines(&output);
    assert_eq!(lines[0], "3 journal_mode [('wal',)] 1");
    assert_eq!(lines[1], "3 journal_mode [('delete',)] 2");
    assert!(lines[2].contains("the directory /nowhere does not exist (create it first)"), "{}", lines[2]);
}
