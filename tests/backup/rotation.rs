//! Several backups.

use super::*;

fn kept(place: &Place) -> Vec<(String, u32)> {
    names(&place.home.path().join("saved")).into_iter().map(|name| (name.clone(), rows(&place.saved(&name)))).collect()
}

fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect()
}

#[test]
fn so_many_backups_are_kept_and_an_identical_one_moves_none() {
    let place = Place::new(&Options::new());
    let wanted = Backup::to(place.saved("a")).keep(3);
    for round in 0..5 {
        let report = wanted.run(&place.connection).unwrap();
        assert!(!report.identical);
        assert_eq!(report.older.len(), (round).min(2));
        let before = kept(&place);
        assert!(wanted.run(&place.connection).unwrap().identical);
        assert_eq!(kept(&place), before);
        add(&place.connection);
    }
    assert_eq!(kept(&place), pairs(&[("a", 304), ("a.1", 303), ("a.2", 302)]));
    Backup::to(place.saved("a")).keep(2).run(&place.connection).unwrap();
    assert_eq!(kept(&place), pairs(&[("a", 305), ("a.1", 304)]), "fewer are kept now");
    add(&place.connection);
    backup(&place.connection, place.saved("a")).unwrap();
    assert_eq!(kept(&place), pairs(&[("a", 306)]));
}

#[test]
fn a_gap_that_was_left_is_filled_before_anything_is_given_up() {
    let place = Place::new(&Options::new());
    let wanted = Backup::to(place.saved("a")).keep(4);
    for _ in 0..4 {
        wanted.run(&place.connection).unwrap();
        add(&place.connection);
    }
    std::fs::remove_file(place.saved("a.2")).unwrap();
    wanted.run(&place.connection).unwrap();
    assert_eq!(kept(&place), pairs(&[("a", 304), ("a.1", 303), ("a.2", 302), ("a.3", 300)]));
}

#[test]
fn a_second_name_of_the_last_backup_that_a_killed_run_has_left_is_not_counted_twice() {
    let place = Place::new(&Options::new());
    let wanted = Backup::to(place.saved("a")).keep(3);
    wanted.run(&place.connection).unwrap();
    std::fs::hard_link(place.saved("a"), place.saved("a.1")).unwrap();
    add(&place.connection);
    wanted.run(&place.connection).unwrap();
    assert_eq!(kept(&place), pairs(&[("a", 301), ("a.1", 300)]));
}

#[test]
fn nothing_that_is_no_database_is_moved_or_removed() {
    let place = Place::new(&Options::new());
    let wanted = Backup::to(place.saved("a")).keep(2);
    std::fs::write(place.saved("a.1"), "notes").unwrap();
    assert!(matches!(wanted.run(&place.connection), Err(Error::CannotOpen(_))));
    assert_eq!(names(&place.home.path().join("saved")), ["a.1"]);
    backup(&place.connection, place.saved("a")).unwrap();
    assert_eq!(std::fs::read(place.saved("a.1")).unwrap(), b"notes", "beyond what is kept, and not ours");
}

#[test]
fn two_backups_to_one_name_at_once_are_kept_apart_and_leftovers_of_the_dead_are_removed() {
    let place = Place::new(&Options::new());
    let to = place.saved("a");
    let mut refused = 0;
    let path = place.path.clone();
    let mut watch = |_: Progress| {
        if refused == 0 {
            refused = 1;
            let other = hardened_sqlite::open_connection(&path).unwrap();
            let error = backup(&other, &to).unwrap_err();
            assert!(matches!(&error, Error::Busy(_)), "{error}");
            backup(&other, to.with_extension("other")).unwrap();
        }
        ControlFlow::Continue(())
    };
    Backup::to(&to).run_with(&place.connection, &mut watch).unwrap();
    assert_eq!(refused, 1);
    // As a killed run would leave it.
    let mut left = None;
    let mut watch = |_: Progress| {
        let name = names(to.parent().unwrap()).into_iter().find(|name| name.starts_with(".hardened-backup-")).unwrap();
        left.get_or_insert(name);
        ControlFlow::Break(())
    };
    Backup::to(&to).run_with(&place.connection, &mut watch).unwrap_err();
    std::fs::write(place.saved(&left.unwrap()), "half a file").unwrap();
    std::fs::write(place.saved(".hardened-backup-0000000000000000-1-1"), "of another destination").unwrap();
    add(&place.connection);
    backup(&place.connection, &to).unwrap();
    let rest = names(to.parent().unwrap());
    assert_eq!(rest, [".hardened-backup-0000000000000000-1-1", "a", "a.other"]);
}
