//! All the states in which a power cut may leave a recorded disk.

use std::sync::Arc;

use super::cut::{Device, Keep};
use super::image::Image;
use super::model::{Event, Model};
use super::rng::Rng;

/// A recorded run.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What the disk held before, all of it durable.
    pub start: Image,
    /// What happened.
    pub events: Arc<Vec<Event>>,
    /// What the disk is like.
    pub device: Device,
}

/// Whether syncs did what they reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lies {
    /// A sync that succeeded has made everything durable.
    #[default]
    None,
    /// Of the last syncs before the cut some have dropped, torn or held back what they reported as durable. Nobody can
    /// see that before the power goes, so an honest log serves.
    Some,
}

/// Where the power went and what was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// After how many events.
    pub after: usize,
    /// What was kept of the unsynced.
    pub keep: Keep,
    /// The seed of the lies, if some syncs lied.
    pub lies: Option<u64>,
}

/// How far back a lie may lie.
const SYNCS: usize = 5;

/// Goes through the states of a log: after every event everything kept, nothing kept, and a number of seeded choices.
#[derive(Debug)]
pub struct States<'a> {
    log: &'a Log,
    lies: Lies,
    choices: u64,
    seed: u64,
    /// The next cut.
    after: usize,
    choice: u64,
    model: Model,
    /// The disk before each of the last syncs, with the number of events until then.
    syncs: Vec<(usize, Model)>,
}

impl<'a> States<'a> {
    /// With `choices` seeded choices per event.
    pub fn new(log: &'a Log, lies: Lies, choices: u64, seed: u64) -> Self {
        let model = Model::start(&log.start);
        Self { log, lies, choices, seed, after: 0, choice: 0, model, syncs: Vec::new() }
    }

    fn advance(&mut self) -> bool {
        let Some(event) = self.log.events.get(self.after) else { return false };
        if self.lies == Lies::Some && matches!(event, Event::Sync { .. } | Event::SyncDirectory { .. }) {
            if self.syncs.len() == SYNCS {
                self.syncs.remove(0);
            }
            self.syncs.push((self.after, self.model.clone()));
        }
        self.model.apply(event);
        self.after += 1;
        self.choice = 0;
        true
    }

    /// The image of one cut, and the cut with its seeds.
    fn image(&self) -> (Cut, Image) {
        let seed = Rng::derived(self.seed, &[self.after as u64, self.choice]).next();
        let keep = match self.choice {
            0 => Keep::Everything,
            1 => Keep::Nothing,
            _ => Keep::Some(seed),
        };
        let device = &self.log.device;
        if self.lies == Lies::None || self.syncs.is_empty() {
            return (Cut { after: self.after, keep, lies: None }, self.model.cut(keep, device));
        }
        let mut rng = Rng::derived(seed, &[1]);
        let (from, before) = &self.syncs[rng.below(self.syncs.len())];
        let mut model = before.clone();
        let often = [0, 30, 100][rng.below(3)];
        for (index, event) in self.log.events[*from..self.after].iter().enumerate() {
            if index == 0 || rng.percent(often) {
                model.lie(event, device, &mut rng);
            } else {
                model.apply(event);
            }
        }
        (Cut { after: self.after, keep, lies: Some(seed) }, model.cut(keep, device))
    }
}

impl Iterator for States<'_> {
    type Item = (Cut, Image);

    fn next(&mut self) -> Option<Self::Item> {
        let last = self.choices + 1;
        let only_one = self.lies == Lies::None && self.model.settled();
        if (self.choice > last || (only_one && self.choice > 0)) && !self.advance() {
            return None;
        }
        let item = self.image();
        self.choice += 1;
        Some(item)
    }
}

impl Log {
    /// The image of a cut that keeps everything or nothing, or seeded choices.
    ///
    /// # Panics
    /// If the log has fewer events.
    pub fn cut(&self, after: usize, keep: Keep) -> Image {
        let mut model = Model::start(&self.start);
        self.events[..after].iter().for_each(|event| model.apply(event));
        model.cut(keep, &self.device)
    }
}
