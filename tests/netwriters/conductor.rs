//! What runs in the guest: starts the writers of one mount, kills some, and compares the rows with what was acknowledged.
//!
//! Invariant: an acknowledgement leaves its writer on a pipe, so no row is expected of which the mount under test has told.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::actors::Other;
use crate::away::Away;
use crate::processes::Writers;
use crate::verdict::{alarms, judge};
use crate::workload::{Event, Rng, Task};
use crate::{open, setting};

/// The end of the last line of a mount on which all went well.
pub(crate) const DONE: &str = "every acknowledged commit is there, and nothing else";
/// What stock SQLite says to one connection.
pub(crate) const LOCKED: &str = "database is locked";
pub(crate) const WRITES: &str = "writes";

/// A writer of a killed transaction that nobody else is.
const STRANGER: u32 = 99;

/// Turns this process into the conductor if the environment says so (`tests/netlab/writers`).
pub(crate) fn is_conductor(test: &'static str) -> bool {
    let Ok(places) = std::env::var("HARDENED_NETWRITERS_PLACES") else { return false };
    let number = |name: &str| setting(&format!("HARDENED_NETWRITERS_{name}"), "").parse().unwrap();
    let mut places: Vec<PathBuf> = places.split(':').map(|place| Path::new(place).join("app.db")).collect();
    places.dedup();
    // Past what the test harness has printed without an end of line.
    println!();
    let mount = setting("HARDENED_NETWRITERS_MOUNT", "");
    let (seed, seconds) = (number("SEED"), Duration::from_secs(number("SECONDS")));
    let mut stage = Stage::new(test, &mount, places, setting("HARDENED_NETWRITERS_VFS", "hardened"), seed);
    if !stage.hardened() {
        let alone = stage.alone();
        stage.say(&format!("one connection: {alone}"));
        if alone != WRITES {
            return true;
        }
    }
    if stage.whole() {
        let (mut rng, kills) = (Rng::new(&[seed, 3]), number("KILLS"));
        let rounds = kills.max(1) as u32;
        let restart = std::env::var("HARDENED_NETWRITERS_SERVER").ok().filter(|program| !program.is_empty());
        for round in 0..rounds {
            let restart = restart.as_deref().filter(|_| round == rounds / 2);
            stage.perform(
                seconds / rounds,
                restart.map(|program| (program, Duration::from_secs(number("AWAY")))),
                &mut rng,
            );
            if kills > 0 {
                stage.kill_everybody();
                stage.kill_strangers();
                stage.writers.start();
                stage.kill_writers(&mut rng);
            }
        }
    } else {
        // It is only there to be compared.
        stage.perform(seconds.min(Duration::from_secs(10)), None, &mut Rng::new(&[seed]));
    }
    stage.end();
    true
}

/// Who only looks has no turn among busy writers.
const PATIENCE: Duration = Duration::from_secs(100);

/// What the writers have done while somebody looked.
struct Tally {
    begun: Vec<Option<Instant>>,
    longest: Vec<Duration>,
    commits: Vec<u32>,
}

impl Tally {
    fn of(writers: usize) -> Tally {
        Tally { begun: vec![None; writers], longest: vec![Duration::ZERO; writers], commits: vec![0; writers] }
    }

    fn note(&mut self, writer: usize, event: Option<Event>) {
        match event {
            Some(Event::Begin(_)) => self.begun[writer] = Some(Instant::now()),
            Some(Event::Commit(_)) => {
                self.commits[writer] += 1;
                let took = self.begun[writer].take().map_or(Duration::ZERO, |begun| begun.elapsed());
                self.longest[writer] = self.longest[writer].max(took);
            }
            None => self.begun[writer] = None,
        }
    }
}

struct Stage {
    mount: String,
    vfs: String,
    seed: u64,
    /// The database as each client has it.
    places: Vec<PathBuf>,
    writers: Writers,
    began: Instant,
    /// In the middle of what has reached the database, within a transaction, between two.
    killed: [u32; 3],
    /// While the server was away.
    killed_alone: usize,
}

impl Stage {
    /// Two writers on each of two clients, or three on one.
    fn new(test: &'static str, mount: &str, places: Vec<PathBuf>, vfs: String, seed: u64) -> Stage {
        let count = if places.len() == 2 { 4 } else { 3 };
        let task = |writer: u32| {
            let place = &places[writer as usize % places.len()];
            Task { uri: format!("file:{}?vfs={vfs}", place.display()), pragmas: String::new(), writer, seed }
        };
        let writers = Writers::new(test, (0..count).map(task).collect());
        Stage {
            mount: mount.to_owned(),
            vfs,
            seed,
            places,
            writers,
            began: Instant::now(),
            killed: [0; 3],
            killed_alone: 0,
        }
    }

    fn hardened(&self) -> bool {
        self.vfs == "hardened"
    }

    /// Whether somebody is killed and the server goes away: not with stock SQLite, which may fail without, unless asked for.
    fn whole(&self) -> bool {
        self.hardened() || setting("HARDENED_NETWRITERS_STOCK", "") == "whole"
    }

    fn say(&self, what: &str) {
        println!("{}, {}, {what}", self.mount, if self.hardened() { "hardened" } else { "stock" });
    }

    fn open(&self, place: &Path) -> Connection {
        open(place, &format!("vfs={}", self.vfs))
    }

    /// What comes of a single connection that makes a table. Nobody is there to be waited for.
    fn alone(&self) -> String {
        let db = self.open(&self.places[0].with_file_name("alone.db"));
        db.busy_timeout(Duration::ZERO).unwrap();
        match db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)") {
            Ok(()) => WRITES.to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// All write for that long. At a third of it the server goes away, if it is to, for as long as is said.
    fn perform(&mut self, time: Duration, mut restart: Option<(&str, Duration)>, rng: &mut Rng) {
        self.writers.start();
        let n = self.writers.len();
        let mut tally = Tally::of(n);
        let mut was_away = None;
        // The first commit makes the tables; the time counts from there.
        self.writers.wait_commits(1);
        let began = Instant::now();
        while began.elapsed() < time {
            if let Some((program, time)) = restart.take_if(|_| began.elapsed() >= time / 3) {
                was_away = Some(self.server_goes_away(program, time, rng, &mut tally));
            }
            let (writer, event) = self.writers.next();
            tally.note(writer, event);
        }
        if was_away.is_some() {
            self.all_clients_go_on(None, &mut tally);
        }
        let (took, total) = (began.elapsed().as_secs_f64(), tally.commits.iter().sum::<u32>());
        let waits: Vec<String> = tally.longest.iter().map(|wait| format!("{:.1}", wait.as_secs_f64())).collect();
        self.say(&format!(
            "{n} writers on {} clients: {total} commits in {took:.1} s, {:.1} a second; of each {:?}, longest \
             transaction with its wait {} s{}",
            self.places.len(),
            f64::from(total) / took,
            tally.commits,
            waits.join(" "),
            was_away.map_or(String::new(), |time| format!("; the server was away for {:.1} s", time.as_secs_f64()))
        ));
    }

    /// While the server is away, for `time` at least, a writer of each client dies; when it is back others take their
    /// place. Answers how long it was away.
    fn server_goes_away(&mut self, program: &str, time: Duration, rng: &mut Rng, tally: &mut Tally) -> Duration {
        let away = Away::new(program);
        let clients = self.places.len();
        let one = |client| client + clients * rng.below((self.writers.len() / clients) as u32) as usize;
        let victims: Vec<usize> = (0..clients).map(one).collect();
        victims.iter().for_each(|victim| self.writers.kill(*victim));
        std::thread::sleep(time);
        let was_away = away.comes_back();
        let mut left = victims.len();
        while left > 0 {
            let (writer, event) = self.writers.next();
            left -= usize::from(event.is_none());
            tally.note(writer, event);
        }
        victims.iter().for_each(|victim| self.writers.bury(*victim));
        self.killed_alone += victims.len();
        self.writers.start();
        was_away
    }

    /// On each client a process dies in the middle of a transaction that has reached the database. Whoever has looked at
    /// the database just before, on either client, sees that transaction undone.
    fn kill_strangers(&mut self) {
        let vfs = format!("vfs={}", self.vfs);
        for place in self.places.clone() {
            let watchers: Vec<_> = self.places.iter().map(|place| self.open(place)).collect();
            let mut stranger = Other::open(&format!("file:{}?{vfs}", place.display()));
            assert_eq!(stranger.run("PRAGMA cache_size = 4; BEGIN IMMEDIATE"), 0);
            stranger.run("COMMIT");
            let count =
                |db: &Connection| db.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, u32>(0)).unwrap();
            let before: Vec<u32> = watchers.iter().map(count).collect();
            let sql = format!(
                "BEGIN IMMEDIATE; DELETE FROM item; \
                 WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60) \
                 INSERT INTO item SELECT {STRANGER}, x, 0, randomblob(4000) FROM n"
            );
            assert_eq!(stranger.run(&sql), 0);
            // A header that counts pages is written when the journal is synced, before the database is.
            let mut header = [0; 12];
            let journal = place.with_file_name("app.db-journal");
            std::fs::File::open(journal).unwrap().read_exact(&mut header).unwrap();
            assert_ne!(header[8..], [0; 4], "the journal is hot");
            stranger.kill();
            self.killed[0] += 1;
            // The other client first.
            let after: Vec<u32> = watchers.iter().rev().map(count).collect();
            assert!(before == after && before[0] == before[before.len() - 1], "{before:?} {after:?}");
            drop(watchers);
            self.look();
        }
    }

    fn kill_everybody(&mut self) {
        (0..self.writers.len()).for_each(|writer| self.writers.kill(writer));
        (0..self.writers.len()).for_each(|writer| self.writers.bury(writer));
    }

    /// On each client one of the writers dies wherever it is.
    fn kill_writers(&mut self, rng: &mut Rng) {
        let clients = self.places.len();
        for client in 0..clients {
            let victim = client + clients * rng.below((self.writers.len() / clients) as u32) as usize;
            self.writers.wait_begun(victim);
            for _ in 0..rng.below(2_000_000) {
                std::hint::spin_loop();
            }
            self.writers.kill(victim);
            self.writers.bury(victim);
            self.killed[if self.writers.in_transaction(victim) { 1 } else { 2 }] += 1;
            self.all_clients_go_on(Some(victim), &mut Tally::of(self.writers.len()));
            self.look();
            self.writers.start();
        }
    }

    /// Waits until somebody on each client, but not `dead`, has committed once more.
    fn all_clients_go_on(&mut self, dead: Option<usize>, tally: &mut Tally) {
        let mut went_on = vec![false; self.places.len()];
        while went_on.contains(&false) {
            let (writer, event) = self.writers.next();
            tally.note(writer, event);
            if matches!(event, Some(Event::Commit(_))) {
                went_on[writer % self.places.len()] |= Some(writer) != dead;
            }
        }
    }

    /// Compares what each client sees with what was acknowledged.
    fn look(&self) -> u32 {
        let mut last = 0;
        for place in &self.places {
            let db = self.open(place);
            db.busy_timeout(PATIENCE).unwrap();
            let seen = judge(&db, self.seed, &self.writers.bounds());
            let seen = seen.unwrap_or_else(|wrong| panic!("seed {}, {}: {wrong}", self.seed, place.display()));
            let strangers: u32 = db
                .query_row("SELECT count(*) FROM item WHERE writer >= ?", [self.writers.len() as u32], |row| row.get(0))
                .unwrap();
            assert_eq!(strangers, 0, "seed {}: rows of a transaction that was never committed", self.seed);
            if self.hardened() {
                assert_eq!(alarms(&db).unwrap(), Vec::<String>::new(), "nothing is wrong with this database");
            }
            last = seen.iter().sum();
        }
        last
    }

    /// All are killed at once, and every client sees the same.
    fn end(mut self) {
        self.kill_everybody();
        let there = self.look();
        self.open(&self.places[0]).execute_batch("DROP TABLE item").expect("no lock is left");
        let [writing, within, between] = self.killed;
        self.say(&format!(
            "{there} commits; killed: {writing} while the journal was hot, {within} within and {between} between transactions, \
             {} while the server was away; {:.1} s; {DONE}",
            self.killed_alone,
            self.began.elapsed().as_secs_f64()
        ));
    }
}
