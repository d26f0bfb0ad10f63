//! The power goes: what of the unsynced is there afterwards.
//!
//! Invariant: what was synced is untouched, but for the device sector of a write in flight on a disk without powersafe
//! overwrite, and but for syncs that lied.

use std::collections::BTreeMap;

use super::image::Image;
use super::model::{Data, Event, Model, Pending, PendingName, SECTOR, place};
use super::rng::Rng;

/// What the disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Whether a write in flight leaves alone the bytes beside it (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
    pub powersafe_overwrite: bool,
    /// What xSectorSize says, and what is damaged as one without powersafe overwrite.
    pub sector_size: usize,
    /// Whether a file whose new size is durable before its bytes shows old blocks there instead of zeros.
    pub stale_growth: bool,
    /// Whether a new size may be durable before the names that changed earlier. Journaling file systems keep that order.
    pub sizes_overtake_names: bool,
}

impl Default for Device {
    fn default() -> Self {
        Self { powersafe_overwrite: true, sector_size: 4096, stale_growth: false, sizes_overtake_names: false }
    }
}

/// What a power cut does with unsynced changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// All of them are there: the machine lives, the process died.
    Everything,
    /// None is there.
    Nothing,
    /// Each by itself is kept, dropped or torn, by this seed.
    Some(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
    Torn,
}

/// The fates of `n` changes of one file. Independent coins alone would almost never keep all of one file and none of
/// another, or all but one, which are the states that tell a wrong order of syncs.
fn fates(n: usize, rng: &mut Rng) -> Vec<Fate> {
    let odd = |rng: &mut Rng| if rng.percent(50) { Fate::Torn } else { Fate::Dropped };
    let coins = |rng: &mut Rng, kept: usize, torn: usize| match rng.below(100) {
        chance if chance < kept => Fate::Kept,
        chance if chance < kept + torn => Fate::Torn,
        _ => Fate::Dropped,
    };
    match rng.below(9) {
        0 => vec![Fate::Kept; n],
        1 => vec![Fate::Dropped; n],
        2 | 3 => {
            let mut fates = vec![Fate::Kept; n];
            if n > 0 {
                fates[rng.below(n)] = odd(rng);
            }
            fates
        }
        4 => {
            let mut fates = vec![Fate::Dropped; n];
            if n > 0 {
                fates[rng.below(n)] = if rng.percent(70) { Fate::Kept } else { Fate::Torn };
            }
            fates
        }
        5 => {
            let kept = rng.below(n + 1);
            let last = odd(rng);
            (0..n)
                .map(|i| {
                    if i < kept {
                        Fate::Kept
                    } else if i == kept {
                        last
                    } else {
                        Fate::Dropped
                    }
                })
                .collect()
        }
        6 => (0..n).map(|_| coins(rng, 80, 10)).collect(),
        7 => (0..n).map(|_| coins(rng, 40, 20)).collect(),
        _ => (0..n).map(|_| coins(rng, 10, 10)).collect(),
    }
}

impl Pending {
    fn tear(&self, content: &mut Vec<u8>, device: &Device, rng: &mut Rng) {
        let Pending::Write { offset, bytes } = self else {
            if rng.percent(50) {
                self.settle(content);
            }
            return;
        };
        let sectors = bytes.len().div_ceil(SECTOR);
        let prefix = rng.percent(40).then(|| rng.below(sectors + 1));
        let keep: Vec<bool> = (0..sectors).map(|i| prefix.map_or_else(|| rng.percent(50), |n| i < n)).collect();
        if rng.percent(50) {
            grow(content, offset + bytes.len(), device, rng);
        }
        for (i, chunk) in bytes.chunks(SECTOR).enumerate() {
            if keep[i] {
                place(content, offset + i * SECTOR, chunk);
            }
        }
        if !device.powersafe_overwrite {
            smash(content, *offset, bytes.len(), device.sector_size, rng);
        }
    }
}

/// The new size was durable, the bytes were not.
fn grow(content: &mut Vec<u8>, size: usize, device: &Device, rng: &mut Rng) {
    let old = content.len();
    if old < size {
        content.resize(size, 0);
        if device.stale_growth {
            rng.fill(&mut content[old..]);
        }
    }
}

/// One device sector of a write in flight can not be read as anything any more.
fn smash(content: &mut [u8], offset: usize, len: usize, sector: usize, rng: &mut Rng) {
    let (first, last) = (offset / sector, (offset + len).div_ceil(sector));
    let start = (first + rng.below(last - first)) * sector;
    let end = (start + sector).min(content.len());
    if start < end {
        rng.fill(&mut content[start..end]);
    }
}

impl Data {
    fn cut(&self, keep: Keep, device: &Device, sizes_until: usize, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.durable.clone();
        match keep {
            Keep::Nothing => {}
            Keep::Everything => self.pending.iter().for_each(|pending| pending.settle(&mut content)),
            Keep::Some(_) => {
                for (pending, fate) in self.pending.iter().zip(fates(self.pending.len(), rng)) {
                    match fate {
                        _ if matches!(pending, Pending::Size { at, .. } if *at > sizes_until) => {}
                        Fate::Kept => pending.settle(&mut content),
                        Fate::Torn => pending.tear(&mut content, device, rng),
                        Fate::Dropped => {
                            if let Pending::Write { offset, bytes } = pending
                                && rng.percent(20)
                            {
                                grow(&mut content, offset + bytes.len(), device, rng);
                            }
                        }
                    }
                }
            }
        }
        content
    }

    /// A sync that reports success and leaves some changes for later, some torn and some undone for ever.
    fn lie(&mut self, device: &Device, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        self.durable_changed = self.changed;
        let fates = fates(pending.len(), rng);
        // What a volatile cache holds back may still come, or go with the power.
        let held_back = rng.percent(50);
        for (one, fate) in pending.into_iter().zip(fates) {
            match fate {
                Fate::Kept => one.settle(&mut self.durable),
                Fate::Torn => one.tear(&mut self.durable, device, rng),
                Fate::Dropped if held_back => self.pending.push(one),
                Fate::Dropped => {}
            }
        }
    }
}

impl Model {
    /// The disk after a power cut now.
    pub(super) fn cut(&self, keep: Keep, device: &Device) -> Image {
        let mut rng = Rng::new(match keep {
            Keep::Some(seed) => seed,
            _ => 0,
        });
        let mut names = self.durable_names.clone();
        let mut sizes_until = usize::MAX;
        match keep {
            Keep::Nothing => {}
            Keep::Everything => self.pending_names.iter().for_each(|entry| entry.settle(&mut names)),
            Keep::Some(_) => {
                let first_dropped = choose_names(&self.pending_names, &mut names, &mut rng);
                if !device.sizes_overtake_names {
                    sizes_until = first_dropped;
                }
            }
        }
        // The time of change is metadata: it is there as of the last sync at least, and often as of the last change.
        let mut times = Rng::derived(self.clock as u64, &[rng.next()]);
        let mut changed = BTreeMap::new();
        for (name, file) in &names {
            let data = &self.files[*file];
            let latest = keep == Keep::Everything || (keep != Keep::Nothing && times.percent(50));
            changed.insert(name.clone(), if latest { data.changed } else { data.durable_changed });
        }
        let mut content = |file: usize| self.files[file].cut(keep, device, sizes_until, &mut rng);
        let files = names.into_iter().map(|(name, file)| (name, content(file)));
        Image { files: files.collect(), changed, clock: self.clock }
    }

    /// Whether a cut now can leave only one image.
    pub(super) fn settled(&self) -> bool {
        self.pending_names.is_empty() && self.durable_names.values().all(|file| self.files[*file].pending.is_empty())
    }

    /// Like a sync of the event, but one that lies.
    pub(super) fn lie(&mut self, event: &Event, device: &Device, rng: &mut Rng) {
        match event {
            Event::Sync { file } => self.files[*file].lie(device, rng),
            // The names stay pending: they may come or not.
            Event::SyncDirectory { .. } => {}
            other => self.apply(other),
        }
    }
}

/// Of each name some version: as it is durable, or as after any of its changes. Answers when the first change came that
/// is dropped.
fn choose_names(pending: &[PendingName], names: &mut BTreeMap<String, usize>, rng: &mut Rng) -> usize {
    let mut kept = vec![false; pending.len()];
    // Directories are mostly journaled, so the changes of all names often stop at one point in time.
    if rng.percent(30) {
        let until = rng.below(pending.len() + 1);
        kept[..until].fill(true);
    } else {
        let mut changes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, entry) in pending.iter().enumerate() {
            changes.entry(&entry.name).or_default().push(number);
        }
        for versions in changes.values() {
            let until = rng.below(versions.len() + 1);
            versions[..until].iter().for_each(|number| kept[*number] = true);
        }
    }
    let mut first_dropped = usize::MAX;
    for (entry, kept) in pending.iter().zip(kept) {
        if kept {
            entry.settle(names);
        } else {
            first_dropped = first_dropped.min(entry.at);
        }
    }
    first_dropped
}
