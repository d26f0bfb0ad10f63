//! The guard's log: what is written is read again, the bytes of version 1 stay what they are, and no bytes do harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guard_log_read;

use guard_log_read::{crc, read};
use hardened_vfs::guard::images::Folded;
use hardened_vfs::guard::log::*;
use hardened_vfs::guard::sums::Sums;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

fn seeded(cases: u32) -> ProptestConfig {
    let seed = 0x0000_6a2d_1099_ed5e;
    println!("seed {seed:#x}, {cases} cases");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, cases, ..ProptestConfig::default() }
}

fn boot() -> impl Strategy<Value = Boot> {
    any::<[u8; 16]>()
}

fn witness() -> impl Strategy<Value = Witness> {
    let time = (any::<i64>(), any::<u32>()).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    (boot(), option::of(time), any::<bool>(), any::<u64>()).prop_map(|(boot, changed, settled, file_size)| Witness {
        boot,
        changed,
        settled: settled && changed.is_some(),
        file_size,
    })
}

fn pages(sectors: usize) -> impl Strategy<Value = Pages> {
    let image = move || option::of(vec(any::<u32>(), sectors));
    vec((any::<u32>(), image(), image(), any::<bool>()), 0..6).prop_map(move |entries| {
        let mut pages = Pages::new(sectors as u32 * 512);
        for (page, old, new, journaled) in &entries {
            pages.push(Entry { page: *page, old: old.as_deref(), new: new.as_deref(), journaled: *journaled });
        }
        pages
    })
}

fn generation() -> impl Strategy<Value = Generation> {
    (any::<[u32; 2]>(), any::<u32>()).prop_map(|(salts, sequence)| Generation { salts, sequence })
}

fn record(sectors: usize) -> impl Strategy<Value = Record> {
    let which = prop_oneof![
        Just(Which::Database),
        Just(Which::Journal),
        Just(Which::Wal),
        Just(Which::Directory),
        (4..=u32::MAX).prop_map(Which::Other)
    ];
    prop_oneof![
        (witness(), any::<[u32; 4]>(), any::<bool>(), pages(sectors)).prop_map(|(before, n, exclusive, pages)| {
            let [nonce, initial_pages, counter_before, counter_after] = n;
            Record::Written(Written { before, nonce, initial_pages, counter_before, counter_after, exclusive, pages })
        }),
        (any::<u32>(), any::<bool>(), witness()).prop_map(|(nonce, back, witness)| {
            Record::Done(Done { nonce, outcome: if back { Outcome::RolledBack } else { Outcome::Committed }, witness })
        }),
        (generation(), any::<bool>(), any::<u32>(), any::<[u64; 2]>(), witness(), pages(sectors)).prop_map(
            |(generation, wal_synced, counter, [frames, page1_frame], witness, page1)| {
                Record::Pending(Pending { generation, wal_synced, counter, frames, page1_frame, witness, page1 })
            }
        ),
        (generation(), any::<bool>(), [witness(), witness()], any::<u32>(), pages(sectors)).prop_map(
            |(generation, complete, [before, witness], counter, pages)| {
                Record::Checkpointed(Checkpointed { generation, complete, before, witness, counter, pages })
            }
        ),
        (any::<[u32; 2]>(), any::<u64>()).prop_map(|(salts, frames)| Record::WalSynced(WalSynced { salts, frames })),
        (which, any::<u32>(), boot(), any::<u64>(), "\\PC{0,40}").prop_map(|(which, code, boot, time, message)| {
            Record::Halted(Halted { which, code, boot, time, message })
        }),
        Just(Record::Resumed),
        "\\PC{0,60}".prop_map(Record::Alarm),
        (9_u16..).prop_map(Record::Unknown),
    ]
}

#[derive(Clone, Debug)]
struct Sample {
    records: Vec<(bool, Record)>,
    bytes: Vec<u8>,
    /// Where each record ends, the header first.
    ends: Vec<usize>,
}

fn sample() -> impl Strategy<Value = Sample> {
    (0..4_u32, boot(), any::<u64>()).prop_flat_map(|(power, boot, epoch)| {
        let page_size = 512 << power;
        let records = vec((any::<bool>(), record(page_size as usize / 512)), 0..6);
        records.prop_map(move |records| {
            let header = Header { page_size, boot, epoch };
            let mut bytes = header.encode().to_vec();
            let mut ends = vec![bytes.len()];
            let mut encoder = Encoder::new(&header);
            for (at, (durable, record)) in records.iter().enumerate() {
                assert_eq!(encoder.append(&mut bytes, *durable, record), Ok(at as u64 + 1));
                ends.push(bytes.len());
            }
            Sample { records, bytes, ends }
        })
    })
}

/// The first records of the sample, as they must be read.
fn expected(sample: &Sample, count: usize) -> Vec<Logged> {
    let first = sample.records.iter().take(count).enumerate();
    first
        .map(|(at, (durable, record))| Logged { sequence: at as u64 + 1, durable: *durable, record: record.clone() })
        .collect()
}

fn run(cases: u32, test: impl Fn(Sample, Index, u8) -> Result<(), TestCaseError>) {
    let mut runner = proptest::test_runner::TestRunner::new(seeded(cases));
    runner.run(&(sample(), any::<Index>(), any::<u8>()), |(sample, index, byte)| test(sample, index, byte)).unwrap();
}

#[test]
fn what_is_written_is_read_again() {
    run(5_000, |sample, _, _| {
        let (records, end, length) = read(&sample.bytes);
        prop_assert_eq!(records, expected(&sample, sample.records.len()));
        prop_assert_eq!((end, length), (End::EndOfFile, sample.bytes.len()));
        prop_assert!(sample.ends.iter().all(|end| end % 8 == 0));
        Folded::read(&sample.bytes).unwrap();
        Ok(())
    });
}

#[test]
fn a_log_cut_anywhere_ends_at_its_last_whole_record() {
    run(8_000, |sample, index, _| {
        let cut = 64 + index.index(sample.bytes.len() - 63);
        let whole = sample.ends.iter().filter(|end| **end <= cut).count() - 1;
        let (records, end, length) = read(&sample.bytes[..cut]);
        prop_assert_eq!(records, expected(&sample, whole));
        prop_assert_eq!(length, sample.ends[whole]);
        prop_assert_eq!(end, if length == cut { End::EndOfFile } else { End::Torn });
        Ok(())
    });
}

#[test]
fn a_flipped_bit_ends_the_log_before_its_record() {
    run(10_000, |mut sample, index, byte| {
        let at = index.index(sample.bytes.len());
        sample.bytes[at] ^= 1 << (byte % 8);
        if at < 64 {
            prop_assert!(Reader::new(&sample.bytes).is_err());
            return Ok(());
        }
        let whole = sample.ends.iter().filter(|end| **end <= at).count() - 1;
        let (records, end, _) = read(&sample.bytes);
        prop_assert_eq!(records, expected(&sample, whole));
        prop_assert_eq!(end, End::Torn);
        Ok(())
    });
}

#[test]
fn bytes_with_right_checksums_and_wrong_fields_do_no_harm() {
    // Bodies of noise behind a right header and before a right checksum, which only a broken writer leaves.
    let strategy = (vec(any::<u8>(), 0..200), 0..10_u16, any::<u16>());
    let mut runner = proptest::test_runner::TestRunner::new(seeded(10_000));
    let read_whole = std::cell::Cell::new(0);
    runner
        .run(&strategy, |(body, kind, flags)| {
            let header = Header { page_size: 512, boot: [1; 16], epoch: 0xabcd_0000_1234 };
            let mut record = Vec::new();
            let len = (20 + body.len() + 4).next_multiple_of(8);
            record.extend((len as u32).to_be_bytes());
            record.extend(kind.to_be_bytes());
            record.extend(flags.to_be_bytes());
            record.extend(1_u64.to_be_bytes());
            record.extend(0x1234_u32.to_be_bytes());
            record.extend(body);
            record.resize(len - 4, 0);
            record.extend(crc(&record).to_be_bytes());
            let bytes = [header.encode().to_vec(), record].concat();
            let (records, end, _) = read(&bytes);
            let sound = matches!(end, End::EndOfFile | End::NotUnderstood { .. });
            prop_assert!(sound, "{end:?}");
            read_whole.set(read_whole.get() + records.len());
            Folded::read(&bytes).unwrap();
            Ok(())
        })
        .unwrap();
    println!("{} of them were records", read_whole.get());
}

#[test]
fn noise_is_no_log() {
    let mut runner = proptest::test_runner::TestRunner::new(seeded(5_000));
    runner
        .run(&(vec(any::<u8>(), 0..300), any::<bool>()), |(mut bytes, magic)| {
            if magic {
                for (byte, is) in bytes.iter_mut().zip(MAGIC) {
                    *byte = is;
                }
            }
            prop_assert!(Reader::new(&bytes).is_err());
            Ok(())
        })
        .unwrap();
}

#[test]
fn records_of_another_log_in_the_same_file_are_not_read() {
    let older = Header { page_size: 512, boot: [1; 16], epoch: 7 };
    let newer = Header { epoch: 8, ..older };
    let mut bytes = older.encode().to_vec();
    let mut encoder = Encoder::new(&older);
    for _ in 0..3 {
        encoder.append(&mut bytes, true, &Record::Resumed).unwrap();
    }
    let mut start = newer.encode().to_vec();
    Encoder::new(&newer).append(&mut start, true, &Record::Resumed).unwrap();
    bytes[..start.len()].copy_from_slice(&start);
    let (records, end, length) = read(&bytes);
    assert_eq!((records.len(), end, length), (1, End::OtherEpoch, start.len()));
}

#[test]
fn a_record_out_of_sequence_ends_the_log() {
    let header = Header { page_size: 512, boot: [1; 16], epoch: 7 };
    let mut bytes = header.encode().to_vec();
    Encoder::after(&header, 1).append(&mut bytes, true, &Record::Resumed).unwrap();
    assert_eq!(read(&bytes), (vec![], End::OutOfSequence, 64));
}

#[test]
fn a_record_that_would_be_too_long_is_not_written() {
    let header = Header { page_size: 65536, boot: [1; 16], epoch: 7 };
    let mut pages = Pages::new(header.page_size);
    let image = vec![0; 128];
    for page in 0..(64 << 20) / 1032 + 1 {
        pages.push(Entry { page, old: Some(&image), new: Some(&image), journaled: true });
    }
    let mut encoder = Encoder::new(&header);
    let mut bytes = vec![1, 2, 3];
    let written = Written {
        before: Witness { boot: [1; 16], changed: None, settled: false, file_size: 1 },
        nonce: 1,
        initial_pages: 1,
        counter_before: 1,
        counter_after: 1,
        exclusive: false,
        pages,
    };
    assert_eq!(encoder.append(&mut bytes, true, &written), Err(TooLong));
    assert_eq!((bytes, encoder.next_sequence()), (vec![1, 2, 3], 1));
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let header = Header { page_size: 512, boot: [1; 16], epoch: 7 };
    let mut bytes = header.encode().to_vec();
    let mut encoder = Encoder::new(&header);
    let text = format!("x{}", "ü".repeat(4000));
    encoder.append(&mut bytes, false, &Record::Alarm(text.clone())).unwrap();
    let halted = Halted { which: Which::Wal, code: 1, boot: [0; 16], time: 0, message: text };
    encoder.append(&mut bytes, false, &halted).unwrap();
    let (records, end, _) = read(&bytes);
    assert_eq!(end, End::EndOfFile);
    let lengths: Vec<usize> = records
        .iter()
        .map(|logged| match &logged.record {
            Record::Alarm(text) => text.len(),
            Record::Halted(halted) => halted.message.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [4095, 511]);
}

#[test]
fn the_sums_of_a_page_are_the_crc32c_of_its_sectors() {
    let page: Vec<u8> = (0..2048_u32).map(|at| (at * at / 7) as u8).collect();
    let sums: Vec<u32> = page.chunks(512).map(crc).collect();
    assert_eq!(Sums::of(&page).as_slice(), sums);
    // The check value of the algorithm's definition.
    assert_eq!(crc(b"123456789"), 0xe306_9283);
    let mut pages = Pages::new(2048);
    pages.push_images(9, None, Some(&page), true);
    pages.push_images(10, Some(&page), Some(&page[..512]), false);
    let entries: Vec<Entry<'_>> = pages.iter().collect();
    assert_eq!(entries[0], Entry { page: 9, old: None, new: Some(&sums[..]), journaled: true });
    assert_eq!(entries[1], Entry { page: 10, old: Some(&sums[..]), new: None, journaled: false });
}
