//! What the files of a connection say about themselves, for the guard's record.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::link::Files;
use crate::format::{journal, wal};
use crate::fs::Class;
use crate::guard;
use crate::guard::log::{Time, Witness};
use crate::transaction::change_counter;

/// The database as this host sees it after a write.
pub(crate) fn of(files: &Files<'_>) -> Witness {
    let (changed, size) = seen(files);
    // The clock of a server is not ours.
    let ours = files.main.verdict.class == Class::Local || !files.main.native;
    let settled = ours && changed.is_some_and(Time::lies_back);
    let file_size = size.or_else(|| files.database.size().ok()).unwrap_or(0);
    Witness { boot: guard::boot_id(), changed, settled, file_size }
}

/// The database before the first page of a transaction is written. Where asking is a round trip nobody asks: without the time
/// of change nothing is concluded from the transaction once it has ended.
pub(crate) fn before(files: &Files<'_>) -> Witness {
    if files.main.is_sparing() {
        return Witness { boot: guard::boot_id(), changed: None, settled: false, file_size: 0 };
    }
    of(files)
}

/// Asks a base VFS that is not the operating system's when a file was last changed: the argument is an array of two 64-bit
/// integers, seconds since 1970 and nanoseconds. A base that does not know the opcode answers SQLITE_NOTFOUND.
pub(crate) const CHANGED: c_int = 0x4841_5245;

/// When the database file was last changed (ctime).
pub(crate) fn changed(files: &Files<'_>) -> Option<Time> {
    seen(files).0
}

/// When it was last changed, and how large it is where the same look has told that.
fn seen(files: &Files<'_>) -> (Option<Time>, Option<u64>) {
    if files.main.verdict.options.iter().any(|option| option == "lazytime") {
        // It may be forgotten although a later change is on disk.
        return (None, None);
    }
    match files.main.native {
        true => {
            let found = std::fs::metadata(&files.main.path).ok();
            (found.as_ref().map(Time::of_change), found.map(|found| found.len()))
        }
        false => (told_by(files.database), None),
    }
}

/// When an open file of a base VFS that is not the operating system's was last changed.
pub(crate) fn told_by(file: &BaseFile) -> Option<Time> {
    let mut time = [0_i64; 2];
    // SAFETY: the argument that the opcode asks for.
    let code = unsafe { file.file_control(CHANGED, time.as_mut_ptr().cast()) };
    let nanoseconds = u32::try_from(time[1]).ok()?;
    (code == ffi::SQLITE_OK).then_some(Time { seconds: time[0], nanoseconds })
}

/// The change counter in the database file; 0 if there is no page 1.
pub(crate) fn counter(files: &Files<'_>) -> u32 {
    let mut start = [0; 28];
    match files.database.read_into(&mut start, 0) {
        ffi::SQLITE_OK => change_counter(&start).unwrap_or(0),
        _ => 0,
    }
}

/// Page 1 of the database file, if it is whole.
pub(crate) fn page_1(files: &Files<'_>) -> Option<Vec<u8>> {
    let mut start = [0; 18];
    if files.database.read_into(&mut start, 0) != ffi::SQLITE_OK {
        return None;
    }
    let size = match u16::from_be_bytes([start[16], start[17]]) {
        1 => 65536,
        size if size >= 512 && size.is_power_of_two() => usize::from(size),
        _ => return None,
    };
    page(files.database, 1, size)
}

/// A page of the database file, if it is whole.
pub(crate) fn page(database: &BaseFile, number: u32, size: usize) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    page.try_reserve_exact(size).ok()?;
    page.resize(size, 0);
    let at = i64::from(number.checked_sub(1)?) * size as i64;
    (database.read_into(&mut page, at) == ffi::SQLITE_OK).then_some(page)
}

/// The header of a log, if it is sound.
pub(crate) fn log_header(log: &BaseFile) -> Option<wal::Header> {
    let mut header = [0; wal::HEADER_SIZE];
    if log.read_into(&mut header, 0) != ffi::SQLITE_OK {
        return None;
    }
    wal::Header::parse(&header).ok()
}

/// The nonce of the journal that is open.
pub(crate) fn journal_nonce(files: &Files<'_>) -> Option<u32> {
    let mut header = [0; journal::HEADER_SIZE];
    if files.journal?.read_into(&mut header, 0) != ffi::SQLITE_OK {
        return None;
    }
    journal::Header::parse(&header).ok().map(|header| header.nonce)
}
