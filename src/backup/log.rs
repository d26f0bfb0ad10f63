//! The pages of a snapshot that are in the log and not in the database.
//!
//! A read transaction in WAL mode holds off two things. As long as it reads from the log, the log is not begun anew and a
//! checkpoint writes only pages of frames that the transaction sees, which stay in the log. If it reads from the database
//! alone, no checkpoint writes at all; but the log, which holds nothing that the database has not, may be begun anew. So at any
//! moment the database, with all frames laid over it up to a commit that the index of the log tells of, is the state at that
//! commit: exactly, whatever was being written to the database meanwhile.
//!
//! Some versions of SQLite leave frames without a checksum in the log, which only the index leads to. Those are not read here.
//!
//! Invariant: either all frames up to that commit are taken, or none, or it is an error. A part of them would take pages back
//! to older versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use hardened_vfs::format::wal::{End, FRAME_HEADER_SIZE, HEADER_SIZE, Header, scan_frames};
use hardened_vfs::format::wal_index;
use rusqlite::ffi;

use crate::beside::{Beside, with_ending};
use crate::error::{Detail, Error};

/// Where the newest version of each page is that the log has, as of one commit.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    header: Header,
    start: [u8; HEADER_SIZE],
    /// Where in the file each page begins.
    pages: BTreeMap<u32, u64>,
    /// The size of the database in pages.
    pub(crate) page_count: u32,
}

/// How often it is looked again at a log that was being begun anew.
const LOOKS: usize = 1000;

impl Log {
    /// The committed pages of the log of `database`; `None` if it has none. The caller has a read transaction open, and keeps it
    /// as long as this is used. `alone` says that its connection keeps all others out, and the index in its memory.
    pub(crate) fn of(database: &Path, alone: bool) -> Result<Option<Log>, Error> {
        let path = with_ending(database, "-wal");
        let failed = |error: &std::io::Error| Error::of_file(&path, "the log cannot be read", error);
        let indexes = if alone { None } else { index_file(database)? };
        let mut last = Error::from(Detail::of(&path, ffi::SQLITE_BUSY, "the log does not come to rest".to_owned()));
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::yield_now();
            }
            let index = Index::of(database, indexes.as_ref())?;
            if matches!(index, Index::Known(wal_index::Header { frames: 0, .. })) {
                return Ok(None);
            }
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => match index {
                    Index::Missing => return Ok(None),
                    _ => {
                        let cause = "it was removed or renamed while the database is open".to_owned();
                        last = Detail::of(&path, ffi::SQLITE_READONLY_DBMOVED, cause).into();
                        continue;
                    }
                },
                Err(error) => return Err(failed(&error)),
            };
            let mut start = [0; HEADER_SIZE];
            let have = read_start(&file, &mut start).map_err(|error| failed(&error))?;
            let header = match (Header::parse(start.get(..have).unwrap_or_default()), &index) {
                (Ok(header), _) => header,
                // There is nothing in it yet, or nothing any more.
                (Err(_), Index::Missing) => return Ok(None),
                (Err(error), _) => {
                    last = damaged(&path, &error.to_string());
                    continue;
                }
            };
            let frames = match &index {
                Index::Changing => continue,
                Index::Missing => None,
                Index::Known(index) if index.salts == header.salts => Some(u64::from(index.frames)),
                // Begun anew in the index, and not yet in the file.
                Index::Known(_) => continue,
            };
            match Log::read(file, header, start, frames).map_err(|error| failed(&error))? {
                Found::Nothing => return Ok(None),
                Found::All(log) if log.stands().map_err(|error| failed(&error))? => return Ok(Some(log)),
                Found::All(_) => {}
                Found::TooLittle { end: End::OlderGeneration { salts: [0, 0] }, .. } => {
                    let cause = "the log has frames that SQLite has left without a checksum".to_owned();
                    let hint = Some("a checkpoint mends that; until then only SQLite itself can read it".to_owned());
                    last = Error::Sqlite(Detail { hint, ..Detail::of(&path, ffi::SQLITE_ERROR, cause) });
                    if look >= 3 {
                        break;
                    }
                }
                Found::TooLittle { committed, end } => {
                    let all = frames.unwrap_or(0);
                    let cause = format!("{all} frames of the log are committed, and frame {} is {end}", committed + 1);
                    last = damaged(&path, &cause);
                    if look >= 3 {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    fn read(file: File, header: Header, start: [u8; HEADER_SIZE], frames: Option<u64>) -> std::io::Result<Found> {
        let room = frames.map_or(u64::MAX, |frames| HEADER_SIZE as u64 + frames * header.frame_size());
        let (mut pages, mut pending, mut number) = (BTreeMap::new(), Vec::new(), 0);
        let scanned = scan_frames(BufReader::with_capacity(1 << 20, At { file: &file, at: 0 }).take(room), |frame| {
            pending.push((
                frame.page_number,
                HEADER_SIZE as u64 + number * header.frame_size() + FRAME_HEADER_SIZE as u64,
            ));
            number += 1;
            if frame.commit_size != 0 {
                pages.extend(pending.drain(..));
            }
        })?;
        match (frames, scanned.page_count) {
            (Some(frames), _) if scanned.committed_frames < frames => {
                Ok(Found::TooLittle { committed: scanned.valid_frames, end: scanned.end })
            }
            (_, None) => Ok(Found::Nothing),
            (_, Some(page_count)) => {
                pages.retain(|number, _| *number <= page_count);
                Ok(Found::All(Log { file, header, start, pages, page_count }))
            }
        }
    }

    /// Whether the log has not been begun anew since it was read.
    pub(crate) fn stands(&self) -> std::io::Result<bool> {
        let mut start = [0; HEADER_SIZE];
        Ok(read_start(&self.file, &mut start)? == HEADER_SIZE && start == self.start)
    }

    /// The size of its pages in bytes.
    pub(crate) fn page_size(&self) -> u32 {
        self.header.page_size
    }

    /// Whether it has this page.
    pub(crate) fn has(&self, number: u32) -> bool {
        self.pages.contains_key(&number)
    }

    /// The numbers of its pages, rising.
    pub(crate) fn numbers(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.pages.keys().copied()
    }

    /// Reads a page that it has.
    pub(crate) fn page(&self, number: u32, into: &mut [u8]) -> std::io::Result<()> {
        match self.pages.get(&number) {
            Some(at) => self.file.read_exact_at(into, *at),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

enum Found {
    Nothing,
    All(Log),
    TooLittle { committed: u64, end: End },
}

fn damaged(path: &Path, cause: &str) -> Error {
    Detail::of(path, ffi::SQLITE_CORRUPT, format!("the log is damaged: {cause}")).into()
}

fn read_start(file: &File, start: &mut [u8; HEADER_SIZE]) -> std::io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = start.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// A file read from its start, whatever others do with its position.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What the index of the log says.
enum Index {
    /// There is none: one connection has the database for itself, and keeps the index in its memory.
    Missing,
    /// A writer is changing it.
    Changing,
    Known(wal_index::Header),
}

impl Index {
    fn of(database: &Path, file: Option<&Beside>) -> Result<Index, Error> {
        let Some(file) = file else { return Ok(Index::Missing) };
        let mut bytes = [0; wal_index::HEADER_SIZE];
        match file.read_at(&mut bytes, 0) {
            Ok(_) => Ok(wal_index::Header::parse(&bytes).map_or(Index::Changing, Index::Known)),
            Err(error) => Err(unreadable_index(database, &error)),
        }
    }
}

fn index_file(database: &Path) -> Result<Option<Beside>, Error> {
    match Beside::open(&with_ending(database, "-shm")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable_index(database, &error)),
    }
}

fn unreadable_index(database: &Path, error: &std::io::Error) -> Error {
    Error::of_file(&with_ending(database, "-shm"), "the index of the log cannot be read", error)
}
