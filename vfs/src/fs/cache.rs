//! What is already known about mounts and directories.
//!
//! A mount id that the kernel never uses again (Linux 6.8) may be remembered for ever. Older ids are used again, so what
//! is known by them is forgotten when the mount table changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{MountFacts, Verdict};
use crate::lock::fork::{self, PerProcess};

/// Names a mount as well as this kernel can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MountKey {
    /// An id that is never used again.
    Unique(u64),
    /// An id that is, with the device it stood for.
    Reused(u64, u64),
    /// No id, only the device.
    Device(u64),
}

/// What is known about a directory, while it is on `mount`.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) mount: MountKey,
    /// The verdict on a file in it that is on the same mount.
    pub(super) verdict: Arc<Verdict>,
    /// Whether the mount is one that answers by itself, so that the calling thread may touch it.
    pub(super) touchable: bool,
}

/// More directories than an application has databases in; beyond that the oldest knowledge is simply asked for again.
const MOST: usize = 1024;

#[derive(Default)]
struct Known {
    mounts: BTreeMap<MountKey, Arc<MountFacts>>,
    directories: BTreeMap<PathBuf, Directory>,
    #[cfg(target_os = "linux")]
    watch: Option<watch::MountWatch>,
}

/// A forked child begins anew: it shares the watch and would take the parent's news.
static KNOWN: PerProcess<Known> = PerProcess::new(|_| Known::default());

fn with<T>(look: impl FnOnce(&mut Known) -> T) -> T {
    fork::watch();
    look(&mut KNOWN.lock())
}

/// Forgets what an id that may be used again was known for, if the mount table has changed or cannot be watched.
fn still_valid(known: &mut Known, key: MountKey) -> bool {
    match key {
        MountKey::Unique(_) => true,
        _ => {
            #[cfg(target_os = "linux")]
            if watch::unchanged(&mut known.watch) {
                return true;
            }
            known.mounts.clear();
            known.directories.clear();
            false
        }
    }
}

pub(super) fn mount(key: MountKey) -> Option<Arc<MountFacts>> {
    with(|known| if still_valid(known, key) { known.mounts.get(&key).cloned() } else { None })
}

pub(super) fn remember_mount(key: MountKey, facts: &Arc<MountFacts>) {
    with(|known| {
        if known.mounts.len() >= MOST {
            known.mounts.clear();
        }
        known.mounts.insert(key, Arc::clone(facts));
    });
}

/// What was last known about the directory of this name. It holds as long as the directory is on the same mount.
pub(super) fn directory(path: &Path) -> Option<Directory> {
    with(|known| {
        let mount = known.directories.get(path)?.mount;
        if still_valid(known, mount) { known.directories.get(path).cloned() } else { None }
    })
}

pub(super) fn remember_directory(path: &Path, directory: Directory) {
    with(|known| {
        if known.directories.len() >= MOST {
            known.directories.clear();
        }
        known.directories.insert(path.to_owned(), directory);
    });
}

#[cfg(target_os = "linux")]
mod watch {
    //! Tells whether the mount table has changed: poll(2) on it reports an exceptional condition once per change.

    use std::fs::File;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    pub(super) struct MountWatch(File);

    pub(super) fn unchanged(watch: &mut Option<MountWatch>) -> bool {
        match watch {
            Some(MountWatch(table)) => {
                let mut polled = [PollFd::new(table, PollFlags::PRI | PollFlags::ERR)];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                matches!(poll(&mut polled, Some(&now)), Ok(0))
            }
            None => {
                *watch = File::open("/proc/self/mountinfo").ok().map(MountWatch);
                false
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_forked_while_a_thread_looks_does_not_wait_for_it() {
        let path = Path::new("/hardened-test/a/directory/that/nobody/knows");
        assert!(with(|_| fork::in_child(|| directory(path).is_none())));
    }
}
