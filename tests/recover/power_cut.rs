//! A power cut at any moment of a recovery: what was not synced may be on disk or not.

use std::os::unix::fs::MetadataExt;

use hardened_sqlite::{Recover, recover};
use support::require;
use support::strace::{self, mark};
use support::unsynced::{Extent, State, after_each_kill, record};

use super::interrupted::{is_recovered, prepare};
use super::*;

const TASK: &str = "power_cut::the_task_of_a_process_that_is_recorded";

#[test]
fn the_task_of_a_process_that_is_recorded() {
    let Some((what, home)) = strace::task() else { return };
    let recover = if what == "keep-one" { Recover::new().keep_corrupt(1) } else { Recover::new() };
    recover.run(home.join("app.db")).unwrap();
    mark("recovered");
}

/// What was kept of an earlier damage.
const EARLIER: &str = "app.db.corrupt-20250101T000000Z-0123456789abcdef";

fn with_an_earlier_one(home: &Path) {
    prepare(home);
    std::fs::write(home.join(EARLIER), "an earlier one").unwrap();
    std::fs::write(home.join(format!("{EARLIER}-wal")), "and its log").unwrap();
}

/// A power cut changes neither the number of a file nor its times, but the file of a state is another one.
fn is_the_file_that_was_seen(state: &State<'_>) {
    let ready = state.home().join(".app.db.recovering/ready");
    let Ok(text) = std::fs::read(&ready) else { return };
    let Ok(mut intent) = serde_json::from_slice::<serde_json::Value>(&text) else { return };
    if state.leads_where_it_did("app.db") {
        let found = std::fs::metadata(state.home().join("app.db")).unwrap();
        intent["old"]["device"] = found.dev().into();
        intent["old"]["inode"] = found.ino().into();
        intent["old"]["changed"] = vec![found.mtime(), found.mtime_nsec()].into();
        std::fs::write(&ready, serde_json::to_vec(&intent).unwrap()).unwrap();
    }
}

/// The damaged database with its log, in place or kept; and what is kept is whole.
fn is_all_there(home: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let now = files(home);
    assert_eq!(now["app.db.bak"], before["app.db.bak"]);
    let is_there = |name: &str, was: &str| {
        now.get(name) == before.get(was) && now.get(&format!("{name}-wal")) == before.get(&format!("{was}-wal"))
    };
    assert!(!now.contains_key(EARLIER) || is_there(EARLIER, EARLIER), "{EARLIER} is not whole: {:?}", now.keys());
    let is_kept = |name: &&String| name.contains(".corrupt-") && !name.starts_with(EARLIER) && !name.ends_with("-wal");
    let mut kept = now.keys().filter(is_kept).peekable();
    assert!(kept.peek().is_some() || is_there("app.db", "app.db"), "{:?}", now.keys());
    kept.for_each(|name| assert!(is_there(name, "app.db"), "{name} is not whole: {:?}", now.keys()));
}

fn nothing_is_lost(state: &State<'_>) {
    let (home, before) = (state.home(), &state.before());
    is_the_file_that_was_seen(state);
    is_all_there(home, before);
    let is_new = files(home).get("app.db") != Some(&before["app.db"]);
    assert!(is_new || !state.has_told("recovered"));
    if is_new {
        is_recovered(home, "before the next recovery");
    }
    recover(home.join("app.db")).unwrap();
    is_recovered(home, "after the next recovery");
    is_all_there(home, before);
    let rest: Vec<String> = files(home).into_keys().filter(|name| name.starts_with('.')).collect();
    assert!(rest.is_empty(), "{rest:?} is left");
}

#[test]
fn a_power_cut_at_any_moment_of_a_recovery_loses_nothing_and_the_next_one_goes_on() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment();
    record(TASK, "recover", prepare, None).judge(extent, nothing_is_lost).is_good("recover");
    let keep_one = record(TASK, "keep-one", with_an_earlier_one, None);
    keep_one.judge(extent.at_most(100), nothing_is_lost).is_good("recover, and keep one");
}

#[test]
fn a_power_cut_after_a_recovery_was_killed_and_gone_on_with_loses_nothing() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment();
    let verdict = after_each_kill((TASK, "recover"), "recovered", extent, prepare, nothing_is_lost);
    verdict.is_good("a killed recovery, and the next");
}

#[test]
fn without_its_syncs_a_recovery_loses_something_to_a_power_cut() {
    if !require::program("strace") {
        return;
    }
    let extent = Extent::of_environment().until_one_is_wrong();
    let recording = record(TASK, "recover", prepare, None);
    for directories in [true, false] {
        let without = recording.without_syncs(|_, node| recording.is_directory(node) == directories);
        assert!(!without.judge(extent, nothing_is_lost).wrong.is_empty(), "directories: {directories}");
    }
}
