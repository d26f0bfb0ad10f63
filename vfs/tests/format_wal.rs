//! The write-ahead log: headers and logs made by hand, in both checksum byte orders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::format::wal::{ChecksumOrder, End, Header, HeaderError, scan};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::io::{self, Read};

fn seeded() -> ProptestConfig {
    let seed = 0x0000_a10c_f4a3_e5ed;
    println!("seed {seed:#x}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

/// A log under construction, with a checksum of its own making.
#[derive(Clone)]
struct Log {
    bytes: Vec<u8>,
    big_endian: bool,
    page_size: usize,
    salts: [u32; 2],
    sum: (u32, u32),
}

impl Log {
    fn new(page_size: u32, big_endian: bool, salts: [u32; 2]) -> Log {
        let mut log = Log { bytes: Vec::new(), big_endian, page_size: page_size as usize, salts, sum: (0, 0) };
        let magic = 0x377f_0682 + u32::from(big_endian);
        for word in [magic, 3_007_000, page_size, 5, salts[0], salts[1]] {
            log.bytes.extend(word.to_be_bytes());
        }
        log.sum_up(0);
        log.store_sum();
        log
    }

    fn sum_up(&mut self, from: usize) {
        for pair in self.bytes[from..].chunks(8) {
            let word = |b: &[u8]| {
                let b: [u8; 4] = b.try_into().unwrap();
                if self.big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
            };
            let (x, y) = (word(&pair[..4]), word(&pair[4..]));
            self.sum.0 = self.sum.0.wrapping_add(x).wrapping_add(self.sum.1);
            self.sum.1 = self.sum.1.wrapping_add(y).wrapping_add(self.sum.0);
        }
    }

    fn store_sum(&mut self) {
        self.bytes.extend(self.sum.0.to_be_bytes());
        self.bytes.extend(self.sum.1.to_be_bytes());
    }

    fn frame(&mut self, page_number: u32, commit_size: u32, fill: u8) {
        let start = self.bytes.len();
        self.bytes.extend(page_number.to_be_bytes());
        self.bytes.extend(commit_size.to_be_bytes());
        self.sum_up(start);
        let page: Vec<u8> = (0..self.page_size).map(|i| fill.wrapping_mul(31).wrapping_add(i as u8)).collect();
        let page_start = self.bytes.len();
        self.bytes.extend(&page);
        self.sum_up(page_start);
        self.bytes.truncate(page_start);
        for salt in self.salts {
            self.bytes.extend(salt.to_be_bytes());
        }
        self.store_sum();
        self.bytes.extend(page);
    }

    fn frame_size(&self) -> usize {
        self.page_size + 24
    }
}

/// `frames` frames, of which each third one ends a transaction.
fn sample(frames: u32, big_endian: bool) -> Log {
    let mut log = Log::new(512, big_endian, [0x1122_3344, 0x5566_7788]);
    for n in 1..=frames {
        log.frame(n, if n % 3 == 0 { n } else { 0 }, n as u8);
    }
    log
}

#[test]
fn both_byte_orders_of_the_checksum_are_verified() {
    for big_endian in [false, true] {
        let scan = scan(&sample(8, big_endian).bytes[..]).unwrap();
        let header = scan.header.unwrap();
        let order = if big_endian { ChecksumOrder::BigEndian } else { ChecksumOrder::LittleEndian };
        assert_eq!(header.order, order);
        assert_eq!((scan.valid_frames, scan.commits), (8, 2));
        assert_eq!((scan.committed_frames, scan.uncommitted_frames()), (6, 2));
        assert_eq!(scan.page_count, Some(6));
        assert_eq!(scan.end, End::EndOfFile);
        assert_eq!(scan.unreachable_frames, 0);
    }
}

#[test]
fn a_log_without_a_commit_has_no_page_count() {
    let scan = scan(&sample(2, false).bytes[..]).unwrap();
    assert_eq!((scan.valid_frames, scan.committed_frames), (2, 0));
    assert_eq!(scan.page_count, None);
}

#[test]
fn frames_of_an_older_generation_end_the_scan() {
    let mut log = sample(3, false);
    let mut older = Log::new(512, false, [0x1122_3343, 99]);
    older.frame(1, 1, 1);
    older.frame(2, 2, 2);
    log.bytes.extend(&older.bytes[32..]);
    let scan = scan(&log.bytes[..]).unwrap();
    assert_eq!((scan.valid_frames, scan.commits), (3, 1));
    let salts = [0x1122_3343, 99];
    assert_eq!(scan.end, End::OlderGeneration { salts });
    assert_eq!(scan.unreachable_frames, 0);
}

#[test]
fn a_preallocated_tail_of_zeros_ends_the_scan_as_never_written() {
    let mut log = sample(3, false);
    log.bytes.extend([0; 3 * 536]);
    let scan = scan(&log.bytes[..]).unwrap();
    assert_eq!(scan.valid_frames, 3);
    assert_eq!(scan.end.to_string(), "a frame that was never written");
}

#[test]
fn a_frame_without_a_page_number_ends_the_scan_even_if_its_checksum_is_right() {
    let mut log = sample(3, false);
    log.frame(0, 4, 1);
    let scan = scan(&log.bytes[..]).unwrap();
    assert_eq!((scan.valid_frames, scan.end), (3, End::NoPageNumber));
}

#[test]
fn damage_in_the_middle_tells_the_commits_it_hides() {
    let mut log = sample(9, true);
    log.bytes[32 + 536 * 4 + 100] ^= 1;
    let scan = scan(&log.bytes[..]).unwrap();
    assert_eq!((scan.valid_frames, scan.committed_frames), (4, 3));
    assert_eq!(scan.end, End::ChecksumMismatch);
    assert_eq!((scan.unreachable_frames, scan.unreachable_commits), (5, 2));
}

#[test]
fn a_log_cut_anywhere_keeps_the_frames_before_the_cut() {
    let log = sample(4, false);
    for len in 0..log.bytes.len() {
        let scan = scan(&log.bytes[..len]).unwrap();
        if len < 32 {
            let error = HeaderError::Truncated { have: len };
            assert_eq!(scan.end, End::BadHeader(error));
            continue;
        }
        let (frames, rest) = ((len - 32) / 536, (len - 32) % 536);
        assert_eq!(scan.valid_frames, frames as u64);
        assert_eq!(scan.page_count, (frames >= 3).then_some(3));
        if rest == 0 {
            assert_eq!(scan.end, End::EndOfFile);
        } else {
            assert_eq!(scan.end, End::TruncatedFrame { have: rest });
        }
    }
}

#[test]
fn bad_headers_are_told_apart() {
    let start = sample(0, false).bytes;
    let parse = |at: usize, byte: u8| {
        let mut bytes = start.clone();
        bytes[at] = byte;
        Header::parse(&bytes).unwrap_err()
    };
    assert!(matches!(parse(0, b'S'), HeaderError::NotWal { .. }));
    assert_eq!(parse(10, 1), HeaderError::BadPageSize(256));
    assert_eq!(parse(9, 2), HeaderError::BadPageSize(0x2_0200));
    assert_eq!(parse(16, 0), HeaderError::BadChecksum);
    assert_eq!(parse(7, 0), HeaderError::BadChecksum);
    // The magic number says which byte order the checksum has, so the wrong one fails it.
    assert_eq!(parse(3, 0x83), HeaderError::BadChecksum);
    for end in 0..32 {
        assert_eq!(Header::parse(&start[..end]), Err(HeaderError::Truncated { have: end }));
    }
}

#[test]
fn an_unknown_version_with_a_right_checksum_is_told_as_such() {
    let mut log = sample(0, true);
    log.bytes.truncate(24);
    log.bytes[4..8].copy_from_slice(&3_007_001u32.to_be_bytes());
    log.sum = (0, 0);
    log.sum_up(0);
    log.store_sum();
    assert_eq!(Header::parse(&log.bytes), Err(HeaderError::UnknownVersion(3_007_001)));
}

#[test]
fn pages_of_65536_bytes_are_scanned() {
    let mut log = Log::new(65536, false, [1, 2]);
    log.frame(1, 1, 7);
    let scan = scan(&log.bytes[..]).unwrap();
    assert_eq!((scan.valid_frames, scan.page_count), (1, Some(1)));
    assert_eq!(scan.header.unwrap().frame_size(), 65560);
}

/// Gives a few bytes at a time, interrupted now and then, and fails at `fail_at`.
struct Trickle<'a> {
    rest: &'a [u8],
    calls: usize,
    fail_at: Option<usize>,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.fail_at.is_some_and(|call| self.calls >= call) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let n = self.rest.len().min(buffer.len()).min(7);
        buffer[..n].copy_from_slice(&self.rest[..n]);
        self.rest = &self.rest[n..];
        Ok(n)
    }
}

#[test]
fn short_and_interrupted_reads_change_nothing_and_errors_are_passed_on() {
    let log = sample(5, false);
    let trickle = |fail_at| Trickle { rest: &log.bytes, calls: 0, fail_at };
    assert_eq!(scan(trickle(None)).unwrap(), scan(&log.bytes[..]).unwrap());
    for call in [1, 10, 200] {
        let error = scan(trickle(Some(call))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let scan = scan(&bytes[..]).unwrap();
        prop_assert!(!scan.end.to_string().is_empty());
    }

    #[test]
    fn arbitrary_bytes_behind_a_valid_header_never_panic(
        tail in prop::collection::vec(any::<u8>(), 0..2000),
        big_endian: bool,
    ) {
        let mut log = sample(0, big_endian);
        log.bytes.extend(tail);
        prop_assert_eq!(scan(&log.bytes[..]).unwrap().valid_frames, 0);
    }

    #[test]
    fn header_fields_are_read_back(exponent in 9u32..=16, big_endian: bool, salts: [u32; 2]) {
        let header = Header::parse(&Log::new(1 << exponent, big_endian, salts).bytes).unwrap();
        prop_assert_eq!(header.page_size, 1 << exponent);
        prop_assert_eq!(header.order == ChecksumOrder::BigEndian, big_endian);
        prop_assert_eq!(header.salts, salts);
        prop_assert_eq!(header.checkpoint_sequence, 5);
    }

    #[test]
    fn a_flipped_bit_ends_the_scan_at_its_frame(
        frames in 1u32..12,
        big_endian: bool,
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut log = sample(frames, big_endian);
        let at = 32 + place.index(log.bytes.len() - 32);
        log.bytes[at] ^= 1 << bit;
        let hit = (at - 32) / log.frame_size();
        let scan = scan(&log.bytes[..]).unwrap();
        prop_assert_eq!(scan.valid_frames, hit as u64);
        prop_assert_eq!(scan.committed_frames, (hit / 3 * 3) as u64);
        prop_assert_ne!(scan.end, End::EndOfFile);
    }
}
