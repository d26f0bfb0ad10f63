//! The mapped regions of a WAL-index.
//!
//! SQLite keeps the address of every region it was given, so a mapping never moves. One mapping covers the first region, the
//! next one the second, and each further one as many as all before it: an index of any size has few of them. A mapping may
//! reach beyond the end of the file; only regions that the file has are handed out.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libsqlite3_sys as ffi;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::Stat;

use super::fault::{self, Watched};
use super::locks::Salts;
use crate::lock::Bytes;
use crate::lock::ofd::Handle;

/// The file is made longer by zeros, which makes the filesystem allocate them now: a full disk is then an error and not a SIGBUS
/// later. Nobody else writes there: whoever makes the file longer holds the lock of writers.
static ZEROS: [u8; 32 * 1024] = [0; 32 * 1024];

/// Where the salts are in a header (<https://www.sqlite.org/walformat.html#the_wal_index_file_format>).
const SALTS: usize = 32;

#[derive(Debug)]
struct Chunk {
    first: usize,
    count: usize,
    /// Forgotten before the memory goes.
    _watched: Option<Watched>,
    memory: MmapRaw,
}

#[derive(Debug)]
pub(super) struct Regions {
    /// How many regions the file is known to have.
    known: usize,
    /// How long it is with them.
    bytes: u64,
    /// This connection has emptied the file. Whoever makes it longer meanwhile is met by who wants to make it longer.
    emptied: bool,
    chunks: Vec<Chunk>,
    /// Set when the file turns out to be shorter than it was.
    lost: Arc<AtomicBool>,
}

impl Regions {
    pub(super) fn new(lost: Arc<AtomicBool>, emptied: bool) -> Regions {
        Regions { known: 0, bytes: 0, emptied, chunks: Vec::new(), lost }
    }

    /// The address of a region; null if the file does not have it and is not to be extended.
    pub(super) fn get(
        &mut self,
        handle: &Handle,
        read_only: bool,
        region: usize,
        size: usize,
        extend: bool,
    ) -> Result<*mut c_void, c_int> {
        if region >= self.known {
            if std::mem::take(&mut self.emptied) && !extend {
                return Ok(std::ptr::null_mut());
            }
            let unit = unit(size, rustix::param::page_size());
            let wanted = (region / unit + 1).checked_mul(unit).ok_or(ffi::SQLITE_IOERR_SHMSIZE)?;
            let bytes = wanted.checked_mul(size).ok_or(ffi::SQLITE_IOERR_SHMSIZE)? as u64;
            let found = handle.stat().ok_or(ffi::SQLITE_IOERR_SHMSIZE)?;
            let file = handle.fd().map_err(|_| ffi::SQLITE_IOERR_SHMSIZE)?;
            let have = u64::try_from(found.st_size).unwrap_or(0);
            if have < self.bytes {
                self.lost.store(true, Ordering::Release);
                return Err(ffi::SQLITE_IOERR_SHMMAP);
            }
            if have < bytes {
                if !extend {
                    return Ok(std::ptr::null_mut());
                }
                allocate(file, have, bytes).map_err(|_| ffi::SQLITE_IOERR_SHMSIZE)?;
            }
            while self.chunks.last().map_or(0, |chunk| chunk.first + chunk.count) < wanted {
                self.map(file, read_only, size, unit).map_err(|_| ffi::SQLITE_IOERR_SHMMAP)?;
            }
            (self.known, self.bytes) = (wanted, bytes);
        }
        let chunk = self.chunks.iter().find(|chunk| (chunk.first..chunk.first + chunk.count).contains(&region));
        let Some(chunk) = chunk else { return Err(ffi::SQLITE_IOERR_SHMMAP) };
        Ok(chunk.memory.as_mut_ptr().wrapping_add((region - chunk.first) * size).cast())
    }

    /// Whether anything of the file is known.
    pub(super) fn is_mapped(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether the file is as long as it was. Where it was cut off within a page, the rest of that page reads as zeros without
    /// a signal.
    pub(super) fn are_whole(&self, handle: &Handle) -> bool {
        let long = |found: Stat| u64::try_from(found.st_size).is_ok_and(|size| size >= self.bytes);
        let whole = handle.stat().is_some_and(long);
        if !whole {
            self.lost.store(true, Ordering::Release);
        }
        whole
    }

    /// The salts in the first header of the index, if it is mapped.
    pub(super) fn salts(&self) -> Option<Salts> {
        let header = self.chunks.first()?.memory.as_ptr().cast::<Salts>().wrapping_byte_add(SALTS);
        // SAFETY: the first mapping covers the header, and a page of the file that is cut off is replaced (`fault`). It is
        // aligned to a page, and 32 to four. Others write there, hence volatile.
        Some(unsafe { header.read_volatile() })
    }

    fn map(&mut self, file: BorrowedFd<'_>, read_only: bool, size: usize, unit: usize) -> io::Result<()> {
        let (first, count) = next(self.chunks.last().map(|chunk| chunk.first + chunk.count), unit);
        let mut options = MmapOptions::new();
        options.offset((first * size) as u64).len(count * size);
        let memory = match read_only {
            true => options.map_raw_read_only(file.as_raw_fd())?,
            false => options.map_raw(file.as_raw_fd())?,
        };
        let watched = fault::watch(memory.as_mut_ptr(), memory.len(), &self.lost);
        self.chunks.push(Chunk { first, count, _watched: watched, memory });
        Ok(())
    }
}

/// How many regions a mapping covers at least: it begins and ends with a page of the kernel's.
fn unit(size: usize, page: usize) -> usize {
    (page / size.max(1)).max(1)
}

/// Where the mapping after `end` begins, and how many regions it covers.
fn next(end: Option<usize>, unit: usize) -> (usize, usize) {
    match end {
        None => (0, unit),
        Some(end) => (end, end),
    }
}

fn allocate(file: BorrowedFd<'_>, have: u64, wanted: u64) -> io::Result<()> {
    let mut at = have;
    while at < wanted {
        let zeros = ZEROS.get(..(wanted - at).min(ZEROS.len() as u64) as usize).unwrap_or(&ZEROS);
        match rustix::io::pwrite(file, zeros, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => at += written as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 32 * 1024;

    #[test]
    fn mappings_double_and_begin_with_a_page_of_the_kernel() {
        for page in [4096, 16 * 1024, 64 * 1024] {
            let unit = unit(SIZE, page);
            assert!(unit * SIZE % page == 0 && unit <= 2);
            let mut end = None;
            for _ in 0..12 {
                let (first, count) = next(end, unit);
                assert_eq!(first, end.unwrap_or(0));
                assert_eq!((first * SIZE % page, count * SIZE % page), (0, 0));
                end = Some(first + count);
            }
            assert_eq!(end, Some(unit << 11));
        }
    }
}
