//! What a sync that fails once does to a database whose application goes on, and where stock SQLite is damaged by it.
//!
//! Each hole is a function over an opener and runs its workload twice: without the fault, which must leave nothing wrong,
//! and with it. Openers that promise to survive go into [`columns`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "crash_states/hardened.rs"]
mod hardened;

use hardened::Hardened;
use support::crash::{
    DirectoryFault, Disk, Event, Faults, Journal, Judge, Lies, Loss, Opener, Recording, Setting, Step, Stock,
    SyncFault, Synchronous, Tally, Times, Workload, record, record_takeover, workloads,
};

const SEED: u64 = 7;
const LOSSES: [Loss; 3] = [Loss::Drop, Loss::KeepClean, Loss::Revert];

/// The other columns, and whether no hole may leave damage or a lost commit there without an alarm or an error. The shim
/// without further options passes on what the base reports, so of that nothing is demanded.
fn columns() -> Vec<(Hardened, bool)> {
    vec![(Hardened::new("hardened", ""), true), (Hardened::new("guard=strict", "guard=strict"), true)]
}

/// A hole, with and without the fault.
struct Struck {
    /// Without it.
    control: Tally,
    /// With it.
    fault: Tally,
    /// How many steps of the workload reported an error because of it.
    reported: usize,
}

fn judged(recording: &Recording, first: usize, opener: &dyn Opener, disk: &Disk) -> Tally {
    let mut judge = Judge::new(recording, opener, disk);
    judge.from(first, Lies::None, 30, SEED);
    judge.tally
}

fn strike(workload: &Workload, faults: Faults, opener: &dyn Opener) -> Struck {
    let disk = Disk::lease();
    let control = record(workload, opener, &disk, Faults::default(), SEED);
    let control = judged(&control, 0, opener, &disk);
    let struck = record(workload, opener, &disk, faults, SEED);
    Struck { control, fault: judged(&struck, 0, opener, &disk), reported: struck.failures.len() }
}

/// The stock column, and what is demanded of the others.
fn check(hole: &str, strike: impl Fn(&dyn Opener) -> Struck, of_stock: impl Fn(&Struck)) {
    let stock = strike(&Stock);
    println!("{hole}, stock, seed {SEED}\n{}", Tally::head());
    println!("{} without the fault\n{} with it", stock.control.row(), stock.fault.row());
    assert_eq!(stock.control.good, stock.control.states, "{:?}", stock.control.examples);
    of_stock(&stock);
    for (opener, survives) in columns() {
        // A base that does not tell of a directory that was not synced is believed; of the operating system's own
        // filesystems `failed_syncs` shows more.
        let survives = survives && !hole.starts_with("directory");
        let struck = strike(&opener);
        println!("{} with it, {}", struck.fault.row(), opener.name());
        if survives {
            assert_eq!(struck.control.good, struck.control.states, "{:?}", struck.control.examples);
            assert_eq!((struck.fault.undetected, struck.control.alarms), (0, 0), "{:?}", struck.fault.examples);
        }
    }
}

fn damaged(struck: &Struck) {
    assert!(struck.fault.damaged() + struck.fault.lost > 0 && struck.fault.undetected > 0, "{:?}", struck.fault);
}

fn neutral(by: usize, sql: &str) -> Step {
    Step::Neutral { by, sql: sql.to_owned() }
}

/// While a reader pins an old snapshot, a checkpoint copies the pages up to it and does not sync the database. The next one
/// copies the rest and its sync fails; the one after that copies the rest again, and its sync succeeds.
fn partial_checkpoint(opener: &dyn Opener, loss: Loss) -> Struck {
    let setting = Setting { autocheckpoint: 0, ..Setting::new(Journal::Wal, Synchronous::Full) };
    let mut workload = workloads::mixed("a partial checkpoint", setting, 5);
    workload.setting.connections = 2;
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let mut steps = workload.steps.into_iter();
    let mut next = || steps.next().unwrap();
    workload.steps = vec![
        next(),
        next(),
        neutral(1, "BEGIN; SELECT * FROM t"),
        next(),
        neutral(0, "PRAGMA wal_checkpoint(PASSIVE)"),
        neutral(1, "COMMIT"),
        neutral(0, checkpoint),
        neutral(0, checkpoint),
        next(),
        next(),
    ];
    strike(&workload, SyncFault::once("x.db", 1, loss).into(), opener)
}

#[test]
fn a_retried_checkpoint_reports_pages_as_durable_that_only_the_first_one_wrote() {
    for loss in LOSSES {
        check(
            &format!("partial checkpoint, {loss:?}"),
            |opener| partial_checkpoint(opener, loss),
            |stock| {
                assert_eq!(stock.reported, 1);
                damaged(stock);
            },
        );
    }
}

/// The sync of the WAL by an automatic checkpoint fails, which no COMMIT reports. The next checkpoint's succeeds, has
/// nothing left to write, and the database is overwritten.
fn automatic_checkpoint(opener: &dyn Opener, loss: Loss) -> Struck {
    let setting = Setting { autocheckpoint: 8, ..Setting::new(Journal::Wal, Synchronous::Normal) };
    let workload = workloads::mixed("automatic checkpoints", setting, 6);
    // The first sync is that of the header of the new WAL.
    strike(&workload, SyncFault::once("-wal", 2, loss).into(), opener)
}

#[test]
fn a_wal_sync_that_fails_inside_an_automatic_checkpoint_is_told_to_nobody_and_loses_commits() {
    for loss in LOSSES {
        check(
            &format!("automatic checkpoint, {loss:?}"),
            |opener| automatic_checkpoint(opener, loss),
            |stock| {
                if loss == Loss::KeepClean {
                    assert_eq!(stock.reported, 0);
                }
                damaged(stock);
            },
        );
    }
}

/// A sync at the commit of a rollback-journal transaction fails, the transaction is rolled back, and the application goes
/// on.
fn commit(opener: &dyn Opener, journal: Journal, suffix: &str, nth: u64, loss: Loss) -> Struck {
    let workload = workloads::mixed("commits", Setting::new(journal, Synchronous::Extra), 6);
    strike(&workload, SyncFault::once(suffix, nth, loss).into(), opener)
}

#[test]
fn a_database_sync_that_fails_at_commit_is_made_good_because_the_rollback_writes_all_pages_again() {
    for journal in [Journal::Delete, Journal::Truncate, Journal::Persist] {
        for loss in LOSSES {
            let hole = format!("database sync at commit, {}, {loss:?}", journal.word());
            check(
                &hole,
                |opener| commit(opener, journal, "x.db", 2, loss),
                |stock| {
                    assert_eq!(stock.reported, 1);
                    assert_eq!(stock.fault.good, stock.fault.states, "{:?}", stock.fault.examples);
                },
            );
        }
    }
}

#[test]
fn a_journal_sync_that_fails_at_commit_leaves_the_rollback_nothing_to_read_where_pages_are_dropped() {
    // The first sync of the second transaction, in which all rows change. The journals that stay have a sync at the end.
    for (journal, nth) in [(Journal::Delete, 3), (Journal::Truncate, 4), (Journal::Persist, 4)] {
        for loss in [Loss::Drop, Loss::Revert] {
            let hole = format!("journal sync at commit, {}, {loss:?}", journal.word());
            check(
                &hole,
                |opener| commit(opener, journal, "-journal", nth, loss),
                |stock| {
                    assert_eq!(stock.reported, 1);
                    damaged(stock);
                },
            );
        }
    }
}

#[test]
fn a_journal_whose_ending_could_not_be_synced_comes_back_under_the_next_transaction() {
    for journal in [Journal::Truncate, Journal::Persist] {
        let hole = format!("sync of the journal's end, {}", journal.word());
        check(
            &hole,
            |opener| commit(opener, journal, "-journal", 3, Loss::KeepClean),
            |stock| {
                assert_eq!(stock.reported, 1);
                damaged(stock);
            },
        );
    }
}

/// A process that does not sync dies in the middle of a transaction. The next one finds its hot journal, which is in the
/// cache only, and the sync of that journal fails; the one after that syncs it with success and plays it back.
fn hot_journal(opener: &dyn Opener, loss: Loss) -> Struck {
    let disk = Disk::lease();
    let setting = Setting { cache: Some(5), ..Setting::new(Journal::Persist, Synchronous::Off) };
    let workload = workloads::mixed("a hot journal", setting, 2);
    // Only stock SQLite can be told not to sync.
    let dying = record(&workload, &Stock, &disk, Faults::default(), SEED);
    let acknowledged = dying.ledger.boundaries[1].acknowledged.unwrap();
    let is_database = |event: &Event| matches!(event, Event::Write { file: 0, .. });
    let after = dying.log.events[..acknowledged].iter().rposition(is_database).unwrap() + 1;
    let run = |faults: Faults| {
        let taken = record_takeover(&dying, after, opener, &disk, faults);
        // Before that, nothing was ever synced and nothing promised.
        let synced =
            (after..taken.log.events.len()).find(|at| matches!(taken.log.events[*at], Event::Sync { file: 1 }));
        (judged(&taken, synced.unwrap() + 1, opener, &disk), taken.failures.len())
    };
    let (control, _) = run(Faults::default());
    let (fault, reported) = run(SyncFault::once("-journal", 1, loss).into());
    Struck { control, fault, reported }
}

#[test]
fn a_hot_journal_whose_first_sync_failed_is_played_back_although_it_is_not_durable() {
    // Where the pages are dropped instead there is nothing left to play back, with the power on.
    check(
        "hot journal",
        |opener| hot_journal(opener, Loss::KeepClean),
        |stock| {
            assert_eq!(stock.reported, 1);
            damaged(stock);
        },
    );
}

/// The sync of the directory in which the journal was created fails, and SQLite's unix VFS tells nobody.
fn directory(opener: &dyn Opener) -> Struck {
    let workload = workloads::mixed("a new journal", Setting::new(Journal::Delete, Synchronous::Extra), 4);
    let directory = Some(DirectoryFault { nth: 1, times: Times::N(1), reported: false });
    strike(&workload, Faults { directory, ..Faults::default() }, opener)
}

#[test]
fn a_journal_whose_name_is_not_durable_is_gone_when_the_half_written_database_needs_it() {
    check("directory sync at the journal's creation", directory, |stock| {
        assert_eq!(stock.reported, 0);
        damaged(stock);
    });
}
