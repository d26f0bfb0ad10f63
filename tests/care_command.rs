//! `hardened check`, `backup`, `restore`, `checkpoint` and `convert` as a user runs them.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// The exit code, standard output and standard error.
fn run(arguments: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardened"));
    let output = command.args(arguments).args(paths).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A stock database with an index.
fn made(mode: &str) -> (TempDir, PathBuf, Connection) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let stock = Connection::open(&path).unwrap();
    stock
        .execute_batch(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t(x, y); CREATE INDEX i ON t(x)"))
        .unwrap();
    stock
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO t SELECT i, hex(randomblob(50)) FROM n",
        )
        .unwrap();
    (home, path, stock)
}

fn rows(path: &Path) -> i64 {
    let stock = Connection::open(path).unwrap();
    stock.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_sound_database_is_checked_while_somebody_writes_to_it() {
    for mode in ["wal", "delete"] {
        let (_home, path, stock) = made(mode);
        stock.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (0, 0)").unwrap();
        for level in ["quick", "full", "pages"] {
            let (code, out, err) = run(&["check", "--level", level], &[&path]);
            assert_eq!((code, err.as_str()), (0, ""), "{mode}, {level}: {out}");
            assert!(out.contains("nothing wrong was found"), "{out}");
        }
        stock.execute_batch("COMMIT").unwrap();
        assert_eq!(rows(&path), 5001);
        let (code, out, _) = run(&["check", "--json"], &[&path]);
        let document: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, document["findings"].as_array().unwrap().len()), (0, 0), "{out}");
    }
}

#[test]
fn damage_is_listed_and_an_index_alone_can_be_repaired() {
    let (_home, path, stock) = made("delete");
    stock.execute_batch("DELETE FROM t WHERE x > 20; VACUUM").unwrap();
    // The index is made of the column x, and is said to be of another one.
    let other = "UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t(y)' WHERE name = 'i'";
    stock.execute_batch(&format!("PRAGMA writable_schema = ON; {other}")).unwrap();
    drop(stock);
    let (code, out, err) = run(&["check"], &[&path]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert!(out.contains("index i: "), "{out}");
    let (code, out, err) = run(&["check", "--repair-indexes"], &[&path]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(run(&["check"], &[&path]).0, 0);

    let (_home, path, stock) = made("delete");
    drop(stock);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2 / 4096 * 4096;
    bytes[at..at + 4096].fill(0x55);
    fs::write(&path, bytes).unwrap();
    for level in ["quick", "full", "pages"] {
        let (code, out, err) = run(&["check", "--level", level], &[&path]);
        assert_eq!((code, err.as_str()), (1, ""), "{level}: {out}");
        assert!(out.contains("findings"), "{out}");
    }
    fs::write(&path, "no database at all").unwrap();
    let (code, _, err) = run(&["check"], &[&path]);
    assert!(code == 3 && err.contains("app.db"), "{err}");
}

#[test]
fn a_backup_of_a_database_in_use_can_be_restored_when_it_is_not() {
    let (home, path, stock) = made("wal");
    let saved = home.path().join("saved.db");
    let (code, out, err) = run(&["backup", "--keep", "2"], &[&path, &saved]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    stock.execute_batch("DELETE FROM t WHERE x > 10").unwrap();
    let (code, out, err) = run(&["backup", "--keep", "2", "--json"], &[&path, &saved]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["identical"], false);
    let older = home.path().join("saved.db.1");
    assert_eq!((rows(&saved), rows(&older)), (10, 5000));
    let (code, out, err) = run(&["restore"], &[&older, &path]);
    assert!(code == 1 && err.contains("app.db"), "somebody has it open: {out}{err}");
    assert_eq!(rows(&path), 10);
    drop(stock);
    let (code, out, err) = run(&["restore"], &[&older, &path]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("is kept as"), "{out}");
    assert_eq!(rows(&path), 5000);
    let (code, _, err) = run(&["backup"], &[&path, &home.path().join("missing/saved.db")]);
    assert!(code == 1 && err.contains("missing"), "{err}");
}

#[test]
fn a_damaged_database_is_recovered_and_kept() {
    let (home, path, stock) = made("delete");
    drop(stock);
    let (code, out, err) = run(&["recover"], &[&path]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("nothing was changed"), "{out}");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2 / 4096 * 4096;
    bytes[at..at + 4096].fill(0x55);
    fs::write(&path, &bytes).unwrap();
    let (code, out, err) = run(&["recover", "--json"], &[&path]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["outcome"], "salvaged", "{out}");
    assert_eq!(fs::read(document["kept"].as_str().unwrap()).unwrap(), bytes);
    assert_eq!(run(&["check"], &[&path]).0, 0);
    assert!(rows(&path) > 4800, "{}", rows(&path));
    let (code, _, err) = run(&["recover"], &[&home.path().join("missing.db")]);
    assert!(code == 1 && err.contains("missing.db"), "{err}");
}

#[test]
fn a_checkpoint_goes_as_far_as_others_let_it() {
    let (home, path, stock) = made("wal");
    stock.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("INSERT INTO t VALUES (1, 1)").unwrap();
    let (code, out, err) = run(&["checkpoint", "--mode", "passive"], &[&path]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    stock.execute_batch("COMMIT").unwrap();
    let (code, out, err) = run(&["checkpoint"], &[&path]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(fs::metadata(home.path().join("app.db-wal")).unwrap().len(), 0);
    let (_home, path, _stock) = made("delete");
    let (code, out, _) = run(&["checkpoint", "--json"], &[&path]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["log"].as_i64()), (0, Some(-1)));
}

#[test]
fn a_database_is_converted_when_nobody_else_has_it_open() {
    let (_home, path, stock) = made("wal");
    let (code, out, err) = run(&["convert"], &[&path, Path::new("delete")]);
    assert!(code != 0 && !err.is_empty(), "{out}");
    drop(stock);
    let (code, out, err) = run(&["convert"], &[&path, Path::new("delete")]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(fs::read(&path).unwrap()[18..20], [1, 1]);
    let (code, out, err) = run(&["convert", "--json"], &[&path, Path::new("wal")]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(fs::read(&path).unwrap()[18..20], [2, 2]);
    assert_eq!(rows(&path), 5000);
    let (code, _, err) = run(&["convert"], &[Path::new("/nowhere/app.db"), Path::new("wal")]);
    assert!(code == 3 && err.contains("/nowhere"), "{err}");
}
