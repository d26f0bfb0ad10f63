//! `hardened recover`.

use std::process::{Command, Output};

use super::*;

fn run(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hardened")).arg("recover").args(arguments).arg(path).output().unwrap()
}

#[test]
fn the_command_tells_what_it_has_saved() {
    let place = Place::damaged();
    let output = run(&["--keep-corrupt", "3"], &place.path);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("a part of the table was not found"), "{said}");
    assert!(said.contains("the damaged one is kept as"), "{said}");
    let output = run(&["--json"], &place.path);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["outcome"], "intact");
}

#[test]
fn the_command_fails_where_nothing_can_be_saved_and_where_nothing_is() {
    let place = Place::new();
    std::fs::write(&place.path, b"something else, and much too short").unwrap();
    let before = place.files();
    assert_eq!(run(&[], &place.path).status.code(), Some(1));
    assert_eq!(place.files(), before);
    assert_eq!(run(&[], &place.home.path().join("nothing")).status.code(), Some(3));
}
