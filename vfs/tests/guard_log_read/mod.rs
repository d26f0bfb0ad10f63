//! A log of the guard's read to its end, and its checksum computed in another way.
#![allow(clippy::unwrap_used, reason = "shared by several tests")]

use hardened_vfs::guard::log::{End, Logged, Reader};

/// CRC-32C bit by bit, so that the crate is not tested with itself.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The records of a log that must be readable as one.
pub(crate) fn read(bytes: &[u8]) -> (Vec<Logged>, End, usize) {
    let mut reader = Reader::new(bytes).unwrap();
    let records = reader.by_ref().collect();
    (records, reader.end().unwrap(), reader.read())
}
