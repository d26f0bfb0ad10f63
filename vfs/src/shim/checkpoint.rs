//! The order in WAL mode: log, sync, database, sync, next generation.
//!
//! A checkpoint copies frames into the database only when the log is on disk, and a generation ends, by a new header, a
//! truncation or the deletion of the log, only when the database is. SQLite does so under synchronous NORMAL and above; two
//! things it does not: pages of a checkpoint that did not finish are never looked at again, so a failed sync of a later one
//! heals or halts all of them; and a failed sync in an automatic checkpoint is not told to anybody.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::heal::Extent;
use super::link::Files;
use super::rollback::{self, is_halted, sync_directory};
use super::{generation, halts, heal, index_header, witness};
use crate::format::wal::{self, FRAME_HEADER_SIZE, HEADER_SIZE};
use crate::format::wal_index;
use crate::generation::Work;
use crate::guard::log::{Checkpointed, Entry, Generation, Pages, Pending, WalSynced, Which};
use crate::in_flight::InFlight;
use crate::transaction::change_counter;
use crate::unsummed::Unsummed;

/// A page that a checkpoint copies to the database.
pub(crate) fn write_page(files: &Files<'_>, flight: &mut InFlight, page: &[u8], at: u64) -> c_int {
    if let Some(code) = generation::before_the_first_write(files, Work::Checkpoint) {
        return code;
    }
    if !flight.wal.checkpoint_synced {
        match sync_log(files, flight, ffi::SQLITE_SYNC_NORMAL) {
            ffi::SQLITE_OK => {}
            code => return code,
        }
    }
    remember(files, flight, page, at);
    flight.database.wrote(at, page);
    files.database.write_from(page, at)
}

/// Takes the checksums of the page before and after.
fn remember(files: &Files<'_>, flight: &mut InFlight, page: &[u8], at: u64) {
    let records = files.main.shared.as_ref().is_some_and(|shared| shared.records.load(Ordering::Relaxed));
    let length = page.len() as u64;
    let Ok(number) = u32::try_from(at / length.max(1) + 1) else { return };
    if !records || at % length != 0 {
        return;
    }
    if flight.wal.backfilled.is_empty() {
        flight.wal.untouched = Some(witness::of(files));
    }
    let backfilled = &mut flight.wal.backfilled;
    if backfilled.has(number) {
        // A checkpoint that did not finish has written it before: what it was then is known.
        backfilled.push(number, None, page);
        return;
    }
    let mut before = std::mem::take(&mut flight.wal.before);
    before.resize(page.len(), 0);
    let whole = i64::try_from(at).is_ok_and(|at| files.database.read_into(&mut before, at) == ffi::SQLITE_OK);
    backfilled.push(number, whole.then_some(&before), page);
    flight.wal.before = before;
}

/// xSync of the database: SQLite asks for it when all frames are in it.
pub(crate) fn sync_database(files: &Files<'_>, flight: &mut InFlight, flags: c_int) -> c_int {
    sync_pages(files, flight, flags, true)
}

fn sync_pages(files: &Files<'_>, flight: &mut InFlight, flags: c_int, complete: bool) -> c_int {
    if is_halted(files) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    know_generation(files, flight);
    match record(files, flight, complete) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    match rollback::sync_database(files, flight, flags) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    flight.wal.backfilled.clear();
    if let (Some(shared), Some(salts), true) = (&files.main.shared, flight.wal.salts, complete) {
        shared.generation_synced(salts);
    }
    ffi::SQLITE_OK
}

/// Puts the pages of a checkpoint into the guard's record, and that no commits are pending any more.
fn record(files: &Files<'_>, flight: &InFlight, complete: bool) -> c_int {
    let Some(shared) = &files.main.shared else { return ffi::SQLITE_OK };
    if !shared.records.load(Ordering::Relaxed) {
        return ffi::SQLITE_OK;
    }
    let mut keeper = shared.keeper();
    // The log is closed already when it is deleted.
    let Some(salts) = flight.wal.salts.or(keeper.pending_salts()) else { return ffi::SQLITE_OK };
    if flight.wal.backfilled.is_empty() && !(complete && keeper.pending_salts().is_some()) {
        return ffi::SQLITE_OK;
    }
    let page_size = u32::try_from(flight.wal.backfilled.page_size()).unwrap_or(0);
    let mut pages = Pages::new(page_size);
    for (page, old, new) in flight.wal.backfilled.iter() {
        pages.push(Entry { page, old, new: Some(new), journaled: false });
    }
    let generation = Generation { salts, sequence: flight.wal.sequence };
    let (witness, counter) = (witness::of(files), witness::counter(files));
    let before = flight.wal.untouched.unwrap_or(witness);
    let checkpointed = Checkpointed { generation, complete, before, witness, counter, pages };
    let kept = keeper.checkpointed(page_size, &checkpointed);
    drop(keeper);
    halts::notice(files);
    match kept {
        Ok(()) if is_halted(files) => ffi::SQLITE_IOERR_FSYNC,
        Ok(()) => ffi::SQLITE_OK,
        Err(code) => code,
    }
}

/// The checkpoint is over. What did not finish is synced as well: nobody would look at its pages again.
pub(crate) fn done(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    flight.wal.checkpoint_synced = false;
    match flight.database.is_dirty() {
        true => sync_pages(files, flight, ffi::SQLITE_SYNC_NORMAL, false),
        false => ffi::SQLITE_OK,
    }
}

/// Reads the generation from the log's header, if this connection has not written it.
fn know_generation(files: &Files<'_>, flight: &mut InFlight) {
    if let Some(header) = files.wal.and_then(witness::log_header) {
        if flight.wal.salts != Some(header.salts) {
            flight.wal.salts = Some(header.salts);
            flight.wal.header_synced = false;
        }
        flight.wal.sequence = header.checkpoint_sequence;
    }
}

/// Bytes for the log.
pub(crate) fn write_log(files: &Files<'_>, flight: &mut InFlight, log: &BaseFile, bytes: &[u8], at: u64) -> c_int {
    if let (0, Some(header)) = (at, bytes.first_chunk::<HEADER_SIZE>()) {
        if let Some(code) = transaction_writes(files) {
            return code;
        }
        match before_the_end(files, flight) {
            ffi::SQLITE_OK => {}
            code => return code,
        }
        let field = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        flight.wal.salts = Some([field(16), field(20)]);
        flight.wal.sequence = field(12);
        flight.wal.header_synced = false;
        flight.wal.header = Some(*header);
        flight.wal.begun = true;
        (flight.wal.page_1_end, flight.wal.page_1_committed) = (0, 0);
        flight.wal.unsummed = None;
        flight.wal.frame.restarted();
    } else if let Some(frame) = frame_header(flight, bytes, at) {
        if let Some(code) = transaction_writes(files) {
            return code;
        }
        if flight.wal.header.is_some() {
            // Without the new header the frames of the generation before count, as far as they are not written over; SQLite
            // syncs it itself above OFF.
            match sync_log(files, flight, ffi::SQLITE_SYNC_NORMAL) {
                ffi::SQLITE_OK => {}
                code => return code,
            }
        }
        let field = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        // Zeros where SQLite will write the header again before it commits.
        let salts = Some([field(8), field(12)]).filter(|salts| *salts != [0; 2]);
        if salts.is_some() && flight.wal.salts != salts {
            flight.wal.page_1_committed = 0;
            flight.wal.frame.restarted();
            flight.wal.salts = salts;
        }
        flight.wal.unsummed = Unsummed::after(flight.wal.unsummed, at, frame);
        if field(0) == 1 {
            flight.wal.page_1_end = at;
        }
        flight.wal.commit_end = (field(4) != 0).then_some(at);
        if field(4) != 0 {
            look_before_commit(files, flight);
            files.main.generation.over(Work::Transaction);
        }
        if flight.wal.frame.hold(at, frame) {
            return ffi::SQLITE_OK;
        }
    }
    flight.wal.checkpoint_synced = false;
    flight.wal.wrote = true;
    if let Some((start, whole)) = flight.wal.frame.whole(at, bytes) {
        let code = log.write_from(whole, start);
        flight.wal.frame.wrote(at, bytes.len());
        return code;
    }
    match write_held(flight, log) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    flight.wal.frame.wrote(at, bytes.len());
    log.write_from(bytes, at)
}

/// A code if the log is of a dead generation. What is in it now no checkpoint has looked at.
fn transaction_writes(files: &Files<'_>) -> Option<c_int> {
    files.main.generation.over(Work::Checkpoint);
    generation::before_the_first_write(files, Work::Transaction)
}

/// The bytes, if they are the header of a frame. Where a power cut may damage what is beside a write SQLite writes pages in two
/// parts, one of which may be as long as a header.
fn frame_header<'a>(flight: &InFlight, bytes: &'a [u8], at: u64) -> Option<&'a [u8; FRAME_HEADER_SIZE]> {
    let header = bytes.try_into().ok()?;
    (at >= HEADER_SIZE as u64 && !flight.wal.frame.is_page(at)).then_some(header)
}

/// Writes the header of a frame whose page has not come.
pub(crate) fn write_held(flight: &mut InFlight, log: &BaseFile) -> c_int {
    match flight.wal.frame.left() {
        Some((at, header)) => log.write_from(&header, at),
        None => ffi::SQLITE_OK,
    }
}

fn wants_record(files: &Files<'_>, flight: &InFlight) -> bool {
    let (Some(shared), Some(salts)) = (&files.main.shared, flight.wal.salts) else { return false };
    let page_1 = flight.wal.page_1_end > 0;
    shared.records.load(Ordering::Relaxed) && !shared.keeper().has_recorded(salts, page_1)
}

/// A commit is about to become visible; from then on any connection may checkpoint it, so the database is looked at now.
fn look_before_commit(files: &Files<'_>, flight: &mut InFlight) {
    flight.wal.sight = None;
    if wants_record(files, flight) {
        flight.wal.sight = witness::page_1(files).map(|page| (witness::of(files), page));
    }
}

/// SQLITE_FCNTL_COMMIT_PHASETWO: the commit can be seen by others, and from now on must not get lost.
pub(crate) fn committed(files: &Files<'_>, flight: &mut InFlight) {
    let (Some(shared), Some(salts)) = (&files.main.shared, flight.wal.salts) else { return };
    // Where the header of the last frame begins; its page follows.
    let Some(last) = flight.wal.commit_end.take() else { return };
    shared.committed(salts, last);
    flight.wal.begun = false;
    if flight.wal.page_1_end > 0 {
        flight.wal.page_1_committed = std::mem::take(&mut flight.wal.page_1_end);
    }
    let Some((witness, page)) = flight.wal.sight.take() else { return };
    know_generation(files, flight);
    let page_size = u32::try_from(page.len()).unwrap_or(0);
    let mut page1 = Pages::new(page_size);
    page1.push_images(1, None, Some(&page), false);
    let frame = |at: u64| at.saturating_sub(HEADER_SIZE as u64) / (FRAME_HEADER_SIZE as u64 + page.len() as u64) + 1;
    let pending = Pending {
        generation: Generation { salts, sequence: flight.wal.sequence },
        wal_synced: flight.wal.header_synced,
        counter: change_counter(&page).unwrap_or(0),
        frames: frame(last),
        page1_frame: if flight.wal.page_1_committed > 0 { frame(flight.wal.page_1_committed) } else { 0 },
        witness,
        page1,
    };
    let frames = pending.frames;
    let mut keeper = shared.keeper();
    let _ = keeper.pending(page_size, pending);
    if flight.wal.checkpoint_synced {
        // Under synchronous FULL the commit was synced before it could be seen.
        keeper.wal_synced(&WalSynced { salts, frames });
    }
    drop(keeper);
    halts::notice(files);
}

/// xSync of the log.
pub(crate) fn sync_log(files: &Files<'_>, flight: &mut InFlight, flags: c_int) -> c_int {
    let Some(log) = files.wal else { return ffi::SQLITE_OK };
    halts::look(files);
    if is_halted(files) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    match write_held(flight, log) {
        ffi::SQLITE_OK => {}
        code => return code,
    }
    // Before the sync: what is committed while it runs may not be on disk after it.
    let index = index_header::now(files);
    let told = files.main.shared.as_ref().map_or(([0; 2], 0), |shared| shared.wal_end());
    let mut code = log.sync(flags);
    if code != ffi::SQLITE_OK || flight.wal.doubtful.is_some() {
        code = match to_heal(flight, log, index, told) {
            Ok((salts, extent)) => heal_log(files, flight, salts, extent, flags, code),
            Err(why) => heal::halt(files, Which::Wal, code.max(ffi::SQLITE_IOERR_FSYNC), why),
        };
    }
    if code == ffi::SQLITE_OK && std::mem::take(&mut flight.wal.unnamed) {
        code = sync_directory(files);
    }
    if code != ffi::SQLITE_OK {
        return code;
    }
    flight.wal.checkpoint_synced = true;
    flight.wal.header_synced = true;
    (flight.wal.header, flight.wal.wrote) = (None, false);
    // The sync of a commit is not recorded, only that before a checkpoint.
    if flight.wal.commit_end.is_none() {
        record_sync(files, log, index, told);
    }
    code
}

/// Puts into the guard's record that the commits are on disk which the WAL-index lists, or, without one, those of this
/// process that `told` names.
fn record_sync(files: &Files<'_>, log: &BaseFile, index: Option<wal_index::Header>, told: ([u32; 2], u64)) {
    let Some(shared) = files.main.shared.as_ref().filter(|shared| shared.records.load(Ordering::Relaxed)) else {
        return;
    };
    let synced = match index {
        Some(index) => WalSynced { salts: index.salts, frames: index.frames.into() },
        None if told.1 > 0 => {
            let Some(header) = witness::log_header(log).filter(|header| header.salts == told.0) else { return };
            WalSynced { salts: told.0, frames: frame_at(told.1, &header) }
        }
        None => return,
    };
    if synced.frames > 0 {
        shared.keeper().wal_synced(&synced);
    }
}

/// The number of the frame that begins at `at`, from 1.
fn frame_at(at: u64, header: &wal::Header) -> u64 {
    at.saturating_sub(HEADER_SIZE as u64) / header.frame_size() + 1
}

/// After a sync that has failed, or one that follows on such a one.
fn heal_log(
    files: &Files<'_>,
    flight: &mut InFlight,
    salts: [u32; 2],
    extent: Extent,
    flags: c_int,
    code: c_int,
) -> c_int {
    let Some(log) = files.wal else { return code };
    // Before anything is written again: all of it may be taken for written.
    let size = log.size().unwrap_or(u64::MAX);
    let healed = match code {
        ffi::SQLITE_OK => heal::log_again(files, log, extent, flags),
        code => heal::log(files, log, extent, flags, code),
    };
    let doubtful = match (code, flight.wal.doubtful) {
        (ffi::SQLITE_OK, Some((of, to))) => (of == salts).then_some(to),
        _ => Some(size),
    };
    match healed {
        Ok(end) => {
            flight.wal.doubtful = doubtful.filter(|to| end < *to).map(|to| (salts, to));
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

/// How much of the log must be on disk after a sync that failed, or why that cannot be said. A header that was dropped leaves
/// the generation before it, which looks sound; so it must be the one that everybody goes by.
fn to_heal(
    flight: &InFlight,
    log: &BaseFile,
    index: Option<wal_index::Header>,
    told: ([u32; 2], u64),
) -> Result<([u32; 2], Extent), &'static str> {
    let there = || witness::log_header(log);
    if let (Some(header), true) = (&flight.wal.header, there().map(|there| there.salts) != flight.wal.salts) {
        // Written by this connection and dropped since. What comes of it is seen below.
        let _code = log.write_from(header, 0);
    }
    let Some(header) = there() else { return Err("its header is damaged") };
    let ours = flight.wal.salts == Some(header.salts);
    // The commit that the sync is for, which nobody has been told of yet.
    let own = flight.wal.commit_end.filter(|_| ours).map_or(0, |at| frame_at(at, &header));
    let extent = match index {
        Some(index) if index.salts == header.salts => Extent::Frames(own.max(index.frames.into())),
        Some(_) if ours && flight.wal.begun => Extent::Frames(own),
        None if told.1 == 0 || (ours && flight.wal.begun) => Extent::Committed { at_least: own },
        None if told.0 == header.salts => Extent::Committed { at_least: own.max(frame_at(told.1, &header)) },
        Some(_) | None => return Err("its header is not that of the generation in use"),
    };
    Ok((header.salts, extent))
}

/// Before a generation ends the database is on disk. If this process has not seen that sync itself, another one has
/// checkpointed, and what it did about it is not known. SQLite ends a generation only when all of it is in the database.
pub(crate) fn before_the_end(files: &Files<'_>, flight: &mut InFlight) -> c_int {
    if is_halted(files) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    let old = files.wal.and_then(witness::log_header);
    let (synced, pending) = match (&files.main.shared, old) {
        (Some(shared), Some(header)) => {
            (shared.is_generation_synced(header.salts), shared.keeper().pending_salts().is_some())
        }
        (Some(shared), None) => (true, shared.keeper().pending_salts().is_some()),
        (None, _) => (true, false),
    };
    if synced && !pending && !flight.database.is_dirty() {
        return ffi::SQLITE_OK;
    }
    match sync_pages(files, flight, ffi::SQLITE_SYNC_NORMAL, true) {
        ffi::SQLITE_OK => ffi::SQLITE_OK,
        code => {
            heal::halt(files, Which::Database, code, "a generation of the log would have ended before it was on disk")
        }
    }
}
