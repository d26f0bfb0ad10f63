//! Promises 1 and 2 on real NFS and SMB: writers on two clients at once, some of them killed, lose no row. Real, because
//! they run in the emulated guest of tests/netlab, with the kernel's own clients and two servers.
//!
//! One boot for all mounts. `HARDENED_NETWRITERS_MINUTES=10` is the long form: two clients, kills all the time, and a server
//! that is away for a while in the middle. Each of its settings can be made alone, in either form, with a name that begins
//! with `HARDENED_NETWRITERS_`: `SECONDS`, how long the writers write; `KILLS`, how often each client loses a writer in that
//! time; `RESTART`, the mounts whose server goes away; `AWAY`, for how many seconds at least; `MOUNTS`; `SEED`. With
//! `HARDENED_NETWRITERS_STOCK=whole` stock SQLite gets the same (tests/gluster/writers).
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;
#[path = "netwriters/away.rs"]
mod away;
#[path = "netwriters/conductor.rs"]
mod conductor;
#[path = "storm/processes.rs"]
mod processes;
#[path = "storm/verdict.rs"]
mod verdict;
#[path = "storm/workload.rs"]
mod workload;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rusqlite::Connection;
use support::{process, require};

const TEST: &str = "writers_on_two_clients_lose_nothing_and_outlive_those_that_are_killed";

/// Two clients, and one with several processes.
const MOUNTS: &str = "nfs3 nfs40 nfs42 nfs42-two cifs cifs-two";

/// Those of the long form, and those whose server goes away while all write.
const TWO: &str = "nfs42-two";

fn setting(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn open(path: &Path, vfs: &str) -> Connection {
    workload::open(&format!("file:{}?{vfs}", path.display())).unwrap()
}

#[test]
fn writers_on_two_clients_lose_nothing_and_outlive_those_that_are_killed() {
    if processes::is_writer() || conductor::is_conductor(TEST) || !require::netlab() {
        return;
    }
    let began = Instant::now();
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("settings");
    let seed = setting("HARDENED_NETWRITERS_SEED", "20251121");
    let minutes: u32 = setting("HARDENED_NETWRITERS_MINUTES", "0").parse().unwrap();
    let long = minutes > 0;
    let number = |name: &str, short: u32, otherwise: u32| -> u32 {
        let otherwise = if long { otherwise } else { short };
        setting(&format!("HARDENED_NETWRITERS_{name}"), &otherwise.to_string()).parse().unwrap()
    };
    let (seconds, kills, away) =
        (number("SECONDS", 2, 60 * minutes), number("KILLS", 1, minutes), number("AWAY", 0, 20));
    let mounts = setting("HARDENED_NETWRITERS_MOUNTS", if long { TWO } else { MOUNTS });
    let mounts: Vec<&str> = mounts.split(' ').collect();
    let restart = setting("HARDENED_NETWRITERS_RESTART", TWO);
    let exports = format!(
        "export HARDENED_NETWRITERS_TEST={TEST} HARDENED_NETWRITERS_SEED={seed} HARDENED_NETWRITERS_SECONDS={seconds} \
         HARDENED_NETWRITERS_KILLS={kills} HARDENED_NETWRITERS_AWAY={away} HARDENED_NETWRITERS_RESTART='{restart}'\n"
    );
    std::fs::write(&settings, exports).unwrap();
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netlab");
    let output = Command::new(lab.join("run"))
        .args(["-t", &(300 + 4 * seconds + 60 * kills).to_string(), "-f"])
        .arg(process::copy_of_this_program(home.path(), "writer"))
        .arg("-f")
        .arg(settings)
        .arg(lab.join("writers"))
        .args(&mounts)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "seed {seed}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for mount in mounts {
        let told: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{mount}, "))).collect();
        println!("{}", told.join("\n"));
        assert!(told.iter().any(|line| line.contains(conductor::DONE)), "{mount}: {text}");
        let alone = format!("{mount}, stock, one connection: ");
        let alone = told.iter().find_map(|line| line.strip_prefix(&alone)).unwrap_or("nothing");
        // What hardened is for: an SMB mount with default options.
        let wanted = if mount.starts_with("cifs") { conductor::LOCKED } else { conductor::WRITES };
        assert_eq!(alone, wanted, "{mount}: {text}");
    }
    println!("seed {seed}, {:.0} s", began.elapsed().as_secs_f64());
}
