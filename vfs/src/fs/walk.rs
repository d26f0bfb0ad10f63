//! Follows a path as the kernel would, one component at a time, and stops wherever it enters another mount.
//!
//! Stopping there lets the caller look at the new mount before anything on it is touched, and choose the thread that
//! goes on. Nothing but O_PATH descriptors is opened: closing them drops no lock.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::probe::{self, Seen, Sources};

/// As many symbolic links as Linux follows.
const MOST_LINKS: u32 = 40;

#[derive(Debug)]
enum Next {
    Root,
    Up,
    Name(OsString),
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    sources: Sources,
    /// What is still to be walked, the next one last.
    rest: Vec<Next>,
    links: u32,
    /// Where we are, and its path without links.
    pub(super) at: OwnedFd,
    pub(super) here: Seen,
    pub(super) path: PathBuf,
    /// The directory that `at` was found in.
    parent: Option<(OwnedFd, Seen)>,
    /// An automount point opens only to those who want a directory.
    pub(super) automount: bool,
}

/// Why a walk stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// At the end of the path.
    Arrived,
    /// In the last directory that exists; the rest of the path does not.
    Missing,
    /// On the root of another mount.
    Crossed,
    /// On an error.
    Failed(io::Error),
}

impl Walk {
    pub(super) fn begin(path: &Path, sources: Sources) -> io::Result<Walk> {
        let at = probe::start(path.is_absolute())?;
        let here = probe::see(at.as_fd(), sources)?;
        let start = if path.is_absolute() { PathBuf::from("/") } else { std::env::current_dir()? };
        let mut walk =
            Walk { sources, rest: Vec::new(), links: 0, at, here, path: start, parent: None, automount: false };
        walk.push(path);
        // The root is where we begin.
        if matches!(walk.rest.last(), Some(Next::Root)) {
            walk.rest.pop();
        }
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        let mut steps: Vec<Next> = path
            .components()
            .filter_map(|component| match component {
                Component::RootDir => Some(Next::Root),
                Component::ParentDir => Some(Next::Up),
                Component::Normal(name) => Some(Next::Name(name.to_owned())),
                _ => None,
            })
            .collect();
        steps.reverse();
        self.rest.append(&mut steps);
    }

    /// Whether the walk stands on something that is not a directory.
    pub(super) fn on_file(&self) -> bool {
        self.here.kind != rustix::fs::FileType::Directory
    }

    /// The directory the end of the walk is in (or is), with its path.
    pub(super) fn directory(&self) -> (&OwnedFd, Seen, &Path) {
        match &self.parent {
            Some((fd, seen)) if self.on_file() => (fd, *seen, self.path.parent().unwrap_or(&self.path)),
            _ => (&self.at, self.here, &self.path),
        }
    }

    /// Goes on to the end of the path or into the next mount.
    pub(super) fn advance(mut self) -> (Walk, Stop) {
        loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(stop)) => return (self, stop),
                Err(error) => return (self, Stop::Failed(error)),
            }
        }
    }

    /// Knocks at an automount point: opens it again, as a directory, from where it was found.
    pub(super) fn trigger(mut self) -> (Walk, Stop) {
        let result = (|| {
            let name = self.path.file_name().map(OsString::from);
            if let (Some(name), Some((parent, _))) = (name, &self.parent) {
                let at = probe::open_path(parent.as_fd(), Path::new(&name), true)?;
                let here = probe::see(at.as_fd(), self.sources)?;
                if here.mount != self.here.mount {
                    (self.at, self.here) = (at, here);
                    return Ok(Stop::Crossed);
                }
            }
            Ok(Stop::Arrived)
        })();
        match result {
            Ok(Stop::Crossed) => (self, Stop::Crossed),
            Ok(_) => self.advance(),
            Err(error) => (self, Stop::Failed(error)),
        }
    }

    fn step(&mut self) -> io::Result<Option<Stop>> {
        let Some(next) = self.rest.pop() else { return Ok(Some(Stop::Arrived)) };
        let before = self.here.mount;
        match next {
            Next::Root => {
                self.at = probe::start(true)?;
                self.here = probe::see(self.at.as_fd(), self.sources)?;
                self.path = PathBuf::from("/");
                self.parent = None;
            }
            Next::Up => {
                let at = probe::open_path(self.at.as_fd(), Path::new(".."), true)?;
                self.here = probe::see(at.as_fd(), self.sources)?;
                self.at = at;
                self.path.pop();
                self.parent = None;
            }
            Next::Name(name) => {
                if self.on_file() {
                    return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
                }
                let fd = match self.open(&name) {
                    Ok(fd) => fd,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.rest.push(Next::Name(name));
                        return Ok(Some(Stop::Missing));
                    }
                    Err(error) => return Err(error),
                };
                let seen = probe::see(fd.as_fd(), self.sources)?;
                if seen.kind == rustix::fs::FileType::Symlink {
                    self.links += 1;
                    if self.links > MOST_LINKS {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                    self.push(Path::new(&OsString::from_vec(target.into_bytes())));
                    return Ok(None);
                }
                let from = std::mem::replace(&mut self.at, fd);
                self.parent = Some((from, std::mem::replace(&mut self.here, seen)));
                self.path.push(name);
            }
        }
        Ok((self.here.mount != before).then_some(Stop::Crossed))
    }

    fn open(&self, name: &OsString) -> io::Result<OwnedFd> {
        let name = Path::new(name);
        if self.automount {
            match probe::open_path(self.at.as_fd(), name, true) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {}
                other => return other,
            }
        }
        probe::open_path(self.at.as_fd(), name, false)
    }
}
