//! A transaction in rollback mode that was not finished: each alarm, and the nearest innocent case beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "guard_case/mod.rs"]
mod case;

use case::{Case, NEW, OLD, push, time, transaction, written};
use hardened_vfs::guard::classify::{AlarmKind, Journal, Protector, State};

#[test]
fn a_page_that_the_hot_journal_restores_is_not_judged() {
    let mut case = transaction();
    case.seen.journal = case.hot(7, &[1, 3, 4]);
    case.pages[2] = [77, 1];
    case.seen.thorough = true;
    assert_eq!(case.alarms(), []);
    for page in [1, 3, 4] {
        assert_eq!(case.state(page), State::ToBeRepaired(Protector::Journal));
    }
}

#[test]
fn a_half_written_transaction_without_its_journal_is_an_alarm() {
    for journal in [Journal::Absent, Journal::Empty, Journal::Zeroed, Journal::Garbage] {
        let mut case = transaction();
        case.pages[2] = NEW;
        case.seen.journal = journal;
        assert_eq!(case.alarms(), [AlarmKind::ProtectorMissing]);
        let finding = case.look();
        assert!(finding.blocks_writes() && !finding.refuses_reads());
        assert_eq!(finding.alarms[0].pages, [1, 3, 4]);
        assert_eq!((case.state(3), case.state(4)), (State::IntactNew, State::IntactOld));
    }
}

#[test]
fn a_torn_page_of_a_transaction_without_its_journal_is_an_alarm() {
    let mut case = transaction();
    case.pages[2] = [NEW[0], OLD[1]];
    assert_eq!(case.alarms(), [AlarmKind::ProtectorMissing]);
    assert_eq!(case.state(3), State::Torn { newest: vec![true, false] });
}

#[test]
fn a_transaction_that_is_all_there_or_not_at_all_is_none() {
    let mut case = transaction();
    assert_eq!(case.quiet(), 0);
    assert_eq!(case.state(3), State::IntactOld);
    case.pages = vec![[11, 0], [9, 9], NEW, NEW, [9, 9]];
    case.seen.counter = Some(11);
    assert_eq!(case.quiet(), 0);
    assert_eq!(case.state(3), State::IntactNew);
}

#[test]
fn stock_sqlite_that_rolled_back_and_repeated_a_part_is_a_note() {
    // It brings the same counter, the same page 1 and the same page 3.
    let mut case = transaction();
    (case.pages[0], case.pages[2]) = ([11, 0], NEW);
    case.seen.counter = Some(11);
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_copy_that_came_to_the_same_counter_is_a_note() {
    let mut case = transaction();
    case.pages[2] = NEW;
    case.seen.changed = Some(time(160));
    assert_eq!(case.quiet(), 1);
    case.seen.changed = None;
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_page_that_somebody_else_wrote_makes_it_a_note() {
    let mut case = transaction();
    (case.pages[2], case.pages[3]) = (NEW, [55, 55]);
    case.pages[0] = [10, 0];
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_page_that_was_free_before_proves_nothing() {
    // The journal does not hold it, and rolling back leaves it as it is.
    let mut case = Case::new(vec![[10, 0], [9, 9], OLD, OLD]);
    let mut record = written(7, 10, 11, &[(1, [10, 0], [11, 0]), (4, OLD, NEW)]);
    push(&mut record, 3, Some(OLD), Some(NEW), false);
    case.append(true, &record);
    case.pages[2] = NEW;
    (case.seen.changed, case.seen.log_changed) = (Some(time(100)), Some(time(100)));
    assert_eq!(case.quiet(), 0);
    case.pages[3] = NEW;
    assert_eq!(case.alarms(), [AlarmKind::ProtectorMissing]);
}

#[test]
fn a_commit_in_exclusive_mode_that_left_the_counter_alone_proves_nothing() {
    // It may be all there, and a page that it freed may have been written since by a transaction that was rolled back.
    for (exclusive, alarms) in [(true, vec![]), (false, vec![AlarmKind::ProtectorMissing])] {
        let mut case = Case::new(vec![[10, 0], [9, 9], NEW, OLD]);
        let mut record = written(7, 10, 10, &[(3, OLD, NEW), (4, OLD, NEW)]);
        record.exclusive = exclusive;
        case.append(true, &record);
        (case.seen.changed, case.seen.log_changed) = (Some(time(100)), Some(time(100)));
        assert_eq!(case.alarms(), alarms);
    }
}

#[test]
fn a_savepoint_that_was_rolled_back_proves_nothing() {
    let mut case = transaction();
    case.append(true, &written(7, 10, 11, &[(3, OLD, OLD), (4, OLD, OLD)]));
    case.pages[2] = NEW;
    assert_eq!(case.quiet(), 0);
}

#[test]
fn the_journal_of_another_transaction_beside_a_half_written_one_is_an_alarm() {
    let mut case = transaction();
    case.pages[2] = NEW;
    case.seen.journal = case.hot(8, &[1]);
    assert_eq!(case.alarms(), [AlarmKind::ProtectorMispaired]);
    assert!(case.look().refuses_reads());
}

#[test]
fn a_journal_of_another_transaction_that_restores_the_page_is_none() {
    // Stock SQLite rolled back and was killed in a transaction of its own.
    let mut case = transaction();
    case.pages[2] = NEW;
    case.seen.journal = case.hot(8, &[1, 3]);
    assert_eq!(case.quiet(), 0);
}

#[test]
fn a_missing_super_journal_over_a_half_written_transaction_is_an_alarm() {
    let mut case = transaction();
    case.pages[2] = NEW;
    case.seen.journal = case.hot_without_super_journal(7, &[1, 3, 4]);
    assert_eq!(case.alarms(), [AlarmKind::ProtectorMissing]);
    case.pages = vec![[11, 0], [9, 9], NEW, NEW, [9, 9]];
    case.seen.counter = Some(11);
    assert_eq!(case.quiet(), 0);
}

#[test]
fn another_database_under_the_hot_journal_is_an_alarm() {
    let mut case = transaction();
    case.pages = vec![[80, 5], [81, 1], [82, 1], [83, 1], [84, 1]];
    case.seen.counter = Some(80);
    case.seen.journal = case.hot(7, &[1, 3, 4]);
    assert_eq!(case.alarms(), [AlarmKind::DatabaseReplaced]);
    assert!(case.look().refuses_reads());
}

#[test]
fn a_transaction_whose_last_record_was_lost_is_not_another_database() {
    // Its pages are unknown and its counter is one more than the log knows.
    let mut case = transaction();
    case.pages = vec![[11, 5], [81, 1], [82, 1], [83, 1], [84, 1]];
    case.seen.journal = case.hot(7, &[1, 3, 4]);
    for counter in [10, 11, 12] {
        case.seen.counter = Some(counter);
        assert_eq!(case.quiet(), 0);
    }
}
