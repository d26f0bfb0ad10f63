//! The states in which a power cut may leave the disk, and whether each is good enough.
//!
//! It is enough to look at the moments before an fsync returns and after the process has told something: what may be on disk
//! at any other moment may be so at the next of these too.

use std::collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Initial, Node, Op, Recording, disk};
use crate::crash::Rng;

/// How many states are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Where chance begins.
    pub seed: u64,
    /// Of so many names that are not on disk every combination is tried.
    pub names: usize,
    /// States of each moment that chance chooses.
    pub random: usize,
    /// After so many wrong states no more are looked at.
    pub wrong: usize,
    /// So many states are enough, chosen by chance.
    pub most: usize,
}

impl Extent {
    /// Short, unless the environment says `HARDENED_UNSYNCED_STATES` (states of each moment that chance chooses) and
    /// `HARDENED_UNSYNCED_SEED`.
    ///
    /// # Panics
    /// If they are no numbers.
    #[must_use]
    pub fn of_environment() -> Extent {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let random = number("HARDENED_UNSYNCED_STATES");
        let seed = number("HARDENED_UNSYNCED_SEED").unwrap_or(1);
        println!("HARDENED_UNSYNCED_SEED={seed}");
        let names = if random.is_some() { 8 } else { 3 };
        Extent { seed, names, random: random.unwrap_or(2) as usize, wrong: 5, most: usize::MAX }
    }

    /// Whether the environment has not asked for more.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.names < 8
    }

    /// The same, but not many more states than this in all, by chance, if it is short.
    #[must_use]
    pub fn at_most(self, most: usize) -> Extent {
        if self.is_short() { Extent { most, ..self } } else { self }
    }

    /// The same, until one state is wrong.
    #[must_use]
    pub fn until_one_is_wrong(self) -> Extent {
        Extent { wrong: 1, ..self }
    }
}

/// What has come out.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many different states were looked at.
    pub states: usize,
    /// What was lost in each wrong one, and what is wrong.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Takes another one's states too.
    pub fn add(&mut self, other: Verdict) {
        self.states += other.states;
        self.wrong.extend(other.wrong);
    }

    /// # Panics
    /// If a state is wrong.
    #[track_caller]
    pub fn is_good(&self, what: &str) {
        println!("{what}: {} states, {} wrong", self.states, self.wrong.len());
        assert!(self.wrong.is_empty(), "{what}: {}", self.wrong.join("\n"));
        assert!(self.states > 10, "{what}: {} states only", self.states);
    }
}

/// A state, made in the directory of the recording.
#[derive(Debug)]
pub struct State<'r> {
    recording: &'r Recording,
    files: BTreeMap<String, (Node, Vec<u8>)>,
    told: Vec<&'r str>,
}

impl State<'_> {
    /// Where it is.
    pub fn home(&self) -> &Path {
        self.recording.home.path()
    }

    /// What was there before the recording.
    pub fn before(&self) -> BTreeMap<String, Vec<u8>> {
        super::files(self.recording, &vec![false; self.recording.ops.len()])
    }

    /// Whether the process had told this before the power went.
    pub fn has_told(&self, what: &str) -> bool {
        self.told.contains(&what)
    }

    /// Whether this name leads to the file to which it led before the recording.
    pub fn leads_where_it_did(&self, name: &str) -> bool {
        let Initial::Directory(entries) = &self.recording.nodes[super::HOME] else { return false };
        entries.get(name).is_some_and(|node| self.files.get(name).is_some_and(|(now, _)| now == node))
    }
}

/// The operations that are neither surely on disk nor surely not.
struct Chance {
    /// Of the first so many operations.
    done: usize,
    durable: Vec<bool>,
    names: Vec<usize>,
    data: Vec<usize>,
}

/// What is on disk: which operations, and of which data only some sectors.
struct Choice {
    done: usize,
    kept: Vec<bool>,
    torn: Option<(usize, u64)>,
}

impl Recording {
    fn at(&self, done: usize) -> Chance {
        let mut durable = vec![false; self.ops.len()];
        for op in &self.ops[..done] {
            let Op::Sync(synced, covers) = op else { continue };
            for (number, op) in self.ops[..*covers].iter().enumerate() {
                durable[number] |= matches!(op, Op::Data(node, ..) | Op::Length(node, _) | Op::Name(node, ..)
                    | Op::Moved(node, _) if node == synced);
            }
        }
        for number in 0..done {
            self.complete(number, &mut durable);
        }
        let (mut names, mut data) = (Vec::new(), Vec::new());
        for number in (0..done).filter(|number| !durable[*number]) {
            match &self.ops[number] {
                Op::Name(..) => names.push(number),
                // With its new name, or after it.
                Op::Moved(..) if !self.is_within_one_directory(number) => names.push(number),
                Op::Data(..) | Op::Length(..) => data.push(number),
                _ => {}
            }
        }
        Chance { done, durable, names, data }
    }

    fn is_within_one_directory(&self, moved: usize) -> bool {
        match (&self.ops[moved - 1], &self.ops[moved]) {
            (Op::Name(one, ..), Op::Moved(other, _)) => one == other,
            _ => false,
        }
    }

    /// A rename is whole within a directory, and never without its new name.
    fn complete(&self, number: usize, kept: &mut [bool]) {
        if !matches!(self.ops[number], Op::Moved(..)) {
            return;
        }
        if self.is_within_one_directory(number) {
            kept[number] = kept[number - 1];
        } else {
            kept[number - 1] |= kept[number];
        }
    }

    /// What is kept if of what is left to chance these are.
    fn kept(&self, chance: &Chance, names: impl Fn(usize) -> bool, mut data: impl FnMut(usize) -> bool) -> Vec<bool> {
        let mut kept = chance.durable.clone();
        for (at, number) in chance.names.iter().enumerate() {
            kept[*number] = names(at);
        }
        for (at, number) in chance.data.iter().enumerate() {
            kept[*number] = data(at);
        }
        for number in 0..chance.done {
            self.complete(number, &mut kept);
        }
        kept
    }

    /// The states of one moment.
    fn choices(&self, chance: &Chance, extent: Extent, rng: &mut Rng) -> Vec<Choice> {
        let (names, data) = (chance.names.len(), chance.data.len());
        let mut choices = Vec::new();
        let mut choose = |kept, torn| choices.push(Choice { done: chance.done, kept, torn });
        let mut sets: Vec<Vec<bool>> = Vec::new();
        if names <= extent.names {
            sets.extend((0..1_usize << names).map(|set| (0..names).map(|at| set >> at & 1 == 1).collect()));
        } else {
            sets.extend((0..=names).map(|first| (0..names).map(|at| at < first).collect()));
            sets.extend((0..names).map(|one| (0..names).map(|at| at != one).collect()));
            sets.extend((0..names).map(|one| (0..names).map(|at| at == one).collect()));
        }
        for set in &sets {
            for all in [true, false] {
                choose(self.kept(chance, |at| set[at], |_| all), None);
            }
        }
        let some = extent.random * 2;
        let some: Vec<usize> =
            if data <= some { (0..data).collect() } else { (0..some).map(|_| rng.below(data)).collect() };
        for one in some {
            choose(self.kept(chance, |_| true, |at| at != one), None);
            choose(self.kept(chance, |_| true, |_| true), Some((chance.data[one], rng.next())));
        }
        for _ in 0..extent.random {
            let set: Vec<bool> = (0..names).map(|_| rng.percent(50)).collect();
            let likely = [20, 50, 80][rng.below(3)];
            let torn = chance.data.get(rng.below(data)).map(|torn| (*torn, rng.next()));
            choose(self.kept(chance, |at| set[at], |_| rng.percent(likely)), torn);
        }
        choices
    }

    /// Makes the states one after the other, each where the process had worked, and has each judged. A judge that panics says
    /// that a state is wrong.
    ///
    /// # Panics
    /// If a state cannot be made.
    pub fn judge(&self, extent: Extent, judge: impl Fn(&State<'_>)) -> Verdict {
        self.judge_from(0, extent, judge)
    }

    /// The same for power cuts after so many operations only.
    pub(super) fn judge_from(&self, from: usize, extent: Extent, judge: impl Fn(&State<'_>)) -> Verdict {
        let mut verdict = Verdict::default();
        let mut rng = Rng::new(extent.seed);
        let is_moment = |at: usize| match self.ops.get(at) {
            None | Some(Op::Sync(..)) => true,
            Some(_) => at > 0 && matches!(self.ops[at - 1], Op::Mark(_)),
        };
        let (mut seen, mut states) = (BTreeSet::new(), Vec::new());
        for done in (from..=self.ops.len()).filter(|at| is_moment(*at)) {
            let chance = self.at(done);
            let told = self.told(done).len();
            for choice in self.choices(&chance, extent, &mut rng) {
                let mut hasher = DefaultHasher::new();
                (disk::files(self, &choice.kept, choice.torn), told).hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    states.push(choice);
                }
            }
        }
        while states.len() > extent.most {
            states.swap_remove(rng.below(states.len()));
        }
        for choice in states {
            let files = disk::files(self, &choice.kept, choice.torn);
            disk::make(self.home.path(), &files);
            verdict.states += 1;
            let state = State { recording: self, files, told: self.told(choice.done) };
            if let Err(cause) = catch_unwind(AssertUnwindSafe(|| judge(&state))) {
                let cause =
                    cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
                let lost = self.lost(&choice);
                verdict.wrong.push(format!("{}\n    lost: {lost}", cause.unwrap_or("it has panicked")));
                if verdict.wrong.len() >= extent.wrong {
                    break;
                }
            }
        }
        verdict
    }

    fn told(&self, done: usize) -> Vec<&str> {
        let told = self.ops[..done].iter().filter_map(|op| match op {
            Op::Mark(told) => Some(told.as_str()),
            _ => None,
        });
        told.collect()
    }

    /// What has not reached the disk, in words.
    fn lost(&self, choice: &Choice) -> String {
        let Choice { done, kept, torn } = choice;
        let (done, torn) = (*done, *torn);
        let mut names: BTreeMap<Node, String> = BTreeMap::from([(super::HOME, String::new())]);
        let mut tell = |node: Node, name: &str, to: Node| {
            let path = format!("{}{name}{}", names.get(&node).cloned().unwrap_or_default(), self.slash(to));
            names.insert(to, path);
        };
        for (node, initial) in self.nodes.iter().enumerate() {
            if let Initial::Directory(entries) = initial {
                entries.iter().for_each(|(name, to)| tell(node, name, *to));
            }
        }
        for op in &self.ops[..done] {
            if let Op::Name(node, name, Some(to)) = op {
                tell(*node, name, *to);
            }
        }
        let path = |node: &Node| names.get(node).cloned().unwrap_or_default();
        let lost = (0..done).filter(|number| !kept[*number] || torn.is_some_and(|(torn, _)| torn == *number));
        let lost = lost.filter_map(|number| match &self.ops[number] {
            Op::Data(node, at, data) => Some(format!("{} bytes at {at} of {}", data.len(), path(node))),
            Op::Length(node, length) => Some(format!("length {length} of {}", path(node))),
            Op::Name(node, name, Some(to)) => Some(format!("name {}{name} of {}", path(node), path(to))),
            Op::Name(node, name, None) => Some(format!("removal of {}{name}", path(node))),
            _ => None,
        });
        let lost: Vec<String> = lost.collect();
        let next = self.ops.get(done).map_or("at the end".to_owned(), |op| match op {
            Op::Sync(node, _) => format!("before the sync of {} (operation {done})", path(node)),
            _ => format!("before operation {done}"),
        });
        format!("{next}: {}", lost.join(", "))
    }

    fn slash(&self, node: Node) -> &'static str {
        if self.is_directory(node) { "/" } else { "" }
    }
}
