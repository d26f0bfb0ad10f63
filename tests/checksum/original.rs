//! SQLite's own checksum VFS, compiled from its public source, to compare with.
//!
//! Invariant: nothing of it is kept in this repository. The source is `HARDENED_CKSUMVFS=/path/to/cksumvfs.c`, or what
//! `.ci/cksumvfs` has fetched with apt; a test that needs it and finds neither says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rusqlite::Connection;

/// Loads it into this process as the VFS `cksmvfs`, over the VFS `unix`, once. False, with a loud line, if it cannot be had.
pub(crate) fn load() -> bool {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    match LOADED.get_or_init(|| {
        build().map(|library| {
            support::sqlite::load_vfs(&library, c"sqlite3_cksumvfs_init");
            let _ = std::fs::remove_file(library);
        })
    }) {
        Ok(()) => true,
        Err(why) => support::require::unavailable(&format!("the source of SQLite's checksum VFS: {why}")),
    }
}

fn source() -> Result<PathBuf, String> {
    let given = std::env::var_os("HARDENED_CKSUMVFS").map(PathBuf::from);
    let cache = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/hardened-cksumvfs/cksumvfs.c"));
    for path in [given, cache].into_iter().flatten() {
        if path.is_file() {
            return Ok(path);
        }
    }
    // A machine that was not prepared: apt may still be able to.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/cksumvfs");
    let output = Command::new(&script).output().map_err(|error| format!("{}: {error}", script.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && Path::new(&text).is_file() {
        return Ok(text.into());
    }
    Err(format!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// The headers of the very SQLite that this test is linked with.
fn headers() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        // Of this platform: packages for others need not be on this machine.
        .args(["metadata", "--format-version=1", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| error.to_string())?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let package = packages.iter().find(|package| package["name"] == "libsqlite3-sys").ok_or("no libsqlite3-sys")?;
    let manifest = Path::new(package["manifest_path"].as_str().ok_or("no manifest")?);
    Ok(manifest.with_file_name("sqlite3"))
}

fn build() -> Result<PathBuf, String> {
    let source = source()?;
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cksumvfs-{}.so", std::process::id()));
    let output = Command::new("cc")
        .args(["-O2", "-fPIC", "-shared", "-I"])
        .arg(headers()?)
        .arg(&source)
        .arg("-o")
        .arg(&library)
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if !output.status.success() {
        return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(library)
}

/// A connection on a database through it.
pub(crate) fn open(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), c"cksmvfs").unwrap()
}

/// Asks for 8 reserved bytes, as its documentation says.
pub(crate) fn reserve(connection: &Connection) {
    support::sqlite::reserve_bytes(connection, 8);
}
