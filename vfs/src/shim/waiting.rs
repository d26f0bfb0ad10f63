//! Bytes of a rollback journal that wait to be written: where each write is a round trip, all between two syncs are one.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use crate::combine::run::Run;
use crate::in_flight::Journal;
use crate::main_file::MainFile;

/// Bytes for the journal.
pub(crate) fn write(main: &MainFile, held: &mut Journal, journal: &BaseFile, bytes: &[u8], at: u64) -> c_int {
    if !main.gathers {
        return through(held, journal, bytes, at);
    }
    let mut put = held.run.put(at, bytes);
    if put.is_none() {
        match flush(held, journal) {
            ffi::SQLITE_OK => put = held.run.put(at, bytes),
            code => return code,
        }
    }
    held.ledger.soil();
    match put {
        Some(false) => ffi::SQLITE_OK,
        Some(true) => {
            let Journal { run, ledger, .. } = held;
            let Some((at, part)) = run.part() else { return ffi::SQLITE_OK };
            ledger.appended(at, part);
            let (code, length) = (journal.write_from(part, at), part.len());
            if code == ffi::SQLITE_OK {
                run.wrote(length);
            }
            code
        }
        // There was no memory for them.
        None => through(held, journal, bytes, at),
    }
}

fn through(held: &mut Journal, journal: &BaseFile, bytes: &[u8], at: u64) -> c_int {
    // Also a write that failed may have changed something.
    held.ledger.appended(at, bytes);
    journal.write_from(bytes, at)
}

/// Writes what waits. It goes on waiting if that fails, so that a rollback finds it.
pub(crate) fn flush(held: &mut Journal, journal: &BaseFile) -> c_int {
    if held.run.is_empty() {
        return ffi::SQLITE_OK;
    }
    let (at, bytes) = held.run.take();
    let code = journal.write_from(&bytes, at);
    if code == ffi::SQLITE_OK {
        held.ledger.keep(at, bytes);
    } else {
        held.ledger.appended(at, &bytes);
        held.run.put_back((at, bytes));
    }
    code
}

/// xRead of the journal: from the file and from what waits.
pub(crate) fn read(run: &Run, journal: &BaseFile, buffer: &mut [u8], at: u64) -> Option<c_int> {
    if !run.touches(at, buffer.len()) {
        return None;
    }
    let offset = i64::try_from(at).ok()?;
    let had = match journal.read_into(buffer, offset) {
        ffi::SQLITE_OK => buffer.len(),
        // The rest is zeros.
        ffi::SQLITE_IOERR_SHORT_READ => 0,
        code => return Some(code),
    };
    let whole = run.cover(at, buffer, had) == buffer.len();
    Some(if whole { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ })
}
