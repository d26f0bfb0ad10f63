//! Real mounts for tests, as root: disk images, tmpfs, overlays and bind mounts.
//!
//! Invariant: a [`Mounted`] is unmounted when it is dropped, lazily if files on it are still open.

use crate::detach::MountPoint;
use crate::require;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Something that is mounted until this is dropped.
#[derive(Debug)]
pub struct Mounted {
    at: MountPoint,
    dir: Option<TempDir>,
}

impl Mounted {
    fn new(at: PathBuf, dir: Option<TempDir>) -> io::Result<Self> {
        Ok(Self { at: MountPoint::new(at)?, dir })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// Makes this mount read-only, or writable again.
    pub fn read_only(&self, on: bool) -> io::Result<()> {
        let flags = if on { MountFlags::RDONLY } else { MountFlags::empty() };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match rustix::mount::mount_remount(self.path(), MountFlags::BIND | flags, c"") {
                // A child that another test has forked holds copies of our files until it execs.
                Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => std::thread::yield_now(),
                result => return result.map_err(|e| failed("remount", self.path(), e)),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.at.detach(UnmountFlags::empty()) {
            eprintln!("cannot unmount {}: {error}", self.path().display());
            // Removing the directory would empty what is mounted on it.
            self.dir.take().map(TempDir::keep);
        }
    }
}

fn failed(what: &str, at: &Path, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{what} at {}: {error}", at.display()))
}

fn mount(source: &str, at: &Path, kind: &str, options: &str) -> io::Result<()> {
    let data = CString::new(options)?;
    rustix::mount::mount(source, at, kind, MountFlags::empty(), Some(data.as_c_str()))
        .map_err(|e| failed(&format!("mount -t {kind} -o {options:?} {source}"), at, e))
}

/// Runs a program to its end; what it wrote to stderr becomes the error.
fn run(program: &str, args: &[&str], file: &Path, more: &[&Path]) -> io::Result<()> {
    let Some(path) = require::find_program(program) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no program {program}")));
    };
    let output = Command::new(path).args(args).arg(file).args(more).output()?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {args:?} {}: {}: {}", file.display(), output.status, stderr.trim())))
}

/// A directory of its own with an empty directory `mnt` to mount on.
fn room() -> io::Result<(TempDir, PathBuf)> {
    let dir = TempDir::with_prefix("hardened-mount-")?;
    let at = dir.path().canonicalize()?.join("mnt");
    std::fs::create_dir(&at)?;
    Ok((dir, at))
}

/// A new filesystem of a kind (`ext4`, `xfs`, `btrfs`) on a sparse image of `size` bytes. xfs wants
/// at least 300 MiB, btrfs about 110 MiB.
pub fn loop_fs(kind: &str, size: u64) -> io::Result<Mounted> {
    let (dir, at) = room()?;
    let image = dir.path().join("image");
    File::create(&image)?.set_len(size)?;
    // ext4 would ask before it formats a plain file.
    let args: &[&str] = if kind.starts_with("ext") { &["-q", "-F"] } else { &["-q"] };
    run(&format!("mkfs.{kind}"), args, &image, &[])?;
    run("mount", &["-t", kind, "-o", "loop"], &image, &[&at])?;
    Mounted::new(at, Some(dir))
}

/// A new filesystem of a kind on the first `size` bytes of the image `image`, which may be longer.
pub fn format(kind: &str, image: &Path, size: u64) -> io::Result<()> {
    let (kib, size) = (format!("{}k", size >> 10), size.to_string());
    match kind {
        "xfs" => run("mkfs.xfs", &["-q", "-d", &format!("size={size}")], image, &[]),
        "btrfs" => run("mkfs.btrfs", &["-q", "-b", &size], image, &[]),
        _ => run(&format!("mkfs.{kind}"), &["-q", "-F"], image, &[Path::new(&kib)]),
    }
}

/// A new ext filesystem on all of the image `image`, with options of mkfs.
pub fn format_with(kind: &str, image: &Path, options: &[&str]) -> io::Result<()> {
    run(&format!("mkfs.{kind}"), &[&["-q", "-F"], options].concat(), image, &[])
}

/// The filesystem on the image `image`. The image stays where it is.
pub fn loop_image(kind: &str, image: &Path) -> io::Result<Mounted> {
    let (dir, at) = room()?;
    run("mount", &["-t", kind, "-o", "loop"], image, &[&at])?;
    Mounted::new(at, Some(dir))
}

/// An empty tmpfs.
pub fn tmpfs() -> io::Result<Mounted> {
    tmpfs_with("")
}

/// An empty tmpfs with mount options, such as `size=1m`.
pub fn tmpfs_with(options: &str) -> io::Result<Mounted> {
    let (dir, at) = room()?;
    mount("tmpfs", &at, "tmpfs", options)?;
    Mounted::new(at, Some(dir))
}

/// An overlay of `upper` over `lower`. The three directories must exist, `upper` and `work` on one
/// filesystem that is not an overlay itself.
pub fn overlay(lower: &Path, upper: &Path, work: &Path) -> io::Result<Mounted> {
    let (dir, at) = room()?;
    let mut options = String::new();
    for (key, path) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        let path = path.canonicalize().map_err(|e| failed(key, path, e))?;
        let text = path.to_str().filter(|text| !text.contains([',', ':', '\\']));
        let odd = || failed(key, &path, io::Error::other("a path without , : and \\ is needed"));
        let comma = if options.is_empty() { "" } else { "," };
        options.push_str(&format!("{comma}{key}={}", text.ok_or_else(odd)?));
    }
    mount("overlay", &at, "overlay", &options)?;
    Mounted::new(at, Some(dir))
}

/// Shows the directory `dir` at the existing directory `onto` too.
pub fn bind(dir: &Path, onto: &Path) -> io::Result<Mounted> {
    let at = onto.canonicalize().map_err(|e| failed("bind target", onto, e))?;
    rustix::mount::mount_bind(dir, &at).map_err(|e| failed(&format!("mount --bind {}", dir.display()), &at, e))?;
    Mounted::new(at, None)
}

/// Shows the file `file` at the existing file `onto` too.
pub fn bind_file(file: &Path, onto: &Path) -> io::Result<Mounted> {
    for path in [file, onto] {
        if !path.metadata().map_err(|e| failed("bind mount", path, e))?.is_file() {
            return Err(failed("bind mount", path, io::Error::other("not a regular file")));
        }
    }
    bind(file, onto)
}
