//! Bytes of a rollback journal that wait to be written: where each write is a round trip, all between two syncs are one.

use std::ffi::c_int;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use crate::combine::run::Run;
use crate::main_file::MainFile;

/// Bytes for the journal.
pub(crate) fn write(main: &MainFile, run: &mut Run, journal: &BaseFile, bytes: &[u8], at: u64) -> c_int {
    if !main.combines {
        return journal.write_from(bytes, at);
    }
    let mut put = run.put(at, bytes);
    if put.is_none() {
        match flush(run, journal) {
            ffi::SQLITE_OK => put = run.put(at, bytes),
            code => return code,
        }
    }
    match put {
        Some(false) => ffi::SQLITE_OK,
        Some(true) => piece(run, journal, Run::part),
        // There was no memory for them.
        None => journal.write_from(bytes, at),
    }
}

/// Writes what waits. It goes on waiting if that fails, so that a rollback finds it.
pub(crate) fn flush(run: &mut Run, journal: &BaseFile) -> c_int {
    piece(run, journal, Run::whole)
}

fn piece(run: &mut Run, journal: &BaseFile, which: impl Fn(&Run) -> Option<(u64, &[u8])>) -> c_int {
    let (code, length) = match which(run) {
        Some((at, bytes)) => (journal.write_from(bytes, at), bytes.len()),
        None => return ffi::SQLITE_OK,
    };
    if code == ffi::SQLITE_OK {
        run.wrote(length);
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
