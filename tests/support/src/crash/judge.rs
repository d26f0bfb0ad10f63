//! Whether what was found is what had to be there.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

use libsqlite3_sys as ffi;

use super::disk::Disk;
use super::image::Image;
use super::ledger::Ledger;
use super::opener::{Found, Opener, Stock, recover};
use super::record::Recording;
use super::states::{Cut, Lies, States};

/// The verdict on one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The content after some transaction, not older than what was promised.
    Good,
    /// The content after an older transaction than promised.
    LostDurable {
        /// Its number.
        found: usize,
        /// The number of the oldest that would do.
        required: usize,
    },
    /// A sound structure with a content that there was after no transaction.
    Mixed,
    /// A broken structure.
    Corrupt(String),
    /// It could not be opened or read for another reason.
    OpenError(i32),
    /// An alarm was given.
    Alarmed {
        /// What it says.
        text: String,
        /// What stock SQLite makes of the same state: the alarm is false if that is good.
        stock: Box<Outcome>,
    },
}

impl Outcome {
    /// Whether the promise was broken.
    pub fn bad(&self) -> bool {
        !matches!(self, Outcome::Good | Outcome::Alarmed { .. })
    }
}

/// What a state is, whatever alarms were given.
pub fn plain(found: &Found, ledger: &Ledger, required: usize) -> Outcome {
    if let Some(failure) = &found.failure {
        return match failure.code & 0xff {
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => Outcome::Corrupt(failure.message.clone()),
            _ => Outcome::OpenError(failure.code),
        };
    }
    if let Some(damage) = &found.damage {
        return Outcome::Corrupt(damage.clone());
    }
    match found.content.and_then(|content| ledger.find(content)) {
        Some(number) if number >= required => Outcome::Good,
        Some(number) => Outcome::LostDurable { found: number, required },
        None => Outcome::Mixed,
    }
}

/// How many states came out how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Distinct states.
    pub states: u64,
    /// Good.
    pub good: u64,
    /// Lost something promised.
    pub lost: u64,
    /// A content that never was.
    pub mixed: u64,
    /// A broken structure.
    pub corrupt: u64,
    /// Could not be opened or read for another reason.
    pub unreadable: u64,
    /// Of the bad ones, those in which opening and reading everything met neither an error nor an alarm.
    pub undetected: u64,
    /// Alarms.
    pub alarms: u64,
    /// Alarms on states that are good.
    pub false_alarms: u64,
    /// The first bad state of each kind, in words.
    pub examples: Vec<String>,
}

/// How many examples a tally keeps.
const EXAMPLES: usize = 12;

impl AddAssign<Tally> for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.states += other.states;
        self.good += other.good;
        self.lost += other.lost;
        self.mixed += other.mixed;
        self.corrupt += other.corrupt;
        self.unreadable += other.unreadable;
        self.undetected += other.undetected;
        self.alarms += other.alarms;
        self.false_alarms += other.false_alarms;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

impl Tally {
    /// Those with a content that never was or a broken structure.
    pub fn damaged(&self) -> u64 {
        self.mixed + self.corrupt
    }

    fn add(&mut self, outcome: &Outcome, noticed: bool) {
        self.states += 1;
        match outcome {
            Outcome::Good => self.good += 1,
            Outcome::LostDurable { .. } => self.lost += 1,
            Outcome::Mixed => self.mixed += 1,
            Outcome::Corrupt(_) => self.corrupt += 1,
            Outcome::OpenError(_) => self.unreadable += 1,
            Outcome::Alarmed { stock, .. } => {
                self.alarms += 1;
                self.false_alarms += u64::from(**stock == Outcome::Good);
            }
        }
        self.undetected += u64::from(outcome.bad() && !noticed);
    }

    /// The head of a table of [`row`](Self::row)s.
    pub fn head() -> &'static str {
        "| states | good | lost durable | mixed | corrupt | unreadable | undetected | alarms | false alarms |"
    }

    /// The numbers as a row in the form of Markdown.
    pub fn row(&self) -> String {
        let numbers = [
            self.states,
            self.good,
            self.lost,
            self.mixed,
            self.corrupt,
            self.unreadable,
            self.undetected,
            self.alarms,
            self.false_alarms,
        ];
        format!("| {} |", numbers.map(|number| number.to_string()).join(" | "))
    }
}

/// Judges states of one recording on one disk. An image is recovered once, and counted once for each promise that it had
/// to keep.
pub struct Judge<'a> {
    recording: &'a Recording,
    opener: &'a dyn Opener,
    disk: &'a Disk,
    required: Vec<usize>,
    recovered: HashMap<u128, Found>,
    stock: HashMap<u128, Found>,
    counted: HashSet<(u128, usize)>,
    /// What came out so far.
    pub tally: Tally,
}

impl<'a> Judge<'a> {
    /// Of a recording that was made on this disk, whose name is part of the images.
    pub fn new(recording: &'a Recording, opener: &'a dyn Opener, disk: &'a Disk) -> Self {
        let required = recording.ledger.required(&recording.log, recording.promise);
        let (recovered, stock, counted) = Default::default();
        Self { recording, opener, disk, required, recovered, stock, counted, tally: Tally::default() }
    }

    /// The outcome of one state; none if it was counted before.
    pub fn state(&mut self, cut: &Cut, image: &Image) -> Option<Outcome> {
        let (hash, required) = (image.hash(), self.required[cut.after]);
        if !self.counted.insert((hash, required)) {
            return None;
        }
        let (setting, ledger) = (&self.recording.workload.setting, &self.recording.ledger);
        let found = self.recovered.entry(hash).or_insert_with(|| recover(self.opener, self.disk, setting, image));
        let noticed = found.failure.is_some();
        let mut outcome = plain(found, ledger, required);
        if let Some(text) = found.alarm.clone() {
            let stock = self.stock.entry(hash).or_insert_with(|| recover(&Stock, self.disk, setting, image));
            outcome = Outcome::Alarmed { text, stock: Box::new(plain(stock, ledger, required)) };
        }
        self.tally.add(&outcome, noticed);
        let false_alarm = matches!(&outcome, Outcome::Alarmed { stock, .. } if **stock == Outcome::Good);
        if (outcome.bad() || false_alarm) && self.tally.examples.is_empty() {
            self.tally.examples.push(format!("{}: {cut:?}: {outcome:?}", self.recording.workload.name));
        }
        Some(outcome)
    }

    /// Judges all states with `choices` seeded choices per event.
    pub fn all(&mut self, lies: Lies, choices: u64, seed: u64) {
        self.from(0, lies, choices, seed);
    }

    /// The same for cuts after at least so many events.
    pub fn from(&mut self, first: usize, lies: Lies, choices: u64, seed: u64) {
        let states = States::new(&self.recording.log, lies, choices, seed);
        for (cut, image) in states.filter(|(cut, _)| cut.after >= first) {
            self.state(&cut, &image);
        }
    }
}

impl std::fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("workload", &self.recording.workload.name).field("tally", &self.tally).finish()
    }
}
