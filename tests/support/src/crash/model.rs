//! What the cache shows, what the disk holds, and what lies between the two.
//!
//! Invariant: nothing becomes durable but through a sync, a durable name or a power cut that happened to keep it; and every
//! version of a sector that a cut may leave is one that the cache has held, whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::Image;
use super::rng::Rng;

/// What a disk writes as one.
pub const SECTOR: usize = 512;

/// What the page cache drops as one.
const CACHE_PAGE: usize = 4096;

/// What becomes of unsynced bytes when a sync fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The pages are dropped: reads see what is durable. The size stays.
    Drop,
    /// Reads see the new bytes, which count as written: no later sync writes them.
    KeepClean,
    /// The file is as after its last good sync, size included.
    Revert,
}

/// Something that changed files, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A file came into being.
    Create {
        /// Its full name.
        name: String,
        /// Its number, given in order.
        file: usize,
        /// Whether its name needs no directory sync.
        durable: bool,
    },
    /// A name went away; the file lives on in its open handles.
    Unlink {
        /// The full name.
        name: String,
    },
    /// Bytes were written.
    Write {
        /// Which file.
        file: usize,
        /// Where.
        offset: usize,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// The size was set.
    Truncate {
        /// Which file.
        file: usize,
        /// The new size.
        size: usize,
    },
    /// A sync succeeded.
    Sync {
        /// Which file.
        file: usize,
    },
    /// A sync failed.
    FailedSync {
        /// Which file.
        file: usize,
        /// What became of the bytes.
        loss: Loss,
        /// Some of them, by this seed, had reached the disk before.
        spared: Option<u64>,
    },
    /// A directory was synced.
    SyncDirectory {
        /// Its full name.
        directory: String,
    },
}

/// Something that is in the cache and may or may not be on the disk.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    /// Whole sectors as they were right after a write, the last one up to the end of the file.
    Write { offset: usize, bytes: Vec<u8> },
    /// The size was set, at that time.
    Size { size: usize, at: usize },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    pub(super) cache: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Pending>,
    /// When it was last changed, in events, and when that was last on disk.
    pub(super) changed: usize,
    pub(super) durable_changed: usize,
}

/// A name that is in the cached directory, or gone from it, and may or may not be so on the disk.
#[derive(Clone, Debug)]
pub(super) struct PendingName {
    pub(super) name: String,
    pub(super) file: Option<usize>,
    pub(super) at: usize,
}

/// All files of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) files: Vec<Data>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) pending_names: Vec<PendingName>,
    /// How many events there were.
    pub(super) clock: usize,
}

/// The directory of a full name.
pub(super) fn directory(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Puts sectors into a file.
pub(super) fn place(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Pending {
    /// It reaches the disk whole.
    pub(super) fn settle(&self, durable: &mut Vec<u8>) {
        match self {
            Pending::Write { offset, bytes } => place(durable, *offset, bytes),
            Pending::Size { size, .. } => durable.resize(*size, 0),
        }
    }
}

impl Model {
    /// Everything in the image is durable.
    pub(super) fn start(image: &Image) -> Self {
        let mut model = Model::default();
        for (name, bytes) in &image.files {
            model.names.insert(name.clone(), model.files.len());
            let changed = image.changed.get(name).copied().unwrap_or(0);
            let (cache, durable) = (bytes.clone(), bytes.clone());
            model.files.push(Data { cache, durable, pending: Vec::new(), changed, durable_changed: changed });
        }
        model.clock = image.clock;
        model.durable_names = model.names.clone();
        model
    }

    /// What programs see.
    pub(super) fn cached(&self) -> Image {
        let files = self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].cache.clone()));
        let changed = self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].changed));
        Image { files: files.collect(), changed: changed.collect(), clock: self.clock }
    }

    pub(super) fn apply(&mut self, event: &Event) {
        self.clock += 1;
        let at = self.clock;
        match event {
            Event::Create { name, file, durable } => {
                assert_eq!(*file, self.files.len(), "files are numbered in order");
                self.files.push(Data::default());
                self.names.insert(name.clone(), *file);
                if *durable {
                    self.durable_names.insert(name.clone(), *file);
                } else {
                    self.pending_names.push(PendingName { name: name.clone(), file: Some(*file), at });
                }
            }
            Event::Unlink { name } => {
                self.names.remove(name);
                self.pending_names.push(PendingName { name: name.clone(), file: None, at });
            }
            Event::Write { file, offset, bytes } => {
                self.files[*file].changed = at;
                self.files[*file].write(*offset, bytes);
            }
            Event::Truncate { file, size } => {
                let data = &mut self.files[*file];
                data.changed = at;
                data.cache.resize(*size, 0);
                data.pending.push(Pending::Size { size: *size, at });
            }
            Event::Sync { file } => self.files[*file].sync(),
            Event::FailedSync { file, loss, spared } => self.files[*file].fail(*loss, *spared, at),
            Event::SyncDirectory { directory: synced } => {
                let pending = std::mem::take(&mut self.pending_names);
                let (here, elsewhere) = pending.into_iter().partition(|entry| directory(&entry.name) == synced);
                self.pending_names = elsewhere;
                let here: Vec<PendingName> = here;
                here.iter().for_each(|entry| entry.settle(&mut self.durable_names));
            }
        }
    }
}

impl PendingName {
    pub(super) fn settle(&self, names: &mut BTreeMap<String, usize>) {
        match self.file {
            Some(file) => names.insert(self.name.clone(), file),
            None => names.remove(&self.name),
        };
    }
}

impl Data {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        place(&mut self.cache, offset, bytes);
        let first = offset / SECTOR * SECTOR;
        let end = (offset + bytes.len()).next_multiple_of(SECTOR).min(self.cache.len());
        self.pending.push(Pending::Write { offset: first, bytes: self.cache[first..end].to_vec() });
    }

    fn sync(&mut self) {
        self.durable_changed = self.changed;
        for pending in std::mem::take(&mut self.pending) {
            pending.settle(&mut self.durable);
        }
    }

    fn fail(&mut self, loss: Loss, spared: Option<u64>, at: usize) {
        let pending = std::mem::take(&mut self.pending);
        let mut rng = spared.map(Rng::new);
        for one in &pending {
            if rng.as_mut().is_some_and(|rng| rng.percent(50)) {
                one.settle(&mut self.durable);
            }
        }
        if loss == Loss::Revert {
            self.cache = self.durable.clone();
            return;
        }
        if loss == Loss::Drop {
            for one in &pending {
                let Pending::Write { offset, bytes } = one else { continue };
                let first = offset / CACHE_PAGE * CACHE_PAGE;
                let end = (offset + bytes.len()).next_multiple_of(CACHE_PAGE).min(self.cache.len());
                for at in first..end {
                    self.cache[at] = self.durable.get(at).copied().unwrap_or(0);
                }
            }
        }
        // The size belongs to the metadata, which has a journal of its own in the file system.
        if self.cache.len() != self.durable.len() {
            self.pending.push(Pending::Size { size: self.cache.len(), at });
        }
    }
}
