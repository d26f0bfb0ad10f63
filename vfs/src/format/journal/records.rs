//! Which pages a rollback journal restores.
//!
//! Invariant: every page that SQLite would roll back from the journal is named, if all checksums in it are right; what
//! follows a header that is not one is not looked at, as SQLite does.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use super::{HEADER_SIZE, Header, Records};

/// The numbers of the pages whose records follow the headers of the journal, which is `size` bytes long. A journal that
/// does not say its page size has that of the database, `page_size`.
///
/// ```
/// use hardened_vfs::format::journal::pages;
///
/// assert!(pages(std::io::Cursor::new(b"not a journal"), 13, 4096)?.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// What `journal` answers. Whatever it contains is no error.
pub fn pages(mut journal: impl Read + Seek, size: u64, page_size: u32) -> io::Result<BTreeSet<u32>> {
    let mut pages = BTreeSet::new();
    let (mut at, mut sizes) = (0, None);
    while at + HEADER_SIZE as u64 <= size {
        let mut bytes = [0; HEADER_SIZE];
        journal.seek(SeekFrom::Start(at))?;
        if read_or_end(&mut journal, &mut bytes)? {
            break;
        }
        let Ok(header) = Header::parse(&bytes) else { break };
        // Only the first header decides about the sizes.
        let (sector, page) = *sizes.get_or_insert((
            u64::from(header.sector_size),
            u64::from(if header.page_size == 0 { page_size } else { header.page_size }),
        ));
        let record = page + 8;
        let start = at + sector;
        let fit = size.saturating_sub(start) / record;
        let count = match header.records {
            Records::Count(count) => u64::from(count).min(fit),
            Records::ToEndOfFile => fit,
        };
        for index in 0..count {
            let mut number = [0; 4];
            journal.seek(SeekFrom::Start(start + index * record))?;
            if read_or_end(&mut journal, &mut number)? {
                return Ok(pages);
            }
            match u32::from_be_bytes(number) {
                0 => return Ok(pages),
                number => pages.insert(number),
            };
        }
        at = (start + count * record).next_multiple_of(sector);
    }
    Ok(pages)
}

/// Whether the journal ended before `buffer` was full: it may be cut while it is read.
fn read_or_end(journal: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match journal.read_exact(buffer) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(error),
    }
}
