//! One fault in an honest history in rollback mode, where the log can prove it.

use crate::rollback::{Dead, Journal, World};
use crate::{Tally, has};
use hardened_vfs::guard::classify::AlarmKind;
use std::collections::BTreeMap;

/// A hardened transaction was cut short, and its journal is hot.
pub(crate) fn under_way(world: &World, dead: &Dead, tally: &mut Tally) {
    let told = &world.told;
    if !world.hot() {
        return;
    }
    // What a power cut takes from the log, or from the times, is not proven any more.
    let seen = world.disk.changed == told.changed;
    let counts = told.counted || !told.exclusive;
    let complete = *dead == Dead::Killed || (told.durable && !told.exclusive && seen);
    let Some(page1) = world.disk.page(1) else { return };
    let now = |number: u32| world.disk.page(number).unwrap();
    let changed = || told.pages.iter().filter(|(_, (before, after))| before != after);
    let touched = changed().any(|(number, (_, after))| *number != 1 && now(*number) == *after);
    let untouched = changed().any(|(number, (before, _))| now(*number) == *before);
    if complete && counts && touched && untouched && page1[0] == told.counter {
        let mut faulty = world.clone();
        faulty.disk.set_beside(Journal::Absent);
        let finding = faulty.look();
        assert!(has(&finding, &[AlarmKind::ProtectorMissing]), "{finding:#?}");
        assert!(finding.blocks_writes() && !finding.refuses_reads());
        tally.count("journal deleted");

        let before = BTreeMap::from([(1, page1)]);
        faulty.disk.set_beside(Journal::Hot { nonce: u32::MAX, initial: 6, before, free: 0 });
        let finding = faulty.look();
        let uncovered = changed().any(|(number, (before, _))| *number != 1 && now(*number) == *before);
        if uncovered {
            assert!(has(&finding, &[AlarmKind::ProtectorMispaired]), "{finding:#?}");
            assert!(finding.refuses_reads());
            tally.count("journal of another transaction");
        }
    }
    if changed().count() >= 2 && complete {
        let mut faulty = world.clone();
        let pages = faulty.disk.cache.len() as u32;
        for number in 1..=pages {
            faulty.disk.write(number, [5000 + number, 77]);
        }
        let finding = faulty.look();
        assert!(has(&finding, &[AlarmKind::DatabaseReplaced]), "{finding:#?}");
        tally.count("database replaced");
    }
}

/// A hardened transaction was committed. The power fails, and the disk has not kept one page.
pub(crate) fn after_commit(world: &World, tally: &mut Tally) {
    let told = &world.told;
    let counts = told.durable || (told.counted && !told.exclusive);
    if !counts || world.disk.beside == Journal::Zeroed {
        return;
    }
    let kept = |number: u32, after| world.disk.page(number) == Some(after);
    let changed: Vec<_> =
        told.pages.iter().filter(|(n, (before, after))| before != after && kept(**n, *after)).collect();
    for (number, (before, after)) in &changed {
        // Something of the transaction must be left to tell it from one that was rolled back.
        let left = changed.iter().any(|(other, _)| other != number && (**number != 1 || **other != 1));
        if !left {
            continue;
        }
        let mut faulty = world.clone();
        faulty.disk.boot += 1;
        faulty.disk.cache[**number as usize - 1] = *before;
        let finding = faulty.look();
        assert!(has(&finding, &[AlarmKind::Lost]), "page {number}: {finding:#?}\n{}", faulty.disk.story());
        tally.count("write lost");
        if before[0] != after[0] && before[1] != after[1] {
            faulty.disk.cache[**number as usize - 1] = [after[0], before[1]];
            let finding = faulty.look();
            // An image from before the transaction may be just that mix.
            assert!(
                has(&finding, &[AlarmKind::Torn, AlarmKind::Lost]),
                "page {number}: {finding:#?}\n{}",
                faulty.disk.story()
            );
            tally.count("write torn");
        }
    }
}
