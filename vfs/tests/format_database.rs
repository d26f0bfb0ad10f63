//! The database header: what is read from it, and what is said of files that are no database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::format::database::{AutoVacuum, HEADER_SIZE, Header, HeaderError, MAGIC, TextEncoding};
use hardened_vfs::format::lookalike::Lookalike;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn seeded() -> ProptestConfig {
    let seed = 0x0da7_aba5_e0de_c0de;
    println!("seed {seed:#x}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

/// A header with the least that SQLite asks for.
fn plain_header() -> [u8; HEADER_SIZE] {
    let mut h = [0; HEADER_SIZE];
    h[..16].copy_from_slice(&MAGIC);
    h[16..18].copy_from_slice(&4096u16.to_be_bytes());
    h[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
    h
}

fn with(at: usize, bytes: &[u8]) -> [u8; HEADER_SIZE] {
    let mut h = plain_header();
    h[at..at + bytes.len()].copy_from_slice(bytes);
    h
}

#[test]
fn page_size_one_means_65536_and_every_power_of_two_from_512_is_taken() {
    for exponent in 9..=15 {
        let size = 1u16 << exponent;
        let header = Header::parse(&with(16, &size.to_be_bytes())).unwrap();
        assert_eq!(header.page_size, u32::from(size));
    }
    assert_eq!(Header::parse(&with(16, &[0, 1])).unwrap().page_size, 65536);
}

#[test]
fn damaged_headers_are_refused_for_the_field_that_is_wrong() {
    for stored in [0u16, 2, 256, 511, 513, 1000, 4095, 32769, 65535] {
        assert_eq!(Header::parse(&with(16, &stored.to_be_bytes())), Err(HeaderError::BadPageSize(stored)));
    }
    for version in 3..=255 {
        assert_eq!(Header::parse(&with(19, &[version])), Err(HeaderError::UnknownReadVersion(version)));
    }
    assert_eq!(Header::parse(&with(21, &[64, 32, 33])), Err(HeaderError::BadPayloadFractions([64, 32, 33])));
    let mut crowded = with(16, &512u16.to_be_bytes());
    crowded[20] = 32;
    assert_eq!(Header::parse(&crowded).unwrap().reserved, 32);
    crowded[20] = 33;
    let error = Header::parse(&crowded).unwrap_err();
    assert_eq!(error, HeaderError::ReservedTooLarge { page_size: 512, reserved: 33 });
    assert!(error.to_string().contains("reserves 33 bytes"), "{error}");
}

#[test]
fn only_read_version_two_means_wal() {
    assert!(!Header::parse(&with(18, &[2, 1])).unwrap().is_wal());
    assert!(Header::parse(&with(18, &[1, 2])).unwrap().is_wal());
}

#[test]
fn page_count_is_trusted_only_while_the_change_counter_matches() {
    let mut h = plain_header();
    h[28..32].copy_from_slice(&7u32.to_be_bytes());
    h[24..28].copy_from_slice(&3u32.to_be_bytes());
    h[92..96].copy_from_slice(&3u32.to_be_bytes());
    assert_eq!(Header::parse(&h).unwrap().trusted_page_count(), Some(7));
    h[24..28].copy_from_slice(&4u32.to_be_bytes());
    let stale = Header::parse(&h).unwrap();
    assert_eq!((stale.page_count, stale.trusted_page_count()), (7, None));
    h[92..96].copy_from_slice(&4u32.to_be_bytes());
    h[28..32].fill(0);
    assert_eq!(Header::parse(&h).unwrap().trusted_page_count(), None);
}

#[test]
fn every_prefix_of_a_header_is_truncated_and_no_bytes_are_empty() {
    assert_eq!(Header::parse(&[]), Err(HeaderError::Empty));
    for have in 1..HEADER_SIZE {
        assert_eq!(Header::parse(&plain_header()[..have]), Err(HeaderError::Truncated { have }));
    }
}

#[test]
fn what_a_file_looks_like_is_said_in_words() {
    let tls = [0x17, 3, 3, 0, 0x13, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let random = [0x3f, 0x91, 0xc4, 0x07, 0xee, 0x5a, 0x12, 0x88, 0x6d, 0xf3, 0x2b, 0xa0, 0x45, 0xd9, 0x70, 0xbc];
    let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    let cases: &[(&[u8], Lookalike, &str)] = &[
        (&[0; 4096], Lookalike::ZeroFilled, "zero bytes"),
        (&[0x1f, 0x8b, 8, 0, 0], Lookalike::Gzip, "gzip"),
        (b"PK\x03\x04\x14\0", Lookalike::Zip, "zip archive"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 4], Lookalike::Zstd, "Zstandard"),
        (b"\xfd7zXZ\0\0", Lookalike::Xz, "xz"),
        (b"BZh91AY&SY", Lookalike::Bzip2, "bzip2"),
        (&tls, Lookalike::TlsRecord, "TLS record"),
        (&[0x37, 0x7f, 6, 0x82], Lookalike::WriteAheadLog, "-wal"),
        (&[0x37, 0x7f, 6, 0x83], Lookalike::WriteAheadLog, "-wal"),
        (&[0x18, 0xe2, 0x2d, 0, 0, 0, 0, 0, 5], Lookalike::WalIndex, "-shm"),
        (&[0xd9, 0xd5, 5, 0xf9, 0x20, 0xa1, 0x63, 0xd7], Lookalike::RollbackJournal, "-journal"),
        (b"** This file contains an SQLite 2.1 database **", Lookalike::Sqlite2, "SQLite 2"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", Lookalike::GitLfsPointer, "Git LFS"),
        (b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;", Lookalike::SqlDump, "SQL text"),
        ("größe,länge\n1,2\n".as_bytes(), Lookalike::Text, "text"),
        (&random, Lookalike::Random, "encrypted"),
        (elf, Lookalike::Unknown, "another kind"),
        (png, Lookalike::Unknown, "another kind"),
    ];
    for (bytes, expected, words) in cases {
        match Header::parse(bytes).unwrap_err() {
            HeaderError::NotSqlite { seen, lookalike, overwritten } => {
                assert_eq!((lookalike, overwritten), (*expected, false), "{seen}");
                assert!(seen.is_ascii() && !seen.contains(char::is_control));
            }
            other => panic!("{bytes:x?}: {other:?}"),
        }
        let message = Header::parse(bytes).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn text_cut_within_a_character_is_still_text() {
    let text = "ä".repeat(40);
    assert_eq!(Lookalike::of(&text.as_bytes()[..63]), Lookalike::Text);
    assert_eq!(Lookalike::of(text.as_bytes()), Lookalike::Text);
    assert_ne!(Lookalike::of(b"abc\xff def ghi jkl"), Lookalike::Text);
    assert_ne!(Lookalike::of("ä".as_bytes().split_at(1).0), Lookalike::Text);
}

#[test]
fn tls_record_over_the_first_bytes_is_told_as_an_overwritten_database() {
    let mut h = plain_header();
    h[..5].copy_from_slice(&[0x17, 3, 3, 0, 0x18]);
    let error = Header::parse(&h).unwrap_err();
    assert!(matches!(error, HeaderError::NotSqlite { lookalike: Lookalike::TlsRecord, overwritten: true, .. }));
    let message = error.to_string();
    assert!(message.contains("TLS record"), "{message}");
    assert!(message.contains("was a database"), "{message}");
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = Header::parse(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
        let _ = Lookalike::of(&bytes).to_string();
    }

    #[test]
    fn any_bytes_behind_the_magic_never_panic(tail in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(tail);
        if let Err(error) = Header::parse(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn fields_are_read_from_where_they_were_written(
        words in prop::array::uniform19(any::<u32>()),
        exponent in 9u32..=16,
        versions in (any::<u8>(), 0u8..=2),
        reserved in 0u8..=32,
    ) {
        let mut h = plain_header();
        for (index, word) in words.iter().enumerate() {
            h[24 + 4 * index..28 + 4 * index].copy_from_slice(&word.to_be_bytes());
        }
        let size = 1u32 << exponent;
        let stored = if size == 65536 { 1 } else { size as u16 };
        h[16..18].copy_from_slice(&stored.to_be_bytes());
        h[18..21].copy_from_slice(&[versions.0, versions.1, reserved]);

        let header = Header::parse(&h).unwrap();
        let word = |at: usize| words[(at - 24) / 4];
        prop_assert_eq!(header.page_size, size);
        prop_assert_eq!(header.write_version, versions.0);
        prop_assert_eq!(header.read_version, versions.1);
        prop_assert_eq!(header.is_wal(), versions.1 == 2);
        prop_assert_eq!(header.reserved, reserved);
        prop_assert_eq!(header.change_counter, word(24));
        prop_assert_eq!(header.page_count, word(28));
        prop_assert_eq!(header.freelist_trunk, word(32));
        prop_assert_eq!(header.freelist_count, word(36));
        prop_assert_eq!(header.schema_cookie, word(40));
        prop_assert_eq!(header.schema_format, word(44));
        prop_assert_eq!(header.default_cache_size.to_be_bytes(), word(48).to_be_bytes());
        let auto_vacuum = match (word(52) != 0, word(64) != 0) {
            (false, _) => AutoVacuum::None,
            (true, false) => AutoVacuum::Full,
            (true, true) => AutoVacuum::Incremental,
        };
        prop_assert_eq!(header.auto_vacuum, auto_vacuum);
        let encoding = match word(56) {
            0 => TextEncoding::Unset,
            1 => TextEncoding::Utf8,
            2 => TextEncoding::Utf16Le,
            3 => TextEncoding::Utf16Be,
            other => TextEncoding::Undefined(other),
        };
        prop_assert_eq!(header.text_encoding, encoding);
        prop_assert_eq!(header.user_version.to_be_bytes(), word(60).to_be_bytes());
        prop_assert_eq!(header.application_id, word(68));
        prop_assert_eq!(header.version_valid_for, word(92));
        prop_assert_eq!(header.sqlite_version.0, word(96));
    }
}
