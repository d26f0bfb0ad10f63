//! Which error is remembered, and for whom.

use std::sync::Barrier;

use super::*;

#[test]
fn a_success_on_any_thread_does_not_erase_the_error() {
    let home = tempfile::tempdir().unwrap();
    let _alone = alone();
    let missing = home.path().join("missing/app.db");
    let error = open_connection(&missing).map(drop).unwrap_err();
    open_connection(home.path().join("here.db")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| open_connection(home.path().join("there.db")).unwrap());
        scope.spawn(|| plain(&home.path().join("plain.db")).unwrap());
    });
    assert_eq!(last_open_error(), Some(error));
}

#[test]
fn the_later_of_two_errors_is_remembered_whichever_way_they_came() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("notes.txt");
    std::fs::write(&text, "no database\n".repeat(50)).unwrap();
    let missing = home.path().join("missing/app.db");
    let _alone = alone();
    for _ in 0..2 {
        plain(&missing).map(drop).unwrap_err();
        assert_eq!(last_open_error().unwrap().path(), Some(missing.as_path()), "a plain open that was refused");
        open_connection(&text).map(drop).unwrap_err();
        assert_eq!(last_open_error().unwrap().path(), Some(text.as_path()), "an open that was not refused but useless");
        open_connection(&missing).map(drop).unwrap_err();
        assert_eq!(last_open_error().unwrap().path(), Some(missing.as_path()), "an open that was refused");
    }
}

#[test]
fn threads_that_fail_at_once_are_each_told_their_own_error() {
    const THREADS: usize = 4;
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("notes.txt");
    std::fs::write(&text, "no database\n".repeat(50)).unwrap();
    let _alone = alone();
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (home, text, together) = (home.path(), &text, &together);
            scope.spawn(move || {
                for round in 0..50 {
                    let missing = home.join(format!("missing-{number}-{round}/app.db"));
                    together.wait();
                    if (number + round) % 4 == 0 {
                        let error = open_connection(text).map(drop).unwrap_err();
                        assert_explained(&error, text, NOTADB, "it looks like text", "check the name");
                        continue;
                    }
                    let error = open_connection(&missing).map(drop).unwrap_err();
                    let seen = format!("the directory {} does not exist", missing.parent().unwrap().display());
                    assert_explained(&error, &missing, CANTOPEN, &seen, "create it first");
                    let (_, plain) = code_and_text(&plain(&missing).map(drop).unwrap_err());
                    assert!(plain.contains(&seen), "{plain}");
                }
            });
        }
    });
    let last = last_open_error().unwrap();
    assert!(last.path().unwrap().starts_with(home.path()), "{last:?}");
}
