//! A database in rollback mode.

use crate::disk::Disk;
use crate::{PAGE_SIZE, Page, Rng, Tally, rollback_faults};
use hardened_vfs::guard::classify::{self, Finding, HotJournal, Observation, PageNow, Wal, classify};
use hardened_vfs::guard::images::Folded;
use hardened_vfs::guard::log::{Done, Entry, Outcome, Pages, Witness, Written};
use hardened_vfs::guard::sums::Sums;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq)]
pub(crate) enum Journal {
    Absent,
    Empty,
    Zeroed,
    Hot { nonce: u32, initial: usize, before: BTreeMap<u32, Page>, free: u32 },
}

/// A connection that keeps its exclusive lock.
#[derive(Clone)]
struct Session {
    hardened: bool,
    durable: bool,
    /// Whether it has changed the counter since it has the lock.
    counted: bool,
}

/// What the log was told of the last hardened transaction.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) counter: u32,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) counted: bool,
    /// Image before and image told last, journaled pages only.
    pub(crate) pages: BTreeMap<u32, (Page, Page)>,
    named: BTreeSet<u32>,
    witness: Option<Witness>,
    /// When the file was changed before.
    pub(crate) changed: u64,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) disk: Disk<Journal>,
    session: Option<Session>,
    nonce: u32,
    pub(crate) told: Told,
    /// A page that is on the freelist: whoever needs it does not journal it. 0 for none.
    free: u32,
    backup: (Vec<Page>, u32),
}

/// The process died, or the power was cut.
#[derive(Debug, PartialEq)]
pub(crate) enum Dead {
    Killed,
    PowerCut,
}

pub(crate) fn history(rng: Rng, tally: &mut Tally) {
    let mut pages: Vec<Page> = vec![[10, 0]];
    pages.resize(6, [1, 1]);
    let disk = Disk::new(rng, pages.clone(), Journal::Absent);
    let mut world = World { disk, session: None, nonce: 0, told: Told::default(), free: 0, backup: (pages, 0) };
    for _ in 0..3 + world.disk.rng.below(8) {
        let hardened = match &world.session {
            Some(session) => session.hardened,
            None => !world.disk.rng.once_in(3),
        };
        match world.disk.rng.below(16) {
            0 if world.session.is_none() => world.put_backup_back(),
            1 if !world.hot() => world.backup = (world.disk.cache.clone(), world.free),
            2 if !world.hot() => world.reboot_cleanly(),
            _ => match world.transaction(hardened) {
                Ok(outcome) => {
                    tally.count(format!("{outcome:?}"));
                    if hardened && outcome == Outcome::Committed {
                        rollback_faults::after_commit(&world, tally);
                    }
                }
                Err(dead) => {
                    tally.count(format!("{dead:?}"));
                    world.session = None;
                    if hardened {
                        rollback_faults::under_way(&world, &dead, tally);
                    }
                }
            },
        }
        let finding = world.look();
        assert!(finding.alarms.is_empty(), "{finding:#?}\n{}", world.disk.story());
        tally.add(&finding);
    }
}

impl World {
    pub(crate) fn hot(&self) -> bool {
        matches!(self.disk.beside, Journal::Hot { .. })
    }

    pub(crate) fn look(&self) -> Finding {
        let disk = &self.disk;
        let seen = Observation {
            page_size: PAGE_SIZE,
            counter: disk.page(1).map(|page| page[0]),
            page_count: Some(disk.cache.len() as u32),
            journal: match &disk.beside {
                Journal::Absent => classify::Journal::Absent,
                Journal::Empty => classify::Journal::Empty,
                Journal::Zeroed => classify::Journal::Zeroed,
                Journal::Hot { nonce, initial, before, .. } => classify::Journal::Hot(HotJournal {
                    nonce: *nonce,
                    initial_pages: *initial as u32,
                    covers: before.keys().copied().collect(),
                    super_journal_missing: false,
                }),
            },
            wal: Wal::Absent,
            boot: disk.boot(),
            shared: false,
            changed: Some(disk.time()),
            log_changed: Some(Disk::<Journal>::at(disk.log_changed)),
            thorough: false,
        };
        let mut pages = |number: u32| match disk.page(number) {
            Some(page) => PageNow::Image(Sums::from(&page[..])),
            None => PageNow::Beyond,
        };
        classify(&Folded::read(&disk.log).unwrap(), &seen, &mut pages)
    }

    fn put_backup_back(&mut self) {
        self.open(false);
        let (backup, free) = self.backup.clone();
        self.free = free;
        // Somebody has to find the backup first.
        self.disk.clock += 300;
        self.disk.truncate(0);
        for (at, image) in backup.iter().enumerate() {
            self.disk.write(at as u32 + 1, *image);
        }
        self.disk.sync();
    }

    fn reboot_cleanly(&mut self) {
        self.session = None;
        self.disk.sync();
        self.disk.commit();
        self.disk.log_synced = self.disk.log.len();
        self.disk.reboot();
    }

    /// What opening does: whoever it is, a hot journal is rolled back.
    fn open(&mut self, hardened: bool) {
        let folded = Folded::read(&self.disk.log).unwrap();
        if hardened {
            self.disk.open_log(folded.length, folded.last_sequence);
        }
        let Journal::Hot { nonce, initial, before, free } = self.disk.beside.clone() else { return };
        self.free = free;
        self.disk.truncate(initial);
        for (number, image) in before {
            self.disk.write(number, image);
        }
        self.disk.sync();
        self.end_journal();
        if hardened && self.disk.rng.once_in(2) {
            let (outcome, witness) = (Outcome::RolledBack, self.disk.witness());
            self.disk.append(false, &Done { nonce, outcome, witness });
        }
    }

    fn end_journal(&mut self) {
        match self.disk.rng.below(4) {
            0 => self.disk.set_beside(Journal::Empty),
            1 => self.disk.rewrite_beside(Journal::Zeroed),
            _ => self.disk.set_beside(Journal::Absent),
        }
    }

    fn may_die(&mut self) -> Result<(), Dead> {
        match self.disk.rng.below(60) {
            0 | 1 => Err(Dead::Killed),
            2 | 3 => {
                self.disk.power_cut();
                Err(Dead::PowerCut)
            }
            _ => Ok(()),
        }
    }

    fn transaction(&mut self, hardened: bool) -> Result<Outcome, Dead> {
        let first = self.session.is_none();
        if !hardened {
            // It takes longer than a tick of files' times to lock, sync a journal and write: see the module's limits.
            self.disk.clock += 4;
        }
        if first {
            self.open(hardened);
            // A second one leaves the counter alone and tells of itself as durably as the first.
            let durable = self.disk.rng.once_in(2);
            self.session = Some(Session { hardened, durable, counted: false });
        }
        let exclusive = !first || self.disk.rng.once_in(3);
        let Session { durable, counted, .. } = self.session.clone().unwrap();
        self.nonce += 1;
        let counter = self.disk.cache[0][0];
        let initial = self.disk.cache.len();
        let mut before = BTreeMap::new();
        let at_start = self.disk.cache.clone();
        let free = self.free;
        if hardened {
            self.told = Told {
                counter,
                durable,
                exclusive,
                witness: Some(self.disk.witness()),
                changed: self.disk.changed,
                ..Told::default()
            };
        }
        let rounds = 1 + self.disk.rng.below(3);
        let rolled_back = self.disk.rng.once_in(6);
        for round in 0..rounds {
            let mut images: BTreeMap<u32, Page> = BTreeMap::new();
            for _ in 0..1 + self.disk.rng.below(3) {
                let number = 2 + self.disk.rng.below(initial) as u32;
                let mut image = self.disk.page(number).unwrap_or([1, 1]);
                for sector in &mut image {
                    if self.disk.rng.once_in(2) {
                        *sector = 1 + self.disk.rng.below(3) as u32;
                    }
                }
                images.insert(number, image);
            }
            if round + 1 == rounds && !counted && !rolled_back {
                images.insert(1, [counter + 1, at_start[0][1]]);
            }
            for number in images.keys().filter(|number| **number as usize <= initial && **number != free) {
                before.insert(*number, at_start[*number as usize - 1]);
            }
            let journal = Journal::Hot { nonce: self.nonce, initial, before: before.clone(), free };
            self.disk.set_beside(journal);
            self.disk.commit();
            self.may_die()?;
            self.write_all(hardened, &images, &before, &at_start)?;
        }
        if rolled_back {
            self.disk.truncate(initial);
            self.write_all(hardened, &before.clone(), &before, &at_start)?;
        }
        self.disk.sync();
        self.may_die()?;
        if !rolled_back {
            self.free = if self.disk.rng.once_in(4) { 2 + self.disk.rng.below(5) as u32 } else { 0 };
        }
        self.end_journal();
        self.may_die()?;
        if !rolled_back && self.disk.rng.once_in(6) && self.disk.cache.len() > 4 {
            let shorter = self.disk.cache.len() - 1;
            self.disk.truncate(shorter);
            self.may_die()?;
        }
        let outcome = if rolled_back { Outcome::RolledBack } else { Outcome::Committed };
        if hardened {
            let witness = self.disk.witness();
            self.disk.append(false, &Done { nonce: self.nonce, outcome, witness });
        }
        self.may_die()?;
        self.disk.clock += self.disk.rng.next() % 20;
        match &mut self.session {
            Some(session) if exclusive => session.counted |= !rolled_back,
            _ => self.session = None,
        }
        if self.disk.rng.once_in(3) {
            self.session = None;
        }
        Ok(outcome)
    }

    fn write_all(
        &mut self,
        hardened: bool,
        images: &BTreeMap<u32, Page>,
        before: &BTreeMap<u32, Page>,
        at_start: &[Page],
    ) -> Result<(), Dead> {
        if hardened {
            let mut pages = Pages::new(PAGE_SIZE);
            for (page, image) in images {
                // The image before is told with the first write, where the file had one.
                let first = self.told.named.insert(*page);
                let old = at_start.get(*page as usize - 1).filter(|_| first);
                pages.push(Entry {
                    page: *page,
                    old: old.map(|old| &old[..]),
                    new: Some(&image[..]),
                    journaled: before.contains_key(page),
                });
                if let Some(first) = before.get(page) {
                    self.told.pages.entry(*page).or_insert((*first, *image)).1 = *image;
                }
            }
            let counter_after = images.get(&1).map_or(self.told.counter, |page| page[0]);
            self.told.counted |= counter_after != self.told.counter;
            let initial = at_start.len();
            let written = Written {
                before: self.told.witness.unwrap(),
                nonce: self.nonce,
                initial_pages: initial as u32,
                counter_before: self.told.counter,
                counter_after,
                exclusive: self.told.exclusive,
                pages,
            };
            self.disk.append(self.told.durable, &written);
            self.may_die()?;
        }
        for (number, image) in images {
            self.disk.write(*number, *image);
            self.may_die()?;
        }
        Ok(())
    }
}
