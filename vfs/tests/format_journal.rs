//! The rollback journal: headers made by hand, and what their files are to SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::format::journal::{HEADER_SIZE, Header, HeaderError, MAGIC, Records, State, pages};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn seeded() -> ProptestConfig {
    let seed = 0x0000_4043_01b4_c4ed;
    println!("seed {seed:#x}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

fn journal(records: u32, nonce: u32, pages: u32, sector: u32, page: u32) -> [u8; HEADER_SIZE] {
    let mut h = [0; HEADER_SIZE];
    h[..8].copy_from_slice(&MAGIC);
    for (index, word) in [records, nonce, pages, sector, page].iter().enumerate() {
        h[8 + 4 * index..12 + 4 * index].copy_from_slice(&word.to_be_bytes());
    }
    h
}

#[test]
fn minus_one_records_means_up_to_the_end_of_the_file() {
    let header = Header::parse(&journal(u32::MAX, 1, 2, 512, 4096)).unwrap();
    assert_eq!(header.records, Records::ToEndOfFile);
    let header = Header::parse(&journal(u32::MAX - 1, 1, 2, 512, 4096)).unwrap();
    assert_eq!(header.records, Records::Count(u32::MAX - 1));
}

#[test]
fn a_page_size_of_zero_is_left_to_the_database_and_other_sizes_are_checked() {
    assert_eq!(Header::parse(&journal(1, 1, 1, 512, 0)).unwrap().page_size, 0);
    for size in [1, 256, 513, 131_072, u32::MAX] {
        assert_eq!(Header::parse(&journal(1, 1, 1, 512, size)), Err(HeaderError::BadPageSize(size)));
    }
    for size in [0, 16, 33, 131_072, u32::MAX] {
        assert_eq!(Header::parse(&journal(1, 1, 1, size, 4096)), Err(HeaderError::BadSectorSize(size)));
    }
    assert!(Header::parse(&journal(1, 1, 1, 32, 512)).is_ok());
    assert!(Header::parse(&journal(1, 1, 1, 65536, 65536)).is_ok());
}

#[test]
fn the_first_byte_decides_whether_a_journal_may_be_hot() {
    let header = journal(1, 2, 3, 512, 4096);
    let mut zeroed = header;
    zeroed[..12].fill(0);
    let cases: &[(Option<u64>, &[u8], bool)] = &[
        (None, b"", false),
        (None, &header, false),
        (Some(0), b"", false),
        (Some(0), &header, false),
        (Some(1), b"\0", false),
        (Some(1), b"x", true),
        (Some(4096), &zeroed, false),
        (Some(4096), &header, true),
        (Some(4096), &header[..9], true),
        (Some(4096), b"not a journal", true),
        (Some(u64::MAX), &header, true),
    ];
    for (len, first, hot) in cases {
        let state = State::of(*len, first);
        assert_eq!(state.is_hot_candidate(), *hot, "{len:?} {first:?}: {state:?}");
        assert!(!state.to_string().is_empty());
    }
}

#[test]
fn each_state_is_told_from_the_others() {
    let header = journal(3, 2, 9, 512, 4096);
    assert_eq!(State::of(None, b""), State::Absent);
    assert_eq!(State::of(Some(0), b""), State::Empty);
    assert_eq!(State::of(Some(512), &[0; 28]), State::Zeroed);
    let parsed = Header::parse(&header).unwrap();
    let state = State::of(Some(512), &header);
    assert_eq!(state, State::Header(parsed));
    assert_eq!(state.to_string(), "the rollback journal holds 3 page records of a database that had 9 pages");
    assert_eq!(State::of(Some(20), &header), State::Garbage(HeaderError::Truncated { have: 20 }));
    assert!(matches!(State::of(Some(512), b"garbage"), State::Garbage(HeaderError::NotJournal { .. })));
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        len in prop::option::of(any::<u64>()),
    ) {
        prop_assert!(!State::of(len, &bytes).to_string().is_empty());
        let mut behind_magic = MAGIC.to_vec();
        behind_magic.extend(bytes);
        prop_assert!(!State::of(Some(512), &behind_magic).to_string().is_empty());
    }

    #[test]
    fn header_fields_are_read_back(
        records: u32, nonce: u32, pages: u32, sector in 5u32..=16, page in 9u32..=16,
    ) {
        let header = Header::parse(&journal(records, nonce, pages, 1 << sector, 1 << page)).unwrap();
        let expected = match records {
            u32::MAX => Records::ToEndOfFile,
            count => Records::Count(count),
        };
        prop_assert_eq!(header.records, expected);
        prop_assert_eq!(header.nonce, nonce);
        prop_assert_eq!(header.initial_page_count, pages);
        prop_assert_eq!(header.sector_size, 1 << sector);
        prop_assert_eq!(header.page_size, 1 << page);
    }
}

fn record(page: u32, size: usize) -> Vec<u8> {
    [&page.to_be_bytes()[..], &vec![0xab; size], &[0; 4]].concat()
}

#[test]
fn the_records_behind_all_headers_of_a_journal_are_named() {
    let mut bytes = journal(2, 7, 9, 512, 1024).to_vec();
    bytes.resize(512, 0);
    bytes.extend([record(5, 1024), record(1, 1024)].concat());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    // The second header of a journal that was synced in the middle; its page size does not count.
    bytes.extend(journal(u32::MAX, 8, 9, 512, 1024));
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(record(3, 1024));
    let named = |bytes: &[u8]| pages(std::io::Cursor::new(bytes), bytes.len() as u64, 4096).unwrap();
    assert_eq!(named(&bytes).into_iter().collect::<Vec<_>>(), [1, 3, 5]);
    bytes.truncate(bytes.len() - 1);
    assert_eq!(named(&bytes).into_iter().collect::<Vec<_>>(), [1, 5], "a record that is cut off is not rolled back");
    bytes[8..12].copy_from_slice(&0_u32.to_be_bytes());
    assert!(named(&bytes).is_empty(), "nothing was synced");
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn any_bytes_can_be_asked_for_their_pages(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096), header: bool) {
        if header && bytes.len() >= HEADER_SIZE {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[20..24].copy_from_slice(&512_u32.to_be_bytes());
            bytes[24..28].copy_from_slice(&512_u32.to_be_bytes());
        }
        let named = pages(std::io::Cursor::new(&bytes), bytes.len() as u64, 1024).unwrap();
        prop_assert!(named.len() <= bytes.len() / 512);
    }
}
