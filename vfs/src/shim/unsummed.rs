//! Frames that SQLite has left without a checksum get one before the commit that they belong to.
//!
//! A transaction that outgrows the page cache may write a page over its own earlier frame. From then on SQLite appends frames
//! with zeros for salts and checksum, and writes the headers again before it commits, from the overwritten frame on. In versions
//! up to 3.40.1 at least, and not in 3.51.1, a rollback to a savepoint that takes back the overwritten frame does not change where
//! that begins: the frames appended after it keep their zeros up to there. Everybody reads them through the WAL-index; but
//! whoever recovers the log after a crash stops at the first of them, and this commit and all later ones are gone.
//!
//! Invariant: when SQLite reads the checksum with which it goes on, all frames before it have theirs. It reads these 8 bytes at
//! no other time within a transaction.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::checkpoint;
use super::link::Files;
use super::witness;
use crate::format::wal::{Checksum, FRAME_HEADER_SIZE, HEADER_SIZE};
use crate::in_flight::InFlight;
use crate::unsummed::Unsummed;

/// Where in the header of a frame its checksum stands.
const CHECKSUM_AT: u64 = 16;

/// Whether a read of the log may be that of the checksum with which SQLite goes on.
pub(crate) fn may_be(length: usize) -> bool {
    length == 8
}

/// Before 8 bytes of the log are read at `at`: `None` if the base may be read, else what came of it.
pub(crate) fn read(
    files: &Files<'_>,
    flight: &mut InFlight,
    log: &BaseFile,
    at: u64,
    buffer: &mut [u8],
) -> Option<c_int> {
    let unsummed = flight.wal.unsummed?;
    let frame = at.checked_sub(CHECKSUM_AT)?;
    // The last of them is that of the commit.
    if flight.wal.commit_end != Some(unsummed.last) || frame < unsummed.first {
        return None;
    }
    let answer = match checkpoint::write_held(flight, log) {
        ffi::SQLITE_OK => mend(files, log, unsummed, frame),
        code => Err(code),
    };
    Some(match answer {
        Ok(Checksum(first, second)) => {
            let bytes = [first.to_be_bytes(), second.to_be_bytes()].concat();
            buffer.copy_from_slice(&bytes);
            files.main.note(
                "SQLite had left frames of the log without a checksum after a rollback to a savepoint; they have one now".into(),
            );
            ffi::SQLITE_OK
        }
        Err(code) => code,
    })
}

/// Answers the checksum of the last frame up to the one that begins at `to`.
fn mend(files: &Files<'_>, log: &BaseFile, unsummed: Unsummed, to: u64) -> Result<Checksum, c_int> {
    let header = files.wal.and_then(witness::log_header).ok_or(ffi::SQLITE_IOERR_READ)?;
    let (size, mut at) = (header.frame_size(), unsummed.first);
    let mut sum = header.checksum;
    if at > HEADER_SIZE as u64 {
        let mut stored = [0; 8];
        read_exactly(log, &mut stored, at + CHECKSUM_AT - size)?;
        let [a, b, c, d, e, f, g, h] = stored;
        sum = Checksum(u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    }
    let mut frame = Vec::new();
    frame.try_reserve_exact(size as usize).map_err(|_| ffi::SQLITE_IOERR_NOMEM)?;
    frame.resize(size as usize, 0);
    while at <= to.min(unsummed.last) {
        read_exactly(log, &mut frame, at)?;
        sum = sum.over(&frame[..8], header.order).over(&frame[FRAME_HEADER_SIZE..], header.order);
        let words = [header.salts[0], header.salts[1], sum.0, sum.1].map(u32::to_be_bytes);
        frame[8..FRAME_HEADER_SIZE].copy_from_slice(&words.concat());
        log.write_whole(&frame[..FRAME_HEADER_SIZE], at)?;
        at += size;
    }
    Ok(sum)
}

fn read_exactly(log: &BaseFile, buffer: &mut [u8], at: u64) -> Result<(), c_int> {
    match log.read_into(buffer, i64::try_from(at).map_err(|_| ffi::SQLITE_IOERR_READ)?) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}
