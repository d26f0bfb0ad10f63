//! The processes of a fleet: this test program once more, each with some hands. They speak only when something is wrong; they are
//! killed, or end when their standard input does.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use support::crash::Rng;
use support::process::again;

use crate::cells::Cells;
use crate::crew::{Fleet, Kind, two_libraries};
use crate::duties::{ENOUGH, Hand, beside};
use crate::engine::{EXTENSION, Journal};

const TASK: &str = "HARDENED_FLEET_TASK";

/// Beyond this a process that was told to end is stuck.
const SOON: Duration = Duration::from_secs(400);

/// What all processes of a fleet know.
#[derive(Clone, Debug)]
pub(crate) struct Voyage {
    pub(crate) fleet: Fleet,
    pub(crate) journal: Journal,
    pub(crate) seed: u64,
    pub(crate) database: PathBuf,
}

impl Voyage {
    pub(crate) fn board(&self) -> PathBuf {
        beside(&self.database, ".board")
    }

    fn to_text(&self, process: usize, life: u64) -> String {
        let (fleet, journal) = (self.fleet as usize, self.journal.word());
        format!("{fleet} {process} {life} {journal} {} {}", self.seed, self.database.display())
    }

    fn from_text(text: &str) -> Option<(Voyage, usize, u64)> {
        let mut words = text.splitn(6, ' ');
        let fleet = Fleet::ALL[words.next()?.parse::<usize>().ok()?];
        let (process, life) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let journal = [Journal::Wal, Journal::Delete][usize::from(words.next()? == "delete")];
        let (seed, database) = (words.next()?.parse().ok()?, words.next()?.into());
        Some((Voyage { fleet, journal, seed, database }, process, life))
    }
}

/// Turns this process into one of a fleet if the environment says so; `false` in the test itself.
pub(crate) fn aboard() -> bool {
    let Ok(task) = std::env::var(TASK) else { return false };
    let (voyage, process, life) = Voyage::from_text(&task).unwrap();
    // Past what the test harness has printed without an end of line.
    println!();
    std::thread::spawn(|| {
        let _end = std::io::stdin().read(&mut [0]);
        ENOUGH.store(true, Ordering::Relaxed);
    });
    let crew = voyage.fleet.crews()[process];
    let cells = Cells::open(&voyage.board(), voyage.fleet.hands().count());
    let steady = two_libraries(crew);
    let first = voyage.fleet.first_hand(process);
    let mut hands: Vec<Hand> = (first..)
        .zip(crew)
        .map(|(number, &(kind, duty))| Hand {
            number,
            kind,
            duty,
            database: voyage.database.clone(),
            journal: voyage.journal,
            seed: voyage.seed,
            rng: Rng::derived(voyage.seed, &[number as u64, life]),
            cells,
            steady,
            db: None,
        })
        .collect();
    if steady {
        // In their order, the hardened ones first: opening one closes a descriptor.
        hands.iter_mut().for_each(|hand| hand.open().unwrap_or_else(|wrong| say(hand, &wrong.to_string())));
    }
    let working = hands.into_iter().map(|mut hand| {
        std::thread::spawn(move || {
            if let Err(wrong) = hand.work() {
                say(&hand, &wrong.to_string());
            }
        })
    });
    let working: Vec<_> = working.collect();
    let well = working.into_iter().all(|thread| thread.join().is_ok());
    // Not back into the test harness, which would wait for nothing.
    std::process::exit(i32::from(!well));
}

/// The last words of a process.
fn say(hand: &Hand, what: &str) -> ! {
    println!("=wrong {:?} {:?} {}: {}", hand.kind, hand.duty, hand.number, what.replace('\n', " / "));
    std::process::exit(1)
}

enum Event {
    Said(String),
    Silent,
}

struct Running {
    child: Child,
    orders: Option<ChildStdin>,
}

/// The processes, some of which run.
pub(crate) struct Processes {
    test: &'static str,
    voyage: Voyage,
    running: Vec<Option<Running>>,
    lives: u64,
    events: Receiver<(usize, Event)>,
    sender: Sender<(usize, Event)>,
}

impl Processes {
    /// None runs yet. `test` is the name of the test that calls [`aboard`] first.
    pub(crate) fn new(test: &'static str, voyage: Voyage) -> Processes {
        let (sender, events) = channel();
        let running = voyage.fleet.crews().iter().map(|_| None).collect();
        Processes { test, voyage, running, lives: 0, events, sender }
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Starts those that do not run.
    pub(crate) fn start(&mut self, extension: Option<&Path>) {
        for process in 0..self.running.len() {
            if self.running[process].is_some() {
                continue;
            }
            self.lives += 1;
            let mut command = again(self.test);
            command.env(TASK, self.voyage.to_text(process, self.lives));
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            extension.map(|extension| command.env(EXTENSION, extension));
            let mut child = command.spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let sender = self.sender.clone();
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    if let Some(wrong) = line.strip_prefix("=wrong ") {
                        let _gone = sender.send((process, Event::Said(wrong.to_owned())));
                    }
                }
                let _gone = sender.send((process, Event::Silent));
            });
            let orders = child.stdin.take();
            self.running[process] = Some(Running { child, orders });
        }
    }

    /// Hears what there is to hear for some time. Whoever speaks, or ends, says what is wrong.
    pub(crate) fn listen(&mut self, time: Duration) -> Result<(), String> {
        match self.events.recv_timeout(time) {
            Ok((process, Event::Said(wrong))) => Err(format!("process {process}: {wrong}")),
            Ok((process, Event::Silent)) => {
                let status = self.running[process].take().map(|mut running| running.child.wait());
                Err(format!("process {process} has ended by itself: {status:?}"))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    /// SIGKILL to all of these at once, and waits for their ends.
    pub(crate) fn kill(&mut self, victims: &[usize]) -> Result<(), String> {
        for victim in victims {
            if let Some(running) = &mut self.running[*victim] {
                running.child.kill().unwrap();
            }
        }
        self.bury(victims.to_vec(), |status| std::os::unix::process::ExitStatusExt::signal(&status) == Some(9))
    }

    /// Tells all to end, and waits.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let living: Vec<usize> = (0..self.len()).filter(|process| self.running[*process].is_some()).collect();
        living.iter().for_each(|process| drop(self.running[*process].as_mut().and_then(|it| it.orders.take())));
        self.bury(living, |status| status.success())
    }

    fn bury(&mut self, mut who: Vec<usize>, well: impl Fn(std::process::ExitStatus) -> bool) -> Result<(), String> {
        while !who.is_empty() {
            match self.events.recv_timeout(SOON) {
                Ok((process, Event::Said(wrong))) => return Err(format!("process {process}: {wrong}")),
                Ok((process, Event::Silent)) => {
                    let Some(mut running) = self.running[process].take() else { continue };
                    let status = running.child.wait().unwrap();
                    if !who.contains(&process) || !well(status) {
                        return Err(format!("process {process} has ended by itself: {status:?}"));
                    }
                    who.retain(|other| *other != process);
                }
                Err(_) => return Err(format!("processes {who:?} do not end")),
            }
        }
        Ok(())
    }
}

impl Processes {
    /// What each thread is about, for whoever looks for the one that all wait for.
    pub(crate) fn threads(&self) -> String {
        let mut text = String::new();
        for (process, running) in self.running.iter().enumerate() {
            let Some(running) = running else { continue };
            let tasks = std::fs::read_dir(format!("/proc/{}/task", running.child.id()));
            for task in tasks.into_iter().flatten().flatten() {
                let word = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
                let state = word("stat").split(") ").nth(1).map(|rest| rest[..1].to_owned()).unwrap_or_default();
                text += &format!("process {process}: {state} {} {}\n", word("wchan"), word("syscall").trim());
            }
        }
        text
    }

    /// SIGKILL to all, whatever has become of them.
    pub(crate) fn abandon(&mut self) {
        for mut running in self.running.iter_mut().filter_map(Option::take) {
            let _gone = running.child.kill();
            let _status = running.child.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Whether a fleet has hands that need the system's library, or the extension in it.
pub(crate) fn needs(fleet: Fleet, kind: Kind) -> bool {
    fleet.hands().any(|hand| hand.0 == kind)
}
