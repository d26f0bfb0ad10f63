//! Logs of a disk's writes, and what a power cut may have left on that disk.
//!
//! The format is that of the device mapper target `log-writes` and of QEMU's block driver `blklogwrites`: a superblock, then
//! for each request one sector that describes it, and its data. A flush makes durable what was completed before it; what
//! came later is in the disk's cache, of which a power cut leaves any part in any order.
//!
//! Invariant: [`Log::read`] returns whole entries only, in the order in which the disk completed them, and nothing after
//! the first place that was never written.

mod disk;

pub use disk::Disk;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One request, as the disk saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes on the disk, in bytes.
    pub offset: u64,
    /// How many bytes are written.
    pub length: u64,
    /// Everything completed before it is durable.
    pub flush: bool,
    /// It is durable itself as soon as it is completed.
    pub fua: bool,
    /// Where its data are in the log.
    data: u64,
}

/// The log of a disk.
#[derive(Debug)]
pub struct Log {
    file: File,
    entries: Vec<Entry>,
}

fn number(bytes: &[u8], field: usize) -> u64 {
    bytes[field * 8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn no_log(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no log of writes: {what}"))
}

impl Log {
    /// Reads a log whose writer may have been killed.
    ///
    /// # Errors
    /// The file's own, and `InvalidData` if it is no such log.
    pub fn read(path: &Path) -> io::Result<Log> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut block = [0; 32];
        file.read_exact_at(&mut block, 0)?;
        let (count, sector) = (number(&block, 2), number(&block, 3) & 0xffff_ffff);
        if number(&block, 0) != MAGIC || number(&block, 1) != 1 {
            return Err(no_log("another magic number or version"));
        }
        if !sector.is_power_of_two() || sector < 512 {
            return Err(no_log("an impossible sector size"));
        }
        let mut entries = Vec::new();
        let mut at = sector;
        for _ in 0..count {
            if file.read_exact_at(&mut block, at).is_err() || block == [0; 32] {
                break;
            }
            let flags = number(&block, 2);
            if flags & !(FLUSH | FUA | DISCARD | MARK | 16) != 0 {
                return Err(no_log("unknown flags"));
            }
            let bytes = |field| number(&block, field).checked_mul(sector).ok_or_else(|| no_log("a number too large"));
            let (offset, mut length) = (bytes(0)?, bytes(1)?);
            at += sector;
            // A discard has no data here and leaves the old ones: a disk may. A mark has its text in its own sector.
            if flags & (DISCARD | MARK) != 0 {
                length = 0;
            }
            let next = at.checked_add(length).ok_or_else(|| no_log("a number too large"))?;
            if next > size {
                break;
            }
            entries.push(Entry { offset, length, flush: flags & FLUSH != 0, fua: flags & FUA != 0, data: at });
            at = next;
        }
        Ok(Log { file, entries })
    }

    /// The requests in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The data of an entry.
    ///
    /// # Errors
    /// The file's.
    pub fn data(&self, entry: usize) -> io::Result<Vec<u8>> {
        let entry = self.entries[entry];
        let mut bytes = vec![0; entry.length as usize];
        self.file.read_exact_at(&mut bytes, entry.data)?;
        Ok(bytes)
    }

    /// Up to where the first `n` entries are durable: the writes below this cannot be lost if the power goes after `n`.
    pub fn durable(&self, n: usize) -> usize {
        let flush = |at: &usize| self.entries[*at].flush;
        (0..n).rev().find(flush).unwrap_or(0)
    }

    /// What is left to chance if the power goes after `n` entries: the writes since the last flush, cut into pieces that
    /// do not cross a multiple of what `piece` says of the entry. `(entry, range of its data)`.
    pub fn volatile(&self, n: usize, piece: impl Fn(&Entry) -> u64) -> Vec<(usize, Range<usize>)> {
        let mut pieces = Vec::new();
        for at in self.durable(n)..n {
            let Entry { offset, length, fua, .. } = self.entries[at];
            if fua {
                continue;
            }
            let piece = piece(&self.entries[at]);
            let mut from = 0;
            while from < length {
                let end = length.min(((offset + from) / piece + 1) * piece - offset);
                pieces.push((at, from as usize..end as usize));
                from = end;
            }
        }
        pieces
    }
}

/// Follows a log from one point to a later one, and tells what the disk may hold at each.
#[derive(Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    disk: Disk,
    done: usize,
}

impl<'a> Replay<'a> {
    /// `initial` is what the disk held before the first entry.
    pub fn new(log: &'a Log, initial: Disk) -> Replay<'a> {
        Replay { log, disk: initial, done: 0 }
    }

    fn apply(&self, disk: &mut Disk, entry: usize) -> io::Result<()> {
        let offset = self.log.entries[entry].offset;
        if self.log.entries[entry].length > 0 {
            disk.write(offset, &self.log.data(entry)?);
        }
        Ok(())
    }

    /// The disk after the first `n` entries, without those writes that `lost` names. Points are asked for in ascending
    /// order, and what was lost once stays lost.
    ///
    /// # Errors
    /// The log's.
    pub fn without(&mut self, n: usize, lost: impl Fn(usize) -> bool) -> io::Result<Disk> {
        assert!(n >= self.done, "a replay does not go back");
        let mut disk = std::mem::take(&mut self.disk);
        for entry in self.done..n {
            if !lost(entry) {
                self.apply(&mut disk, entry)?;
            }
        }
        (self.disk, self.done) = (disk, n);
        Ok(self.disk.clone())
    }

    /// The disk if the power goes after `n` entries, and of the pieces that are left to chance those survive for which
    /// `kept` says so. With the number of such pieces. Points are asked for in ascending order.
    ///
    /// # Errors
    /// The log's.
    pub fn cut(
        &mut self,
        n: usize,
        piece: impl Fn(&Entry) -> u64,
        mut kept: impl FnMut() -> bool,
    ) -> io::Result<(Disk, usize)> {
        let durable = self.log.durable(n).max(self.done);
        let mut disk = self.without(durable, |_| false)?;
        let pieces = self.log.volatile(n, piece);
        // In the order of the log, so that of two writes to one place the later one wins if both survive.
        for entry in (durable..n).filter(|entry| self.log.entries[*entry].length > 0) {
            let data = self.log.data(entry)?;
            let Entry { offset, fua, .. } = self.log.entries[entry];
            if fua {
                disk.write(offset, &data);
            }
            for (_, range) in pieces.iter().filter(|(of, _)| *of == entry) {
                if kept() {
                    disk.write(offset + range.start as u64, &data[range.clone()]);
                }
            }
        }
        Ok((disk, pieces.len()))
    }
}

#[cfg(test)]
mod tests;
