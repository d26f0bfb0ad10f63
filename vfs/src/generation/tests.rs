use std::fs;

use super::*;

struct Place {
    home: tempfile::TempDir,
    database: PathBuf,
    generation: Generation,
}

fn place() -> Place {
    let home = tempfile::tempdir().unwrap();
    let database = home.path().join("app.db");
    let generation = Generation::default();
    for which in Which::ALL {
        fs::write(which.path(&database), b"x").unwrap();
        generation.opened(which, &database);
    }
    Place { home, database, generation }
}

fn moved(which: Which, replaced: bool) -> Vec<Moved> {
    vec![Moved { which, replaced }]
}

#[test]
fn each_name_that_leads_elsewhere_is_told() {
    for which in Which::ALL {
        let place = place();
        assert_eq!(place.generation.check(&place.database), []);
        fs::rename(which.path(&place.database), place.home.path().join("elsewhere")).unwrap();
        assert_eq!(place.generation.check(&place.database), moved(which, false));
        fs::write(which.path(&place.database), b"x").unwrap();
        assert_eq!(place.generation.check(&place.database), moved(which, true));
        fs::rename(place.home.path().join("elsewhere"), which.path(&place.database)).unwrap();
        assert_eq!(place.generation.check(&place.database), [], "it is back");
    }
}

#[test]
fn a_name_that_was_never_open_or_is_closed_is_nobodys() {
    let place = place();
    place.generation.closed(Which::Wal);
    fs::remove_file(Which::Wal.path(&place.database)).unwrap();
    assert_eq!(place.generation.check(&place.database), []);
    assert_eq!(place.generation.identity(Which::Wal), None);
    assert!(place.generation.identity(Which::SharedMemory).is_some());
}

#[test]
fn a_directory_that_was_renamed_takes_its_names_away() {
    let home = tempfile::tempdir().unwrap();
    let (before, after) = (home.path().join("before"), home.path().join("after"));
    fs::create_dir(&before).unwrap();
    let database = before.join("app.db");
    fs::write(&database, b"x").unwrap();
    let generation = Generation::default();
    generation.opened(Which::Database, &database);
    assert_eq!(generation.check(&database), []);
    fs::rename(&before, &after).unwrap();
    assert_eq!(generation.check(&database), moved(Which::Database, false));
    fs::create_dir(&before).unwrap();
    assert_eq!(generation.check(&database), moved(Which::Database, false));
}

/// As often as the directory changes while it is looked at: a look that trusts a young time of change misses some.
#[test]
fn changes_within_a_tick_of_the_clock_are_seen() {
    for round in 0..300 {
        let place = place();
        assert_eq!(place.generation.check(&place.database), [], "{round}");
        fs::rename(Which::Wal.path(&place.database), place.home.path().join("w")).unwrap();
        assert_eq!(place.generation.check(&place.database), moved(Which::Wal, false), "{round}");
    }
}

/// Set back by utimensat(2) no time of change can be, so the test waits until the one there is old enough.
#[test]
fn a_directory_that_has_not_changed_is_enough() {
    let place = place();
    let directory = fs::metadata(place.home.path()).unwrap();
    while !Time::of_change(&directory).lies_back() {
        std::hint::spin_loop();
    }
    assert_eq!(place.generation.check(&place.database), []);
    let checked = place.generation.names.lock().unwrap().checked;
    assert_eq!(checked, Some((identity(&directory), Time::of_change(&directory))));
    // What only the names would tell: nobody has looked at them.
    place.generation.names.lock().unwrap().open[Which::Wal as usize] = Some((0, 0));
    assert_eq!(place.generation.check(&place.database), []);
}

#[test]
fn what_has_moved_is_told_in_words() {
    let both = [Moved { which: Which::Database, replaced: true }, Moved { which: Which::Wal, replaced: false }];
    assert_eq!(describe(&both), "the database is another file now, its -wal has been renamed or removed");
}

#[test]
fn a_time_without_a_fraction_is_of_a_clock_that_counts_seconds() {
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let lies_back = |seconds, nanoseconds| Time { seconds: now - seconds, nanoseconds }.lies_back();
    assert!(!lies_back(1, 0) && !lies_back(0, 0));
    assert!(lies_back(1, 1) && lies_back(3, 0));
}
