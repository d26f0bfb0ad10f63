//! The simulated disk keeps what it was told to keep, and nothing else is certain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "the raw files serve two tests")]

mod raw;

use std::collections::BTreeSet;

use libsqlite3_sys as ffi;
use raw::{DATABASE, JOURNAL, Raw, delete};
use support::crash::{
    Capacity, Device, DirectoryFault, Disk, Faults, Keep, Lies, Log, Loss, SECTOR, States, SyncFault, Times,
};

const SEED: u64 = 11;

/// What one file may be after the power went at the end of the record, over many choices; none if it is not there.
fn leftovers(disk: &Disk, log: &Log, lies: Lies, file: &str) -> BTreeSet<Option<Vec<u8>>> {
    let name = disk.path(file);
    let end = log.events.len();
    let states = States::new(log, lies, 400, SEED).filter(|(cut, _)| cut.after == end);
    states.map(|(_, mut image)| image.files.remove(&name)).collect()
}

/// A disk with a database of sectors that are filled with 1, and its record begun.
fn disk(sectors: usize, device: Device, faults: Faults) -> (Disk, Raw) {
    let disk = Disk::lease();
    disk.set_up(device, SEED);
    let file = Raw::open(&disk, "x.db", DATABASE).unwrap();
    assert_eq!(file.write(0, &vec![1; sectors * SECTOR]), ffi::SQLITE_OK);
    disk.record(faults);
    (disk, file)
}

/// A file of sectors that are filled with these bytes.
fn sectors(fills: &[u8]) -> Option<Vec<u8>> {
    Some(fills.iter().flat_map(|fill| [*fill; SECTOR]).collect())
}

#[test]
fn what_was_synced_survives_every_cut() {
    let (disk, file) = disk(2, Device::default(), Faults::default());
    file.write(0, &[2; 2 * SECTOR]);
    assert_eq!(file.sync(), ffi::SQLITE_OK);
    let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db");
    assert_eq!(found, BTreeSet::from([sectors(&[2, 2])]));
}

#[test]
fn unsynced_sectors_are_old_or_new_each_by_itself() {
    let (disk, file) = disk(3, Device::default(), Faults::default());
    file.write(0, &[2; 3 * SECTOR]);
    let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db");
    let all = (0..8_u8).map(|bits| sectors(&[0, 1, 2].map(|bit| 1 + (bits >> bit & 1))));
    assert_eq!(found, all.collect());
}

#[test]
fn of_two_writes_to_a_sector_any_version_is_left_and_no_mixture() {
    let (disk, file) = disk(1, Device::default(), Faults::default());
    file.write(0, &[2; 100]);
    file.write(300, &[3; 100]);
    let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db");
    let version = |second: u8| {
        let mut bytes = vec![1; SECTOR];
        bytes[..100].fill(2);
        bytes[300..400].fill(second);
        Some(bytes)
    };
    assert_eq!(found, BTreeSet::from([sectors(&[1]), version(1), version(3)]));
}

#[test]
fn a_grown_file_may_have_the_new_size_without_the_bytes_and_shows_old_blocks_only_if_told_so() {
    for stale_growth in [false, true] {
        let (disk, file) = disk(1, Device { stale_growth, ..Device::default() }, Faults::default());
        file.write(SECTOR as i64, &[2; SECTOR]);
        let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db");
        assert!(found.contains(&sectors(&[1])) && found.contains(&sectors(&[1, 2])));
        assert_eq!(found.contains(&sectors(&[1, 0])), !stale_growth);
        assert_eq!(found.len() > 3, stale_growth);
    }
}

#[test]
fn without_powersafe_overwrite_a_write_in_flight_damages_what_is_beside_it_in_its_sector_only() {
    let device = Device { powersafe_overwrite: false, sector_size: 1024, ..Device::default() };
    let (disk, file) = disk(4, device, Faults::default());
    file.write(0, &[2; SECTOR]);
    let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db");
    let (mut beside, mut beyond) = (false, false);
    for bytes in found.into_iter().flatten() {
        beside |= bytes[SECTOR..1024] != [1; SECTOR];
        beyond |= bytes[1024..] != [1; 1024];
    }
    assert_eq!((beside, beyond), (true, false));
}

#[test]
fn the_name_of_a_new_journal_is_durable_after_its_first_sync_and_that_of_another_file_is_not() {
    for (flags, durable) in [(JOURNAL, true), (JOURNAL & !ffi::SQLITE_OPEN_MAIN_JOURNAL, false), (DATABASE, false)] {
        let (disk, _file) = disk(1, Device::default(), Faults::default());
        let beside = Raw::open(&disk, "x.db-beside", flags).unwrap();
        beside.write(0, &[5; SECTOR]);
        assert_eq!(beside.sync(), ffi::SQLITE_OK);
        let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db-beside");
        assert_eq!(found.contains(&None), !durable, "{flags:#x}");
        assert!(found.contains(&sectors(&[5])));
    }
}

#[test]
fn a_deleted_file_may_come_back_unless_the_deletion_synced_the_directory() {
    for sync_directory in [false, true] {
        let (disk, file) = disk(1, Device::default(), Faults::default());
        drop(file);
        assert_eq!(delete(&disk, "x.db", sync_directory), ffi::SQLITE_OK);
        assert_eq!(delete(&disk, "x.db", sync_directory), ffi::SQLITE_IOERR_DELETE_NOENT);
        let found = leftovers(&disk, &disk.take_log(), Lies::None, "x.db");
        assert_eq!(found.contains(&sectors(&[1])), !sync_directory);
        assert!(found.contains(&None));
    }
}

#[test]
fn a_directory_sync_that_fails_is_reported_by_a_deletion_and_hidden_by_a_journal() {
    let fault = DirectoryFault { nth: 1, times: Times::N(1), reported: false };
    let faults = Faults { directory: Some(fault), ..Faults::default() };
    let (disk, _file) = disk(1, Device::default(), faults.clone());
    let journal = Raw::open(&disk, "x.db-journal", JOURNAL).unwrap();
    assert_eq!([journal.sync(), journal.sync()], [ffi::SQLITE_OK; 2]);
    assert!(leftovers(&disk, &disk.take_log(), Lies::None, "x.db-journal").contains(&None));

    disk.record(faults);
    assert_eq!(delete(&disk, "x.db-journal", true), ffi::SQLITE_IOERR_DIR_FSYNC);
    assert!(leftovers(&disk, &disk.take_log(), Lies::None, "x.db-journal").contains(&Some(Vec::new())));
}

#[test]
fn a_size_does_not_overtake_a_name_unless_told_so() {
    for sizes_overtake_names in [false, true] {
        let (disk, file) = disk(2, Device { sizes_overtake_names, ..Device::default() }, Faults::default());
        drop(Raw::open(&disk, "x.db-journal", JOURNAL).unwrap());
        disk.record(Faults::default());
        delete(&disk, "x.db-journal", false);
        file.truncate(SECTOR as i64);
        let log = disk.take_log();
        let names = [disk.path("x.db"), disk.path("x.db-journal")];
        let overtaken = States::new(&log, Lies::None, 400, SEED)
            .any(|(_, image)| image.files[&names[0]].len() == SECTOR && image.files.contains_key(&names[1]));
        assert_eq!(overtaken, sizes_overtake_names);
    }
}

#[test]
fn after_a_failed_sync_reads_and_later_syncs_are_as_the_loss_says() {
    // What reads see, what is durable after a second sync, and what is after the first half was written again.
    for (loss, seen, durable, again) in [
        (Loss::Drop, [1; 8], [1; 8], [3, 1, 1, 1, 1, 1, 1, 1]),
        (Loss::KeepClean, [2; 8], [1; 8], [3, 1, 1, 1, 1, 1, 1, 1]),
        (Loss::Revert, [1; 8], [1; 8], [3, 1, 1, 1, 1, 1, 1, 1]),
    ] {
        let (disk, file) = disk(8, Device::default(), SyncFault::once("x.db", 1, loss).into());
        file.write(0, &[2; 8 * SECTOR]);
        assert_eq!(file.sync(), ffi::SQLITE_IOERR_FSYNC);
        assert_eq!(Some(file.read(8 * SECTOR)), sectors(&seen), "{loss:?}");
        assert_eq!(file.sync(), ffi::SQLITE_OK);
        let synced = disk.events();
        file.write(0, &[3; SECTOR]);
        assert_eq!(file.sync(), ffi::SQLITE_OK);
        let (log, name) = (disk.take_log(), disk.path("x.db"));
        let held = |after| log.cut(after, Keep::Nothing).files.remove(&name);
        assert_eq!(held(synced), sectors(&durable), "{loss:?}");
        assert_eq!(held(log.events.len()), sectors(&again), "{loss:?}");
    }
}

#[test]
fn a_failed_sync_may_have_written_some() {
    let fault = SyncFault { spared: Some(SEED), ..SyncFault::once("x.db", 1, Loss::KeepClean) };
    let (disk, file) = disk(8, Device::default(), fault.into());
    (0..8).for_each(|sector| assert_eq!(file.write(sector * SECTOR as i64, &[2; SECTOR]), ffi::SQLITE_OK));
    assert_eq!(file.sync(), ffi::SQLITE_IOERR_FSYNC);
    let log = disk.take_log();
    let held = log.cut(log.events.len(), Keep::Nothing).files.remove(&disk.path("x.db")).unwrap();
    assert!(held.contains(&1) && held.contains(&2));
}

#[test]
fn a_full_disk_takes_what_fits_if_told_so() {
    for (partial, written) in [(false, 0), (true, 2 * SECTOR)] {
        let capacity = Some(Capacity { bytes: 3 * SECTOR + 100, partial });
        let (disk, file) = disk(1, Device::default(), Faults { capacity, ..Faults::default() });
        assert_eq!(file.write(0, &[2; SECTOR]), ffi::SQLITE_OK, "no growth");
        assert_eq!(file.write(SECTOR as i64, &[2; 4 * SECTOR]), ffi::SQLITE_FULL);
        let cached = disk.cached().files.remove(&disk.path("x.db")).unwrap();
        assert_eq!(cached.len(), SECTOR + written);
        drop(disk.take_log());
    }
}

#[test]
fn a_lying_sync_leaves_out_what_an_honest_one_has_made_durable() {
    let (disk, file) = disk(4, Device::default(), Faults::default());
    file.write(0, &[2; 4 * SECTOR]);
    file.sync();
    file.write(0, &[3; SECTOR]);
    file.sync();
    let log = disk.take_log();
    assert_eq!(leftovers(&disk, &log, Lies::None, "x.db"), BTreeSet::from([sectors(&[3, 2, 2, 2])]));
    let found = leftovers(&disk, &log, Lies::Some, "x.db");
    assert!(found.contains(&sectors(&[1, 1, 1, 1])) && found.contains(&sectors(&[3, 2, 2, 2])));
    assert!(found.contains(&sectors(&[3, 1, 1, 1])), "only the first one lied: {}", found.len());
}

#[test]
fn a_record_goes_on_where_a_process_died() {
    let (disk, file) = disk(1, Device::default(), Faults::default());
    file.write(0, &[2; SECTOR]);
    let log = disk.take_log();
    drop(file);
    disk.resume(&log, 1, Faults::default());
    let file = Raw::open(&disk, "x.db", DATABASE).unwrap();
    assert_eq!(Some(file.read(SECTOR)), sectors(&[2]));
    file.sync();
    let log = disk.take_log();
    assert_eq!(log.events.len(), 2);
    assert_eq!(leftovers(&disk, &log, Lies::None, "x.db"), BTreeSet::from([sectors(&[2])]));
}
