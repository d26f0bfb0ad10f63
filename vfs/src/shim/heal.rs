//! A sync that failed: heal it, or halt the database.
//!
//! Healing reads back what was written since the last good sync, compares it with the checksums taken then, writes the same
//! bytes once more, which makes them dirty for the kernel again, syncs, and reads them once more. A page that the kernel
//! has dropped fails the comparison, and one that it keeps as clean is written by the second sync. The log heals by its own
//! checksums: each frame carries one.

use std::ffi::c_int;
use std::io::{self, BufReader, Read};

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::link::Files;
use super::witness;
use crate::format::wal;
use crate::guard::log::Which;
use crate::sync::ledger::{Ledger, Span};

/// What came of a sync that failed with `code`, after an attempt to heal it.
pub(crate) fn database_or_journal(
    files: &Files<'_>,
    file: &BaseFile,
    ledger: &mut Ledger,
    which: Which,
    flags: c_int,
    code: c_int,
) -> c_int {
    let size = ledger.size();
    let healed = match ledger.spans() {
        Some(spans) if !spans.is_empty() || size.is_some() => rewrite(file, &spans, size, flags),
        _ => Err("what was written since the last good sync is not known".to_owned()),
    };
    settle(files, which, code, healed)
}

/// How much of a log must be sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Exactly so many frames are committed; what stands behind them is nobody's yet.
    Frames(u64),
    /// Everything that is committed there, at least so many frames: nobody else has the database open.
    Committed { at_least: u64 },
}

/// The same for the log. Its committed frames are written again: those of other connections may be as unsynced as ours, and
/// none of them is changed while the generation lasts, which the lock of whoever syncs sees to.
///
/// Where the bytes end that are on disk now, or the code.
pub(crate) fn log(files: &Files<'_>, file: &BaseFile, extent: Extent, flags: c_int, code: c_int) -> Result<u64, c_int> {
    let rewritten = rewrite_log(file, extent, flags);
    let end = rewritten.as_ref().map_or(0, |end| *end);
    match settle(files, Which::Wal, code, rewritten.map(drop)) {
        ffi::SQLITE_OK => Ok(end),
        code => Err(code),
    }
}

/// The same after a sync that succeeded, where one before it has failed: the kernel may have left out what it took for
/// written then.
pub(crate) fn log_again(files: &Files<'_>, file: &BaseFile, extent: Extent, flags: c_int) -> Result<u64, c_int> {
    rewrite_log(file, extent, flags).map_err(|why| halt(files, Which::Wal, ffi::SQLITE_IOERR_FSYNC, &why))
}

fn settle(files: &Files<'_>, which: Which, code: c_int, healed: Result<(), String>) -> c_int {
    match healed {
        Ok(()) => {
            let which = words(which);
            let note = format!(
                "a sync of {which} failed (code {code}) and was healed: what had been written since the last good one still \
                 had its checksums, was written again, synced and read back"
            );
            files.main.warn("healed", note);
            ffi::SQLITE_OK
        }
        Err(why) => halt(files, which, code, &why),
    }
}

fn words(which: Which) -> &'static str {
    match which {
        Which::Database => "the database",
        Which::Journal => "the rollback journal",
        Which::Wal => "the -wal",
        Which::Directory => "the directory",
        Which::Other(_) => "a file",
    }
}

/// Stops everything on the database, and tells others through the guard's record.
pub(crate) fn halt(files: &Files<'_>, which: Which, code: c_int, why: &str) -> c_int {
    let Some(shared) = &files.main.shared else { return code };
    let story = format!(
        "a sync of {} failed (code {code}) and could not be healed: {why}; what is on disk is not known, so nothing is \
         written any more until every connection to this database is closed and it is opened again",
        words(which)
    );
    if shared.health.halt(story.clone()) {
        shared.keeper().halted(which, code, &story);
        files.main.warn("halted", story);
    }
    code
}

fn rewrite(file: &BaseFile, spans: &[Span], size: Option<u64>, flags: c_int) -> Result<(), String> {
    verify(file, spans)?;
    if let Some(size) = size {
        // Also where it is as large already: only a change is written by the second sync.
        match file.truncate(i64::try_from(size).unwrap_or(i64::MAX)) {
            ffi::SQLITE_OK => {}
            code => return Err(format!("cutting it off again failed with code {code}")),
        }
    }
    for span in spans {
        write_again(file, span.at, span.at + span.length)?;
    }
    sync_again(file, flags)?;
    verify(file, spans)
}

fn verify(file: &BaseFile, spans: &[Span]) -> Result<(), String> {
    for span in spans {
        let mut sum = 0;
        let read = file.pieces(span.at, span.at + span.length, |_, piece| {
            sum = crc32c::crc32c_append(sum, piece);
            Ok(())
        });
        read.map_err(|code| format!("reading back at offset {} failed with code {code}", span.at))?;
        if sum != span.sum {
            return Err(format!("the {} bytes at offset {} are not what was written", span.length, span.at));
        }
    }
    Ok(())
}

fn write_again(file: &BaseFile, from: u64, to: u64) -> Result<(), String> {
    let written = file.pieces(from, to, |at, piece| file.write_whole(piece, at));
    written.map_err(|code| format!("writing again from offset {from} failed with code {code}"))
}

fn sync_again(file: &BaseFile, flags: c_int) -> Result<(), String> {
    match file.sync(flags) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(format!("the second sync failed with code {code}")),
    }
}

fn rewrite_log(file: &BaseFile, extent: Extent, flags: c_int) -> Result<u64, String> {
    let sound = sound_log(file, extent)?;
    write_again(file, 0, sound)?;
    sync_again(file, flags)?;
    sound_log(file, extent)
}

/// Where the committed frames end.
fn sound_log(file: &BaseFile, extent: Extent) -> Result<u64, String> {
    let (at_least, no_more) = match extent {
        Extent::Frames(frames) => (frames, true),
        Extent::Committed { at_least } => (at_least, false),
    };
    let limit = match (no_more, witness::log_header(file)) {
        (true, Some(header)) => wal::HEADER_SIZE as u64 + at_least * header.frame_size(),
        (true, None) => return Err("its header is damaged".to_owned()),
        (false, _) => u64::MAX,
    };
    let scan = wal::scan(BufReader::with_capacity(1 << 16, Reader { file, at: 0 }.take(limit)));
    let scan = scan.map_err(|error| format!("reading it back failed: {error}"))?;
    let Some(header) = &scan.header else { return Err(format!("its header is damaged: {}", scan.end)) };
    if scan.committed_frames < at_least || scan.unreachable_commits > 0 {
        return Err(format!("{} frames of it are sound, and {at_least} were committed", scan.committed_frames));
    }
    Ok(wal::HEADER_SIZE as u64 + scan.committed_frames * header.frame_size())
}

/// A base file read from its start to its end.
pub(crate) struct Reader<'a> {
    pub(crate) file: &'a BaseFile,
    pub(crate) at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.file.size().map_err(|code| io::Error::other(format!("its size: code {code}")))?;
        let length = usize::try_from(size.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..length) else { return Ok(0) };
        let offset = i64::try_from(self.at).map_err(io::Error::other)?;
        match self.file.read_into(buffer, offset) {
            ffi::SQLITE_OK => {
                self.at += length as u64;
                Ok(length)
            }
            code => Err(io::Error::other(format!("code {code}"))),
        }
    }
}
