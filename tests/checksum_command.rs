//! `hardened checksum` as a user runs it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "checksum/file.rs"]
#[allow(dead_code)]
mod file;

use std::path::Path;
use std::process::Command;

use file::{assert_sealed, content, fill, flip, hardened, home, page_size, reserved, stock, value};

/// The one at the low end of the range of dependencies.
const LAST_THAT_KEEPS_RESERVED_BYTES: i32 = 3_051_001;

/// The exit code, standard output and standard error of `hardened checksum ACTION DATABASE`.
fn run(action: &str, database: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardened"));
    let output = command.args(["checksum", action]).arg(database).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn on_verify_and_off_keep_the_content_and_the_journal_mode() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        for mode in ["delete", "wal"] {
            let (home, path) = home();
            let connection = stock(&path);
            connection.execute_batch(&format!("PRAGMA page_size={size}; PRAGMA journal_mode={mode}")).unwrap();
            fill(&connection, if size == 4096 { 12_000 } else { 500 }, 400);
            let expected = content(&connection);
            drop(connection);
            let why = format!("{size} {mode}");
            let (code, out, err) = run("on", &path);
            assert_eq!((code, err.as_str()), (0, ""), "{why}: {out}");
            assert!(out.ends_with(", 0 damaged\n"), "{out}");
            assert_sealed(&path, &why);
            // Opened by hardened on a local disk, it is a WAL database afterwards, as ever.
            assert_eq!(value(&stock(&path), "PRAGMA journal_mode").unwrap(), "wal");
            assert_eq!(content(&stock(&path)), expected, "{why}");
            assert_eq!(run("verify", &path).0, 0, "{why}");
            let (code, out, _) = run("on", &path);
            assert!(code == 0 && out.contains("has checksums already"), "{out}");
            let (code, out, err) = run("off", &path);
            if rusqlite::version_number() <= LAST_THAT_KEEPS_RESERVED_BYTES {
                assert!(code == 1 && err.contains("cannot give up reserved bytes"), "{why}: {code} {err}");
                assert_eq!(run("verify", &path).0, 0, "{why}");
                assert_eq!(content(&stock(&path)), expected, "{why}");
                continue;
            }
            assert_eq!((code, err.as_str()), (0, ""), "{why}: {out}");
            assert_eq!(reserved(&path), 0);
            assert_eq!(content(&stock(&path)), expected, "{why}");
            assert_eq!(page_size(&std::fs::read(&path).unwrap()), size);
            let left: Vec<_> =
                std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["app.db"], "{why}");
        }
    }
}

#[test]
fn verify_lists_the_damaged_pages() {
    let (_home, path) = home();
    fill(&hardened(&path, "checksum=on"), 500, 400);
    flip(&path, 3 * 4096 + 17, 2);
    flip(&path, 7 * 4096 + 4095, 7);
    let (code, out, err) = run("verify", &path);
    let pages = std::fs::metadata(&path).unwrap().len() / 4096;
    let expected = format!(
        "page 4 at byte 12288: the checksum is wrong\npage 8 at byte 28672: the checksum is wrong\n\
         {}: {pages} pages of 4096 bytes, 2 damaged\n",
        path.display()
    );
    assert_eq!((code, out.as_str(), err.as_str()), (1, expected.as_str(), ""));
}

#[test]
fn a_damaged_first_page_is_listed_like_any_other() {
    let (_home, path) = home();
    fill(&hardened(&path, "checksum=on"), 500, 400);
    // Also where it says that there are sums.
    for (byte, bit) in [(2000, 2), (20, 3), (20, 0)] {
        flip(&path, byte, bit);
        let (code, out, err) = run("verify", &path);
        assert_eq!(code, 1, "{byte}: {err}");
        assert!(
            out.starts_with("page 1 at byte 0: the checksum is wrong\n") && out.ends_with(", 1 damaged\n"),
            "{out}"
        );
        flip(&path, byte, bit);
    }
}

#[test]
fn other_reserved_bytes_are_refused() {
    let (_home, path) = home();
    let connection = stock(&path);
    support::sqlite::reserve_bytes(&connection, 12);
    fill(&connection, 100, 100);
    let expected = content(&connection);
    drop(connection);
    let (code, _, err) = run("on", &path);
    assert!(code == 1 && err.contains("it has 12 reserved bytes a page"), "{err}");
    assert_eq!(content(&stock(&path)), expected);
}

#[test]
fn a_database_in_use_is_refused_and_not_changed() {
    let (_home, path) = home();
    fill(&hardened(&path, ""), 100, 100);
    let other = stock(&path);
    content(&other);
    other.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    let before = std::fs::read(&path).unwrap();
    let (code, _, err) = run("on", &path);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("another connection has it open") && err.contains(path.to_str().unwrap()), "{err}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn what_cannot_be_done_is_said() {
    let (home, path) = home();
    let (code, _, err) = run("verify", &home.path().join("none.db"));
    assert_eq!(code, 3, "{err}");
    fill(&hardened(&path, ""), 10, 10);
    let (code, _, err) = run("verify", &path);
    assert!(code == 1 && err.contains("has no checksums to verify"), "{err}");
    let (code, out, _) = run("off", &path);
    assert!(code == 0 && out.contains("has no checksums"), "{out}");
}
