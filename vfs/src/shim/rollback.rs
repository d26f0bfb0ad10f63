//! The order of a rollback transaction: journal, sync, database, sync, journal gone, directory.
//!
//! SQLite keeps this order itself under synchronous NORMAL and above. Here it holds under any level, and each step that
//! fails is healed or stops everything. Where the guard keeps a record, the pages of the database are held until all of
//! them are known, so that the record stands before the first of them is written.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::control::MAGIC as DATABASE;
use super::link::Files;
use super::{halts, heal, waiting, witness};
use crate::format::journal::{HEADER_SIZE, Header, MAGIC, Records};
use crate::generation::Work;
use crate::guard::log::{Done, Outcome, Pages, Which, Written};
use crate::in_flight::InFlight;
use crate::transaction::change_counter;

/// Bytes for the database, at `at`.
pub(crate) fn write(files: &Files<'_>, flight: &mut InFlight, bytes: &[u8], at: u64) -> c_int {
    if may_hold(files, flight, bytes, at) {
        files.main.holds.store(true, Ordering::Relaxed);
        return match flight.held.put(at, bytes) {
            Ok(()) if flight.held.is_full() => write_held(files, flight, Flush::AllButPage1),
            Ok(()) => ffi::SQLITE_OK,
            Err(_) => ffi::SQLITE_IOERR_NOMEM,
        };
    }
    if let Some((start, page)) = around(files, flight, bytes, at) {
        return write(files, flight, &page, start);
    }
    match flush(files, flight) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    match sync_journal_first(files, flight) {
        ffi::SQLITE_OK => through(files, flight, bytes, at),
        code => code,
    }
}

/// The page with these bytes in it, which are only a part of it: where a page is held, a part of it cannot be written by
/// itself, and the record is of whole pages.
fn around(files: &Files<'_>, flight: &InFlight, bytes: &[u8], at: u64) -> Option<(u64, Vec<u8>)> {
    let size = flight.held.page_size().unwrap_or(flight.transaction.page_size as usize);
    let inside = usize::try_from(at % u64::try_from(size).ok().filter(|size| *size > 0)?).ok()?;
    if bytes.len() >= size || inside + bytes.len() > size {
        return None;
    }
    let start = at - inside as u64;
    let mut page = match flight.held.read(start, size) {
        Some(held) => held.to_vec(),
        None => before(files, start, size)?,
    };
    page.get_mut(inside..inside + bytes.len())?.copy_from_slice(bytes);
    may_hold(files, flight, &page, start).then_some((start, page))
}

/// Whole pages only, all of one size, with a journal to undo them.
fn may_hold(files: &Files<'_>, flight: &InFlight, bytes: &[u8], at: u64) -> bool {
    let size = bytes.len() as u64;
    let page_size = flight.held.page_size().unwrap_or(flight.transaction.page_size as usize);
    files.journal.is_some()
        && size.is_power_of_two()
        && (512..=65536).contains(&size)
        && at % size == 0
        && (page_size == 0 || page_size == bytes.len())
        && files.main.shared.as_ref().is_some_and(|shared| shared.records.load(Ordering::Relaxed))
}

fn through(files: &Files<'_>, flight: &mut InFlight, bytes: &[u8], at: u64) -> c_int {
    // Also a write that failed may have changed something.
    flight.database.wrote(at, bytes);
    files.database.write_from(bytes, at)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Everything,
    /// The transaction goes on.
    AllButPage1,
}

/// Writes what is held.
pub(crate) fn flush(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    write_held(files, flight, Flush::Everything)
}

fn write_held(files: &Files<'_>, flight: &mut InFlight, what: Flush) -> c_int {
    if flight.held.is_empty() {
        return ffi::SQLITE_OK;
    }
    if is_halted(files) {
        return ffi::SQLITE_IOERR_WRITE;
    }
    for step in [sync_journal_first, record] {
        match step(files, flight) {
            ffi::SQLITE_OK => {}
            code => return code,
        }
    }
    // The record may have told of a halt in another process.
    if is_halted(files) {
        return ffi::SQLITE_IOERR_WRITE;
    }
    debug_assert!(flight.journal.run.is_empty(), "the journal is on disk before the first page");
    let InFlight { held, database, .. } = flight;
    let Some(page_size) = held.page_size() else { return ffi::SQLITE_OK };
    let everything = what == Flush::Everything;
    while let Some((start, mut end)) = held.next_run(everything, files.main.gathers) {
        let code = match held.piece(start, end).or_else(|| {
            end = start + page_size as u64;
            held.piece(start, end)
        }) {
            Some(piece) => files.database.write_from(&piece, start),
            None => return ffi::SQLITE_IOERR_NOMEM,
        };
        for at in (start..end).step_by(page_size) {
            if code == ffi::SQLITE_OK {
                database.keep(at, held.wrote(at));
            } else if let Some(page) = held.read(at, page_size) {
                // Also a write that failed may have changed something.
                database.wrote(at, page);
            }
        }
        if code != ffi::SQLITE_OK {
            return code;
        }
    }
    if held.is_empty() {
        files.main.holds.store(false, Ordering::Relaxed);
    }
    ffi::SQLITE_OK
}

/// Puts the pages that are held into the guard's record.
fn record(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    let Some(shared) = &files.main.shared else { return ffi::SQLITE_OK };
    let InFlight { held, transaction, recorded, .. } = flight;
    let Some(page_size) = held.page_size().and_then(|size| u32::try_from(size).ok()) else { return ffi::SQLITE_OK };
    let mut pages = Pages::with_room(page_size, held.len());
    let (mut counter, mut after) = (transaction.counter, None);
    for (at, page) in held.iter() {
        let Ok(number) = u32::try_from(at / u64::from(page_size) + 1) else { continue };
        let journaled = transaction.old(number).is_some();
        let read = if journaled { None } else { before(files, at, page.len()) };
        if number == 1 {
            if !page.starts_with(DATABASE) {
                // Encrypted above us: the change counter cannot be read.
                shared.records.store(false, Ordering::Relaxed);
                return ffi::SQLITE_OK;
            }
            after = change_counter(page);
            counter = counter.or(read.as_deref().and_then(change_counter));
        }
        if journaled {
            pages.push_journaled(number, transaction.old(number), page);
        } else {
            pages.push_images(number, read.as_deref(), Some(page), transaction.nonce.is_none());
        }
    }
    // In a playback nobody saw the header being written.
    transaction.nonce = transaction.nonce.or_else(|| witness::journal_nonce(files));
    let before = counter.or(after).unwrap_or(0);
    let written = Written {
        before: *transaction.before.get_or_insert_with(|| witness::before(files)),
        nonce: transaction.nonce.unwrap_or(0),
        initial_pages: transaction.initial_pages,
        counter_before: before,
        counter_after: after.unwrap_or(before),
        exclusive: files.main.may_be_exclusive(),
        pages,
    };
    let kept = shared.keeper().written(page_size, &written);
    if let Err(code) = kept {
        return code;
    }
    *recorded = true;
    transaction.counter_after = after.or(transaction.counter_after);
    halts::notice(files);
    ffi::SQLITE_OK
}

/// How a page is in the database that the journal has no record of: it was on the freelist, or this is a playback.
fn before(files: &Files<'_>, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    page.try_reserve_exact(length).ok()?;
    page.resize(length, 0);
    let whole = files.database.read_into(&mut page, i64::try_from(at).ok()?) == ffi::SQLITE_OK;
    whole.then_some(page)
}

/// Before pages are cut off the database: they can be undone only with the journal on disk.
pub(crate) fn before_a_cut(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    match flush(files, flight) {
        ffi::SQLITE_OK => sync_journal_first(files, flight),
        code => code,
    }
}

/// The journal's bytes are on disk before the first page.
fn sync_journal_first(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    match files.journal {
        Some(_) if !flight.journal.synced => sync_journal(files, flight, ffi::SQLITE_SYNC_NORMAL),
        None if flight.journal.ledger.is_dirty() => ffi::SQLITE_IOERR_FSYNC,
        _ => ffi::SQLITE_OK,
    }
}

/// xSync of the journal.
pub(crate) fn sync_journal(files: &Files<'_>, flight: &mut InFlight, flags: c_int) -> c_int {
    let Some(journal) = files.journal else { return ffi::SQLITE_OK };
    if is_halted(files) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    // What cannot be written is no sync that has failed: the transaction is rolled back.
    match waiting::flush(&mut flight.journal, journal) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    let mut code = journal.sync(flags);
    if code != ffi::SQLITE_OK {
        code = heal::database_or_journal(files, journal, &mut flight.journal.ledger, Which::Journal, flags, code);
    }
    if code == ffi::SQLITE_OK && std::mem::take(&mut flight.journal.unnamed) {
        code = sync_directory(files);
    }
    if code == ffi::SQLITE_OK {
        for (_, bytes) in flight.journal.ledger.synced() {
            flight.journal.run.reuse(bytes);
        }
        code = count_records(files, flight, journal, flags);
    }
    if code == ffi::SQLITE_OK {
        drop(flight.journal.ledger.synced());
        flight.journal.synced = true;
    }
    code
}

/// Under synchronous OFF the header says that the journal goes on to the end of the file; after a power cut that may be a
/// torn record, whose few checked bytes may hold. So the header is written as SQLite does under the other levels: with
/// zeros first, and with the number of records once they are on disk. The copy to be written instead.
pub(crate) fn hide_header(flight: &mut InFlight, bytes: &[u8], at: u64) -> Option<Vec<u8>> {
    if at != 0 {
        return None;
    }
    if bytes.len() >= HEADER_SIZE {
        flight.journal.end = 0;
        flight.journal.uncounted = None;
    }
    let header = Header::parse(bytes).ok().filter(|header| header.records == Records::ToEndOfFile)?;
    if header.page_size == 0 {
        return None;
    }
    flight.journal.uncounted = Some((u64::from(header.sector_size), u64::from(header.page_size) + 8));
    let mut hidden = bytes.to_vec();
    hidden.get_mut(..12)?.fill(0);
    Some(hidden)
}

fn count_records(files: &Files<'_>, flight: &mut InFlight, journal: &BaseFile, flags: c_int) -> c_int {
    let Some((sector, record)) = flight.journal.uncounted else { return ffi::SQLITE_OK };
    let count = u32::try_from(flight.journal.end.saturating_sub(sector) / record).unwrap_or(0);
    let start = [&MAGIC[..], &count.to_be_bytes()].concat();
    flight.journal.ledger.appended(0, &start);
    match journal.write_from(&start, 0) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    match journal.sync(flags) {
        ffi::SQLITE_OK => ffi::SQLITE_OK,
        code => heal::database_or_journal(files, journal, &mut flight.journal.ledger, Which::Journal, flags, code),
    }
}

/// Makes names durable, where the directory is the operating system's.
pub(crate) fn sync_directory(files: &Files<'_>) -> c_int {
    let Some(directory) = files.main.directory() else { return ffi::SQLITE_OK };
    match directory.sync() {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => heal::halt(files, Which::Directory, ffi::SQLITE_IOERR_DIR_FSYNC, &error.to_string()),
    }
}

/// xSync of the database.
pub(crate) fn sync_database(files: &Files<'_>, flight: &mut InFlight, flags: c_int) -> c_int {
    match flush(files, flight) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    if is_halted(files) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    let mut code = files.database.sync(flags);
    if code != ffi::SQLITE_OK {
        code = heal::database_or_journal(files, files.database, &mut flight.database, Which::Database, flags, code);
    }
    if code == ffi::SQLITE_OK {
        for (_, page) in flight.database.synced() {
            flight.held.reuse(page);
        }
    }
    code
}

/// The database is on disk before its journal is deleted, truncated or zeroed.
pub(crate) fn before_the_end(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    if flight.held.is_empty() && !flight.database.is_dirty() {
        return if is_halted(files) { ffi::SQLITE_IOERR_FSYNC } else { ffi::SQLITE_OK };
    }
    sync_database(files, flight, ffi::SQLITE_SYNC_NORMAL)
}

/// The journal is gone, and with it the transaction is over. SQLite may still cut the database off.
pub(crate) fn ended(files: &Files<'_>, flight: &mut InFlight) {
    if std::mem::take(&mut flight.recorded) {
        if let Some(nonce) = flight.transaction.nonce {
            // The one way in which a transaction that wrote leaves the counter as it was is being undone.
            let undone =
                flight.transaction.counter.is_some() && flight.transaction.counter == flight.transaction.counter_after;
            let outcome = if undone { Outcome::RolledBack } else { Outcome::Committed };
            // The new counter says so as well.
            if outcome == Outcome::RolledBack || !files.main.is_sparing() {
                flight.over = Some((nonce, outcome));
                files.main.over.store(true, Ordering::Relaxed);
            }
        }
    }
    flight.transaction.end();
    files.main.transaction_ended();
    files.main.generation.over(Work::Transaction);
}

/// A journal that was emptied or whose header was zeroed: that has to be on disk before the commit returns, and before the
/// next transaction writes over it, or a power cut would leave the old header before records of both.
pub(crate) fn end_durably(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    flight.journal.uncounted = None;
    let code = sync_journal(files, flight, ffi::SQLITE_SYNC_NORMAL);
    if code == ffi::SQLITE_OK {
        flight.journal.ended = true;
        ended(files, flight);
    }
    code
}

/// Puts the end of a transaction into the guard's record, after its last write.
pub(crate) fn tell_end(files: &Files<'_>, flight: &mut InFlight) {
    files.main.over.store(false, Ordering::Relaxed);
    if let (Some((nonce, outcome)), Some(shared)) = (flight.over.take(), &files.main.shared) {
        shared.keeper().done(&Done { nonce, outcome, witness: witness::of(files) });
    }
}

pub(crate) fn is_halted(files: &Files<'_>) -> bool {
    files.main.shared.as_ref().is_some_and(|shared| shared.health.is_halted())
}
