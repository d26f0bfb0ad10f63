//! The pages of a database as they are in its files: the main file, and over it the committed frames of its log.
//!
//! Invariant: nothing is written, and every page read is one that SQLite would see, as far as there is a file to read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hardened_vfs::format::wal;

#[cfg(target_os = "linux")]
use crate::beside::Beside;

/// Where pages come from.
pub(crate) trait Pages {
    /// In bytes, reserved ones included.
    fn page_size(&self) -> usize;

    /// How many there are.
    fn count(&self) -> u32;

    /// Reads page `number` (from 1) into `into`, which is as long as a page; `false` if there is no such page.
    ///
    /// # Errors
    /// Those of the file.
    fn read(&self, number: u32, into: &mut [u8]) -> io::Result<bool>;
}

/// The main file.
#[derive(Debug)]
enum Main {
    /// Nobody in this process has it open through SQLite.
    Alone(File),
    /// Somebody may.
    #[cfg(target_os = "linux")]
    Beside(Beside),
}

/// A main file and its log.
#[derive(Debug)]
pub(crate) struct Image {
    main: Main,
    length: u64,
    log: Option<Log>,
    page_size: usize,
}

#[derive(Debug)]
struct Log {
    file: File,
    page_size: u32,
    /// Where the newest committed copy of each page is in the file.
    newest: HashMap<u32, u64>,
    page_count: u32,
    frames: u64,
}

impl Image {
    /// Opens the files. The page size is not known yet: [`Image::set_page_size`].
    ///
    /// # Errors
    /// Those of the files.
    pub(crate) fn open(main: &Path, log: Option<&Path>) -> io::Result<Image> {
        let main = File::open(main)?;
        let length = main.metadata()?.len();
        Image::over(Main::Alone(main), length, log)
    }

    /// The same for a file that SQLite may have open in this process: none of its locks is dropped.
    ///
    /// # Errors
    /// Those of the files.
    #[cfg(target_os = "linux")]
    pub(crate) fn beside(main: &Path, log: Option<&Path>) -> io::Result<Image> {
        let main = Beside::open(main)?;
        let length = main.size()?;
        Image::over(Main::Beside(main), length, log)
    }

    /// There is no such way here: SQLite must not have the file open in this process.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn beside(main: &Path, log: Option<&Path>) -> io::Result<Image> {
        Image::open(main, log)
    }

    fn over(main: Main, length: u64, log: Option<&Path>) -> io::Result<Image> {
        let log = match log.map(File::open) {
            None => None,
            Some(Ok(file)) => read_log(file)?,
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Some(Err(error)) => return Err(error),
        };
        Ok(Image { main, length, log, page_size: 512 })
    }

    /// That of the log, which has a checksum.
    pub(crate) fn page_size_of_log(&self) -> Option<u32> {
        self.log.as_ref().map(|log| log.page_size)
    }

    /// How many committed frames the log has.
    pub(crate) fn frames(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.frames)
    }

    /// The newest copy of how many pages is in the log.
    pub(crate) fn pages_in_log(&self) -> usize {
        self.log.as_ref().map_or(0, |log| log.newest.len())
    }

    /// Whether the newest copy of a page is in the log.
    pub(crate) fn is_in_log(&self, number: u32) -> bool {
        self.log.as_ref().is_some_and(|log| log.newest.contains_key(&number))
    }

    /// The length of the main file in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Must be a power of two from 512 to 65536.
    pub(crate) fn set_page_size(&mut self, size: u32) {
        self.page_size = size as usize;
        if self.log.as_ref().is_some_and(|log| log.page_size != size) {
            self.log = None;
        }
    }
}

fn read_log(file: File) -> io::Result<Option<Log>> {
    let mut pending = Vec::new();
    let mut newest = HashMap::new();
    let mut frame = 0_u64;
    let scan = wal::scan_frames(io::BufReader::with_capacity(1 << 16, &file), |valid| {
        pending.push((valid.page_number, frame));
        frame += 1;
        if valid.commit_size != 0 {
            newest.extend(pending.drain(..));
        }
    })?;
    let (Some(header), Some(page_count)) = (scan.header, scan.page_count) else { return Ok(None) };
    for place in newest.values_mut() {
        *place = wal::HEADER_SIZE as u64 + *place * header.frame_size() + wal::FRAME_HEADER_SIZE as u64;
    }
    Ok(Some(Log { file, page_size: header.page_size, newest, page_count, frames: scan.committed_frames }))
}

impl Main {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Main::Alone(file) => read_at(file, into, at),
            #[cfg(target_os = "linux")]
            Main::Beside(file) => file.read_at(into, at),
        }
    }
}

/// Reads as much as there is.
fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Pages for Image {
    fn page_size(&self) -> usize {
        self.page_size
    }

    fn count(&self) -> u32 {
        let in_file = u32::try_from(self.length.div_ceil(self.page_size as u64)).unwrap_or(u32::MAX - 1);
        match &self.log {
            Some(log) => log.page_count,
            None => in_file.min(u32::MAX - 1),
        }
    }

    fn read(&self, number: u32, into: &mut [u8]) -> io::Result<bool> {
        if number == 0 || number > self.count() {
            return Ok(false);
        }
        let in_log = self.log.as_ref().and_then(|log| Some((&log.file, *log.newest.get(&number)?)));
        let read = match in_log {
            Some((file, at)) => read_at(file, into, at)?,
            None => self.main.read_at(into, u64::from(number - 1) * self.page_size as u64)?,
        };
        // The last page of a file that was cut off goes on with zeros.
        if let Some(rest) = into.get_mut(read..) {
            rest.fill(0);
        }
        Ok(read > 0)
    }
}

/// Reads pages without their reserved bytes, and keeps a few that are read again and again.
pub(crate) struct Reader<'a> {
    pages: &'a dyn Pages,
    usable: usize,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(pages: &'a dyn Pages, reserved: u8) -> Reader<'a> {
        let usable = pages.page_size().saturating_sub(usize::from(reserved));
        Reader { pages, usable, spare: RefCell::default() }
    }

    pub(crate) fn count(&self) -> u32 {
        self.pages.count()
    }

    pub(crate) fn usable(&self) -> usize {
        self.usable
    }

    /// Calls `with` with the usable bytes of page `number`; `None` if there is no such page.
    pub(crate) fn with<T>(&self, number: u32, with: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
        let spare = self.spare.borrow_mut().pop();
        let mut buffer = spare.unwrap_or_else(|| vec![0; self.pages.page_size()]);
        let there = self.pages.read(number, &mut buffer)?;
        let result = there.then(|| with(buffer.get(..self.usable).unwrap_or(&buffer)));
        self.spare.borrow_mut().push(buffer);
        Ok(result)
    }
}

/// A database in memory.
#[cfg(test)]
pub(crate) struct InMemory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) page_size: usize,
}

#[cfg(test)]
impl Pages for InMemory {
    fn page_size(&self) -> usize {
        self.page_size
    }

    fn count(&self) -> u32 {
        self.bytes.len().div_ceil(self.page_size) as u32
    }

    fn read(&self, number: u32, into: &mut [u8]) -> io::Result<bool> {
        let Some(from) = (number as usize).checked_sub(1).and_then(|page| self.bytes.get(page * self.page_size..))
        else {
            return Ok(false);
        };
        let read = from.len().min(into.len());
        into[..read].copy_from_slice(&from[..read]);
        into[read..].fill(0);
        Ok(read > 0)
    }
}
