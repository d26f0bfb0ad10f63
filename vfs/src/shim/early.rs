//! An open in a directory that is known: what is seen of the file once is used for every question.
//!
//! The handle for the locks is opened right after the base's file, and one look at it answers for the mount, the kind, the size and
//! the people. A file that has the same identity as the one which was there before the base opened it has not been replaced.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::base::BaseFile;
use super::open::Opened;
use crate::fs::Verdict;
use crate::journal_file::Access as May;
use crate::lock::choose::OpenedHandle;
use crate::main_file::Access;
use crate::options::Options;
use crate::refusal::Refusal;

/// Device and inode.
type Identity = (u64, u64);

/// What was at the path before the base opened it.
#[derive(Default)]
pub(super) struct Before {
    /// A directory or a pipe: opened for reading, a pipe would wait for a writer, and a directory would open and then fail to be
    /// read.
    pub(super) cannot_be_one: bool,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    identity: Option<Identity>,
    /// The directory in which it was.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    inside: Option<Identity>,
    /// Its directory, if it was opened to be looked at.
    pub(super) directory: Cell<Option<File>>,
}

#[cfg(target_os = "linux")]
pub(super) use crate::fs::first_look;

/// Nobody has looked.
#[cfg(not(target_os = "linux"))]
pub(super) fn first_look(_: &Path) -> Option<()> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::fs::{AtFlags, CWD, FileType};

    use super::*;
    use crate::fs::{self, Found};
    use crate::lock::{choose, manner::Manner, ofd::Handle};
    use crate::shim::{judge, register};
    use std::os::fd::AsFd;

    impl Before {
        pub(in super::super) fn of(path: &Path, look: Option<fs::FirstLook>) -> Before {
            let (found, inside, directory) = match look {
                Some(look) => (look.file, Some(look.inside), look.directory),
                None => (fs::look(CWD.as_fd(), path, AtFlags::empty()).ok(), None, None),
            };
            Before {
                cannot_be_one: found
                    .is_some_and(|found| matches!(found.seen.kind, FileType::Directory | FileType::Fifo)),
                identity: found.map(|found| found.identity),
                inside,
                directory: Cell::new(directory),
            }
        }
    }

    /// The handle for the locks of a file whose directory is known.
    pub(in super::super) struct Early {
        handle: Handle,
        found: Found,
        pub(in super::super) verdict: Arc<Verdict>,
        /// Whether it is the file that was there before the base opened it.
        same: bool,
    }

    impl Early {
        /// `None` if there is more to be asked.
        pub(in super::super) fn of(opened: &Opened<'_>, options: &Options, access: Access) -> Option<Early> {
            let locking = matches!(access, Access::ReadWrite | Access::ReadOnly);
            let base = register::name_of(opened.base_vfs);
            let path = &opened.path;
            if !locking || opened.judged_before.is_some() || !choose::may_be_ours(options.locks, &base, false) {
                return None;
            }
            // There the handle is of another kind.
            if fs::last_verdict(path).is_none_or(|last| last.is_smb()) {
                return None;
            }
            let mut handle = Handle::low(path, Manner::plain(access == Access::ReadOnly)).ok()?;
            let found = *handle.found()?;
            let verdict = fs::verdict_on(path, &found)?;
            let same = opened.before.identity == Some(found.identity);
            if let (true, Some(inside)) = (same, opened.before.inside) {
                handle.is_in(inside);
            }
            Some(Early { handle, found, verdict, same })
        }

        /// Refuses a file that its path no longer names.
        pub(in super::super) fn unmoved(&self, path: &Path, base: &BaseFile) -> Result<(), Refusal> {
            if self.same { Ok(()) } else { judge::unmoved(path, base) }
        }

        pub(in super::super) fn size(&self) -> u64 {
            self.found.size
        }

        /// The handle, and who may read and write the file.
        pub(in super::super) fn into_parts(self) -> (Option<OpenedHandle>, Option<(Identity, May)>) {
            let found = self.found;
            let may = May { mode: found.mode, user: found.user, group: found.group };
            (Some(self.handle), Some((found.identity, may)))
        }
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::Early;

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    impl Before {
        pub(in super::super) fn of(path: &Path, _: Option<()>) -> Before {
            let found = std::fs::metadata(path);
            let cannot_be_one = found.is_ok_and(|found| found.is_dir() || found.file_type().is_fifo());
            Before { cannot_be_one, ..Before::default() }
        }
    }

    /// Never there.
    pub(in super::super) struct Early {
        never: std::convert::Infallible,
        pub(in super::super) verdict: Arc<Verdict>,
    }

    impl Early {
        pub(in super::super) fn of(_: &Opened<'_>, _: &Options, _: Access) -> Option<Early> {
            None
        }

        pub(in super::super) fn unmoved(&self, _: &Path, _: &BaseFile) -> Result<(), Refusal> {
            match self.never {}
        }

        pub(in super::super) fn size(&self) -> u64 {
            match self.never {}
        }

        pub(in super::super) fn into_parts(self) -> (Option<OpenedHandle>, Option<(Identity, May)>) {
            match self.never {}
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Early;
