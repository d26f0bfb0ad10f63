//! The disk while it runs: open handles on the model, and the record of what they do.
//!
//! Invariant: an event is in the record exactly if it was applied to the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use libsqlite3_sys as ffi;
use std::ffi::c_int;

use super::cut::Device;
use super::fault::{Faults, hits};
use super::image::Image;
use super::lock::Locks;
use super::model::{Event, Model, SECTOR, directory, place};
use super::rng::Rng;
use super::shm::Shm;
use crate::fault_vfs::Call;

/// Which file a handle is open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Named(usize),
    /// A temporary file, which no power cut leaves behind.
    Temporary,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) on: On,
    pub(super) name: String,
    pub(super) read_only: bool,
    temporary: Vec<u8>,
    /// Its first sync also syncs the directory.
    sync_directory: bool,
}

#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) model: Model,
    pub(super) start: Image,
    pub(super) events: Vec<Event>,
    pub(super) device: Device,
    pub(super) faults: Faults,
    pub(super) rng: Option<Rng>,
    /// Microseconds slept since the start of the fixed time.
    pub(super) slept: i64,
    pub(super) handles: Vec<Option<Handle>>,
    pub(super) locks: Locks,
    pub(super) shm: Shm,
    pub(super) counts: BTreeMap<(Call, String), u64>,
    /// Without a recording only the cache is kept.
    pub(super) recording: bool,
    directory_syncs: u64,
    sync_counts: Vec<u64>,
}

const TEMPORARY: c_int = ffi::SQLITE_OPEN_TEMP_DB
    | ffi::SQLITE_OPEN_TEMP_JOURNAL
    | ffi::SQLITE_OPEN_TRANSIENT_DB
    | ffi::SQLITE_OPEN_SUBJOURNAL
    | ffi::SQLITE_OPEN_DELETEONCLOSE;

/// Those whose creation SQLite's unix VFS makes durable with their first sync.
const SYNC_DIRECTORY: c_int = ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;

impl Live {
    /// Starts over with these contents.
    pub(super) fn load(&mut self, image: &Image) {
        self.model = Model::default();
        for (name, bytes) in &image.files {
            self.model.names.insert(name.clone(), self.model.files.len());
            let changed = image.changed.get(name).copied().unwrap_or(0);
            self.model.files.push(super::model::Data { cache: bytes.clone(), changed, ..Default::default() });
        }
        // Some time passes until the machine runs again.
        self.model.clock = image.clock + 100_000;
        self.recording = false;
        self.events.clear();
        self.faults = Faults::default();
    }

    /// Everything in the cache becomes durable, and what happens from now on is recorded.
    pub(super) fn record(&mut self, faults: Faults) {
        let model = &mut self.model;
        for data in &mut model.files {
            data.durable = data.cache.clone();
            data.pending.clear();
        }
        model.durable_names = model.names.clone();
        model.pending_names.clear();
        // A replay numbers the files of the image first, so open handles have to follow.
        let order: Vec<usize> = model.names.values().copied().collect();
        let unnamed = (0..model.files.len()).filter(|file| !order.contains(file));
        let order: Vec<usize> = order.iter().copied().chain(unnamed).collect();
        let place_of = |file: usize| order.iter().position(|old| *old == file).unwrap();
        let named = model.names.len();
        let open_and_unnamed = self.handles.iter().flatten().any(|handle| match handle.on {
            On::Named(file) => place_of(file) >= named,
            On::Temporary => false,
        });
        assert!(!open_and_unnamed, "a deleted file is open while a recording begins");
        for handle in self.handles.iter_mut().flatten() {
            if let On::Named(file) = &mut handle.on {
                *file = place_of(*file);
            }
        }
        self.locks.renumber(place_of);
        self.shm.renumber(place_of);
        let mut files: Vec<_> = std::mem::take(&mut model.files).into_iter().map(Some).collect();
        model.files = order[..named].iter().map(|old| files[*old].take().unwrap()).collect();
        for (new, file) in model.names.values_mut().enumerate() {
            *file = new;
        }
        model.durable_names = model.names.clone();
        self.start = model.cached();
        self.events.clear();
        self.counts.clear();
        self.directory_syncs = 0;
        self.sync_counts = vec![0; faults.syncs.len()];
        self.faults = faults;
        self.recording = true;
    }

    fn happen(&mut self, event: Event) {
        if self.recording {
            self.model.apply(&event);
            self.events.push(event);
            return;
        }
        let model = &mut self.model;
        model.clock += 1;
        match event {
            Event::Create { name, file, .. } => {
                model.files.push(Default::default());
                model.names.insert(name, file);
            }
            Event::Unlink { name } => {
                model.names.remove(&name);
            }
            Event::Write { file, offset, bytes } => {
                model.files[file].changed = model.clock;
                place(&mut model.files[file].cache, offset, &bytes);
            }
            Event::Truncate { file, size } => {
                model.files[file].changed = model.clock;
                model.files[file].cache.resize(size, 0);
            }
            Event::Sync { .. } | Event::FailedSync { .. } | Event::SyncDirectory { .. } => {}
        }
    }

    /// Events of an earlier record become part of this one.
    pub(super) fn replay(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.happen(event.clone()));
    }

    pub(super) fn count(&mut self, call: Call, name: &str) {
        if self.recording {
            *self.counts.entry((call, name.to_owned())).or_default() += 1;
        }
    }

    pub(super) fn handle(&mut self, id: usize) -> &mut Handle {
        self.handles[id].as_mut().unwrap()
    }

    pub(super) fn open(&mut self, name: Option<&str>, flags: c_int) -> Result<usize, c_int> {
        let temporary = flags & TEMPORARY != 0 || name.is_none();
        let on = match name {
            Some(name) if !temporary => On::Named(self.find(name, flags)?),
            _ => On::Temporary,
        };
        let handle = Handle {
            on,
            name: name.unwrap_or_default().to_owned(),
            read_only: flags & ffi::SQLITE_OPEN_READONLY != 0,
            temporary: Vec::new(),
            sync_directory: !temporary && flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & SYNC_DIRECTORY != 0,
        };
        let free = self.handles.iter().position(Option::is_none).unwrap_or(self.handles.len());
        if free == self.handles.len() {
            self.handles.push(None);
        }
        self.handles[free] = Some(handle);
        Ok(free)
    }

    fn find(&mut self, name: &str, flags: c_int) -> Result<usize, c_int> {
        match self.model.names.get(name) {
            Some(_) if flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0 => Err(ffi::SQLITE_CANTOPEN),
            Some(file) => Ok(*file),
            None if flags & ffi::SQLITE_OPEN_CREATE == 0 => Err(ffi::SQLITE_CANTOPEN),
            None => {
                let file = self.model.files.len();
                // A database is taken to have been made long before; what is beside one (`x.db-journal`) is not.
                let beside = name.rsplit('/').next().is_some_and(|last| last.contains('-'));
                let durable = flags & ffi::SQLITE_OPEN_MAIN_DB != 0 && !beside;
                self.happen(Event::Create { name: name.to_owned(), file, durable });
                Ok(file)
            }
        }
    }

    pub(super) fn close(&mut self, id: usize) {
        let on = self.handle(id).on;
        if let On::Named(file) = on {
            self.locks.unlock(file, id, ffi::SQLITE_LOCK_NONE);
            self.shm.unmap(file, id);
        }
        self.handles[id] = None;
    }

    pub(super) fn content(&mut self, id: usize) -> &mut Vec<u8> {
        let handle = self.handles[id].as_mut().unwrap();
        match handle.on {
            On::Named(file) => &mut self.model.files[file].cache,
            On::Temporary => &mut handle.temporary,
        }
    }

    pub(super) fn write(&mut self, id: usize, offset: usize, bytes: &[u8]) -> c_int {
        let (on, read_only) = (self.handle(id).on, self.handle(id).read_only);
        if read_only {
            return ffi::SQLITE_READONLY;
        }
        let On::Named(file) = on else {
            place(self.content(id), offset, bytes);
            return ffi::SQLITE_OK;
        };
        let (fits, rc) = self.room(file, offset, bytes.len());
        if !self.recording {
            place(&mut self.model.files[file].cache, offset, &bytes[..fits]);
        } else if fits > 0 {
            self.happen(Event::Write { file, offset, bytes: Arc::from(&bytes[..fits]) });
        }
        rc
    }

    /// How much of a write the disk takes, and what the write returns.
    fn room(&self, file: usize, offset: usize, len: usize) -> (usize, c_int) {
        let Some(capacity) = self.faults.capacity else { return (len, ffi::SQLITE_OK) };
        let used: usize = self.model.names.values().map(|file| self.model.files[*file].cache.len()).sum();
        let size = self.model.files[file].cache.len();
        let growth = (offset + len).saturating_sub(size);
        let left = capacity.bytes.saturating_sub(used);
        if growth <= left {
            return (len, ffi::SQLITE_OK);
        }
        let fits = (size + left).saturating_sub(offset).min(len) / SECTOR * SECTOR;
        (if capacity.partial { fits } else { 0 }, ffi::SQLITE_FULL)
    }

    pub(super) fn truncate(&mut self, id: usize, size: usize) -> c_int {
        if self.handle(id).read_only {
            return ffi::SQLITE_READONLY;
        }
        match self.handle(id).on {
            On::Named(file) => self.happen(Event::Truncate { file, size }),
            On::Temporary => self.content(id).resize(size, 0),
        }
        ffi::SQLITE_OK
    }

    pub(super) fn sync(&mut self, id: usize) -> c_int {
        let On::Named(file) = self.handle(id).on else { return ffi::SQLITE_OK };
        if !self.recording {
            return ffi::SQLITE_OK;
        }
        let name = self.handle(id).name.clone();
        let mut failed = None;
        for (fault, seen) in self.faults.syncs.iter().zip(&mut self.sync_counts) {
            if name.ends_with(&fault.suffix) {
                *seen += 1;
                if failed.is_none() && hits(fault.nth, fault.times, *seen) {
                    failed = Some((fault.loss, fault.spared));
                }
            }
        }
        if let Some((loss, spared)) = failed {
            self.happen(Event::FailedSync { file, loss, spared });
            return ffi::SQLITE_IOERR_FSYNC;
        }
        self.happen(Event::Sync { file });
        if self.handle(id).sync_directory {
            let synced = self.sync_directory(&name);
            if !synced && self.faults.directory.is_some_and(|fault| fault.reported) {
                return ffi::SQLITE_IOERR_DIR_FSYNC;
            }
            self.handle(id).sync_directory = false;
        }
        ffi::SQLITE_OK
    }

    /// Whether the directory of a name could be synced.
    fn sync_directory(&mut self, name: &str) -> bool {
        if !self.recording {
            return true;
        }
        self.directory_syncs += 1;
        let seen = self.directory_syncs;
        let fails = self.faults.directory.is_some_and(|fault| hits(fault.nth, fault.times, seen));
        if !fails {
            self.happen(Event::SyncDirectory { directory: directory(name).to_owned() });
        }
        !fails
    }

    pub(super) fn delete(&mut self, name: &str, sync_directory: bool) -> c_int {
        if !self.model.names.contains_key(name) {
            return ffi::SQLITE_IOERR_DELETE_NOENT;
        }
        self.happen(Event::Unlink { name: name.to_owned() });
        if sync_directory && !self.sync_directory(name) { ffi::SQLITE_IOERR_DIR_FSYNC } else { ffi::SQLITE_OK }
    }

    /// The size of a named file.
    pub(super) fn size(&self, name: &str) -> Option<usize> {
        self.model.names.get(name).map(|file| self.model.files[*file].cache.len())
    }
}
