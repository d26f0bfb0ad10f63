//! The names in a small directory, read at once: cheaper than to ask for each name that a program may have left there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::RawDir;

/// What is read at once; a directory with more than half of it is not small.
const BUFFER: usize = 8192;
const SMALL: usize = BUFFER / 2;
/// Of each name: inode, offset, length, type and a zero.
const BESIDE_NAME: usize = 20;

/// Of one directory at a time, of which the markers of sync folders are asked one after the other.
#[derive(Debug, Default)]
pub(super) struct Listing {
    of: PathBuf,
    names: Names,
    /// The first one, open.
    first: Option<File>,
}

#[derive(Debug, Default)]
enum Names {
    /// Each has to be asked for.
    #[default]
    Unknown,
    All(BTreeSet<Vec<u8>>),
}

impl Listing {
    /// Of a directory that has this mode.
    pub(super) fn of(directory: &Path, mode: u32) -> Listing {
        let mut listing = Listing { of: directory.to_owned(), ..Listing::default() };
        listing.first = listing.read(mode);
        listing
    }

    /// The directory that it was first of, open, if it may be read.
    pub(super) fn into_directory(self) -> Option<File> {
        self.first
    }

    /// Whether there may be a file of this name: in the directory `path.parent()`, or one further down of it.
    pub(super) fn may_have(&mut self, path: &Path) -> bool {
        let mut inside = path.strip_prefix(&self.of).ok();
        // A marker is one name, or a name in a directory that has the name of a marker.
        if inside.is_none() || self.of.as_os_str().is_empty() {
            let directory = root_of(path);
            (self.of, self.names) = (directory.to_owned(), Names::Unknown);
            // Of the root of all nothing is asked.
            let mode = match directory.parent() {
                Some(_) => std::fs::symlink_metadata(directory).ok().map(|found| found.mode()),
                None => Some(0),
            };
            if let Some(mode) = mode {
                let _closed = self.read(mode);
            }
            inside = path.strip_prefix(&self.of).ok();
        }
        let first = inside.and_then(|inside| inside.iter().next()).map(OsStr::as_bytes);
        match (&self.names, first) {
            (Names::All(names), Some(first)) => names.contains(first),
            _ => true,
        }
    }

    /// Reads the names, unless nobody keeps such a directory in step: the root of all, and those where anybody may make names, but
    /// only its owner removes a file.
    fn read(&mut self, mode: u32) -> Option<File> {
        let everybodys = libc::S_ISVTX | libc::S_IWOTH;
        let shared = mode & everybodys == everybodys || self.of.parent().is_none();
        if shared {
            self.names = Names::All(BTreeSet::new());
            return None;
        }
        let directory = File::open(&self.of).ok()?;
        if let Some(names) = names(&directory) {
            self.names = Names::All(names);
        }
        Some(directory)
    }
}

/// The directory whose marker this is.
fn root_of(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(path);
    match parent.file_name().map(OsStr::as_bytes) {
        Some(b".dropbox" | b".sync") => parent.parent().unwrap_or(parent),
        _ => parent,
    }
}

/// All names, if they are few. A local filesystem gives as many at once as there is room for.
fn names(directory: &File) -> Option<BTreeSet<Vec<u8>>> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(directory, &mut buffer);
    let (mut names, mut length) = (BTreeSet::new(), 0);
    loop {
        match entries.next() {
            None => return Some(names),
            Some(Err(_)) => return None,
            Some(Ok(entry)) => {
                let name = entry.file_name().to_bytes();
                length += (BESIDE_NAME + name.len()).next_multiple_of(8);
                names.insert(name.to_vec());
            }
        }
        if entries.is_buffer_empty() {
            return (length <= SMALL).then_some(names);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn may_have(directory: &Path, names: &[&str]) -> Vec<bool> {
        let mut listing = Listing::of(directory, 0o755);
        names.iter().map(|name| listing.may_have(&directory.join(name))).collect()
    }

    #[test]
    fn a_small_directory_tells_which_names_it_has() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(may_have(home.path(), &[".stfolder", ".sync/ID"]), [false, false]);
        for name in [".stfolder", ".sync"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        assert_eq!(may_have(home.path(), &[".stfolder", ".sync/ID", ".dropbox"]), [true, true, false]);
    }

    #[test]
    fn in_a_large_directory_and_in_one_that_cannot_be_read_each_name_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        for number in 0..300 {
            std::fs::write(home.path().join(format!("a-name-of-some-length-{number}")), "").unwrap();
        }
        assert_eq!(may_have(home.path(), &[".stfolder", ".sync/ID"]), [true, true]);
        assert_eq!(may_have(&home.path().join("none"), &[".stfolder"]), [true]);
    }

    #[test]
    fn one_directory_follows_another() {
        let home = tempfile::tempdir().unwrap();
        let (above, below) = (home.path().to_owned(), home.path().join("data"));
        std::fs::create_dir(&below).unwrap();
        std::fs::create_dir(above.join(".sync")).unwrap();
        let mut listing = Listing::of(&below, 0o755);
        let found = [below.join(".sync/ID"), above.join(".stfolder"), above.join(".sync/ID"), above.join(".dropbox")];
        assert_eq!(found.map(|path| listing.may_have(&path)), [false, false, true, false]);
        // The root of all is nobody's folder, nor is one that is everybody's.
        assert!(!listing.may_have(Path::new("/.stfolder")));
        assert!(!Listing::of(&above, 0o1777).may_have(&above.join(".sync")));
    }
}
