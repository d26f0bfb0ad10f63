//! An open in a directory that is known: what is seen of the file once is used for every question.
//!
//! The handle for the locks is opened right after the base's file, and one look at it answers for the mount, the kind, the size and
//! the people. On a local disk a file that has the same identity and time of change as the one which was there before the base opened
//! it has not been replaced, if that time lies back: else somebody may have replaced it twice, by one that got the number of the first.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::base::BaseFile;
use super::open::Opened;
use crate::fs::Verdict;
use crate::guard::log::Time;
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
    seen: Option<(Identity, Time)>,
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
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{AtFlags, CWD, FileType};

    use super::*;
    use crate::fs::{self, Class, Found};
    use crate::lock::{choose, manner::Manner, ofd::Handle};
    use crate::shim::{judge, register};

    impl Before {
        pub(in super::super) fn of(path: &Path, look: Option<fs::FirstLook>) -> Before {
            let (found, inside, directory) = match look {
                Some(look) => (look.file, Some(look.inside), look.directory),
                None => (fs::look(CWD.as_fd(), path, AtFlags::empty()).ok(), None, None),
            };
            Before {
                cannot_be_one: found
                    .is_some_and(|found| matches!(found.seen.kind, FileType::Directory | FileType::Fifo)),
                seen: found.map(|found| (found.identity, found.changed)),
                inside,
                directory: Cell::new(directory),
            }
        }
    }

    fn identity_of(path: Option<&Path>) -> Option<Identity> {
        std::fs::metadata(path?).ok().map(|found| (found.dev(), found.ino()))
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
            // Elsewhere times are those of a server.
            let same = verdict.class == Class::Local
                && opened.before.seen == Some((found.identity, found.changed))
                && found.changed.lies_back();
            // A directory may have been put in the place of another one, with the same file in both.
            match opened.before.inside.filter(|inside| identity_of(path.parent()) == Some(*inside)) {
                Some(inside) => handle.is_in(inside),
                None => drop(opened.before.directory.take()),
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
