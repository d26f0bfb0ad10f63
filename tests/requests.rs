//! Promise 7 on network mounts, the part that can be counted: how many requests a transaction waits for, stock against
//! hardened, on a FUSE filesystem whose names and attributes are not cached at all, or for a minute.
//! `cargo test --test requests -- --nocapture` prints the tables of docs/network.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod actors;

use std::time::{Duration, Instant};

use actors::{Actor, HARDENED, Kind, STOCK, STOCK_ELSEWHERE};
use support::fuse::{Counters, Mount, Op, Options};
use support::require;
use tempfile::TempDir;

const CACHED: [Duration; 2] = [Duration::ZERO, Duration::from_secs(60)];

/// A mount with a database of 40 rows in `t`, and of 6,000 in `large`, about 500 pages.
struct Share {
    mount: Mount,
    _homes: [TempDir; 2],
}

impl Share {
    fn new(cache: Duration) -> Share {
        Share::with(cache, false)
    }

    fn with(cache: Duration, forward_locks: bool) -> Share {
        let homes = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let options = Options::new(homes[0].path()).subtype("share").cache(cache).forward_locks(forward_locks);
        let mount = Mount::new(options, homes[1].path()).unwrap();
        let mut maker = Actor::open(&homes[0].path().join("app.db"), STOCK_ELSEWHERE);
        maker.ok("CREATE TABLE t(x INTEGER PRIMARY KEY, y); \
                  WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 40) \
                  INSERT INTO t SELECT x, 'row' FROM n; \
                  CREATE TABLE large(x INTEGER PRIMARY KEY, y); \
                  WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 6000) \
                  INSERT INTO large SELECT x, zeroblob(300) FROM n");
        Share { mount, _homes: homes }
    }

    fn open(&self, kind: Kind) -> Actor {
        Actor::open(&self.path(), kind)
    }

    fn path(&self) -> std::path::PathBuf {
        self.mount.path().join("app.db")
    }

    /// What somebody waits for while this runs: a RELEASE, which comes some time after a close(), keeps nobody waiting.
    fn waits(&self, run: impl FnOnce()) -> Counters {
        let before = self.mount.counters();
        run();
        let all = self.mount.counters() - before;
        let waited = |op: Op| !matches!(op, Op::Release | Op::Releasedir | Op::Forget);
        all.iter().filter(|(op, _)| waited(*op)).collect()
    }
}

/// 100 pages with one row each.
const SCATTERED: &str = "UPDATE large SET y = randomblob(300) WHERE x % 60 = 7";

/// What is counted, and what the same connection has done before.
fn work(share: &Share, kind: Kind, what: &str) -> Counters {
    if what == "open, first SELECT" {
        return share.waits(|| {
            let mut actor = share.open(kind);
            actor.ok("SELECT y FROM t WHERE x = 5");
            std::mem::forget(actor);
        });
    }
    let mut actor = share.open(kind);
    actor.ok("PRAGMA synchronous=FULL; PRAGMA journal_mode=DELETE");
    let mut insert = 1000;
    let mut run = |actor: &mut Actor| match what {
        "INSERT of a row" => {
            insert += 1;
            actor.ok(&format!("INSERT INTO t VALUES ({insert}, 'one more')"))
        }
        "UPDATE of a row in a large table" => actor.ok("UPDATE large SET y = randomblob(300) WHERE x = 3000"),
        "transaction of 100 pages" => actor.ok(SCATTERED),
        _ => actor.ok("SELECT y FROM t WHERE x = 5"),
    };
    run(&mut actor);
    run(&mut actor);
    if what.starts_with("SELECT after") {
        let mut other = share.open(STOCK_ELSEWHERE);
        other.ok("UPDATE t SET y = 'changed' WHERE x = 5");
    }
    share.waits(|| drop(run(&mut actor)))
}

#[test]
fn a_transaction_waits_for_few_requests() {
    if !require::fuse() {
        return;
    }
    for cache in CACHED {
        println!("names and attributes cached for {} s:", cache.as_secs());
        for what in [
            "open, first SELECT",
            "INSERT of a row",
            "UPDATE of a row in a large table",
            "transaction of 100 pages",
            "SELECT again",
            "SELECT after another process wrote",
        ] {
            let [stock, hardened] = [STOCK, HARDENED].map(|kind| work(&Share::new(cache), kind, what));
            println!("| {what} | {} | {} | {stock} | {hardened} |", stock.total(), hardened.total());
        }
    }
}

#[test]
fn commits_at_a_millisecond_a_request() {
    if !require::fuse() {
        return;
    }
    for kind in [STOCK, HARDENED] {
        let share = Share::new(Duration::ZERO);
        let mut actor = share.open(kind);
        actor.ok("PRAGMA synchronous=FULL; PRAGMA journal_mode=DELETE");
        share.mount.set_latency(Duration::from_millis(1));
        let start = Instant::now();
        for x in 1000..1050 {
            actor.ok(&format!("INSERT INTO t VALUES ({x}, 'one more')"));
        }
        println!("{kind:?}: {:.1} commits/s", 50.0 / start.elapsed().as_secs_f64());
    }
}

/// Where the server keeps the locks each is a request: stock takes PENDING, SHARED and gives PENDING back, for which one
/// question and SHARED do.
#[test]
fn locks_that_a_server_keeps_cost_one_request_less_for_each_transaction() {
    if !require::fuse() {
        return;
    }
    for (what, least) in [("SELECT again", 3), ("INSERT of a row", 8)] {
        let [stock, hardened] = [STOCK, HARDENED].map(|kind| {
            let requests = work(&Share::with(Duration::ZERO, true), kind, what);
            println!("{what}, {kind:?}: GETLK {}, SETLK {}", requests.get(Op::Getlk), requests.get(Op::Setlk));
            requests.get(Op::Getlk) + requests.get(Op::Setlk)
        });
        assert_eq!((hardened, stock), (least, least + 1), "{what}");
    }
}
