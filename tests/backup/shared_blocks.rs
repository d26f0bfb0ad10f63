//! Filesystems that share blocks between files.

use std::process::Command;

use support::{mounts, require};

use super::*;

/// How many bytes of a file the filesystem shares with others, as filefrag says.
fn shared(path: &Path) -> u64 {
    let output = Command::new(require::find_program("filefrag").unwrap()).arg("-v").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let extents = text.lines().filter(|line| line.contains("shared"));
    let length = |line: &str| line.split(':').nth(3)?.trim().parse::<u64>().ok();
    extents.filter_map(length).sum::<u64>() * 4096
}

#[test]
fn where_the_filesystem_shares_blocks_the_backup_shares_them_and_stays_what_it_is() {
    if !require::loop_devices() || !require::program("filefrag") {
        return;
    }
    for kind in ["btrfs", "xfs"] {
        if !require::program(&format!("mkfs.{kind}")) {
            continue;
        }
        let disk = mounts::loop_fs(kind, 400 << 20).unwrap();
        for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
            let path = disk.path().join(format!("{policy:?}.db"));
            let connection = Options::new().policy(policy).open_connection(&path).unwrap();
            fill(&connection, 20_000);
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            add(&connection);
            let to = disk.path().join("a");
            let report = backup(&connection, &to).unwrap();
            assert_eq!(report.method, Method::Reflink, "{kind}");
            assert_eq!(rows(&to), 20_001);
            assert!(shared(&to) > report.bytes / 2, "{kind}: {} of {} bytes are shared", shared(&to), report.bytes);
            connection.execute_batch("UPDATE t SET x = 'changed'").unwrap();
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            let backed = stock(&to);
            assert_eq!(text(&backed, "SELECT count(*) FROM t WHERE x = 'changed'"), "0");
            assert_eq!(text(&backed, "PRAGMA integrity_check"), "ok");
        }
    }
}
