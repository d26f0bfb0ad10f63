//! From file to file: shared blocks, the kernel's own copy, or read and written.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;

use super::Method;
use super::staged::Staged;
use crate::beside::{Beside, directory_of};
use crate::error::Error;
use crate::health::expect_in_order;
use crate::health::pace::Pace;
use crate::progress::Stage;

/// How much is copied between two words about progress.
const STEP: u64 = 8 << 20;

/// How much is read and written at once.
const PIECE: usize = 1 << 20;

/// Progress is told in pages of the usual size: what the file's are is not known to this room.
const PAGE: u64 = 4096;

/// One copy of a file as long as it is now. In steps, so that somebody can look around between two.
pub(super) struct Copier<'c> {
    path: &'c Path,
    from: &'c Beside,
    staged: &'c Staged,
    method: Method,
    /// The copy is one already, of an older state.
    again: bool,
    at: u64,
    size: u64,
}

impl<'c> Copier<'c> {
    /// Begins a copy; `before` says how the copy was made that is there already, of an older state. Free space is looked at
    /// first, unless none is needed.
    pub(super) fn new(
        path: &'c Path,
        from: &'c Beside,
        staged: &'c Staged,
        before: Option<Method>,
    ) -> Result<Copier<'c>, Error> {
        let size = from.size().map_err(|error| Error::of_file(path, "it cannot be read", &error))?;
        let (again, method) = (before.is_some(), before.unwrap_or(Method::Kernel));
        let mut copier = Copier { path, from, staged, method, again, at: 0, size };
        let fd = from.fd().map_err(|error| copier.unreadable(&error))?;
        if shares(fd, staged.file()) {
            (copier.method, copier.at) = (Method::Reflink, size);
            return Ok(copier);
        }
        if !again {
            let log = std::fs::metadata(crate::beside::with_ending(path, "-wal")).map_or(0, |found| found.len());
            let room = size.saturating_add(log).saturating_add(size / 50);
            staged.room(directory_of(staged.path()), room)?;
            staged.set_aside(directory_of(staged.path()), size)?;
        }
        staged.file().set_len(size).map_err(|error| staged.failed(&error))?;
        expect_in_order(from);
        Ok(copier)
    }

    pub(super) fn is_done(&self) -> bool {
        self.at >= self.size
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        Error::of_file(self.path, "it cannot be read", error)
    }

    /// Copies some more.
    pub(super) fn step(&mut self, pace: &mut Pace<'_, '_>) -> Result<(), Error> {
        pace.go_on(self.path, Stage::Copy, self.at / PAGE, self.size / PAGE)?;
        let end = self.size.min(self.at + STEP);
        let fd = self.from.fd().map_err(|error| self.unreadable(&error))?;
        if !self.again && self.method == Method::Kernel {
            match by_the_kernel(fd, self.staged.file(), &mut self.at, end) {
                Ok(()) => {}
                // Full is full for the other way too, and that one can say so.
                Err(_) => self.method = Method::ReadWrite,
            }
        }
        self.read_and_write(end)
    }

    /// Copies what is left up to `end`; of a copy that is there already only what differs.
    fn read_and_write(&mut self, end: u64) -> Result<(), Error> {
        let (mut piece, mut there) = (Vec::new(), Vec::new());
        while self.at < end {
            let length = usize::try_from(end - self.at).unwrap_or(PIECE).min(PIECE);
            piece.resize(length, 0);
            let read = self.from.read_at(&mut piece, self.at).map_err(|error| self.unreadable(&error))?;
            if read == 0 {
                // Cut off meanwhile by a checkpoint, and not missed.
                self.at = self.size;
                break;
            }
            piece.truncate(read);
            there.resize(read, 0);
            let same = self.again && self.staged.file().read_exact_at(&mut there, self.at).is_ok() && there == piece;
            if !same {
                self.staged.file().write_all_at(&piece, self.at).map_err(|error| self.staged.failed(&error))?;
            }
            self.at += read as u64;
        }
        Ok(())
    }
}

/// Has the copy share all blocks of the file, where the filesystem does that.
pub(crate) fn shares(from: BorrowedFd<'_>, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        false
    }
}

/// Has the kernel copy up to `end`; what was copied when it ends or fails says `at`.
pub(crate) fn by_the_kernel(from: BorrowedFd<'_>, to: &File, at: &mut u64, end: u64) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    while *at < end {
        let (mut source, mut target) = (*at, *at);
        let length = usize::try_from(end - *at).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
            // The end of the file, or a filesystem that cannot say that it cannot.
            Ok(0) => return Err(Errno::NOTSUP),
            Ok(copied) => *at += copied as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (from, to, at, end);
    Ok(())
}
