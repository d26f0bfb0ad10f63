//! Damaged files.

use std::path::Path;

use super::*;

fn page_size(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[16], bytes[17]]))
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn root(path: &Path, name: &str) -> usize {
    text(&stock(path), &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'")).parse().unwrap()
}

/// The pages of a tree that are directly under its root.
fn under(path: &Path, name: &str) -> Vec<usize> {
    let root = root(path, name);
    let bytes = std::fs::read(path).unwrap();
    let size = page_size(&bytes);
    let page = &bytes[(root - 1) * size..root * size];
    assert!(page[0] == 5 || page[0] == 2, "an interior page");
    let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
    let at = |cell: usize| usize::from(u16::from_be_bytes([page[12 + 2 * cell], page[13 + 2 * cell]]));
    (0..cells).map(|cell| u32::from_be_bytes(page[at(cell)..at(cell) + 4].try_into().unwrap()) as usize).collect()
}

fn found(path: &Path, options: &Options, what: Check) -> Health {
    check(&options.open_connection(path).unwrap(), what).unwrap()
}

#[test]
fn a_page_with_a_wrong_checksum_is_named_by_every_check() {
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let options = Options::new().checksum(ChecksumChoice::On).policy(policy);
        let home = TempDir::new().unwrap();
        let path = database(&home, &options);
        let page = under(&path, "t")[1];
        edit(&path, |bytes| {
            let size = page_size(bytes);
            bytes[page * size - 100] ^= 4;
        });
        for what in ALL {
            let health = found(&path, &options, what);
            assert_eq!(kinds(&health), [Kind::Checksum { page: page as u32 }], "{what}: {health}");
            assert!(!health.is_sound() && health.checksums);
        }
    }
}

#[test]
fn a_flipped_bit_in_the_data_of_a_row_is_seen_with_checksums_and_only_then() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    let page = under(&path, "t")[1];
    edit(&path, |bytes| {
        let size = page_size(bytes);
        let text = bytes[..page * size].windows(4).rposition(|part| part == b"row ").unwrap();
        bytes[text] ^= 1;
    });
    for what in [Check::Quick, Check::Pages] {
        assert!(found(&path, &Options::new(), what).is_ok());
    }
    assert!(
        found(&path, &Options::new(), Check::Full).is_index_only(),
        "only the index tells that it was another value"
    );
}

#[test]
fn a_tree_that_is_damaged_is_told_with_its_table() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    let page = under(&path, "t")[1];
    edit(&path, |bytes| {
        let size = page_size(bytes);
        // The first two rows change places.
        let at = (page - 1) * size + 8;
        bytes.swap(at, at + 2);
        bytes.swap(at + 1, at + 3);
    });
    let health = found(&path, &Options::new(), Check::Quick);
    assert!(kinds(&health).contains(&Kind::Tree { table: Some("t".into()) }), "{health}");
    assert!(!health.is_index_only() && !health.is_sound());
}

#[test]
fn the_tree_of_an_index_that_is_damaged_is_told_from_that_of_a_table_and_made_anew() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    let page = under(&path, "i")[0];
    edit(&path, |bytes| {
        let size = page_size(bytes);
        let at = (page - 1) * size + 8;
        bytes.swap(at, at + 2);
        bytes.swap(at + 1, at + 3);
    });
    let health = found(&path, &Options::new(), Check::Full);
    assert!(health.is_index_only(), "{health}");
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    assert!(reindex(&connection, &health).unwrap().is_ok());
    assert!(check(&connection, Check::Pages).unwrap().is_ok());
}

#[test]
fn a_page_that_was_overwritten_is_found_page_by_page_unless_it_is_free() {
    for policy in [PolicyChoice::Auto, PolicyChoice::Delete] {
        let options = Options::new().policy(policy);
        let home = TempDir::new().unwrap();
        let path = database(&home, &options);
        let bytes = std::fs::read(&path).unwrap();
        let size = page_size(&bytes);
        let trunk = u32::from_be_bytes(bytes[32..36].try_into().unwrap()) as usize;
        let leaf = (trunk - 1) * size + 8;
        let free = u32::from_be_bytes(bytes[leaf..leaf + 4].try_into().unwrap()) as usize;
        edit(&path, |bytes| bytes[(free - 1) * size..free * size].fill(0xee));
        assert!(found(&path, &options, Check::Pages).is_ok(), "a free page may hold anything");
        let used = under(&path, "t")[1];
        edit(&path, |bytes| bytes[(used - 1) * size..used * size].fill(0xee));
        let health = found(&path, &options, Check::Pages);
        assert_eq!(kinds(&health), [Kind::Page { page: used as u32 }], "{health}");
    }
}

#[test]
fn pointer_maps_of_an_auto_vacuum_database_are_no_damage() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let connection = stock(&path);
    connection.execute_batch("PRAGMA page_size=512; PRAGMA auto_vacuum=FULL").unwrap();
    fill(&connection);
    drop(connection);
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    for what in ALL {
        let health = check(&connection, what).unwrap();
        assert!(health.is_ok() && health.pages > 400, "{health}");
    }
}

#[test]
fn a_file_that_was_cut_off_and_a_damaged_free_list_are_told() {
    let options = Options::new().policy(PolicyChoice::Delete);
    let home = TempDir::new().unwrap();
    let path = database(&home, &options);
    edit(&path, |bytes| {
        let (size, trunk) = (page_size(bytes), u32::from_be_bytes(bytes[32..36].try_into().unwrap()) as usize);
        bytes[(trunk - 1) * size + 4] = 0xff;
    });
    let health = found(&path, &options, Check::Quick);
    assert!(kinds(&health).contains(&Kind::FreeList), "{health}");
    let home = TempDir::new().unwrap();
    let path = database(&home, &options);
    stock(&path).execute_batch("VACUUM").unwrap();
    let last = std::fs::metadata(&path).unwrap().len() / 4096;
    let connection = options.open_connection(&path).unwrap();
    edit(&path, |bytes| bytes.truncate(bytes.len() - 4096));
    assert!(!check(&connection, Check::Quick).unwrap().is_sound());
    let health = check(&connection, Check::Pages).unwrap();
    assert_eq!(kinds(&health), [Kind::Page { page: last as u32 }], "{health}");
    assert!(health.to_string().contains("is missing"), "{health}");
}

#[test]
fn a_schema_that_cannot_be_read_is_a_finding() {
    let home = TempDir::new().unwrap();
    let path = database(&home, &Options::new());
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    stock(&path)
        .execute_batch("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE t(' WHERE name = 't'; PRAGMA schema_version=1000")
        .unwrap();
    let health = check(&connection, Check::Quick).unwrap();
    assert!(kinds(&health).contains(&Kind::Schema), "{health}");
    assert!(connection.is_autocommit());
}

#[test]
fn a_log_that_is_damaged_before_its_last_commit_is_told() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("app.db");
    let connection = hardened_sqlite::open_connection(&path).unwrap();
    fill(&connection);
    connection.execute_batch("INSERT INTO t(a, b) VALUES ('x', 'y')").unwrap();
    let log = home.path().join("app.db-wal");
    edit(&log, |bytes| bytes[32 + 24 + 500] ^= 1);
    let health = check(&connection, Check::Pages).unwrap();
    assert_eq!(kinds(&health), [Kind::Log], "{health}");
    edit(&log, |bytes| bytes[32 + 24 + 500] ^= 1);
    assert!(check(&connection, Check::Pages).unwrap().is_ok());
}
