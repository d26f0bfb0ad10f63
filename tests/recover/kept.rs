//! How damaged databases are kept.

use hardened_sqlite::{Recover, recover};

use super::*;

fn kept(place: &Place) -> Vec<String> {
    place.files().into_keys().filter(|name| name.contains(".corrupt-")).collect()
}

#[test]
fn the_same_damage_is_kept_once() {
    let place = Place::damaged();
    let damaged = std::fs::read(&place.path).unwrap();
    let first = recover(&place.path).unwrap();
    assert!(!first.kept_before);
    std::fs::write(&place.path, &damaged).unwrap();
    let second = recover(&place.path).unwrap();
    assert!(second.kept_before);
    assert_eq!((second.kept, kept(&place).len()), (first.kept, 1));
    // One byte more is another damage.
    std::fs::write(&place.path, [&damaged[..], &[1]].concat()).unwrap();
    recover(&place.path).unwrap();
    assert_eq!(kept(&place).len(), 2);
}

#[test]
fn equal_names_are_not_taken_for_equal_bytes() {
    let place = Place::damaged();
    let damaged = std::fs::read(&place.path).unwrap();
    let first = recover(&place.path).unwrap().kept.unwrap();
    std::fs::set_permissions(&first, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    write(&first, 5000, b"changed later");
    // Another second, another name.
    let older = first.to_str().unwrap().replace("app.db.corrupt-2", "app.db.corrupt-1");
    std::fs::rename(&first, older).unwrap();
    std::fs::write(&place.path, &damaged).unwrap();
    let second = recover(&place.path).unwrap();
    assert!(!second.kept_before);
    assert_eq!(std::fs::read(second.kept.unwrap()).unwrap(), damaged);
}

#[test]
fn no_more_are_kept_than_wanted_and_always_the_newest() {
    let place = Place::damaged();
    let damaged = std::fs::read(&place.path).unwrap();
    for number in 0..4_u8 {
        std::fs::write(&place.path, [&damaged[..], &[number]].concat()).unwrap();
        let recovery = Recover::new().keep_corrupt(2).run(&place.path).unwrap();
        assert_eq!(kept(&place).len(), usize::from(number + 1).min(2));
        assert_eq!(std::fs::read(recovery.kept.unwrap()).unwrap().last(), Some(&number));
    }
}

#[test]
fn a_look_at_what_is_kept_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::damaged();
    let kept = recover(&place.path).unwrap().kept.unwrap();
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o222, 0);
    let sound: String = stock(&place.path).query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}
