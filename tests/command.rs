//! `hardened sql` as a user runs it: what it prints where, and its exit codes.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempfile::TempDir;

/// `hardened sql DATABASE ARGUMENTS...`, in the directory `home`.
fn command(home: &Path, database: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardened"));
    command.current_dir(home).arg("sql").args(arguments).arg("--").arg(database).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null());
    command
}

/// Runs `sql` on `app.db` with options before it.
fn run(home: &Path, options: &[&str], sql: &str) -> Output {
    command(home, "app.db", options).arg(sql).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// It ended with `code`; standard output and standard error.
#[track_caller]
fn ended(output: &Output, code: i32) -> (&str, &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

/// It succeeded and said nothing on standard error; its output.
#[track_caller]
fn printed(output: &Output) -> &str {
    let (out, err) = ended(output, 0);
    assert_eq!(err, "");
    out
}

/// A directory with `app.db`, in which t(id, name) has two rows.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let stock = Connection::open(home.path().join("app.db")).unwrap();
    stock.execute_batch("CREATE TABLE t(id, name); INSERT INTO t VALUES (1, 'one'), (20, NULL)").unwrap();
    home
}

#[test]
fn a_table_is_printed_and_the_database_is_wal_afterwards() {
    let home = home();
    let output = run(home.path(), &[], "SELECT * FROM t ORDER BY id");
    assert_eq!(printed(&output), "id  name\n--  ----\n 1  one\n20  NULL\n");
    let stamp = std::fs::read(home.path().join("app.db")).unwrap();
    assert_eq!(stamp[18..20], [2, 2]);
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["app.db"], "the -wal is gone with the last connection");
}

#[test]
fn json_is_one_document_a_result_set() {
    let home = home();
    let sql = "SELECT * FROM t ORDER BY id; SELECT x'00ff' AS b, 1.5 AS r; SELECT 1 AS n WHERE 0";
    let output = run(home.path(), &["--json"], sql);
    let documents: Vec<serde_json::Value> =
        printed(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        documents,
        [
            serde_json::json!({"columns": ["id", "name"], "rows": [[1, "one"], [20, null]]}),
            serde_json::json!({"columns": ["b", "r"], "rows": [[{"blob": "00ff"}, 1.5]]}),
            serde_json::json!({"columns": ["n"], "rows": []}),
        ]
    );
}

#[test]
fn several_statements_run_in_order_and_what_they_wrote_stays() {
    let home = home();
    let sql = "BEGIN; INSERT INTO t VALUES (3, 'a;b'); UPDATE t SET name = 'x' WHERE id > 2; COMMIT; \
               SELECT count(*) AS n FROM t; SELECT group_concat(name, '') AS names FROM t;";
    let output = run(home.path(), &["--changes"], sql);
    let out = printed(&output);
    assert!(out.contains("rows changed: 1\n") && out.contains("rows changed: 2\n"), "{out}");
    assert!(out.ends_with("n\n-\n3\n\nnames\n-----\nonexx\n"), "{out}");
    let stock = Connection::open(home.path().join("app.db")).unwrap();
    assert_eq!(stock.query_row("SELECT count(*) FROM t WHERE name = 'x'", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[test]
fn sql_can_come_from_standard_input() {
    let home = home();
    let run = |input: &[u8]| {
        let mut child = command(home.path(), "app.db", &[])
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    assert_eq!(printed(&run(b"-- a comment\nSELECT count(*) AS n\nFROM t;\n")), "n\n-\n2\n");
    assert_eq!(printed(&run(b"")), "");
    let output = run(b"SELECT 1; SELECT '\xff'");
    assert_eq!(ended(&output, 2), ("", "hardened: the SQL on standard input is not UTF-8 at byte 18\n"));
    let output = run(b"SELECT 1;\0DROP TABLE t");
    assert_eq!(ended(&output, 2), ("", "hardened: the SQL contains a NUL character\n"));
}

#[test]
fn a_failing_statement_is_1_after_what_was_printed_before_it() {
    let home = home();
    let output = run(home.path(), &[], "SELECT 1 AS n;\nSELECT missing FROM t; DELETE FROM t");
    let (out, err) = ended(&output, 1);
    assert_eq!(out, "n\n-\n1\n");
    assert_eq!(err, "hardened: no such column: missing (line 2, column 8 of the SQL)\n");
    assert_eq!(printed(&run(home.path(), &[], "SELECT count(*) AS n FROM t")), "n\n-\n2\n");
    let output = run(home.path(), &[], "BEGIN; DELETE FROM t");
    let (_, err) = ended(&output, 1);
    assert!(err.contains("rolled back") && err.contains("\n  hint: end the SQL with COMMIT\n"), "{err}");
    assert_eq!(printed(&run(home.path(), &[], "SELECT count(*) AS n FROM t")), "n\n-\n2\n");
}

#[test]
fn a_command_line_that_makes_no_sense_is_2() {
    let home = home();
    let before = std::fs::read(home.path().join("app.db")).unwrap();
    for options in [&["--policy", "sometimes"][..], &["--fs", "floppy"], &["--busy-timeout", "soon"], &["--jsno"]] {
        let output = run(home.path(), options, "SELECT 1");
        let (out, err) = ended(&output, 2);
        assert_eq!(out, "");
        assert!(err.contains(options[0]), "{err}");
    }
    let output = command(home.path(), "app.db", &[]).output().unwrap();
    assert!(ended(&output, 2).1.contains("<SQL>"));
    assert_eq!(std::fs::read(home.path().join("app.db")).unwrap(), before);
}

#[test]
fn a_database_that_cannot_be_opened_is_3_with_a_hint() {
    let home = home();
    std::fs::write(home.path().join("notes.txt"), "Dear diary\n".repeat(100)).unwrap();
    std::fs::create_dir(home.path().join("data")).unwrap();
    let cases: [(&str, &[&str], &str, &str); 6] = [
        ("missing/app.db", &[], "/missing does not exist", "create it first"),
        ("data", &[], "it is a directory", "name a file in it"),
        ("notes.txt", &[], "it looks like text", "check the name"),
        ("new.db", &["--read-only"], "there is no such file", "check the name"),
        ("new.db", &["--no-create"], "there is no such file", "check the name"),
        ("app.db", &["--base", "no such vfs"], "there is no VFS of that name", "register it first"),
    ];
    for (database, options, seen, hint) in cases {
        let output = command(home.path(), database, options).arg("SELECT 1").output().unwrap();
        let (out, err) = ended(&output, 3);
        assert_eq!(out, "", "{database}");
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].starts_with("hardened: ") && lines[0].contains(seen), "{err}");
        assert!(lines[0].contains(database), "{err}");
        assert!(lines[1].starts_with("  hint: ") && lines[1].contains(hint), "{err}");
    }
    assert!(!home.path().join("new.db").exists());
}

#[test]
fn the_exit_codes_are_in_the_help() {
    for arguments in [&["--help"][..], &["sql", "--help"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_hardened")).args(arguments).output().unwrap();
        let help = printed(&output);
        for code in ["  0  success", "  1  an SQL", "  2  the command line", "  3  the database"] {
            assert!(help.contains(code), "{help}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = home();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) \
               SELECT i, 'row' FROM n; DELETE FROM t";
    for options in [&[][..], &["--json"]] {
        let mut child = command(home.path(), "app.db", options)
            .arg(sql)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 8];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(printed(&output), "");
        assert_eq!(
            printed(&run(home.path(), &[], "SELECT count(*) AS n FROM t")),
            "n\n-\n2\n",
            "nothing ran afterwards"
        );
    }
}

#[test]
fn output_that_cannot_be_written_is_1() {
    let home = home();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(home.path(), "app.db", &[]).arg("SELECT 1").stdout(full).output().unwrap();
    let (_, err) = ended(&output, 1);
    assert!(err.starts_with("hardened: the result could not be written: No space left"), "{err}");
}

#[test]
fn odd_database_names_are_names() {
    let home = tempfile::tempdir().unwrap();
    let names: [&[u8]; 9] = [
        b"with space.db",
        b"100%.db",
        b"what?vfs=unix#x",
        b"it's \"quoted\".db",
        b"line\nbreak.db",
        b"-leading.db",
        b"--json",
        b"file:x.db",
        b"not utf-8 \xff.db",
    ];
    for name in names {
        let name = OsStr::from_bytes(name);
        let sql = "CREATE TABLE t(x); INSERT INTO t VALUES (7); SELECT x FROM t";
        let output = command(home.path(), name, &[]).arg(sql).output().unwrap();
        assert_eq!(printed(&output), "x\n-\n7\n", "{name:?}");
        assert!(home.path().join(name).is_file(), "{name:?}");
        let output = command(home.path(), name, &["--no-create"]).arg("SELECT x FROM t").output().unwrap();
        assert_eq!(printed(&output), "x\n-\n7\n", "{name:?}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), names.len());

    let output = command(home.path(), OsStr::from_bytes(b"a\x1b[2J\n/\xff.db"), &[]).arg("SELECT 1").output().unwrap();
    let (_, err) = ended(&output, 3);
    assert!(!err.contains('\x1b') && err.lines().count() == 2, "a name cannot reach the terminal raw: {err:?}");
}

#[test]
fn options_reach_the_vfs() {
    let mode = |options: &[&str]| {
        let home = home();
        let sql = "PRAGMA journal_mode; PRAGMA synchronous; PRAGMA busy_timeout";
        let output = run(home.path(), &[&["--json"], options].concat(), sql);
        let values: Vec<String> = printed(&output)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["rows"][0][0].to_string())
            .collect();
        values.join(" ")
    };
    assert_eq!(mode(&[]), "\"wal\" 1 2000");
    assert_eq!(mode(&["--fs", "network"]), "\"delete\" 2 2000");
    assert_eq!(mode(&["--policy", "delete"]), "\"delete\" 2 2000");
    assert_eq!(mode(&["--policy", "wal"]), "\"wal\" 1 2000");
    assert_eq!(mode(&["--policy", "off", "--busy-timeout", "5"]), "\"delete\" 2 5");
    assert_eq!(mode(&["--busy-timeout", "0"]), "\"wal\" 1 0");
    assert_eq!(mode(&["--read-only"]), "\"delete\" 2 2000");
    assert_eq!(mode(&["--base", "unix-dotfile"]), "\"delete\" 2 2000");
}

#[test]
fn read_only_writes_nothing() {
    let home = home();
    let before = std::fs::read(home.path().join("app.db")).unwrap();
    let output = run(home.path(), &["--read-only"], "SELECT count(*) AS n FROM t; DELETE FROM t");
    let (out, err) = ended(&output, 1);
    assert_eq!(out, "n\n-\n2\n");
    assert!(err.starts_with("hardened: attempt to write a readonly database"), "{err}");
    assert_eq!(std::fs::read(home.path().join("app.db")).unwrap(), before);
}

#[test]
fn a_lock_of_another_process_is_waited_for_as_long_as_asked() {
    let home = home();
    let holder = Connection::open(home.path().join("app.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE; DELETE FROM t").unwrap();
    for milliseconds in [0_u64, 300] {
        let began = Instant::now();
        let timeout = milliseconds.to_string();
        let output = run(home.path(), &["--busy-timeout", &timeout], "SELECT count(*) FROM t");
        let took = began.elapsed();
        let (out, err) = ended(&output, 1);
        assert_eq!(out, "");
        assert!(err.starts_with("hardened: database is locked (SQLite result code 5)\n"), "{err}");
        assert!(err.contains("  hint: another connection holds a lock; --busy-timeout sets how long"), "{err}");
        assert!(took >= Duration::from_millis(milliseconds), "it waited only {took:?}");
        assert!(took < Duration::from_secs(60), "it waited {took:?}");
    }
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(printed(&run(home.path(), &["--busy-timeout", "0"], "SELECT count(*) AS n FROM t")), "n\n-\n2\n");
}

#[test]
fn a_lock_that_is_given_back_in_time_is_no_error() {
    let home = home();
    let holder = Connection::open(home.path().join("app.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (3, 'three')").unwrap();
    let mut child = command(home.path(), "app.db", &["--busy-timeout", "120000"])
        .arg("SELECT count(*) AS n FROM t")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Whether it is waiting by now or only starts later, it must succeed.
    assert!(child.try_wait().unwrap().is_none());
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(printed(&child.wait_with_output().unwrap()), "n\n-\n3\n");
}
