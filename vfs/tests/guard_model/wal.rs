//! A database in WAL mode.

use crate::disk::Disk;
use crate::frames::{Frame, Wal, recovered};
use crate::{PAGE_SIZE, Page, Rng, Tally, wal_faults};
use hardened_vfs::guard::classify::{self, Finding, Observation, PageNow, WalSeen, classify};
use hardened_vfs::guard::images::Folded;
use hardened_vfs::guard::log::{Checkpointed, Entry, Generation, Pages, Pending, WalSynced, Witness};
use hardened_vfs::guard::sums::Sums;
use std::collections::BTreeMap;

/// The last complete checkpoint: its generation, its pages before and after, and the database file then.
type Told = (Generation, BTreeMap<u32, (Page, Page)>, Witness);

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) disk: Disk<Wal>,
    /// Frames that connections see; lost with the last of them.
    visible: usize,
    /// Frames that are in the database file.
    backfilled: usize,
    /// Whether any connection is open.
    open: bool,
    /// Whether the log has to be opened again before it is written to.
    log_cut: bool,
    /// Database and WAL as somebody copied them.
    backup: (Vec<Page>, Wal),
    /// What the log was told: the database before the commits that are pending.
    pub(crate) pending: Option<Pending>,
    /// What the log was told of the last checkpoint, if it was complete.
    pub(crate) checkpointed: Option<Told>,
}

pub(crate) fn history(rng: Rng, tally: &mut Tally) {
    let mut pages: Vec<Page> = vec![[10, 0]];
    pages.resize(6, [1, 1]);
    let disk = Disk::new(rng, pages.clone(), Wal::Absent);
    let (pending, checkpointed) = (None, None);
    let backup = (pages, Wal::Absent);
    let mut world =
        World { disk, visible: 0, backfilled: 0, open: false, log_cut: false, backup, pending, checkpointed };
    for _ in 0..4 + world.disk.rng.below(12) {
        let hardened = !world.disk.rng.once_in(3);
        world.disk.clock += world.disk.rng.next() % 20;
        match world.disk.rng.below(24) {
            0..12 => {
                world.commit(hardened);
                tally.count("commits");
            }
            12..16 => {
                world.checkpoint(hardened);
                tally.count("checkpoints");
            }
            16 | 17 => world.close(hardened),
            18 => {
                world.open = false;
                tally.count("kills");
            }
            19 => {
                world.power_cut();
                tally.count("power cuts");
            }
            20 => {
                world.reboot_cleanly();
                tally.count("restarts");
            }
            21 => world.backup = (world.disk.cache.clone(), world.disk.beside.clone()),
            22 => world.put_backup_back(),
            _ => {}
        }
        let finding = world.look();
        assert!(finding.alarms.is_empty(), "{finding:#?}\n{}\n{:?}", world.disk.story(), world.disk.beside);
        tally.add(&finding);
        wal_faults::try_all(&world, tally);
    }
}

/// A page 1 differs in its second sector more often than in its counter.
fn other(rng: &mut Rng, number: u32, mut image: Page) -> Page {
    if number == 1 {
        image[0] += u32::from(rng.once_in(2));
        image[1] = rng.below(3) as u32;
    } else {
        for sector in &mut image {
            if rng.once_in(2) {
                *sector = 1 + rng.below(3) as u32;
            }
        }
    }
    image
}

impl World {
    pub(crate) fn look(&self) -> Finding {
        let disk = &self.disk;
        let wal = match &disk.beside {
            Wal::Absent => classify::Wal::Absent,
            Wal::Empty => classify::Wal::Empty,
            Wal::Log { generation, frames, .. } => {
                let valid = frames.iter().take_while(|frame| frame.valid).count();
                let committed = recovered(frames);
                let page1: Vec<Page> =
                    frames[..valid].iter().filter(|frame| frame.page == 1).map(|frame| frame.image).collect();
                classify::Wal::Log(WalSeen {
                    generation: *generation,
                    valid_frames: valid as u64,
                    committed_frames: committed as u64,
                    unreachable_frames: (frames.len() - valid) as u64,
                    unreachable_commits: frames[valid..].iter().filter(|frame| frame.commit).count() as u64,
                    visible_frames: 0,
                    index_recovered: false,
                    pages: frames[..committed].iter().map(|frame| frame.page).collect(),
                    page1: page1.iter().map(|page| Sums::from(&page[..])).collect(),
                    page1_counters: page1.first().zip(page1.last()).map(|(first, last)| (first[0], last[0])),
                })
            }
        };
        let seen = Observation {
            page_size: PAGE_SIZE,
            counter: disk.page(1).map(|page| page[0]),
            page_count: Some(disk.cache.len() as u32),
            journal: classify::Journal::Absent,
            wal,
            boot: disk.boot(),
            shared: false,
            changed: Some(disk.time()),
            log_changed: Some(Disk::<Wal>::at(disk.log_changed)),
            thorough: false,
        };
        let mut pages = |number: u32| match disk.page(number) {
            Some(page) => PageNow::Image(Sums::from(&page[..])),
            None => PageNow::Beyond,
        };
        classify(&Folded::read(&disk.log).unwrap(), &seen, &mut pages)
    }

    fn frames(&self) -> &[Frame] {
        match &self.disk.beside {
            Wal::Log { frames, .. } => frames,
            _ => &[],
        }
    }

    /// The page as a reader sees it.
    fn read(&self, number: u32) -> Page {
        let frame = self.frames()[..self.visible].iter().rev().find(|frame| frame.page == number);
        frame.map_or(self.disk.page(number).unwrap(), |frame| frame.image)
    }

    /// The first connection finds out what the WAL holds.
    fn open(&mut self, hardened: bool) {
        if hardened && (self.log_cut || self.disk.rng.once_in(6)) {
            self.log_cut = false;
            let folded = Folded::read(&self.disk.log).unwrap();
            let epoch = self.disk.header.epoch;
            self.disk.open_log(folded.length, folded.last_sequence);
            if self.disk.header.epoch != epoch {
                (self.pending, self.checkpointed) = (None, None);
            }
        }
        if !self.open {
            self.open = true;
            self.visible = recovered(self.frames());
            self.backfilled = 0;
        }
    }

    fn set_frames(&mut self, generation: Generation, frames: Vec<Frame>, synced: usize) {
        // What a WAL holds is data: none of it is on disk before a sync, and its name is.
        self.disk.beside = Wal::Log { generation, frames, synced };
    }

    fn commit(&mut self, hardened: bool) {
        self.open(hardened);
        let witness = self.disk.witness();
        let page1_before = self.disk.page(1).unwrap();
        let restart = self.backfilled == self.visible && self.visible > 0 && !self.disk.rng.once_in(4);
        let (generation, mut frames, mut synced) = match self.disk.beside.clone() {
            Wal::Log { generation, frames, synced } if !restart => (generation, frames, synced),
            Wal::Log { generation: Generation { salts: [a, _], sequence }, .. } => {
                let salts = [a.wrapping_add(1), self.disk.rng.next() as u32];
                // Each connection counts the generations that it has begun itself.
                let sequence = if self.disk.rng.once_in(3) { 1 } else { sequence.wrapping_add(1) };
                (Generation { salts, sequence }, Vec::new(), 0)
            }
            Wal::Absent | Wal::Empty => {
                let salts = [self.disk.rng.next() as u32, self.disk.rng.next() as u32];
                (Generation { salts, sequence: 0 }, Vec::new(), 0)
            }
        };
        if restart || frames.is_empty() {
            (self.visible, self.backfilled) = (0, 0);
            // The header is synced at once.
            self.disk.beside = Wal::Log { generation, frames: Vec::new(), synced: 0 };
            let beside = self.disk.beside.clone();
            self.disk.set_beside(beside);
            self.disk.commit();
        }
        let mut numbers: Vec<u32> =
            (0..1 + self.disk.rng.below(3)).map(|_| 2 + self.disk.rng.below(5) as u32).collect();
        if self.disk.rng.once_in(3) {
            numbers.push(1);
        }
        numbers.sort_unstable();
        numbers.dedup();
        let from = self.visible;
        let mut images = Vec::new();
        for number in &numbers {
            let now = self.read(*number);
            images.push((*number, other(&mut self.disk.rng, *number, now)));
        }
        let count = images.len();
        for (at, (page, image)) in images.iter().enumerate() {
            let frame = Frame { page: *page, image: *image, commit: at + 1 == count, valid: true };
            // What follows a frame that was written anew no longer has the right checksums.
            frames.iter_mut().skip(from + at).for_each(|frame| frame.valid = false);
            match frames.get_mut(from + at) {
                Some(old) => *old = frame,
                None => frames.push(frame),
            }
            synced = synced.min(from + at);
        }
        let killed = self.disk.rng.once_in(12);
        self.set_frames(generation, frames.clone(), synced);
        if killed {
            // Written whole, and never shown to the others; with no others left, recovery finds it.
            self.open &= self.disk.rng.once_in(2);
            return;
        }
        self.visible = from + count;
        let full = self.disk.rng.once_in(3);
        if full {
            self.sync_wal();
        }
        if !hardened || self.disk.rng.once_in(10) {
            return;
        }
        let page1_at = self.frames()[..self.visible].iter().rposition(|frame| frame.page == 1);
        let page1_frame = match page1_at {
            Some(at) if self.frames()[at].image != page1_before => at as u64 + 1,
            _ => 0,
        };
        let known = self.pending.as_ref().is_some_and(|known| known.generation == generation);
        if known && page1_frame == 0 {
            self.tell_synced(full, generation);
            return;
        }
        let mut page1 = Pages::new(PAGE_SIZE);
        page1.push(Entry { page: 1, old: None, new: Some(&page1_before[..]), journaled: false });
        let pending = Pending {
            generation,
            wal_synced: true,
            counter: page1_before[0],
            frames: self.visible as u64,
            page1_frame,
            witness,
            page1,
        };
        let durable = self.disk.rng.once_in(2);
        self.disk.append(durable, &pending);
        self.pending = Some(pending);
        self.tell_synced(full, generation);
    }

    fn tell_synced(&mut self, full: bool, generation: Generation) {
        if full {
            let frames = self.visible as u64;
            self.disk.append(false, &WalSynced { salts: generation.salts, frames });
        }
    }

    fn sync_wal(&mut self) {
        if let Wal::Log { frames, synced, .. } = &mut self.disk.beside {
            *synced = frames.len();
            let beside = self.disk.beside.clone();
            self.disk.rewrite_beside(beside);
        }
    }

    fn checkpoint(&mut self, hardened: bool) {
        self.open(hardened);
        let Wal::Log { generation, frames, .. } = self.disk.beside.clone() else { return };
        self.sync_wal();
        let all = self.visible;
        // A reader may stand in the way.
        let upto = if self.disk.rng.once_in(4) && all > self.backfilled { all - 1 } else { all };
        let latest: BTreeMap<u32, Page> =
            frames[..upto].iter().skip(self.backfilled).map(|frame| (frame.page, frame.image)).collect();
        let before = self.disk.witness();
        let mut pages = Pages::new(PAGE_SIZE);
        let mut told = BTreeMap::new();
        for (number, image) in &latest {
            let old = self.disk.page(*number).unwrap();
            pages.push(Entry { page: *number, old: Some(&old[..]), new: Some(&image[..]), journaled: false });
            told.insert(*number, (old, *image));
            self.disk.write(*number, *image);
        }
        let complete = upto == all;
        let tell = hardened && !self.disk.rng.once_in(8);
        if tell && all > 0 {
            let (witness, counter) = (self.disk.witness(), self.disk.cache[0][0]);
            let durable = self.disk.rng.once_in(2);
            self.disk.append(durable, &Checkpointed { generation, complete, before, witness, counter, pages });
            self.checkpointed = complete.then_some((generation, told, witness));
        } else {
            self.checkpointed = None;
        }
        // Some page may have been written, by whomever, since the log was told.
        self.pending = None;
        if self.disk.rng.once_in(16) {
            return;
        }
        self.disk.sync();
        self.backfilled = upto;
    }

    fn close(&mut self, hardened: bool) {
        self.checkpoint(hardened);
        if self.backfilled < self.visible || matches!(self.disk.beside, Wal::Absent) {
            return;
        }
        self.open = false;
        (self.visible, self.backfilled) = (0, 0);
        let beside = if self.disk.rng.once_in(4) { Wal::Empty } else { Wal::Absent };
        self.disk.set_beside(beside);
        if let (true, Some((generation, _, _))) = (hardened && self.disk.rng.once_in(2), &self.checkpointed) {
            self.disk.clock += 20;
            let (witness, counter) = (self.disk.witness(), self.disk.cache[0][0]);
            let pages = Pages::new(PAGE_SIZE);
            let seen =
                Checkpointed { generation: *generation, complete: true, before: witness, witness, counter, pages };
            self.disk.append(true, &seen);
        }
    }

    fn power_cut(&mut self) {
        let latest = self.disk.beside.clone();
        self.disk.power_cut();
        (self.open, self.log_cut) = (false, true);
        (self.pending, self.checkpointed) = (None, None);
        // The file that survived holds what was synced of it, and any of the rest.
        if let (Wal::Log { generation, frames, synced }, Wal::Log { generation: survived, frames: old, .. }) =
            (latest, &mut self.disk.beside)
        {
            if generation == *survived {
                let mut frames = frames;
                let kept = synced + self.disk.rng.below(frames.len() - synced + 1);
                for at in synced..kept {
                    if self.disk.rng.once_in(3) {
                        frames.iter_mut().skip(at).for_each(|frame| frame.valid = false);
                    }
                }
                frames.truncate(kept);
                *old = frames;
            }
        }
        if let Wal::Log { frames, synced, .. } = &mut self.disk.beside {
            *synced = frames.len();
        }
        let beside = self.disk.beside.clone();
        self.disk.rewrite_beside(beside);
    }

    fn reboot_cleanly(&mut self) {
        self.open = false;
        (self.pending, self.checkpointed) = (None, None);
        self.sync_wal();
        self.disk.sync();
        self.disk.commit();
        self.disk.log_synced = self.disk.log.len();
        self.disk.reboot();
    }

    /// Somebody stops everything and puts database and WAL back as they were copied, or the database alone where the copy
    /// has no WAL.
    fn put_backup_back(&mut self) {
        let (pages, wal) = self.backup.clone();
        self.open = false;
        (self.pending, self.checkpointed) = (None, None);
        self.disk.clock += 300;
        self.disk.truncate(0);
        for (at, image) in pages.iter().enumerate() {
            self.disk.write(at as u32 + 1, *image);
        }
        self.disk.sync();
        self.disk.set_beside(wal);
        self.disk.commit();
        self.sync_wal();
    }
}
