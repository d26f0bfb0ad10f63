//! What runs in the guest: counts the requests of each work on one mount, and compares stock with hardened.
//!
//! Invariant: what keeps a client's lease, in its own time, is not counted; what comes late is waited for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::actors::{Actor, HARDENED, Kind, STOCK, STOCK_ELSEWHERE};
use crate::works::{self, INSERT, LARGE, OPEN, SELECT, SELECT_AFTER, UPDATE};

type Requests = BTreeMap<String, u64>;

/// A lease is kept with these, whatever the client does.
const LEASE: [&str; 2] = ["RENEW", "SEQUENCE"];

/// A mount, and the directory that its server serves.
struct Place {
    mount: PathBuf,
    server: PathBuf,
}

/// Counts, and answers `true`, if the environment says so (`tests/netlab/requests`).
pub(crate) fn in_the_guest() -> bool {
    let Ok(mount) = std::env::var("HARDENED_NETREQUESTS_MOUNT") else { return false };
    let path = |name: &str| PathBuf::from(std::env::var(format!("HARDENED_NETREQUESTS_{name}")).unwrap());
    let place = Place { mount: path("DIR"), server: path("PEER") };
    works::make(&place.server.join("made.db"));
    println!("\n| {mount}, | stock | hardened | requests of stock | requests of hardened |\n|---|---|---|---|---|");
    let works =
        [(OPEN, "the first "), (OPEN, ""), (INSERT, ""), (UPDATE, ""), (LARGE, ""), (SELECT, ""), (SELECT_AFTER, "")];
    for (what, which) in works {
        let (stock, hardened) = place.both(what);
        println!(
            "| {which}{what} | {} | {} | {} | {} |",
            total(&stock),
            total(&hardened),
            list(&stock),
            list(&hardened)
        );
        if what != OPEN {
            assert!(total(&hardened) <= total(&stock), "{mount}, {what}: {stock:?}, {hardened:?}");
        }
    }
    let rates = place.commits_per_second();
    let [stock, hardened] = rates.map(|rate| format!("{rate:.1}"));
    println!("| commits a second | {stock} | {hardened} | | ratio {:.2} |", rates[1] / rates[0]);
    true
}

impl Place {
    /// Attributes that are as old as the client may know them are fetched again: only ever more requests.
    fn both(&self, what: &str) -> (Requests, Requests) {
        let least = |a: Requests, b: Requests| if total(&b) < total(&a) { b } else { a };
        let (mut stock, mut hardened) = (self.requests(STOCK, what), self.requests(HARDENED, what));
        for _ in 0..4 {
            if what == OPEN || total(&hardened) <= total(&stock) {
                break;
            }
            stock = least(stock, self.requests(STOCK, what));
            hardened = least(hardened, self.requests(HARDENED, what));
        }
        (stock, hardened)
    }

    /// What one work asks of the server, on a database of its own.
    fn requests(&self, kind: Kind, what: &str) -> Requests {
        let (name, server) = self.another("counted.db");
        let path = self.mount.join(&name);
        let requests = works::count(
            what,
            || Actor::open(&path, kind),
            || Actor::open(&server, STOCK_ELSEWHERE),
            |run| {
                let before = self.settled();
                run();
                let mut after = self.settled();
                after.iter_mut().for_each(|(name, count)| *count -= before.get(name).copied().unwrap_or_default());
                after.retain(|_, count| *count > 0);
                after
            },
        );
        std::fs::remove_file(server).unwrap();
        requests
    }

    /// A copy of the database, made on the server, under a name that the client has not seen.
    fn another(&self, name: &str) -> (String, PathBuf) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("{}-{name}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let server = self.server.join(&name);
        std::fs::copy(self.server.join("made.db"), &server).unwrap();
        (name, server)
    }

    /// All requests so far, once no more come: a close is answered after it has returned.
    fn settled(&self) -> Requests {
        let (mut seen, mut since) = (self.asked(), Instant::now());
        while since.elapsed() < Duration::from_millis(150) {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.asked();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        seen
    }

    fn asked(&self) -> Requests {
        let statistics = std::fs::read_to_string("/proc/self/mountstats").unwrap();
        let mut requests = operations(&statistics, &self.mount);
        let trace = std::fs::read_to_string("/sys/kernel/tracing/trace").unwrap();
        for line in trace.lines() {
            let lock = line.split(" lockdv4 ").nth(1).and_then(|lock| lock.split(' ').next());
            if let Some(lock) = lock {
                *requests.entry(format!("NLM {lock}")).or_default() += 1;
            }
        }
        requests.retain(|name, count| *count > 0 && !LEASE.contains(&name.as_str()));
        requests
    }

    /// Commits a second of stock and of hardened, one writer, who take turns.
    fn commits_per_second(&self) -> [f64; 2] {
        const ROUND: u32 = 5;
        let kinds = [STOCK, HARDENED];
        let mut actors = kinds.map(|kind| {
            let mut actor = Actor::open(&self.mount.join(self.another("rate.db").0), kind);
            actor.ok(works::DELETE);
            works::inserts(&mut actor, 1000, 3);
            actor
        });
        let mut took = [Duration::ZERO; 2];
        let rounds: u32 = std::env::var("HARDENED_NETREQUESTS_ROUNDS").unwrap().parse().unwrap();
        for round in 0..rounds {
            for turn in 0..2 {
                let who = (round as usize + turn) % 2;
                let began = Instant::now();
                works::inserts(&mut actors[who], 2000 + round * ROUND, ROUND);
                took[who] += began.elapsed();
            }
        }
        took.map(|took| f64::from(rounds * ROUND) / took.as_secs_f64())
    }
}

/// How often each operation has been asked for on the mount at `mount`.
fn operations(statistics: &str, mount: &Path) -> Requests {
    let head = format!(" mounted on {} with fstype nfs", mount.display());
    let of_mount = statistics.lines().skip_while(|line| !line.contains(&head)).skip(1);
    let of_mount = of_mount.take_while(|line| !line.starts_with("device "));
    let of_operations = of_mount.skip_while(|line| !line.contains("per-op statistics")).skip(1);
    let one = |line: &str| {
        let (name, numbers) = line.trim().split_once(':')?;
        Some((name.to_owned(), numbers.split_whitespace().next()?.parse().ok()?))
    };
    of_operations.filter_map(one).collect()
}

fn total(requests: &Requests) -> u64 {
    requests.values().sum()
}

fn list(requests: &Requests) -> String {
    let each: Vec<String> = requests.iter().map(|(name, count)| format!("{name} {count}")).collect();
    each.join(", ")
}
