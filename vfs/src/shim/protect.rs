//! The calls of SQLite that write, sync, cut, delete, lock and read, on their way through what protects a database.
//!
//! Each function answers `None` where nothing is protected (policy=off, a read-only file, a journal whose database is not
//! known), and the call goes to the base as it came.

use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::link::Files;
use super::{checkpoint, generation, heal, judging, rollback, unsummed, waiting};
use crate::generation::Work;
use crate::guard::log::Which;
use crate::in_flight::InFlight;
use crate::main_file::{self, MainFile, Role};
use crate::transaction::Sign;

/// The files of `main`, and why nothing may be written to them now.
///
/// # Safety
/// As [`Files::of`].
#[inline]
unsafe fn files(main: &MainFile) -> Option<(Files<'_>, Option<c_int>)> {
    // SAFETY: see above.
    let files = unsafe { Files::of(main) }?;
    let shared = main.shared.as_ref()?;
    let refused = if shared.health.is_halted() {
        Some(ffi::SQLITE_IOERR_FSYNC)
    } else if main.index_lost.load(Ordering::Acquire) {
        Some(ffi::SQLITE_IOERR_SHMMAP)
    } else if main.blocked.load(Ordering::Relaxed) && files.wal.is_some() {
        Some(ffi::SQLITE_IOERR_DATA)
    } else {
        None
    };
    Some((files, refused))
}

/// xWrite of the database.
///
/// # Safety
/// As [`Files::of`], as for all here.
pub(crate) unsafe fn write_database(main: &MainFile, bytes: &[u8], at: u64) -> Option<c_int> {
    // SAFETY: see above.
    let (files, refused) = unsafe { files(main) }?;
    if refused.is_some() {
        return refused;
    }
    let flight = &mut *main.in_flight();
    let code = match files.wal {
        Some(_) => checkpoint::write_page(&files, flight, bytes, at),
        None => rollback::write(&files, flight, bytes, at),
    };
    if let Some(mut size) = main.known_size() {
        match code {
            ffi::SQLITE_OK => size.wrote(at, bytes),
            _ => size.forget(),
        }
    }
    Some(code)
}

/// xWrite of the rollback journal.
pub(crate) unsafe fn write_journal(main: &MainFile, journal: &BaseFile, bytes: &[u8], at: u64) -> Option<c_int> {
    // SAFETY: see above.
    let (files, refused) = unsafe { files(main) }?;
    if refused.is_some() {
        return refused;
    }
    let flight = &mut *main.in_flight();
    if at == 0 && flight.over.is_some() {
        rollback::tell_end(&files, flight);
    }
    flight.transaction.sealed = files.sealed();
    flight.transaction.unrecorded = main.shared.as_ref().is_none_or(|shared| !shared.records.load(Ordering::Relaxed));
    let sign = flight.transaction.journal_wrote(at, bytes);
    if sign != Sign::Zeroed && at == 0 {
        let dead = generation::before_the_first_write(&files, Work::Transaction);
        if dead.is_some() {
            return dead;
        }
    }
    if sign == Sign::Zeroed {
        match rollback::before_the_end(&files, flight) {
            ffi::SQLITE_OK => {}
            code => return Some(code),
        }
    }
    let hidden = rollback::hide_header(flight, bytes, at);
    let bytes = hidden.as_deref().unwrap_or(bytes);
    flight.journal.end = flight.journal.end.max(at + bytes.len() as u64);
    flight.journal.synced = false;
    let mut code = waiting::write(main, &mut flight.journal, journal, bytes, at);
    if sign == Sign::Zeroed && code == ffi::SQLITE_OK {
        code = rollback::end_durably(&files, flight);
    }
    Some(code)
}

/// xWrite of the log.
pub(crate) unsafe fn write_log(main: &MainFile, log: &BaseFile, bytes: &[u8], at: u64) -> Option<c_int> {
    // SAFETY: see above.
    let (files, refused) = unsafe { files(main) }?;
    if refused.is_some() {
        return refused;
    }
    Some(checkpoint::write_log(&files, &mut main.in_flight(), log, bytes, at))
}

/// xRead of the log. `None`: the base may be read.
pub(crate) unsafe fn read_log(main: &MainFile, log: &BaseFile, buffer: &mut [u8], at: u64) -> Option<c_int> {
    // SAFETY: see above.
    let (files, _) = unsafe { files(main) }?;
    unsummed::read(&files, &mut main.in_flight(), log, at, buffer)
}

/// xRead of the rollback journal. `None`: the base may be read.
pub(crate) unsafe fn read_journal(main: &MainFile, journal: &BaseFile, buffer: &mut [u8], at: u64) -> Option<c_int> {
    // SAFETY: see above.
    let _files = unsafe { files(main) }?;
    waiting::read(&main.in_flight().journal.run, journal, buffer, at)
}

/// xFileSize of the rollback journal: `None` if it is that of the file.
pub(crate) unsafe fn journal_end(main: &MainFile) -> Option<u64> {
    // SAFETY: see above.
    let _files = unsafe { files(main) }?;
    let end = main.in_flight().journal.run.end();
    (end > 0).then_some(end)
}

/// xSync of one of the files.
pub(crate) unsafe fn sync(main: &MainFile, role: Role, flags: c_int) -> Option<c_int> {
    // SAFETY: see above.
    let (files, refused) = unsafe { files(main) }?;
    if refused.is_some() {
        return refused;
    }
    let flight = &mut *main.in_flight();
    Some(match role {
        // The end of the transaction has been synced already.
        Role::Journal if std::mem::take(&mut flight.journal.ended) && flight.journal.synced => ffi::SQLITE_OK,
        Role::Journal => rollback::sync_journal(&files, flight, flags),
        Role::Wal => checkpoint::sync_log(&files, flight, flags),
        Role::Database if files.wal.is_some() => checkpoint::sync_database(&files, flight, flags),
        Role::Database => rollback::sync_database(&files, flight, flags),
    })
}

/// xTruncate of one of the files.
pub(crate) unsafe fn truncate(main: &MainFile, role: Role, file: &BaseFile, size: i64) -> Option<c_int> {
    // SAFETY: see above.
    let (files, refused) = unsafe { files(main) }?;
    if refused.is_some() {
        return refused;
    }
    let flight = &mut *main.in_flight();
    let to = u64::try_from(size).unwrap_or(0);
    let first = match role {
        Role::Database => {
            flight.held.forget_from(to);
            match files.wal {
                Some(_) => ffi::SQLITE_OK,
                None => rollback::before_a_cut(&files, flight),
            }
        }
        Role::Journal if to == 0 => rollback::before_the_end(&files, flight),
        Role::Wal if main.blocked.load(Ordering::Relaxed) => ffi::SQLITE_IOERR_DATA,
        Role::Wal if to == 0 => checkpoint::before_the_end(&files, flight),
        // SQLite cuts a log that has become too long after it has begun it anew.
        Role::Wal => checkpoint::write_held(flight, file),
        Role::Journal => ffi::SQLITE_OK,
    };
    if first != ffi::SQLITE_OK {
        return Some(first);
    }
    if role == Role::Journal {
        flight.journal.run.cut(to);
        match waiting::flush(&mut flight.journal, file) {
            ffi::SQLITE_OK => {}
            code => return Some(code),
        }
    }
    let mut code = file.truncate(size);
    match role {
        Role::Database => {
            flight.database.truncated(to);
            if let Some(mut size) = main.known_size() {
                match code {
                    ffi::SQLITE_OK => size.cut(to),
                    _ => size.forget(),
                }
            }
        }
        Role::Journal => {
            flight.journal.ledger.truncated(to);
            flight.journal.synced = false;
            if to == 0 && code == ffi::SQLITE_OK {
                code = rollback::end_durably(&files, flight);
            }
        }
        Role::Wal => {
            flight.wal.checkpoint_synced = false;
            if let (0, ffi::SQLITE_OK, Some(shared)) = (to, code, &main.shared) {
                shared.log_emptied();
            }
        }
    }
    Some(code)
}

/// xRead of the database while pages are held: whether the bytes came from them, or what came of writing them first.
/// `None`: the base may be read.
pub(crate) unsafe fn read_held(main: &MainFile, buffer: &mut [u8], at: u64) -> Option<c_int> {
    // SAFETY: see above.
    let (files, _) = unsafe { files(main) }?;
    let flight = &mut *main.in_flight();
    if flight.held.misses(at, buffer.len()) {
        return None;
    }
    if let Some(bytes) = flight.held.read(at, buffer.len()) {
        buffer.copy_from_slice(bytes);
        return Some(ffi::SQLITE_OK);
    }
    match rollback::flush(&files, flight) {
        ffi::SQLITE_OK => None,
        code => Some(code),
    }
}

/// Writes what is held, because the file is about to be looked at in a way that does not go through us.
pub(crate) unsafe fn flush(main: &MainFile) -> c_int {
    // SAFETY: see above.
    match unsafe { files(main) } {
        Some((files, _)) => rollback::flush(&files, &mut main.in_flight()),
        None => ffi::SQLITE_OK,
    }
}

/// Before xLock: a code if the lock is refused.
pub(crate) unsafe fn before_lock(main: &MainFile, level: c_int) -> Option<c_int> {
    let shared = main.shared.as_ref()?;
    // In rollback mode reading stops as well: where the journal's bytes were dropped SQLite has undone nothing, and its
    // cache shows the changes of a transaction that failed.
    let wal = main.files[Role::Wal as usize].load(Ordering::Relaxed) != 0;
    if shared.health.is_halted() && (level > ffi::SQLITE_LOCK_SHARED || !wal) {
        return Some(ffi::SQLITE_IOERR_LOCK);
    }
    if level > ffi::SQLITE_LOCK_SHARED && wal {
        // The last close checkpoints, and whoever leaves WAL mode deletes the log.
        // SAFETY: see above.
        if let Some(code) = unsafe { before_writing(main) } {
            return Some(code);
        }
    }
    // Rolling back a hot journal goes from SHARED to EXCLUSIVE, and is allowed.
    if level == ffi::SQLITE_LOCK_RESERVED && main.blocked.load(Ordering::Relaxed) {
        return Some(ffi::SQLITE_IOERR_DATA);
    }
    None
}

/// The lock of whoever writes to the log was taken: what a transaction before has left unfinished was rolled back.
pub(crate) fn log_transaction_begins(main: &MainFile) {
    main.in_flight().wal.forget_uncommitted();
}

/// Before a transaction writes to the log, and before a checkpoint. A code if the generation is dead.
pub(crate) unsafe fn before_writing(main: &MainFile) -> Option<c_int> {
    // SAFETY: see above.
    let files = unsafe { Files::of(main) }?;
    generation::before_writing(&files)
}

/// Whether there is nothing to be judged, or it was, and nothing speaks against reading and writing.
#[inline]
pub(crate) fn is_clean(main: &MainFile) -> bool {
    main.shared.as_ref().is_none_or(|shared| judging::is_clean(shared))
}

/// After SHARED was had: the record is judged before anything is read. A code if nothing may be.
pub(crate) unsafe fn after_shared(main: &MainFile) -> Option<c_int> {
    // SAFETY: see above.
    let files = unsafe { Files::of(main) }?;
    judging::before_the_first_read(&files)
}

/// Before xUnlock: what a transaction that failed has left is not written any more. Its journal is still there.
pub(crate) unsafe fn before_unlock(main: &MainFile) {
    if main.holds.swap(false, Ordering::Relaxed) {
        main.in_flight().held.clear();
        // With them the file would have been larger.
        if let Some(mut size) = main.known_size() {
            size.forget();
        }
    }
    if main.over.load(Ordering::Relaxed) {
        // SAFETY: see above.
        if let Some((files, _)) = unsafe { files(main) } {
            rollback::tell_end(&files, &mut main.in_flight());
        }
    }
}

/// Before xClose of a journal or log: SQLite closes a journal right before it deletes it.
pub(crate) unsafe fn before_close(main: &MainFile, role: Role) {
    // SAFETY: see above.
    let Some((files, refused)) = (unsafe { files(main) }) else { return };
    let flight = &mut *main.in_flight();
    if let (Role::Journal, None, Some(journal)) = (role, refused, files.journal) {
        // No page of the database depends on it, or it would have been synced: what this answers is of no consequence.
        let _ = waiting::flush(&mut flight.journal, journal);
    }
    if role == Role::Journal && refused.is_none() && main.level.load(Ordering::Relaxed) >= ffi::SQLITE_LOCK_EXCLUSIVE {
        // What it answers is told again by the deletion.
        let _ = rollback::before_the_end(&files, flight);
    }
}

/// After xClose of a journal or log.
pub(crate) fn after_close(main: &MainFile, role: Role) {
    let flight = &mut *main.in_flight();
    match role {
        Role::Journal => {
            flight.journal.synced = false;
            flight.journal.run.clear();
        }
        Role::Wal => {
            flight.wal = Default::default();
            main.generation.closed(crate::generation::Which::Wal);
        }
        Role::Database => {}
    }
}

/// xDelete: `delete` is the base's own, without the directory.
pub(crate) unsafe fn delete(name: &Path, sync_directory: c_int, delete: impl Fn(c_int) -> c_int) -> c_int {
    let Some((main, role)) = main_file::by_deleted(name) else {
        for main in main_file::by_super_journal(name) {
            // SAFETY: see above; the connection whose super-journal this is calls.
            match unsafe { before_super_journal(&main) } {
                ffi::SQLITE_OK => {}
                code => return code,
            }
        }
        return delete(sync_directory);
    };
    // SAFETY: as above.
    let Some((files, refused)) = (unsafe { self::files(&main) }) else { return delete(sync_directory) };
    if let Some(code) = refused {
        return code;
    }
    if role == Role::Wal && main.blocked.load(Ordering::Relaxed) {
        // It may be all that is left of what the alarm is about.
        return ffi::SQLITE_IOERR_DATA;
    }
    let flight = &mut *main.in_flight();
    let first = match role {
        Role::Wal => checkpoint::before_the_end(&files, flight),
        _ => rollback::before_the_end(&files, flight),
    };
    if first != ffi::SQLITE_OK {
        return first;
    }
    let ours = files.main.directory().is_some();
    // Without a handle of our own on the directory it is the base that syncs it.
    let mut code = delete(if role == Role::Journal && !ours { 1 } else { sync_directory });
    if role == Role::Journal {
        if code == ffi::SQLITE_IOERR_DIR_FSYNC {
            code = heal::halt(&files, Which::Directory, code, "the deleted journal may come back");
        } else if code == ffi::SQLITE_OK && ours && sync_directory == 0 {
            code = rollback::sync_directory(&files);
        }
        if code == ffi::SQLITE_OK {
            flight.journal.closed();
            rollback::ended(&files, flight);
        }
    } else if let (Role::Wal, ffi::SQLITE_OK, Some(shared)) = (role, code, &files.main.shared) {
        shared.log_emptied();
    }
    code
}

/// SQLITE_FCNTL_SYNC.
pub(crate) unsafe fn first_phase_ends(main: &MainFile, super_journal: bool) -> c_int {
    // SAFETY: see above.
    match unsafe { files(main) } {
        Some((files, None)) if files.wal.is_none() => {
            let flight = &mut *main.in_flight();
            if super_journal { rollback::before_the_end(&files, flight) } else { rollback::flush(&files, flight) }
        }
        Some((_, Some(code))) => code,
        _ => ffi::SQLITE_OK,
    }
}

/// With its super-journal a transaction over several databases is committed: all of them are on disk before.
unsafe fn before_super_journal(main: &MainFile) -> c_int {
    for other in main_file::of_connection(main.connection_handle()) {
        if other.level.load(Ordering::Relaxed) < ffi::SQLITE_LOCK_EXCLUSIVE {
            continue;
        }
        // SAFETY: a database of the connection that calls.
        if let Some((files, refused)) = unsafe { files(&other) } {
            let code = refused.unwrap_or_else(|| rollback::before_the_end(&files, &mut other.in_flight()));
            if code != ffi::SQLITE_OK {
                return code;
            }
        }
    }
    ffi::SQLITE_OK
}

/// SQLITE_FCNTL_COMMIT_PHASETWO.
pub(crate) unsafe fn committed(main: &MainFile) {
    // SAFETY: see above.
    if let Some((files, None)) = unsafe { files(main) } {
        match files.wal {
            Some(_) => checkpoint::committed(&files, &mut main.in_flight()),
            None => rollback::tell_end(&files, &mut main.in_flight()),
        }
    }
}

/// The lock of whoever checkpoints was taken: what others have written to the log may not be on disk.
pub(crate) fn checkpoint_begins(main: &MainFile) {
    let wal = &mut main.in_flight().wal;
    wal.checkpoint_synced = false;
    // No connection checkpoints within a transaction of its own.
    wal.forget_uncommitted();
}

/// Before the lock of whoever checkpoints is given back.
pub(crate) unsafe fn checkpoint_done(main: &MainFile) -> c_int {
    // SAFETY: see above.
    match unsafe { files(main) } {
        Some((files, None)) => checkpoint::done(&files, &mut main.in_flight()),
        _ => ffi::SQLITE_OK,
    }
}

/// Remembers a journal or log that has just been opened.
pub(crate) fn opened(main: &MainFile, role: Role, created: bool) {
    let flight: &mut InFlight = &mut main.in_flight();
    match role {
        Role::Journal => {
            flight.journal.closed();
            flight.journal.unnamed = created;
        }
        Role::Wal => {
            flight.wal = crate::in_flight::Wal { unnamed: created, ..Default::default() };
            if main.native {
                main.generation.opened(crate::generation::Which::Wal, &main.path);
            }
        }
        Role::Database => {}
    }
}
