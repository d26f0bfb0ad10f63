//! The works whose requests are counted, on whatever mount: `tests/requests.rs` and `tests/netrequests.rs`.

use std::path::Path;

use crate::actors::{Actor, STOCK_ELSEWHERE};

pub(crate) const OPEN: &str = "open, first SELECT";
pub(crate) const INSERT: &str = "INSERT of a row";
pub(crate) const UPDATE: &str = "UPDATE of a row in a large table";
pub(crate) const LARGE: &str = "transaction of 100 pages";
pub(crate) const SELECT: &str = "SELECT again";
pub(crate) const SELECT_AFTER: &str = "SELECT after another process wrote";

/// 100 pages with one row each.
const SCATTERED: &str = "UPDATE large SET y = randomblob(300) WHERE x % 60 = 7";

/// What both are told, and hardened does anyway on a network.
pub(crate) const DELETE: &str = "PRAGMA synchronous=FULL; PRAGMA journal_mode=DELETE";

/// Makes a database of 40 rows in `t`, and of 6,000 in `large`, about 500 pages.
pub(crate) fn make(path: &Path) {
    let mut maker = Actor::open(path, STOCK_ELSEWHERE);
    maker.ok("CREATE TABLE t(x INTEGER PRIMARY KEY, y); \
              WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 40) \
              INSERT INTO t SELECT x, 'row' FROM n; \
              CREATE TABLE large(x INTEGER PRIMARY KEY, y); \
              WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 6000) \
              INSERT INTO large SELECT x, zeroblob(300) FROM n");
}

/// Counts a work, after what the same connection has done before: `open` gives a connection, `other` one of somebody else.
pub(crate) fn count<C>(
    what: &str,
    open: impl Fn() -> Actor,
    other: impl FnOnce() -> Actor,
    count: impl FnOnce(&mut dyn FnMut()) -> C,
) -> C {
    if what == OPEN {
        let mut opened = None;
        return count(&mut || {
            let mut actor = open();
            actor.ok("SELECT y FROM t WHERE x = 5");
            // Its close is not counted.
            opened = Some(actor);
        });
    }
    let mut actor = open();
    actor.ok(DELETE);
    let mut insert = 1000;
    let mut run = || match what {
        INSERT => {
            insert += 1;
            actor.ok(&format!("INSERT INTO t VALUES ({insert}, 'one more')"))
        }
        UPDATE => actor.ok("UPDATE large SET y = randomblob(300) WHERE x = 3000"),
        LARGE => actor.ok(SCATTERED),
        _ => actor.ok("SELECT y FROM t WHERE x = 5"),
    };
    run();
    run();
    if what == SELECT_AFTER {
        other().ok("UPDATE t SET y = 'changed' WHERE x = 5");
    }
    count(&mut || drop(run()))
}

/// Transactions of a row, one after the other.
pub(crate) fn inserts(actor: &mut Actor, first: u32, transactions: u32) {
    for x in first..first + transactions {
        actor.ok(&format!("INSERT INTO t VALUES ({x}, 'one more')"));
    }
}
