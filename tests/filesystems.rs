//! Promise 1 on real mounts: the right verdict and mode, and rows written and read back by two processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hardened_sqlite::{Options, open_connection, report};
use support::fuse;
use support::{mounts, require};
use tempfile::TempDir;

const HARDENED: &str = env!("CARGO_BIN_EXE_hardened");

fn sql(database: &Path, script: &str) -> Child {
    Command::new(HARDENED)
        .args(["sql", "--busy-timeout", "60000"])
        .arg(database)
        .arg(script)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn last_word(text: &str) -> &str {
    text.split_whitespace().last().unwrap_or_default()
}

/// Two processes write at the same time; every acknowledged row is there, and the database is whole.
fn two_processes_share(database: &Path) {
    output(sql(database, "CREATE TABLE t(who, n)"));
    let script = |who: &str| (0..25).map(|n| format!("INSERT INTO t VALUES ('{who}', {n});")).collect::<String>();
    let (a, b) = (sql(database, &script("a")), sql(database, &script("b")));
    output(a);
    output(b);
    assert_eq!(last_word(&output(sql(database, "SELECT count(*) FROM t"))), "50");
    assert_eq!(last_word(&output(sql(database, "SELECT count(DISTINCT who || n) FROM t"))), "50");
    assert_eq!(last_word(&output(sql(database, "PRAGMA integrity_check"))), "ok");
}

/// Verdict, mode and sharing of a database in `directory`.
fn expect(directory: &Path, filesystem: &str, class: &str, mode: &str) {
    let path = directory.join("app.db");
    let connection = open_connection(&path).unwrap();
    let report = report(&connection).unwrap();
    let synchronous = if mode == "wal" { "NORMAL" } else { "FULL" };
    assert_eq!((report.verdict.filesystem.as_str(), report.verdict.class.as_str()), (filesystem, class), "{report}");
    assert_eq!(
        (report.journal_mode.as_deref(), report.synchronous.as_deref()),
        (Some(mode), Some(synchronous)),
        "{report}"
    );
    drop(connection);
    two_processes_share(&path);
}

#[test]
fn local_disk_filesystems_get_wal() {
    if !require::loop_devices() {
        return;
    }
    for (kind, mebibytes) in [("ext4", 32), ("xfs", 320), ("btrfs", 128)] {
        if !require::program(&format!("mkfs.{kind}")) {
            continue;
        }
        let mount = mounts::loop_fs(kind, mebibytes << 20).unwrap();
        expect(mount.path(), kind, "local", "wal");
    }
}

#[test]
fn tmpfs_gets_wal() {
    if !require::root() {
        return;
    }
    let mount = mounts::tmpfs().unwrap();
    expect(mount.path(), "tmpfs", "local", "wal");
}

#[test]
fn an_overlay_over_local_layers_gets_wal() {
    if !require::root() {
        return;
    }
    let disk = mounts::tmpfs().unwrap();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| disk.path().join(name));
    for directory in [&lower, &upper, &work] {
        std::fs::create_dir(directory).unwrap();
    }
    let overlay = mounts::overlay(&lower, &upper, &work).unwrap();
    expect(overlay.path(), "overlay", "local", "wal");
}

#[test]
fn a_bind_mount_has_the_verdict_of_what_is_bound() {
    if !require::root_and_fuse() {
        return;
    }
    let disk = mounts::tmpfs().unwrap();
    let (onto, fuse_onto, backing) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let bound = mounts::bind(disk.path(), onto.path()).unwrap();
    expect(bound.path(), "tmpfs", "local", "wal");

    let point = TempDir::new().unwrap();
    let mount = fuse::Mount::new(fuse::Options::new(backing.path()), point.path()).unwrap();
    let bound = mounts::bind(mount.path(), fuse_onto.path()).unwrap();
    expect(bound.path(), "fuse", "fuse", "delete");
}

#[test]
fn a_database_file_that_is_a_mount_of_its_own_is_not_wal() {
    if !require::root() {
        return;
    }
    let (disk, other) = (mounts::tmpfs().unwrap(), TempDir::new().unwrap());
    let original = disk.path().join("host.db");
    output(sql(&original, "CREATE TABLE before(x)"));
    let path = other.path().join("container.db");
    std::fs::write(&path, "").unwrap();
    let _bound = mounts::bind_file(&original, &path).unwrap();
    let connection = open_connection(&path).unwrap();
    let report = report(&connection).unwrap();
    assert_eq!(report.journal_mode.as_deref(), Some("delete"), "{report}");
    assert!(report.reason.contains("mount of its own"), "{report}");
    assert!(!report.verdict.warnings.is_empty());
}

#[test]
fn fuse_of_any_subtype_gets_delete_and_full() {
    if !require::root_and_fuse() {
        return;
    }
    for (subtype, name, class) in [
        (None, "fuse", "fuse"),
        (Some("sshfs"), "fuse.sshfs", "fuse"),
        (Some("never-heard-of"), "fuse.never-heard-of", "fuse"),
        (Some("ext4"), "fuse.ext4", "fuse"),
        (Some("grpcfuse"), "fuse.grpcfuse", "vm-shared"),
        (Some("glusterfs"), "fuse.glusterfs", "cluster"),
    ] {
        let (backing, point) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let options = fuse::Options::new(backing.path());
        let options = match subtype {
            Some(subtype) => options.subtype(subtype),
            None => options,
        };
        let mount = fuse::Mount::new(options, point.path()).unwrap();
        expect(mount.path(), name, class, "delete");
    }
}

/// A FUSE daemon from the distribution, unmounted when dropped.
struct Daemon(PathBuf);

impl Daemon {
    fn start(command: &mut Command, point: &Path) -> Daemon {
        let output = command.arg(point).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Daemon(point.to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn bindfs_gets_delete_and_full() {
    if !require::root_and_fuse() || !require::program("bindfs") {
        return;
    }
    let (backing, point) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let _daemon = Daemon::start(Command::new("bindfs").arg(backing.path()), point.path());
    expect(point.path(), "fuse", "fuse", "delete");
}

#[test]
fn mergerfs_without_page_cache_gets_delete_and_full_where_stock_bricks_the_database() {
    if !require::root_and_fuse() || !require::program("mergerfs") {
        return;
    }
    let (backing, point) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let _daemon =
        Daemon::start(Command::new("mergerfs").args(["-o", "cache.files=off"]).arg(backing.path()), point.path());
    expect(point.path(), "fuse.mergerfs", "fuse", "delete");

    let stock = rusqlite::Connection::open(point.path().join("stock.db")).unwrap();
    stock.execute_batch("CREATE TABLE t(x)").unwrap();
    let _ = stock.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()));
    assert!(stock.execute_batch("SELECT * FROM t").is_err(), "stock stamps page 1 and cannot read it any more");
    drop(stock);
    // And a hardened open brings it back.
    let rescued = open_connection(point.path().join("stock.db")).unwrap();
    rescued.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(report(&rescued).unwrap().journal_mode.as_deref(), Some("delete"));
}

#[test]
fn sshfs_gets_delete_and_full() {
    let sftp_server = Path::new("/usr/lib/openssh/sftp-server");
    if !require::root_and_fuse() || !require::program("sshfs") {
        return;
    }
    if !sftp_server.exists() {
        require::unavailable("openssh's sftp-server");
        return;
    }
    // sshfs speaks to whatever its ssh command starts: here the server itself, without a network between.
    let (backing, point, bin) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let ssh = bin.path().join("ssh");
    std::fs::write(&ssh, format!("#!/bin/sh\nexec {}\n", sftp_server.display())).unwrap();
    std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("sshfs");
    command.arg("-o").arg(format!("ssh_command={}", ssh.display()));
    command.arg(format!("here:{}", backing.path().display()));
    let _daemon = Daemon::start(&mut command, point.path());
    expect(point.path(), "fuse.sshfs", "fuse", "delete");
}

#[test]
fn a_mount_over_a_known_directory_is_noticed_at_the_next_open() {
    if !require::root_and_fuse() {
        return;
    }
    let (directory, backing) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = directory.path().join("app.db");
    let mode = || report(&open_connection(&path).unwrap()).unwrap().journal_mode.unwrap();
    assert_eq!(mode(), "wal");
    let mount = fuse::Mount::new(fuse::Options::new(backing.path()), directory.path()).unwrap();
    assert_eq!(mode(), "delete");
    drop(mount);
    assert_eq!(mode(), "wal");
}

#[test]
fn a_link_to_another_filesystem_counts_by_where_it_leads() {
    if !require::root_and_fuse() {
        return;
    }
    let (near, backing, point) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let mount = fuse::Mount::new(fuse::Options::new(backing.path()), point.path()).unwrap();
    let mode = |path: &Path| report(&open_connection(path).unwrap()).unwrap().journal_mode.unwrap();

    let link = near.path().join("link.db");
    std::os::unix::fs::symlink(mount.path().join("far.db"), &link).unwrap();
    std::fs::write(mount.path().join("far.db"), "").unwrap();
    assert_eq!(mode(&link), "delete");
    std::os::unix::fs::symlink(mount.path(), near.path().join("directory")).unwrap();
    assert_eq!(mode(&near.path().join("directory/other.db")), "delete");
    std::os::unix::fs::symlink(near.path(), mount.path().join("home")).unwrap();
    assert_eq!(mode(&mount.path().join("home/near.db")), "wal");
}

#[test]
fn a_filesystem_that_does_not_answer_costs_its_time_limit_and_one_thread() {
    if !require::root_and_fuse() {
        return;
    }
    let (near, backing, point) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let mount = fuse::Mount::new(fuse::Options::new(backing.path()).subtype("dead"), point.path()).unwrap();
    let path = mount.path().join("deep/down/app.db");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let hold = mount.hold(fuse::Hold::All);

    let options = Options::new().fs_timeout(Duration::from_millis(200));
    // The limit of an option in the URI cannot be seen while SQLite makes the path absolute, so the first answer takes
    // the registration's limit; give that one as well.
    hardened_sqlite::hardened_vfs::register_as("hardened-hasty", "fs_timeout=200".parse().unwrap()).unwrap();
    let hasty = |path: &Path| {
        rusqlite::Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), "hardened-hasty")
    };
    for _ in 0..10 {
        let began = Instant::now();
        let error = hasty(&path).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5), "bounded: {:?}", began.elapsed());
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen), "{error}");
    }
    let refusal = hardened_sqlite::hardened_vfs::last_refusal().unwrap();
    assert!(refusal.reason.contains("fuse.dead") && refusal.reason.contains("did not answer"), "{refusal}");
    assert!(threads() <= before + 1, "one thread for the dead server: {} then {}", before, threads());

    // Databases elsewhere are not held up by it.
    let local = options.open_connection(near.path().join("app.db")).unwrap();
    assert_eq!(report(&local).unwrap().journal_mode.as_deref(), Some("wal"));
    let doctor = Command::new(HARDENED).args(["doctor", "--fs-timeout", "200"]).arg(&path).output().unwrap();
    assert_eq!(doctor.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("did not answer"), "{doctor:?}");

    hold.release();
    let connection = hasty(&path).unwrap();
    assert_eq!(report(&connection).unwrap().journal_mode.as_deref(), Some("delete"));
}
