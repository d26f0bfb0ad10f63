//! The bytes of version 1 of the guard's log, and what a reader makes of versions and kinds that came later.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guard_log_read;

use guard_log_read::{crc, read};
use hardened_vfs::guard::log::*;

#[test]
fn a_kind_that_must_be_understood_ends_the_log_and_says_so() {
    let header = Header { page_size: 512, boot: [1; 16], epoch: 7 };
    for (flags, expected) in [(0x8000_u16, End::NotUnderstood { kind: 77 }), (0, End::EndOfFile)] {
        let mut bytes = header.encode().to_vec();
        Encoder::new(&header).append(&mut bytes, false, &Record::Unknown(77)).unwrap();
        bytes[70..72].copy_from_slice(&flags.to_be_bytes());
        let sum = crc(&bytes[64..84]);
        bytes[84..88].copy_from_slice(&sum.to_be_bytes());
        let (records, end, _) = read(&bytes);
        assert_eq!(end, expected);
        assert_eq!(records.len(), usize::from(flags == 0));
    }
}

#[test]
fn a_later_version_is_named_and_left_alone() {
    let mut bytes = Header { page_size: 512, boot: [1; 16], epoch: 7 }.encode();
    bytes[19] = 2;
    assert_eq!(Header::parse(&bytes), Err(HeaderError::BadChecksum));
    let sum = crc(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(Header::parse(&bytes), Err(HeaderError::Newer { version: 2 }));
}

/// Version 1, byte for byte, put together here by hand.
#[test]
fn the_bytes_of_version_1() {
    let boot = *b"0123456789abcdef";
    let header = Header { page_size: 1024, boot, epoch: 0x1122_3344_5566_7788 };
    let witness = Witness {
        boot,
        changed: Some(Time { seconds: -2, nanoseconds: 3 }),
        settled: true,
        file_size: 0x0102_0304_0506,
    };
    let unknown = Witness { changed: None, settled: false, ..witness };
    let witness_bytes = "30313233343536373839616263646566 fffffffffffffffe 00000003 00000002 0000010203040506";
    let unknown_bytes = "30313233343536373839616263646566 0000000000000000 00000000 00000000 0000010203040506";
    let mut pages = Pages::new(1024);
    pages.push(Entry { page: 1, old: Some(&[0xa1, 0xa2]), new: Some(&[0xb1, 0xb2]), journaled: true });
    pages.push(Entry { page: 9, old: None, new: Some(&[0xc1, 0xc2]), journaled: false });
    pages.push(Entry { page: 10, old: Some(&[0xd1, 0xd2]), new: None, journaled: false });
    let pages_bytes = "00000003 00000001 00000007 000000a1 000000a2 000000b1 000000b2
        00000009 00000002 000000c1 000000c2 0000000a 00000001 000000d1 000000d2";
    let generation = Generation { salts: [0x51, 0x52], sequence: 0x53 };
    let records = [
        (
            Record::Written(Written {
                before: witness,
                nonce: 0x11,
                initial_pages: 0x12,
                counter_before: 0x13,
                counter_after: 0x14,
                exclusive: true,
                pages: pages.clone(),
            }),
            format!("0001 {witness_bytes} 00000011 00000012 00000013 00000014 00000001 {pages_bytes}"),
        ),
        (
            Record::Done(Done { nonce: 0x21, outcome: Outcome::RolledBack, witness }),
            format!("0002 00000021 00000001 {witness_bytes}"),
        ),
        (
            Record::Pending(Pending {
                generation,
                wal_synced: true,
                counter: 0x31,
                frames: 0x32,
                page1_frame: 0x33,
                witness: unknown,
                page1: Pages::new(1024),
            }),
            format!(
                "0003 00000051 00000052 00000053 00000001 00000031 0000000000000032 0000000000000033 {unknown_bytes} 00000000"
            ),
        ),
        (
            Record::Checkpointed(Checkpointed {
                generation,
                complete: false,
                before: unknown,
                witness,
                counter: 0x41,
                pages,
            }),
            format!("0004 00000051 00000052 00000053 00000000 {unknown_bytes} {witness_bytes} 00000041 {pages_bytes}"),
        ),
        (
            Record::WalSynced(WalSynced { salts: [0x61, 0x62], frames: 0x63 }),
            "0005 00000061 00000062 0000000000000063".to_owned(),
        ),
        (
            Record::Halted(Halted { which: Which::Directory, code: 0x71, boot, time: 0x72, message: "EIO".to_owned() }),
            "0006 00000003 00000071 30313233343536373839616263646566 0000000000000072 00000003 45494f".to_owned(),
        ),
        (Record::Resumed, "0007".to_owned()),
        (Record::Alarm("torn".to_owned()), "0008 00000004 746f726e".to_owned()),
    ];
    let hex = |text: &str| -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    };
    let mut golden = b"hardened guard\0\0".to_vec();
    golden.extend(hex("00000001 00000400 30313233343536373839616263646566 1122334455667788"));
    golden.resize(60, 0);
    golden.extend(crc(&golden).to_be_bytes());
    let mut bytes = header.encode().to_vec();
    let mut encoder = Encoder::new(&header);
    for (at, (record, body)) in records.iter().enumerate() {
        let durable = at % 2 == 0;
        encoder.append(&mut bytes, durable, record).unwrap();
        let (kind, body) = body.split_at(4);
        let body = hex(body);
        let len = (20 + body.len() + 4).next_multiple_of(8);
        let mut expected = (len as u32).to_be_bytes().to_vec();
        expected.extend(hex(kind));
        expected.extend(u16::from(durable).to_be_bytes());
        expected.extend((at as u64 + 1).to_be_bytes());
        expected.extend(hex("55667788"));
        expected.extend(body);
        expected.resize(len - 4, 0);
        expected.extend(crc(&expected).to_be_bytes());
        golden.extend(expected);
    }
    assert_eq!(bytes, golden);
    // And as one number, in case both hands slip.
    println!("{} bytes, checksum {:#010x}", golden.len(), crc(&golden));
    assert_eq!((golden.len(), crc(&golden)), (GOLDEN_LENGTH, GOLDEN_CRC));
    let (read, end, _) = read(&golden);
    assert_eq!(end, End::EndOfFile);
    assert_eq!(read.into_iter().map(|logged| logged.record).collect::<Vec<_>>(), records.map(|(record, _)| record));
}

const GOLDEN_LENGTH: usize = 728;
const GOLDEN_CRC: u32 = 0xf7ce_123f;
