//! Promise 7 on real NFS: how many requests a transaction makes, stock against hardened, as the kernel's own client counts
//! them, in the emulated guest of tests/netlab. `cargo test --test netrequests -- --nocapture` prints the tables.
//!
//! One boot for all mounts, which `HARDENED_NETREQUESTS_MOUNTS` names if set; `HARDENED_NETREQUESTS_ROUNDS` sets how many
//! rounds of five commits each side has to show its speed (4 unless set).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;
#[path = "netrequests/counted.rs"]
mod counted;
#[path = "requests/works.rs"]
mod works;

use std::path::Path;
use std::process::Command;

use support::{process, require};

const MOUNTS: &str = "nfs3 nfs40 nfs42";

#[test]
fn a_transaction_makes_no_more_requests_than_stock_on_nfs() {
    if counted::in_the_guest() || !require::netlab() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mounts = std::env::var("HARDENED_NETREQUESTS_MOUNTS").unwrap_or_else(|_| MOUNTS.to_owned());
    let rounds = std::env::var("HARDENED_NETREQUESTS_ROUNDS").unwrap_or_else(|_| "4".to_owned());
    let settings = home.path().join("settings");
    std::fs::write(&settings, format!("export HARDENED_NETREQUESTS_ROUNDS={rounds}\n")).unwrap();
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netlab");
    let output = Command::new(lab.join("run"))
        .args(["-t", "600", "-f"])
        .arg(process::copy_of_this_program(home.path(), "counter"))
        .arg("-f")
        .arg(settings)
        .arg(lab.join("requests"))
        .args(mounts.split(' '))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    println!("{}", table.join("\n"));
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for mount in mounts.split(' ') {
        assert!(table.iter().any(|line| line.starts_with(&format!("| {mount}, "))), "{mount}: {text}");
    }
}
