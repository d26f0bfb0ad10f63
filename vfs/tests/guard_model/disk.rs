//! An honest disk under a filesystem that keeps the order of its metadata.
//!
//! A sync makes data durable. Sizes, names and times become durable in the order in which they were changed: any
//! beginning of what has not been committed survives a power cut. Of the sectors that were written and not synced, any
//! survive.

use crate::{Page, Rng};
use hardened_vfs::guard::log::{Body, Encoder, Header, Reader, Record, Time, Witness};

/// What is changed in order. `N` is the file beside the database: the journal or the WAL.
#[derive(Clone)]
enum Meta<N> {
    Changed(u64),
    Size(usize),
    Beside(N),
}

#[derive(Clone)]
pub(crate) struct Disk<N> {
    pub(crate) rng: Rng,
    /// The database as every process sees it.
    pub(crate) cache: Vec<Page>,
    disk: Vec<Page>,
    writes: Vec<(usize, Page)>,
    pub(crate) beside: N,
    durable: (u64, usize, N),
    meta: Vec<Meta<N>>,
    pub(crate) changed: u64,
    pub(crate) clock: u64,
    pub(crate) boot: u8,
    pub(crate) log: Vec<u8>,
    pub(crate) log_synced: usize,
    pub(crate) log_changed: u64,
    pub(crate) header: Header,
    pub(crate) encoder: Encoder,
}

impl<N: Clone> Disk<N> {
    pub(crate) fn new(mut rng: Rng, pages: Vec<Page>, beside: N) -> Disk<N> {
        let header = Header { page_size: crate::PAGE_SIZE, boot: [1; 16], epoch: rng.next() };
        let log = header.encode().to_vec();
        Disk {
            rng,
            disk: pages.clone(),
            writes: Vec::new(),
            beside: beside.clone(),
            durable: (100, pages.len(), beside),
            meta: Vec::new(),
            cache: pages,
            changed: 100,
            clock: 1000,
            boot: 1,
            log_synced: log.len(),
            log_changed: 1000,
            log,
            encoder: Encoder::new(&header),
            header,
        }
    }

    /// The log and the file, for a person.
    pub(crate) fn story(&self) -> String {
        let records = Reader::new(&self.log).unwrap().map(|logged| match logged.record {
            Record::Written(w) => {
                let pages: Vec<_> = w.pages.iter().map(|e| (e.page, e.old, e.new, e.journaled)).collect();
                let counters = (w.counter_before, w.counter_after);
                let (exclusive, durable, boot) = (w.exclusive, logged.durable, w.before.boot[0]);
                format!(
                    "nonce {} {counters:?} {exclusive} {durable} boot {boot} {} {pages:?}\n",
                    w.nonce, w.initial_pages
                )
            }
            Record::Checkpointed(c) => {
                let pages: Vec<_> = c.pages.iter().map(|e| (e.page, e.old, e.new)).collect();
                format!("checkpoint {:?} {} {} {:?} {pages:?}\n", c.generation, c.complete, c.counter, c.witness)
            }
            record => format!("{record:?}\n"),
        });
        format!("{}{:?}\nchanged {} boot {}", records.collect::<String>(), self.cache, self.changed, self.boot)
    }

    pub(crate) fn touch(&mut self) {
        // Several writes within one tick of the clock.
        self.changed = self.tick();
        self.meta.push(Meta::Changed(self.changed));
    }

    pub(crate) fn page(&self, number: u32) -> Option<Page> {
        self.cache.get(number as usize - 1).copied()
    }

    pub(crate) fn write(&mut self, number: u32, image: Page) {
        self.clock += self.rng.next() % 3;
        let at = number as usize - 1;
        if at >= self.cache.len() {
            self.cache.resize(at + 1, [0, 0]);
            self.meta.push(Meta::Size(at + 1));
        }
        self.cache[at] = image;
        self.writes.push((at, image));
        self.touch();
    }

    pub(crate) fn truncate(&mut self, pages: usize) {
        if pages < self.cache.len() {
            self.cache.truncate(pages);
            self.meta.push(Meta::Size(pages));
            self.touch();
        }
    }

    /// fdatasync: metadata only if the size changed.
    pub(crate) fn sync(&mut self) {
        self.writes.clear();
        self.disk = self.cache.clone();
        if self.meta.iter().any(|meta| matches!(meta, Meta::Size(_))) {
            self.commit();
        }
    }

    /// What syncing a directory does.
    pub(crate) fn commit(&mut self) {
        self.meta.clear();
        self.durable = (self.changed, self.cache.len(), self.beside.clone());
    }

    /// Creates, empties or removes the file beside the database.
    pub(crate) fn set_beside(&mut self, beside: N) {
        self.beside = beside.clone();
        self.meta.push(Meta::Beside(beside));
    }

    /// Changes what the file beside the database holds, and syncs it.
    pub(crate) fn rewrite_beside(&mut self, beside: N) {
        self.beside = beside.clone();
        self.meta.retain(|meta| !matches!(meta, Meta::Beside(_)));
        self.durable.2 = beside;
    }

    pub(crate) fn power_cut(&mut self) {
        let keep = self.rng.below(self.meta.len() + 1);
        for meta in self.meta.drain(..).take(keep) {
            match meta {
                Meta::Changed(time) => self.durable.0 = time,
                Meta::Size(size) => self.durable.1 = size,
                Meta::Beside(beside) => self.durable.2 = beside,
            }
        }
        for (at, image) in std::mem::take(&mut self.writes) {
            if at >= self.disk.len() {
                self.disk.resize(at + 1, [0, 0]);
            }
            for (sector, value) in image.into_iter().enumerate() {
                if self.rng.once_in(2) {
                    self.disk[at][sector] = value;
                }
            }
        }
        self.disk.resize(self.durable.1, [0, 0]);
        self.cache = self.disk.clone();
        self.changed = self.durable.0;
        self.beside = self.durable.2.clone();
        let cut = self.log_synced + self.rng.below(self.log.len() - self.log_synced + 1);
        self.log.truncate(cut);
        self.log_synced = cut;
        self.reboot();
    }

    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        // A host without a battery may start in the past.
        self.clock = if self.rng.once_in(4) { 1000 + self.rng.next() % (self.clock - 999) } else { self.clock + 50 };
    }

    pub(crate) fn boot(&self) -> [u8; 16] {
        [self.boot; 16]
    }

    pub(crate) fn time(&self) -> Time {
        Disk::<N>::at(self.changed)
    }

    /// The time that a file gets now, in nanoseconds. A tick of the clock is 5 ms, one of files' times 20 ms, and each
    /// start of the host ticks in a phase of its own.
    fn tick(&self) -> u64 {
        self.clock / 4 * 20_000_000 + u64::from(self.boot)
    }

    pub(crate) fn at(time: u64) -> Time {
        Time { seconds: (time / 1_000_000_000) as i64, nanoseconds: (time % 1_000_000_000) as u32 }
    }

    pub(crate) fn witness(&self) -> Witness {
        Witness {
            boot: self.boot(),
            changed: Some(self.time()),
            settled: self.clock * 5_000_000 >= self.changed + 40_000_000,
            file_size: self.cache.len() as u64 * u64::from(crate::PAGE_SIZE),
        }
    }

    pub(crate) fn append(&mut self, durable: bool, body: &impl Body) {
        self.encoder.append(&mut self.log, durable, body).unwrap();
        self.log_changed = self.tick();
        if durable {
            self.log_synced = self.log.len();
        }
    }

    /// What a process does that opens the sidecar: it goes on where the log ends, or begins another.
    pub(crate) fn open_log(&mut self, length: usize, last: u64) {
        if self.rng.once_in(4) {
            self.header.epoch = self.rng.next();
            self.header.boot = self.boot();
            self.log = self.header.encode().to_vec();
            self.log_changed = self.tick();
            self.log_synced = self.log.len();
            self.encoder = Encoder::new(&self.header);
        } else {
            self.log.truncate(length);
            self.log_synced = self.log_synced.min(length);
            self.encoder = Encoder::after(&self.header, last);
        }
    }
}
