//! From a path to a verdict, in bounded time.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Verdict;

/// A filesystem that did not answer in time.
#[derive(Clone, Debug)]
pub struct NoAnswer {
    /// What is known about it without asking it.
    pub verdict: Verdict,
    /// How long it was given.
    pub waited: Duration,
}

/// Why there is no verdict.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The server or daemon behind the mount did not answer in time.
    NoAnswer(Box<NoAnswer>),
    /// The path cannot be followed.
    Io {
        /// How far it could be followed.
        at: PathBuf,
        /// What stopped it.
        error: io::Error,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NoAnswer(no) => {
                write!(f, "{} did not answer within {} s", no.verdict.filesystem, no.waited.as_secs_f64())?;
                match &no.verdict.mount_point {
                    Some(point) => write!(f, " (mounted at {})", point.display()),
                    None => Ok(()),
                }
            }
            Problem::Io { at, error } => write!(f, "{}: {error}", at.display()),
        }
    }
}

impl std::error::Error for Problem {}

/// Where a database is, and what that means.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) verdict: Arc<Verdict>,
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{before_open, known_local, known_magic, last_verdict, place, verdict_on};

#[cfg(not(target_os = "linux"))]
pub(crate) fn known_local(_: &Path) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn before_open(_: &Path, _: Duration) -> Result<(), Problem> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn place(_: &Path, _: Duration) -> Result<Place, Problem> {
    let reason = "this system has no probe for filesystems; say `fs=local` if it is a local disk";
    Ok(Place { verdict: Arc::new(Verdict::unknown(reason)) })
}

/// The verdict on a database at `path`, which need not exist yet: then its nearest existing ancestor counts.
///
/// `limit` bounds the time a server may take to answer.
///
/// ```
/// let verdict = hardened_vfs::fs::classify("/".as_ref(), std::time::Duration::from_secs(10))?;
/// println!("{verdict}");
/// # Ok::<(), hardened_vfs::fs::Problem>(())
/// ```
///
/// # Errors
/// [`Problem`] if the path cannot be followed or a filesystem on it does not answer.
pub fn classify(path: &Path, limit: Duration) -> Result<Verdict, Problem> {
    place(path, limit).map(|place| (*place.verdict).clone())
}

/// Whether the filesystem of a database that this thread opens next answers within `limit`.
///
/// # Errors
/// As [`classify`].
#[doc(hidden)]
pub fn answers(path: &Path, limit: Duration) -> Result<(), Problem> {
    if known_local(path) { Ok(()) } else { before_open(path, limit) }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;
    use std::time::Instant;

    use rustix::fs::AtFlags;

    use super::super::cache::{self, Directory, MountKey};
    use super::super::first_look::{self, FirstLook};
    use super::super::listing::Listing;
    use super::super::probe::{self, Found, Seen, Sources};
    use super::super::walk::{Stop, Walk};
    use super::super::{Class, Facts, MountFacts, Source, decide, lane, sync_folder};
    use super::*;

    /// A layer over a layer over a layer is somebody's mistake.
    const MOST_LAYERS: u32 = 4;

    /// Whether the directory of `path` was last seen on a local filesystem, so that touching it cannot hang.
    pub(crate) fn known_local(path: &Path) -> bool {
        path.parent().and_then(cache::directory).is_some_and(|directory| directory.touchable)
    }

    /// Judges `path`; two system calls when its directory is known and still on the same mount.
    pub(crate) fn place(path: &Path, limit: Duration) -> Result<Place, Problem> {
        let deadline = Instant::now() + limit;
        if let Some(place) = again(path, deadline) {
            return Ok(place);
        }
        let mut search = Search { deadline, limit, sources: probe::ALL, mounts: BTreeMap::new() };
        match search.at_once(path) {
            Some((place, _)) => Ok(place),
            None => search.place(path),
        }
    }

    /// The same before the file is opened by this thread: what is seen of it is kept for that.
    pub(crate) fn before_open(path: &Path, limit: Duration) -> Result<(), Problem> {
        let deadline = Instant::now() + limit;
        let mut search = Search { deadline, limit, sources: probe::ALL, mounts: BTreeMap::new() };
        match search.at_once(path) {
            Some((_, look)) => first_look::keep(look),
            None => drop(place(path, limit)?),
        }
        Ok(())
    }

    /// The verdict on an open file by what is known of the directory of its name. One that is on the same mount, and not itself the
    /// root of that, lies in a directory which is there, too.
    pub(crate) fn verdict_on(path: &Path, found: &Found) -> Option<Arc<Verdict>> {
        let known = path.parent().filter(|_| path.is_absolute()).and_then(cache::directory)?;
        let same = found.is_mounted == Some(false) && found.seen.mount == known.mount;
        same.then_some(known.verdict)
    }

    /// The verdict on what was in that directory last time.
    pub(crate) fn last_verdict(path: &Path) -> Option<Arc<Verdict>> {
        path.parent().filter(|_| path.is_absolute()).and_then(cache::directory).map(|known| known.verdict)
    }

    /// The magic number of the filesystem that is mounted there, if it is known already and on a list.
    pub(crate) fn known_magic(mount: MountKey) -> Option<u64> {
        let magic = cache::mount(mount)?.magic?;
        super::super::class_of(magic).map(|_| magic)
    }

    /// The same directory on the same mount as last time.
    fn again(path: &Path, deadline: Instant) -> Option<Place> {
        let parent = path.parent().filter(|_| path.is_absolute())?;
        let known = cache::directory(parent)?;
        let look = {
            let (parent, path) = (parent.to_owned(), path.to_owned());
            move || (probe::see_path(&parent), probe::see_name(&path))
        };
        let (directory, file) = if known.touchable { look() } else { lane::run(known.mount, deadline, look)? };
        if directory.ok()?.mount != known.mount {
            return None;
        }
        match file {
            Ok(seen) if seen.mount == known.mount && seen.kind != rustix::fs::FileType::Symlink => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return None,
        }
        Some(Place { verdict: known.verdict })
    }

    /// One classification under way.
    pub(super) struct Search {
        pub(super) deadline: Instant,
        pub(super) limit: Duration,
        pub(super) sources: Sources,
        pub(super) mounts: BTreeMap<MountKey, Arc<MountFacts>>,
    }

    impl Search {
        pub(super) fn place(mut self, path: &Path) -> Result<Place, Problem> {
            let walk = self.walk(path)?;
            let (fd, seen, directory) = walk.directory();
            let on_directory = self.facts(fd.as_fd(), seen.mount);
            let file = walk.on_file().then_some(walk.here);
            let own_mount = file.filter(|file| file.mount != seen.mount);

            let own_mount = own_mount.map(|file| (*self.facts(walk.at.as_fd(), file.mount)).clone());
            Ok(self.judge(directory, seen, &on_directory, own_mount, &mut Listing::default()))
        }

        /// What the mounts mean.
        fn judge(
            &mut self,
            directory: &Path,
            seen: Seen,
            on_directory: &MountFacts,
            own_mount: Option<MountFacts>,
            listing: &mut Listing,
        ) -> Place {
            let mut facts = Facts::of(on_directory.clone());
            facts.file = own_mount;
            // It knows no statmount.
            facts.wsl1 = on_directory.from != Source::Statmount && probe::is_wsl1();
            facts.under = self.under(on_directory, 0);
            if decide(&facts).wal {
                facts.sync_folder = self.sync_folder(directory, on_directory, listing);
            }

            let verdict = Arc::new(decide(&facts));
            if facts.file.is_none() {
                let touchable = touchable(on_directory);
                let known = Directory { mount: seen.mount, verdict: Arc::clone(&verdict), touchable };
                cache::remember_directory(directory, known);
            }
            Place { verdict }
        }

        /// The same for a file in a directory to which the kernel knows the way, on a mount that answers by itself: nothing on that
        /// way is walked.
        fn at_once(&mut self, path: &Path) -> Option<(Place, FirstLook)> {
            use std::path::Component::{Normal, RootDir};
            let plain = path.is_absolute() && path.components().all(|part| matches!(part, RootDir | Normal(_)));
            let (parent, name) = (path.parent().filter(|_| plain)?, path.file_name()?);
            let fd = probe::known_directory(parent)?;
            let directory =
                probe::look(fd.as_fd(), Path::new(""), AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC).ok()?;
            let facts = self.facts(fd.as_fd(), directory.seen.mount);
            if !touchable(&facts) {
                return None;
            }
            let file = match probe::look(fd.as_fd(), Path::new(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found)
                    if found.seen.mount == directory.seen.mount && found.seen.kind != rustix::fs::FileType::Symlink =>
                {
                    Some(found)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                _ => return None,
            };
            let mut listing = Listing::of(parent, directory.mode);
            let place = self.judge(parent, directory.seen, &facts, None, &mut listing);
            let (inside, directory) = (directory.identity, listing.into_directory());
            Some((place, FirstLook { path: path.to_owned(), since: Instant::now(), file, inside, directory }))
        }

        /// Walks to the end of `path`, or of what exists of it.
        fn walk(&mut self, path: &Path) -> Result<Walk, Problem> {
            let failed = |at: &Path, error| Problem::Io { at: at.to_owned(), error };
            let mut walk = Walk::begin(path, self.sources).map_err(|error| failed(path, error))?;
            let mut entered = true;
            loop {
                let mount = walk.here.mount;
                let facts = self.facts(walk.at.as_fd(), mount);
                let is_automount = facts.fs_type.as_deref() == Some("autofs");
                walk.automount = is_automount;
                let step = move || if is_automount && entered { walk.trigger() } else { walk.advance() };
                let (next, stop) = if touchable(&facts) {
                    step()
                } else {
                    lane::run(mount, self.deadline, step).ok_or_else(|| self.no_answer(&facts))?
                };
                walk = next;
                match stop {
                    Stop::Arrived | Stop::Missing => return Ok(walk),
                    Stop::Crossed => entered = true,
                    Stop::Failed(error) => return Err(failed(&walk.path, error)),
                }
            }
        }

        fn no_answer(&self, facts: &MountFacts) -> Problem {
            let verdict = decide(&Facts::of(facts.clone()));
            Problem::NoAnswer(Box::new(NoAnswer { verdict, waited: self.limit }))
        }

        /// The facts about a mount: remembered, asked without touching it, or at last from its magic number.
        fn facts(&mut self, fd: std::os::fd::BorrowedFd<'_>, key: MountKey) -> Arc<MountFacts> {
            let all = self.sources.unique_ids && self.sources.statmount;
            if let Some(facts) = self.mounts.get(&key) {
                return Arc::clone(facts);
            }
            if let Some(facts) = cache::mount(key).filter(|_| all) {
                return facts;
            }
            let facts = probe::facts(fd, key, self.sources);
            let complete = facts.is_some();
            let facts = facts.unwrap_or_else(|| self.magic(fd, key));
            let facts = Arc::new(facts);
            self.mounts.insert(key, Arc::clone(&facts));
            if all && complete {
                cache::remember_mount(key, &facts);
            }
            facts
        }

        fn magic(&self, fd: std::os::fd::BorrowedFd<'_>, key: MountKey) -> MountFacts {
            let Ok(fd) = fd.try_clone_to_owned() else { return MountFacts::nothing() };
            lane::run(key, self.deadline, move || probe::facts_by_magic(fd.as_fd())).unwrap_or_else(MountFacts::nothing)
        }

        /// The mount that a stacked filesystem keeps its files on, where its path means anything to us.
        fn under(&mut self, facts: &MountFacts, depth: u32) -> Option<MountFacts> {
            let path = match facts.fs_type.as_deref()? {
                "overlay" => facts.option("upperdir")?,
                "ecryptfs" | "shiftfs" => facts.source.as_deref()?,
                _ => return None,
            };
            if depth >= MOST_LAYERS || !path.starts_with('/') {
                return None;
            }
            let walk = self.walk(Path::new(path)).ok()?;
            // A path of another namespace may name nothing here; what exists of it would be a guess.
            if walk.path != Path::new(path) {
                return None;
            }
            let below = self.facts(walk.at.as_fd(), walk.here.mount);
            self.under(&below, depth + 1).or_else(|| Some((*below).clone()))
        }

        /// Looks for sync folders no further up than this mount: above it another server might be asked.
        fn sync_folder(
            &mut self,
            directory: &Path,
            facts: &MountFacts,
            listing: &mut Listing,
        ) -> Option<sync_folder::SyncFolder> {
            let top = facts.mount_point.clone().unwrap_or_else(|| directory.to_owned());
            let home = std::env::var_os("HOME").map(PathBuf::from);
            // Without links, as the directory is. A home on a server that does not answer would cost the whole limit, so
            // it is only looked at when it matters.
            let home = match home {
                Some(home) if !directory.starts_with(&home) && sync_folder::may_be_named(directory) => {
                    self.walk(&home).ok().map(|walk| walk.path)
                }
                home => home,
            };
            let listing = RefCell::new(listing);
            sync_folder::recognise(directory, home.as_deref(), |path| {
                path.starts_with(&top) && listing.borrow_mut().may_have(path) && std::fs::symlink_metadata(path).is_ok()
            })
        }
    }

    /// Whether the calling thread may touch this mount: nobody has to answer for it.
    fn touchable(facts: &MountFacts) -> bool {
        let plain = decide(&Facts::of(facts.clone()));
        plain.class == Class::Local && facts.fs_type.is_some()
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    mod tests {
        use super::*;

        fn with(sources: Sources) -> Arc<Verdict> {
            let limit = Duration::from_secs(10);
            let search = Search { deadline: Instant::now() + limit, limit, sources, mounts: BTreeMap::new() };
            search.place(Path::new("/proc/self/../../dev/shm/none.db")).unwrap().verdict
        }

        #[test]
        fn each_source_alone_finds_the_same_filesystem() {
            let all = with(probe::ALL);
            let table = with(Sources { statmount: false, ..probe::ALL });
            let old_ids = with(Sources { unique_ids: false, ..probe::ALL });
            let none = with(Sources { unique_ids: false, statmount: false, mount_table: false });
            assert_eq!((all.filesystem.as_str(), all.class), ("tmpfs", Class::Local));
            assert_eq!((table.filesystem.as_str(), table.from), ("tmpfs", super::super::super::Source::MountTable));
            assert_eq!((old_ids.filesystem.as_str(), old_ids.from), ("tmpfs", super::super::super::Source::MountTable));
            assert_eq!((none.filesystem.as_str(), none.from), ("tmpfs", super::super::super::Source::Statfs));
        }
    }
}
