//! Writers as real processes: this test program once more, which writes and tells what it does on a pipe.
//!
//! Invariant: a commit counts as acknowledged when its line has left the writer, whether or not the writer lived on, or
//! when the next writer has read it and says that it goes on from there.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use support::process::again;

use crate::workload::{Event, Task, write};

const URI: &str = "HARDENED_STORM_URI";
const PRAGMAS: &str = "HARDENED_STORM_PRAGMAS";
const WRITER: &str = "HARDENED_STORM_WRITER";
const SEED: &str = "HARDENED_STORM_WRITER_SEED";

/// The length of a line. A pipe holds few of them, and so a writer cannot run far ahead of the test: it waits between two
/// transactions, without a lock.
const LINE: usize = 1000;

/// Beyond this a writer is stuck.
const SOON: Duration = Duration::from_secs(100);

/// Turns this process into a writer if the environment says so; `false` in the test itself.
pub(crate) fn is_writer() -> bool {
    let Ok(uri) = std::env::var(URI) else { return false };
    let text = |name| std::env::var(name).unwrap();
    let (writer, seed) = (text(WRITER).parse().unwrap(), text(SEED).parse().unwrap());
    let task = Task { uri, pragmas: text(PRAGMAS), writer, seed };
    // Past what the test harness has printed without an end of line.
    println!();
    write(&task, |event| {
        let (word, seq) = match event {
            Event::Begin(seq) => ("begin", seq),
            Event::Commit(seq) => ("commit", seq),
        };
        // A broken pipe: the test is gone.
        writeln!(std::io::stdout(), "{word} {seq:<LINE$}").is_ok()
    })
    .unwrap();
    true
}

fn event(line: &str) -> Option<Event> {
    let (word, seq) = line.split_once(' ')?;
    let seq = seq.trim_end().parse().ok()?;
    match word {
        "begin" => Some(Event::Begin(seq)),
        "commit" => Some(Event::Commit(seq)),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Living,
    /// SIGKILL has been sent.
    Killed,
    /// All that it said has been heard.
    Silent,
}

/// The writers of one database, some of which run.
pub(crate) struct Writers {
    test: &'static str,
    tasks: Vec<Task>,
    running: Vec<Option<Child>>,
    state: Vec<State>,
    /// The last transaction of each that has been acknowledged, or read by the one that took its place.
    acknowledged: Vec<u32>,
    /// The one that each has begun and not acknowledged.
    begun: Vec<Option<u32>>,
    events: Receiver<(usize, Option<Event>)>,
    sender: SyncSender<(usize, Option<Event>)>,
}

impl Writers {
    /// None runs yet. `test` is the name of the test that calls [`is_writer`] first.
    pub(crate) fn new(test: &'static str, tasks: Vec<Task>) -> Writers {
        let (sender, events) = sync_channel(8);
        let n = tasks.len();
        let running = (0..n).map(|_| None).collect();
        let state = vec![State::Living; n];
        Writers { test, tasks, running, state, acknowledged: vec![0; n], begun: vec![None; n], events, sender }
    }

    /// Starts those that do not run.
    pub(crate) fn start(&mut self) {
        for writer in 0..self.tasks.len() {
            if self.running[writer].is_none() {
                self.start_one(writer);
            }
        }
    }

    fn start_one(&mut self, writer: usize) {
        let task = &self.tasks[writer];
        let mut child = again(self.test)
            .env(URI, &task.uri)
            .env(PRAGMAS, &task.pragmas)
            .env(WRITER, task.writer.to_string())
            .env(SEED, task.seed.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for event in lines.map_while(Result::ok).filter_map(|line| event(&line)) {
                if sender.send((writer, Some(event))).is_err() {
                    return;
                }
            }
            let _nobody_listens = sender.send((writer, None));
        });
        self.running[writer] = Some(child);
        self.state[writer] = State::Living;
        self.begun[writer] = None;
    }

    /// Notes what was heard of a writer: an event, or its end, which only a killed one may come to.
    fn heard(&mut self, (writer, event): (usize, Option<Event>)) -> (usize, Option<Event>) {
        match event {
            Some(Event::Begin(seq)) => {
                // It goes on from what it has read: one that was killed before it could say so may have made that.
                self.acknowledged[writer] = seq - 1;
                self.begun[writer] = Some(seq);
            }
            Some(Event::Commit(seq)) => {
                self.acknowledged[writer] = seq;
                self.begun[writer] = None;
            }
            None => {
                assert_eq!(self.state[writer], State::Killed, "writer {writer} has ended by itself");
                self.state[writer] = State::Silent;
            }
        }
        (writer, event)
    }

    /// What the next writer says; `None` is its end.
    pub(crate) fn next(&mut self) -> (usize, Option<Event>) {
        match self.events.recv_timeout(SOON) {
            Ok(event) => self.heard(event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no writer gets on"),
        }
    }

    /// Waits for `n` commits from now on, of whomever.
    pub(crate) fn wait_commits(&mut self, n: u32) {
        while let Ok(event) = self.events.try_recv() {
            self.heard(event);
        }
        let mut left = n;
        while left > 0 {
            if matches!(self.next(), (_, Some(Event::Commit(_)))) {
                left -= 1;
            }
        }
    }

    /// Waits until `writer` is within a transaction, if it is not.
    pub(crate) fn wait_begun(&mut self, writer: usize) {
        while self.begun[writer].is_none() {
            self.next();
        }
    }

    /// Sends SIGKILL to `writer`. It may have to finish a system call before it dies.
    pub(crate) fn kill(&mut self, writer: usize) {
        if let Some(child) = &mut self.running[writer] {
            self.state[writer] = State::Killed;
            child.kill().unwrap();
        }
    }

    /// Waits for the end of a killed writer and for all that it has said.
    pub(crate) fn bury(&mut self, writer: usize) {
        while self.state[writer] != State::Silent {
            self.next();
        }
        let status = self.running[writer].take().map(|mut child| child.wait().unwrap());
        let signal = status.and_then(|status| status.signal());
        assert_eq!(signal, Some(9), "writer {writer}: {status:?}");
    }

    /// How many transactions of each writer a database must and may hold: those acknowledged, and of a dead writer the
    /// one that it was about. A living one goes on.
    pub(crate) fn bounds(&self) -> Vec<std::ops::RangeInclusive<u32>> {
        let one = |writer: usize| {
            let acknowledged: u32 = self.acknowledged[writer];
            let may = if self.running[writer].is_some() { u32::MAX } else { acknowledged + 1 };
            acknowledged..=may
        };
        (0..self.tasks.len()).map(one).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether `writer` has said that it is within a transaction.
    pub(crate) fn in_transaction(&self, writer: usize) -> bool {
        self.begun[writer].is_some()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}
