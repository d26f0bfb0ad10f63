//! What a power cut may leave of what a process has done to files with system calls.
//!
//! The process is recorded by strace(1). Its calls become [`Op`]s: a piece of data written, a length set, a name that leads
//! somewhere else. POSIX promises little of them: what a file holds is on disk after an fsync of the file, a name after an fsync
//! of its directory. Before that each may have reached the disk or not, whatever the others did. Two things are asked of a
//! filesystem beyond that, and every one with a journal does them: a rename within a directory is there as a whole or not at
//! all, and one into another directory never loses the file, though it may have both names. Owners, permissions and times are
//! not looked at, and neither is what a WAL-index holds: SQLite does not trust it after a crash.
//!
//! Invariant: a recording is complete. What the model holds at the end is what the directory holds, byte for byte; else
//! [`record`] panics.

mod disk;
mod states;
mod system;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use tempfile::TempDir;

pub use states::{Extent, State, Verdict};

/// A file or directory of the model, whatever its names.
pub type Node = usize;

/// The directory in which all of it happens.
pub const HOME: Node = 0;

/// One change, or what makes changes last.
#[derive(Clone, Debug)]
pub enum Op {
    /// Data at an offset of a file.
    Data(Node, u64, Rc<[u8]>),
    /// A file has this length now.
    Length(Node, u64),
    /// A name in a directory leads there, or nowhere.
    Name(Node, String, Option<Node>),
    /// The name that a rename takes away: the operation before this one has put its new name there.
    Moved(Node, String),
    /// fsync or fdatasync: what had happened to the node before the operation of this number lasts.
    Sync(Node, usize),
    /// What the process has told of itself, with [`crate::strace::mark`].
    Mark(String),
}

/// What a file or directory was before the recording.
#[derive(Clone, Debug)]
enum Initial {
    File(Rc<[u8]>),
    Directory(BTreeMap<String, Node>),
}

/// What a process has done in a directory.
#[derive(Clone, Debug)]
pub struct Recording {
    home: Rc<TempDir>,
    nodes: Vec<Initial>,
    ops: Vec<Op>,
    /// How many operations there were before the last run.
    before_last: usize,
    /// Which calls of fsync in the last run were of a directory, counted from 1.
    of_directories: Vec<usize>,
}

/// Runs the test `test` as a process that is to do `what` (see [`crate::strace::task`]) in a directory as `prepare` makes it: once,
/// or after a first run that strace has killed, if there is an option for that.
///
/// # Panics
/// If the recording is not complete.
#[must_use]
pub fn record(test: &str, what: &str, prepare: impl Fn(&Path), killed: Option<&str>) -> Recording {
    let home = crate::memory::directory();
    prepare(home.path());
    let mut system = system::System::of(home.path());
    let calls = format!("trace={}", trace::CALLS);
    for kill in killed.iter().map(|kill| ["-e", *kill]).map(Some).chain([None]) {
        let options: Vec<&str> =
            ["-xx", "-s", "8388608", "-e", &calls].into_iter().chain(kill.into_iter().flatten()).collect();
        system.run(&crate::strace::traced(test, home.path(), what, &options));
    }
    let recording = system.recording(home);
    assert!(!recording.ops.is_empty(), "{what}: nothing was recorded");
    let now = disk::read(recording.home.path());
    let model = files(&recording, &vec![true; recording.ops.len()]);
    for name in now.keys().chain(model.keys()).filter(|name| !name.ends_with("-shm")) {
        assert!(now.get(name) == model.get(name), "the recording is not complete: {name}");
    }
    recording
}

/// Records the task again and again, each time after another run that was killed, and judges what a power cut leaves of the second.
/// A first run that came as far as to tell `done` is not counted.
///
/// # Panics
/// As [`record`], and if next to no run was killed.
pub fn after_each_kill(
    (test, what): (&str, &str),
    done: &str,
    extent: Extent,
    prepare: impl Fn(&Path),
    judge: impl Fn(&State<'_>),
) -> Verdict {
    let (mut all, mut runs) = (Verdict::default(), 0);
    for kill in record(test, what, &prepare, None).kills(extent) {
        let recording = record(test, what, &prepare, Some(&kill));
        let before = &recording.ops[..recording.before_last];
        if before.iter().any(|op| matches!(op, Op::Mark(told) if told == done)) {
            continue;
        }
        runs += 1;
        all.add(recording.judge_from(recording.before_last, extent.at_most(60), &judge));
    }
    println!("{what}: {runs} killed runs");
    assert!(runs >= 4, "{runs} runs were killed");
    all
}

/// The files if those operations have reached the disk for which `kept` says so.
fn files(recording: &Recording, kept: &[bool]) -> BTreeMap<String, Vec<u8>> {
    let files = disk::files(recording, kept, None).into_iter();
    files.filter(|(name, _)| !name.ends_with('/')).map(|(name, (_, bytes))| (name, bytes)).collect()
}

impl Recording {
    /// What strace needs to kill a run that would have been as the last one: at each fsync of a directory, when names are not on
    /// disk, or at all calls if `extent` is large.
    fn kills(&self, extent: Extent) -> Vec<String> {
        let kill = |call: &str, number: usize| format!("inject={call}:signal=KILL:when={number}");
        if extent.is_short() {
            return self.of_directories.iter().map(|number| kill("fsync", *number)).collect();
        }
        let calls = ["rename", "link", "unlink", "fsync"];
        calls.iter().flat_map(|call| (1..=30).map(move |number| kill(call, number))).collect()
    }

    /// The fsyncs: the number of the operation, and of what.
    pub fn syncs(&self) -> impl Iterator<Item = (usize, Node)> + '_ {
        self.ops.iter().enumerate().filter_map(|(number, op)| match op {
            Op::Sync(node, _) => Some((number, *node)),
            _ => None,
        })
    }

    /// The same if some fsyncs had done nothing: what a program would leave that does not make them.
    #[must_use]
    pub fn without_syncs(&self, is_lost: impl Fn(usize, Node) -> bool) -> Recording {
        let mut other = self.clone();
        for (number, op) in other.ops.iter_mut().enumerate() {
            if let Op::Sync(node, covers) = op
                && is_lost(number, *node)
            {
                *covers = 0;
            }
        }
        other
    }

    /// Whether it is a directory.
    pub fn is_directory(&self, node: Node) -> bool {
        matches!(self.nodes[node], Initial::Directory(_))
    }
}
