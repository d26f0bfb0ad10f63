//! Each rule in WAL mode, with the alarm it raises and the nearest innocent case beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "guard_case/mod.rs"]
mod case;

use case::{Case, LATER, NEW, OLD, PAGE_SIZE, Page, images, time, witness};
use hardened_vfs::guard::classify::{AlarmKind, Journal, State, Wal, WalSeen};
use hardened_vfs::guard::log::*;
use hardened_vfs::guard::sums::Sums;
use std::collections::BTreeSet;

const FIRST: Generation = Generation { salts: [100, 7], sequence: 3 };
const NEXT: Generation = Generation { salts: [101, 8], sequence: 4 };

/// Commits of this generation on a database last changed at `seconds`, four frames, the second of them page 1.
fn pending(generation: Generation, seconds: i64, page1: Page) -> Pending {
    Pending {
        generation,
        wal_synced: true,
        counter: page1[0],
        frames: 4,
        page1_frame: 2,
        witness: witness(seconds),
        page1: images(&[(1, None, page1)]),
    }
}

fn wal(generation: Generation, pages: &[u32]) -> WalSeen {
    WalSeen {
        generation,
        valid_frames: 4,
        committed_frames: 4,
        unreachable_frames: 0,
        unreachable_commits: 0,
        visible_frames: 0,
        index_recovered: false,
        pages: pages.iter().copied().collect(),
        page1: vec![Sums::from(&[11, 0][..])],
        page1_counters: Some((11, 11)),
    }
}

/// Generation FIRST holds commits, and nothing of it is in the database.
fn commits() -> Case {
    let mut case = Case::new(vec![[10, 0], [9, 9], OLD]);
    case.append(true, &pending(FIRST, 100, [10, 0]));
    case.seen.changed = Some(time(100));
    case.seen.wal = Wal::Log(wal(FIRST, &[1, 3]));
    case
}

/// Generation FIRST has been checkpointed, the next has begun, and the power has failed.
fn checkpointed() -> Case {
    let mut case = Case::new(vec![[11, 0], [9, 9], NEW, NEW, [9, 9]]);
    let pages = images(&[(1, Some([10, 0]), [11, 0]), (3, Some(OLD), NEW), (4, Some(OLD), NEW)]);
    let (before, after) = (witness(90), witness(100));
    case.append(true, &Checkpointed { generation: FIRST, complete: true, before, witness: after, counter: 11, pages });
    case.append(true, &pending(NEXT, 100, [11, 0]));
    case.seen.changed = Some(time(100));
    case.seen.wal = Wal::Log(wal(NEXT, &[4]));
    case.seen.boot = LATER;
    case
}

#[test]
fn the_wal_that_holds_the_commits_is_no_alarm() {
    assert_eq!(commits().quiet(), 0);
    let mut case = commits();
    case.seen.thorough = true;
    assert_eq!(case.state(1), State::ToBeRepaired(hardened_vfs::guard::classify::Protector::Wal));
}

#[test]
fn a_wal_that_is_gone_before_anybody_wrote_to_the_database_is_an_alarm() {
    for wal in [Wal::Absent, Wal::Empty, Wal::BadHeader] {
        let mut case = commits();
        case.seen.wal = wal;
        assert_eq!(case.alarms(), [AlarmKind::WalMissing]);
        let finding = case.look();
        assert!(finding.blocks_writes() && !finding.refuses_reads());
    }
}

#[test]
fn a_wal_that_stock_sqlite_checkpointed_is_a_note() {
    // It wrote to the database, and page 1 need not have been among its pages.
    let mut case = commits();
    case.seen.wal = Wal::Absent;
    case.seen.changed = Some(time(120));
    assert_eq!(case.quiet(), 1);
    case.seen.changed = None;
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_wal_that_the_guard_saw_checkpointed_may_go() {
    let mut case = commits();
    let pages = images(&[(1, Some([10, 0]), [11, 0])]);
    let (before, after) = (witness(100), witness(110));
    case.append(true, &Checkpointed { generation: FIRST, complete: true, before, witness: after, counter: 11, pages });
    case.seen.wal = Wal::Absent;
    assert_eq!(case.quiet(), 0);
}

#[test]
fn a_database_seen_too_soon_after_its_last_change_proves_nothing() {
    let mut case = Case::new(vec![[10, 0]]);
    let mut record = pending(FIRST, 100, [10, 0]);
    record.witness.settled = false;
    case.append(true, &record);
    case.seen.changed = Some(time(100));
    assert_eq!(case.quiet(), 1);
}

#[test]
fn commits_that_a_failed_sync_may_have_taken_back_prove_nothing() {
    let mut case = commits();
    let boot = case.seen.boot;
    case.append(true, &Halted { which: Which::Wal, code: 1034, boot, time: 1, message: String::new() });
    case.seen.wal = Wal::Absent;
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_wal_that_a_power_cut_took_is_an_alarm_only_if_page_1_in_it_was_synced() {
    for (synced, alarms) in [(1, vec![]), (2, vec![AlarmKind::WalMissing])] {
        let mut case = commits();
        case.append(true, &WalSynced { salts: FIRST.salts, frames: synced });
        case.seen.wal = Wal::Absent;
        case.seen.boot = LATER;
        assert_eq!(case.alarms(), alarms);
        // A checkpoint would have brought another page 1.
        case.pages[0] = [11, 0];
        case.seen.counter = Some(11);
        assert_eq!(case.alarms(), []);
    }
}

#[test]
fn another_wal_over_pending_commits_is_an_alarm() {
    let mut case = commits();
    case.seen.wal = Wal::Log(wal(Generation { salts: [0x5000_0000, 1], sequence: 9 }, &[]));
    assert_eq!(case.alarms(), [AlarmKind::WalMispaired]);
    case.seen.wal = Wal::Log(wal(Generation { salts: [99, 1], sequence: 2 }, &[]));
    assert_eq!(case.alarms(), [AlarmKind::WalOlder]);
    case.seen.wal = Wal::Log(wal(Generation { salts: [0x5000_0000, 1], sequence: 0 }, &[]));
    assert_eq!(case.alarms(), [AlarmKind::WalOlder]);
}

#[test]
fn a_later_generation_of_the_same_wal_is_none() {
    let mut case = commits();
    // Whatever its number: each connection counts for itself.
    for sequence in [NEXT.sequence, FIRST.sequence, 0, 900] {
        case.seen.wal = Wal::Log(wal(Generation { sequence, ..NEXT }, &[]));
        assert_eq!(case.quiet(), 0, "{sequence}");
    }
}

#[test]
fn another_database_under_the_wal_is_an_alarm() {
    let mut case = commits();
    case.pages[0] = [3, 77];
    case.seen.counter = Some(3);
    assert_eq!(case.alarms(), [AlarmKind::DatabaseReplaced]);
    assert!(case.look().refuses_reads());
}

#[test]
fn a_page_1_that_the_wal_can_have_written_is_no_other_database() {
    let mut case = commits();
    // From the WAL itself.
    (case.pages[0], case.seen.counter) = ([11, 0], Some(11));
    assert_eq!(case.quiet(), 0);
    // An unknown one whose counter fits: an older copy of database and WAL.
    for counter in [9, 10, 11, 12] {
        (case.pages[0], case.seen.counter) = ([counter, 77], Some(counter));
        assert_eq!(case.quiet(), 1);
    }
}

#[test]
fn a_wal_damaged_before_its_last_commit_is_an_alarm_that_lets_writes_pass() {
    let mut case = commits();
    let damaged = WalSeen {
        valid_frames: 1,
        committed_frames: 1,
        unreachable_frames: 3,
        unreachable_commits: 1,
        pages: BTreeSet::from([3]),
        page1: vec![],
        page1_counters: None,
        ..wal(FIRST, &[])
    };
    case.seen.wal = Wal::Log(damaged.clone());
    assert_eq!(case.alarms(), [AlarmKind::WalDamaged]);
    assert!(!case.look().blocks_writes());
    // After a power cut the commits may never have been on disk, unless they were synced.
    case.seen.boot = LATER;
    assert_eq!(case.quiet(), 1);
    case.append(true, &WalSynced { salts: FIRST.salts, frames: 4 });
    assert_eq!(case.alarms(), [AlarmKind::WalDamaged]);
}

#[test]
fn frames_of_a_killed_writer_behind_the_last_commit_are_no_damage() {
    let mut case = commits();
    let killed = WalSeen { unreachable_frames: 3, unreachable_commits: 1, ..wal(FIRST, &[1, 3]) };
    case.seen.wal = Wal::Log(WalSeen { visible_frames: killed.committed_frames, ..killed.clone() });
    assert_eq!(case.quiet(), 0);
    assert!(!case.look().keep_wal);
    // Nothing says that they were no commits: they are kept.
    case.seen.wal = Wal::Log(killed);
    assert_eq!(case.quiet(), 1);
    assert!(case.look().keep_wal);
}

#[test]
fn commits_that_only_the_wal_index_knows_of_are_missed_until_the_host_restarts() {
    let mut case = commits();
    let seen = wal(FIRST, &[1, 3]);
    let more = seen.committed_frames + 40;
    let damaged = WalSeen { visible_frames: more, unreachable_frames: 39, unreachable_commits: 20, ..seen };
    case.seen.wal = Wal::Log(damaged.clone());
    assert_eq!(case.alarms(), [AlarmKind::WalDamaged]);
    assert!(case.look().keep_wal);
    case.seen.boot = LATER;
    assert_eq!(case.quiet(), 1, "a power cut may have left it so");
    assert!(case.look().keep_wal);
}

#[test]
fn a_page_lost_or_torn_after_a_checkpoint_is_an_alarm() {
    let mut case = checkpointed();
    assert_eq!(case.quiet(), 0);
    case.pages[2] = OLD;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
    case.pages[2] = [NEW[0], OLD[1]];
    assert_eq!(case.alarms(), [AlarmKind::Torn]);
    case.pages[2] = NEW;
    (case.pages[0], case.seen.counter) = ([10, 0], Some(10));
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
}

#[test]
fn a_page_that_the_wal_holds_is_not_judged() {
    let mut case = checkpointed();
    case.pages[3] = OLD;
    assert_eq!(case.quiet(), 0);
    case.seen.wal = Wal::Log(wal(FIRST, &[]));
    case.pages[2] = OLD;
    assert_eq!(case.look().alarms.iter().filter(|alarm| alarm.kind == AlarmKind::Lost).count(), 0);
}

#[test]
fn a_checkpoint_that_the_guard_did_not_see_makes_it_a_note() {
    // The generation before was continued and checkpointed by somebody else before the next began.
    let mut case = Case::new(vec![[11, 0], [9, 9], OLD]);
    let pages = images(&[(3, Some(OLD), NEW)]);
    let (before, after) = (witness(90), witness(100));
    case.append(true, &Checkpointed { generation: FIRST, complete: true, before, witness: after, counter: 11, pages });
    case.append(true, &pending(NEXT, 130, [11, 0]));
    case.seen.changed = Some(time(100));
    case.seen.wal = Wal::Log(wal(NEXT, &[]));
    case.seen.boot = LATER;
    assert_eq!(case.alarms(), []);
}

#[test]
fn after_the_wal_is_gone_the_file_must_be_as_it_was_last_seen() {
    let case = |settled, changed| {
        let mut case = Case::new(vec![[11, 0], [9, 9], OLD, [9, 9], [9, 9]]);
        let pages = images(&[(1, Some([10, 0]), [11, 0]), (3, Some(OLD), NEW)]);
        let (before, after) = (witness(90), Witness { settled, ..witness(100) });
        let record = Checkpointed { generation: FIRST, complete: true, before, witness: after, counter: 11, pages };
        case.append(true, &record);
        (case.seen.changed, case.seen.boot) = (Some(time(changed)), LATER);
        case
    };
    assert_eq!(case(true, 100).alarms(), [AlarmKind::Lost]);
    assert_eq!(case(true, 101).quiet(), 1);
    assert_eq!(case(true, 90).quiet(), 1);
    assert_eq!(case(false, 100).quiet(), 1);
    let mut hot = case(true, 100);
    hot.seen.journal = Journal::Garbage;
    assert_eq!(hot.quiet(), 1);
}

#[test]
fn a_transaction_in_rollback_mode_ends_what_the_wal_owed() {
    let mut case = commits();
    let pages = Pages::new(PAGE_SIZE);
    let (before, counter) = (witness(100), 10);
    case.append(
        true,
        &Written {
            before,
            nonce: 1,
            initial_pages: 3,
            counter_before: counter,
            counter_after: counter,
            exclusive: false,
            pages,
        },
    );
    case.seen.wal = Wal::Absent;
    assert_eq!(case.quiet(), 0);
}
