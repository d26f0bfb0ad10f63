//! `hardened doctor` tells what is there and changes nothing.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::Value;
use support::{fuse, mounts, require};
use tempfile::TempDir;

#[path = "doctor/journals.rs"]
mod journals;
#[path = "doctor/map.rs"]
mod map;
#[path = "bad_input/unprivileged.rs"]
mod unprivileged;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hardened");

/// Names, bytes, modes, link counts and times of change of all there is below `directory`.
type Everything = BTreeMap<PathBuf, (Vec<u8>, u32, u64, i64, i64)>;

fn everything(directory: &Path) -> Everything {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let bytes = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            found.extend(everything(&path));
        }
        found.insert(path, (bytes, metadata.mode(), metadata.nlink(), metadata.mtime(), metadata.mtime_nsec()));
    }
    found
}

/// What doctor says about one path, as JSON and as text; nothing in `home` changes.
struct Seen {
    code: i32,
    json: Value,
    text: String,
}

impl Seen {
    fn file(&self, name: &str) -> &str {
        self.json["files"][name].as_str().unwrap_or_default()
    }

    /// The texts and hints of the findings of one level.
    fn findings(&self, level: &str) -> Vec<(String, String)> {
        let all = self.json["findings"].as_array().unwrap();
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_level = all.iter().filter(|finding| finding["level"] == level);
        of_level.map(|finding| (string(&finding["text"]), string(&finding["hint"]))).collect()
    }

    /// There is a finding of this level with this text and hint, and the text form shows both.
    #[track_caller]
    fn assert_found(&self, level: &str, text: &str, hint: &str) {
        let found = self.findings(level);
        let one = found.iter().find(|(seen, told)| seen.contains(text) && told.contains(hint));
        let (seen, told) = one.unwrap_or_else(|| panic!("{level} {text:?} {hint:?} is not in {:#}", self.json));
        assert!(self.text.contains(&format!("  {level:<12}{seen}\n")), "{}", self.text);
        assert!(told.is_empty() || self.text.contains(&format!("              -> {told}\n")), "{}", self.text);
    }

    #[track_caller]
    fn assert_nothing_found(&self) {
        assert_eq!((self.code, &self.json["findings"]), (0, &serde_json::json!([])));
    }
}

fn output(arguments: &[&Path]) -> Output {
    Command::new(PROGRAM).arg("doctor").args(arguments).output().unwrap()
}

fn parse(json: &Output, text: &Output) -> Seen {
    assert_eq!(json.status, text.status);
    assert_eq!((json.stderr.as_slice(), text.stderr.as_slice()), (&b""[..], &b""[..]));
    let document = String::from_utf8(json.stdout.clone()).unwrap();
    assert_eq!(document.matches('\n').count(), 1, "one line: {document}");
    Seen {
        code: json.status.code().unwrap(),
        json: serde_json::from_str(&document).unwrap(),
        text: String::from_utf8(text.stdout.clone()).unwrap(),
    }
}

#[track_caller]
fn doctor(home: &Path, path: &Path) -> Seen {
    let before = everything(home);
    let seen = parse(&output(&[Path::new("--json"), path]), &output(&[path]));
    assert!(everything(home) == before, "doctor changed something");
    assert_eq!(seen.json["path"], path.display().to_string());
    assert!(seen.text.starts_with(&format!("{}\n", path.display())), "{}", seen.text);
    for (name, words) in seen.json["files"].as_object().unwrap() {
        let line = format!("  {name:<12}{}\n", words.as_str().unwrap());
        assert!(seen.text.contains(&line), "{line:?} is not in {}", seen.text);
    }
    seen
}

/// A directory with the database `app.db` in rollback mode.
fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("CREATE TABLE t(x, filler); BEGIN").unwrap();
    for row in 0..100 {
        stock.execute("INSERT INTO t VALUES (?1, zeroblob(500))", [row]).unwrap();
    }
    stock.execute_batch("COMMIT").unwrap();
    (home, path)
}

/// The database becomes a WAL database whose -wal is not copied back; one frame or more a commit.
fn with_commits_in_the_wal(path: &Path, commits: usize) -> Connection {
    let live = Connection::open(path).unwrap();
    live.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0").unwrap();
    for _ in 0..commits {
        live.execute("UPDATE t SET x = x + 1 WHERE x = (SELECT max(x) FROM t)", []).unwrap();
    }
    live
}

fn copy(from: &Path, to: &Path, suffixes: &[&str]) {
    for suffix in suffixes {
        std::fs::copy(format!("{}{suffix}", from.display()), format!("{}{suffix}", to.display())).unwrap();
    }
}

#[test]
fn a_database_in_rollback_mode_on_a_local_disk_is_described_and_fine() {
    let (home, path) = home();
    let seen = doctor(home.path(), &path);
    seen.assert_nothing_found();
    assert!(seen.file("database").ends_with("pages of 4096 bytes, rollback journal"), "{}", seen.json);
    assert!(seen.file("access").starts_with("readable and writable for this user, mode 0644"), "{}", seen.json);
    assert_eq!((&seen.json["verdict"]["class"], &seen.json["verdict"]["wal"]), (&"local".into(), &true.into()));
    assert_eq!(seen.json["policy"], "WAL, synchronous NORMAL");
    let filesystem = seen.json["verdict"]["filesystem"].as_str().unwrap();
    assert!(seen.text.contains(&format!("  filesystem  {filesystem} (local) at /")), "{}", seen.text);
    assert!(seen.text.contains("  hardened    WAL, synchronous NORMAL: "), "{}", seen.text);
    assert!(seen.json["free_space"].as_u64().unwrap() > 0);
}

#[test]
fn a_second_name_is_a_warning() {
    let (home, path) = home();
    std::fs::hard_link(&path, home.path().join("other.db")).unwrap();
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 1);
    seen.assert_found("warning", "it has 2 names (hard links)", "keep one name");
}

#[test]
fn what_is_no_database_is_a_problem_and_what_may_become_one_is_not() {
    let (home, path) = home();
    let text = home.path().join("notes.txt");
    std::fs::write(&text, "Dear diary\n".repeat(100)).unwrap();
    let seen = doctor(home.path(), &text);
    assert_eq!((seen.code, seen.file("database")), (3, "not readable as a database"));
    seen.assert_found("problem", "it looks like text", "if it was a database, restore a backup");

    let pipe = home.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let seen = doctor(home.path(), &pipe);
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "it is not a regular file", "name a database file");

    let seen = doctor(home.path(), &home.path().join("missing/app.db"));
    assert_eq!(seen.code, 3);
    let missing = format!("the directory {} does not exist", home.path().join("missing").display());
    seen.assert_found("problem", &missing, "create it first");

    let seen = doctor(home.path(), &path.join("app.db"));
    assert_eq!(seen.code, 3);
    assert_eq!(seen.findings("problem").len(), 1, "{}", seen.json);

    std::fs::write(home.path().join("empty.db"), "").unwrap();
    for (name, words) in [("empty.db", "empty: a database without tables"), ("new.db", "does not exist yet")] {
        let seen = doctor(home.path(), &home.path().join(name));
        seen.assert_nothing_found();
        assert_eq!(seen.file("database"), words);
    }

    let seen = doctor(home.path(), home.path());
    seen.assert_nothing_found();
    assert_eq!(seen.json["files"], serde_json::json!({}));
    assert_eq!(seen.json["verdict"]["class"], "local");
}

#[test]
fn a_database_cut_off_in_a_page_is_a_warning() {
    let (home, path) = home();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 2048).unwrap();
    let seen = doctor(home.path(), &path);
    seen.assert_found("warning", "its length is not a multiple of its page size", "quick_check");
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "pages and the file has", "restore a backup");
}

#[test]
fn a_database_that_ends_before_its_last_page_is_a_problem() {
    let (home, path) = home();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 4096).unwrap();
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "pages and the file has", "restore a backup");
    let stock = Connection::open(&path).unwrap();
    let error = stock.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt), "SQLite agrees");
}

#[test]
fn what_this_user_may_not_read_or_write_is_a_problem() {
    let home = unprivileged::open_directory();
    let path = home.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let doctor = || {
        let run = |json: &[&str]| {
            unprivileged::as_nobody(Path::new(PROGRAM), |command| {
                command.arg("doctor").args(json).arg(&path);
            })
        };
        parse(&run(&["--json"]), &run(&[]))
    };
    let before = everything(home.path());
    let original = std::fs::metadata(&path).unwrap().permissions();
    std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let seen = doctor();
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "no permission to read it", "run as its owner or change its mode");
    assert!(seen.file("access").starts_with("not readable for this user, mode 0000, owner "), "{}", seen.json);

    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let seen = doctor();
    assert_eq!(seen.code, 0);
    assert!(seen.file("access").starts_with("read-only for this user, mode 0444"), "{}", seen.json);

    std::fs::set_permissions(home.path(), Permissions::from_mode(0o555)).unwrap();
    let seen = doctor();
    std::fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(seen.code, 3);
    let text = format!("journals cannot be created in {}: Permission denied", home.path().display());
    seen.assert_found("problem", &text, "change the directory's mode or owner");
    std::fs::set_permissions(&path, original).unwrap();
    assert!(everything(home.path()) == before);
}

#[test]
fn little_space_is_a_warning() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs_with("size=1m").unwrap();
    let path = disk.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let seen = doctor(disk.path(), &path);
    assert_eq!(seen.code, 1);
    seen.assert_found("warning", "only 0 MiB are free", "make room before the next write needs it");
    assert_eq!(seen.json["verdict"]["filesystem"], "tmpfs");
    assert_eq!(seen.json["free_space"].as_u64().unwrap(), (1 << 20) - 8192);
}

#[test]
fn a_wal_database_on_a_fuse_mount_is_a_warning_of_the_conversion() {
    if !require::fuse() {
        return;
    }
    let (backing, path) = home();
    drop(with_commits_in_the_wal(&path, 1));
    let at = tempfile::tempdir().unwrap();
    let options = fuse::Options::new(backing.path()).subtype("example").source("there:/data");
    let mount = fuse::Mount::new(options, at.path()).unwrap();
    let seen = doctor(mount.path(), &mount.path().join("app.db"));
    assert_eq!(seen.code, 1);
    assert_eq!((&seen.json["verdict"]["class"], &seen.json["verdict"]["wal"]), (&"fuse".into(), &false.into()));
    assert_eq!(seen.json["verdict"]["source"], "there:/data");
    assert_eq!(seen.json["policy"], "DELETE, synchronous FULL");
    assert!(seen.text.contains("  filesystem  fuse.example (fuse) at "), "{}", seen.text);
    seen.assert_found("warning", "a WAL database where WAL is not safe", "close it everywhere before the next open");
}

#[test]
fn several_paths_are_told_in_order_with_the_exit_code_of_the_worst() {
    let (home, good) = home();
    let warned = home.path().join("warned.db");
    Connection::open(&warned).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    std::fs::hard_link(&warned, home.path().join("twin.db")).unwrap();
    let bad = home.path().join("missing/app.db");
    for (paths, code) in [
        (vec![&good, &good], 0),
        (vec![&good, &warned], 1),
        (vec![&warned, &good], 1),
        (vec![&bad, &warned, &good], 3),
        (vec![&good, &bad], 3),
    ] {
        let paths: Vec<&Path> = paths.into_iter().map(PathBuf::as_path).collect();
        let json = output(&[&[Path::new("--json")], &paths[..]].concat());
        assert_eq!(json.status.code(), Some(code), "{paths:?}");
        let told: Vec<Value> =
            String::from_utf8(json.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<&str> = told.iter().map(|document| document["path"].as_str().unwrap()).collect();
        assert_eq!(names, paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>());
        let text = output(&paths);
        assert_eq!(text.status.code(), Some(code), "{paths:?}");
        let text = String::from_utf8(text.stdout).unwrap();
        assert_eq!(text.split("\n\n").count(), paths.len(), "an empty line between two: {text}");
    }
    assert_eq!(output(&[]).status.code(), Some(2), "a path is needed");
    assert_eq!(output(&[Path::new("--fs-timeout"), Path::new("0"), &good]).status.code(), Some(2));
}
