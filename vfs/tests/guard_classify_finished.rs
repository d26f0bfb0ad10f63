//! Pages after the end of a transaction in rollback mode: each alarm, and the nearest innocent case beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "guard_case/mod.rs"]
mod case;

use case::{BOOT, Case, LATER, NEW, OLD, committed, done, push, restarted, time, transaction, written, written_at};
use hardened_vfs::guard::classify::{AlarmKind, Journal, PageNow, Protector, State, Wal};
use hardened_vfs::guard::log::{Halted, Outcome, Record, Which};

#[test]
fn a_page_lost_after_a_commit_is_an_alarm() {
    let mut case = restarted();
    assert_eq!(case.quiet(), 0);
    case.pages[2] = OLD;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
    assert_eq!(case.state(3), State::Lost);
    case.pages.truncate(3);
    case.pages[2] = NEW;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
}

#[test]
fn a_page_torn_after_a_commit_is_an_alarm() {
    let mut case = restarted();
    case.pages[2] = [OLD[0], NEW[1]];
    assert_eq!(case.alarms(), [AlarmKind::Torn]);
    assert_eq!(case.state(3), State::Torn { newest: vec![false, true] });
}

#[test]
fn page_1_lost_explains_an_older_counter() {
    let mut case = restarted();
    case.pages[0] = [10, 0];
    case.seen.counter = Some(10);
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
}

#[test]
fn where_nothing_can_have_been_lost_no_page_is_read() {
    let mut case = committed();
    case.pages[2] = OLD;
    assert_eq!(case.quiet(), 0);
    assert_eq!(case.reads(), 0);
    case.seen.thorough = true;
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_failed_sync_or_a_server_can_lose_pages_without_a_restart() {
    let mut case = committed();
    case.pages[2] = OLD;
    case.seen.shared = true;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
    case.seen.shared = false;
    let message = "Input/output error".to_owned();
    case.append(true, &Halted { which: Which::Database, code: 1034, boot: BOOT, time: 1, message });
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
    case.append(true, &Record::Resumed);
    assert_eq!(case.quiet(), 0);
}

#[test]
fn a_file_that_was_changed_since_proves_nothing() {
    for changed in [Some(time(101)), Some(time(99)), None] {
        let mut case = restarted();
        case.pages[2] = OLD;
        case.seen.changed = changed;
        assert_eq!(case.quiet(), 1, "{changed:?}");
    }
}

#[test]
fn a_counter_that_moved_on_proves_nothing() {
    let mut case = restarted();
    (case.pages[0], case.pages[2]) = ([12, 0], OLD);
    case.seen.counter = Some(12);
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_journal_that_came_back_and_was_rolled_back_is_a_note() {
    let mut case = restarted();
    case.pages = vec![[10, 0], [9, 9], OLD, OLD, [9, 9]];
    case.seen.counter = Some(10);
    assert_eq!(case.quiet(), 1);
    assert_eq!(case.state(3), State::IntactOld);
}

#[test]
fn a_journal_that_came_back_and_is_hot_repairs_its_pages() {
    let mut case = restarted();
    case.pages[2] = OLD;
    case.seen.journal = case.hot(7, &[1, 3, 4]);
    assert_eq!(case.quiet(), 0);
}

#[test]
fn a_page_beside_a_hot_journal_is_judged_by_the_transactions_before() {
    let mut case = committed();
    case.append(true, &written_at(100, 8, 11, 12, &[(1, [11, 0], [12, 0]), (4, NEW, OLD)]));
    case.seen.journal = case.hot(8, &[1, 4]);
    case.seen.boot = LATER;
    case.pages[2] = OLD;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
    assert_eq!(case.state(4), State::ToBeRepaired(Protector::Journal));
    case.pages[2] = NEW;
    assert_eq!(case.quiet(), 0);
}

#[test]
fn a_transaction_of_somebody_else_in_between_breaks_the_chain() {
    // Page 3 was put back as it was before by a commit that the log does not have.
    for (seen_at, before) in [(100, 12), (130, 11)] {
        let mut case = committed();
        case.append(
            true,
            &written_at(seen_at, 8, before, before + 1, &[(1, [before, 0], [before + 1, 0]), (4, NEW, OLD)]),
        );
        case.append(false, &done(8, Outcome::Committed, 140));
        case.pages = vec![[before + 1, 0], [9, 9], OLD, OLD, [9, 9]];
        case.seen.counter = Some(before + 1);
        (case.seen.changed, case.seen.boot) = (Some(time(140)), LATER);
        assert_eq!(case.quiet(), 0, "{seen_at}");
    }
}

#[test]
fn a_restart_in_between_breaks_the_chain() {
    // The power cut may have taken a record from the log's end and the last time of change from the file.
    for (boot, alarms) in [(BOOT, vec![AlarmKind::Lost]), (LATER, vec![])] {
        let mut case = committed();
        let mut record = written_at(100, 8, 11, 12, &[(1, [11, 0], [12, 0]), (4, NEW, OLD)]);
        record.before.boot = boot;
        case.append(true, &record);
        case.seen.journal = case.hot(8, &[1, 4]);
        case.seen.boot = [3; 16];
        case.pages[2] = OLD;
        assert_eq!(case.alarms(), alarms);
    }
}

#[test]
fn a_page_that_toggles_is_what_it_was_last() {
    let mut case = committed();
    case.append(true, &written_at(100, 8, 11, 12, &[(1, [11, 0], [12, 0]), (3, NEW, OLD)]));
    case.append(false, &done(8, Outcome::Committed, 120));
    case.pages = vec![[12, 0], [9, 9], OLD, NEW, [9, 9]];
    case.seen.counter = Some(12);
    (case.seen.changed, case.seen.boot) = (Some(time(120)), LATER);
    assert_eq!(case.quiet(), 0);
    case.pages[2] = NEW;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
}

#[test]
fn a_transaction_that_was_rolled_back_leaves_its_pages_old() {
    let mut case = transaction();
    case.append(false, &done(7, Outcome::RolledBack, 100));
    case.seen.boot = LATER;
    assert_eq!(case.quiet(), 0);
}

#[test]
fn a_page_that_a_commit_cut_off_is_not_missed() {
    let mut case = restarted();
    case.pages.truncate(3);
    case.seen.page_count = Some(3);
    assert_eq!(case.quiet(), 0);
    assert_eq!(case.state(4), State::NotJudged);
}

#[test]
fn a_lost_tail_of_the_log_in_exclusive_mode_proves_nothing() {
    for (durable, alarms) in [(true, vec![AlarmKind::Lost]), (false, vec![])] {
        let mut case = Case::new(vec![[11, 0], [9, 9], OLD, NEW]);
        let mut record = written(7, 10, 11, &[(1, [10, 0], [11, 0]), (3, OLD, NEW), (4, OLD, NEW)]);
        record.exclusive = true;
        case.append(durable, &record);
        case.append(false, &done(7, Outcome::Committed, 100));
        (case.seen.changed, case.seen.boot) = (Some(time(100)), LATER);
        assert_eq!(case.alarms(), alarms);
    }
}

#[test]
fn a_page_or_file_that_cannot_be_read_proves_nothing() {
    let mut case = restarted();
    case.pages[2] = OLD;
    case.unreadable = vec![3];
    assert_eq!(case.quiet(), 0);
    case.unreadable.clear();
    for (journal, wal) in
        [(Journal::Unread, Wal::Absent), (Journal::Garbage, Wal::Absent), (Journal::Absent, case.wal(3))]
    {
        (case.seen.journal, case.seen.wal) = (journal, wal);
        assert_eq!(case.quiet(), 1);
    }
    assert!(matches!(case.now(9), PageNow::Beyond));
}

#[test]
fn another_page_size_proves_nothing() {
    let mut case = restarted();
    case.pages[2] = OLD;
    case.seen.page_size = 512;
    assert_eq!(case.quiet(), 1);
}

#[test]
fn a_page_that_was_cut_off_and_came_back_unwritten_is_not_judged() {
    // A transaction cuts the file to three pages, and the next one brings it back to five without writing page 4.
    let mut case = committed();
    let mut record = written_at(100, 8, 11, 12, &[(1, [11, 0], [12, 0])]);
    record.initial_pages = 3;
    push(&mut record, 5, None, Some(NEW), false);
    case.append(true, &record);
    case.append(false, &done(8, Outcome::Committed, 120));
    case.pages = vec![[12, 0], [9, 9], NEW, OLD, NEW];
    case.seen.counter = Some(12);
    (case.seen.changed, case.seen.boot) = (Some(time(120)), LATER);
    assert_eq!(case.quiet(), 0);
    case.pages[2] = OLD;
    assert_eq!(case.alarms(), [AlarmKind::Lost]);
    assert_eq!(case.look().alarms[0].pages, [3]);
}

#[test]
fn a_counter_that_moved_on_is_enough_doubt_where_page_1_is_not_known() {
    for (counter, alarms) in [(11, vec![AlarmKind::Lost]), (12, vec![])] {
        let mut case = Case::new(vec![[counter, 0], [9, 9], OLD, NEW, [9, 9]]);
        let mut record = written(7, 10, 11, &[(3, OLD, NEW), (4, OLD, NEW)]);
        push(&mut record, 1, None, None, true);
        case.append(true, &record);
        case.append(false, &done(7, Outcome::Committed, 100));
        (case.seen.changed, case.seen.boot) = (Some(time(100)), LATER);
        assert_eq!(case.alarms(), alarms);
    }
}
