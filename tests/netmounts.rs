//! Promise 1 on real kernel NFS, SMB and 9p: an emulated guest with its own kernel, clients and servers (tests/netlab).
//!
//! One boot for all mounts. `tests/netlab/right-mode` is what runs on each; its lines are the assertions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::Command;

use support::require;

/// Every kind of mount that the lab has, with the number of expectations that its run must have met at least.
const MOUNTS: [&str; 16] = [
    "ext4",
    "tmpfs",
    "nfs3",
    "nfs3-nolock",
    "nfs3-local-lock",
    "nfs3-soft",
    "nfs40",
    "nfs42",
    "nfs42-local-lock",
    "nfs42-two",
    "nfs42-hung",
    "cifs",
    "cifs-nobrl",
    "cifs-two",
    "9p",
    "autofs",
];

#[test]
fn nfs_smb_and_9p_get_the_right_mode_and_serve_two_processes() {
    if !require::netlab() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lab = root.join("tests/netlab");
    let output = Command::new(lab.join("run"))
        .args(["-t", "300"])
        .args(["-f", env!("CARGO_BIN_EXE_hardened")])
        .arg("-f")
        .arg(support::extension::build(root))
        .arg(lab.join("right-mode"))
        .args(MOUNTS)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    let failed = lines("FAIL ");
    assert!(output.status.success() && failed.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for mount in MOUNTS {
        let met = lines(&format!("ok   {mount}: ")).len();
        assert!(met >= 12, "{mount}: only {met} expectations were met\n{text}");
    }
    println!("{} expectations met on {} mounts", lines("ok   ").len(), MOUNTS.len());
}
