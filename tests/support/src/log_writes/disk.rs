//! The contents of a disk that is mostly empty.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const BLOCK: u64 = 4096;

/// The contents of a disk. A copy shares what it has not changed.
///
/// Invariant: a block that is not in the map holds zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    size: u64,
    blocks: BTreeMap<u64, Arc<[u8; BLOCK as usize]>>,
}

impl Disk {
    /// An empty disk of `size` bytes.
    pub fn new(size: u64) -> Disk {
        Disk { size, blocks: BTreeMap::new() }
    }

    /// Reads an image.
    ///
    /// # Errors
    /// The file's.
    pub fn read(path: &Path) -> io::Result<Disk> {
        let file = File::open(path)?;
        let mut disk = Disk::new(file.metadata()?.len());
        let mut at = 0;
        // Holes are skipped: an image may be sparse.
        while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data))?;
            let mut bytes = vec![0; (end - data) as usize];
            file.read_exact_at(&mut bytes, data)?;
            disk.write(data, &bytes);
            at = end;
        }
        Ok(disk)
    }

    /// Writes bytes at a place.
    pub fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (block, within) = (offset / BLOCK, (offset % BLOCK) as usize);
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK as usize - within));
            let mut content = self.blocks.get(&block).map_or([0; BLOCK as usize], |block| **block);
            content[within..within + now.len()].copy_from_slice(now);
            if content == [0; BLOCK as usize] {
                self.blocks.remove(&block);
            } else {
                self.blocks.insert(block, Arc::new(content));
            }
            offset += now.len() as u64;
            bytes = rest;
        }
    }

    /// How many blocks of 4096 bytes differ.
    pub fn differences(&self, other: &Disk) -> usize {
        let only = |a: &Disk, b: &Disk| a.blocks.iter().filter(|(at, _)| !b.blocks.contains_key(at)).count();
        let both = self.blocks.iter().filter(|(at, block)| other.blocks.get(at).is_some_and(|other| other != *block));
        only(self, other) + only(other, self) + both.count()
    }

    /// Writes a sparse image.
    ///
    /// # Errors
    /// The file's.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        for (block, content) in &self.blocks {
            file.write_all_at(&content[..], block * BLOCK)?;
        }
        file.set_len(self.size)
    }
}
