//! What the database header says, as far as it can be believed, and what the pages say where it cannot.
//!
//! Invariant: there is always an answer; a page size is one that SQLite allows, and at least 480 bytes of a page are usable.

use std::io;

use hardened_vfs::format::database::{AutoVacuum, Header as DatabaseHeader, TextEncoding};

use super::image::{Image, Pages, Reader};
use super::page::{Page, be32};

/// What is needed of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) page_size: u32,
    pub(crate) reserved: u8,
    pub(crate) encoding: TextEncoding,
    pub(crate) auto_vacuum: AutoVacuum,
    pub(crate) user_version: i32,
    pub(crate) application_id: i32,
    pub(crate) freelist_trunk: u32,
    pub(crate) freelist_count: u32,
    pub(crate) wal: bool,
    /// It could be read as SQLite reads it, and the pages agree.
    pub(crate) sound: bool,
}

const SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// As many pages are looked at to tell whether a size is right.
const SAMPLE: u32 = 64;

/// Reads the header, and sets the page size of `image`.
///
/// # Errors
/// Those of the file.
pub(crate) fn read(image: &mut Image) -> io::Result<Header> {
    let mut first = [0; 512];
    image.read(1, &mut first)?;
    let parsed = DatabaseHeader::parse(&first).ok();
    let said = parsed.as_ref().map(|header| (header.page_size, header.reserved));
    let (page_size, reserved, agreed) = match image.page_size_of_log() {
        Some(size) => {
            (size, said.filter(|said| said.0 == size).map_or(0, |said| said.1), said.is_some_and(|s| s.0 == size))
        }
        None => find_size(image, said, first.get(20).copied().unwrap_or(0))?,
    };
    image.set_page_size(page_size);
    let field = |at| be32(&first, at).unwrap_or(0);
    let encoding = match field(56) {
        1 => TextEncoding::Utf8,
        2 => TextEncoding::Utf16Le,
        3 => TextEncoding::Utf16Be,
        _ => TextEncoding::Unset,
    };
    // Of a header that is not one, the other fields are as likely to be wrong.
    let (vacuum, user_version, application_id) = match &parsed {
        Some(header) => (header.auto_vacuum, header.user_version, header.application_id as i32),
        None => (AutoVacuum::None, field(60) as i32, field(68) as i32),
    };
    Ok(Header {
        page_size,
        reserved,
        encoding,
        auto_vacuum: vacuum,
        user_version,
        application_id,
        freelist_trunk: field(32),
        freelist_count: field(36),
        wal: parsed.as_ref().is_some_and(|header| header.is_wal() && header.write_version == 2),
        sound: parsed.is_some() && agreed,
    })
}

/// The size that the header says, unless the pages speak for another one.
fn find_size(image: &mut Image, said: Option<(u32, u8)>, reserved: u8) -> io::Result<(u32, u8, bool)> {
    let mut best: Option<(u64, u32, u8)> = None;
    for size in SIZES {
        for reserved in [said.map_or(0, |said| said.1), 0, 8, reserved] {
            if size - u32::from(reserved) < 480 {
                continue;
            }
            image.set_page_size(size);
            let score = well_formed(image, reserved)?;
            // Of equals the first: what the header says about reserved bytes, and the smaller size.
            if score > 0 && best.is_none_or(|(most, ..)| score > most) {
                best = Some((score, size, reserved));
            }
        }
    }
    if let Some((size, reserved)) = said {
        image.set_page_size(size);
        let score = well_formed(image, reserved)?;
        if best.is_none_or(|(most, ..)| score >= most / 2) {
            return Ok((size, reserved, true));
        }
    }
    Ok(best.map_or((4096, 0, false), |(_, size, reserved)| (size, reserved, false)))
}

/// How many parts of the sample of pages are as SQLite leaves them, in bytes.
fn well_formed(image: &Image, reserved: u8) -> io::Result<u64> {
    let count = image.count();
    let step = (count / SAMPLE).max(1);
    let reader = Reader::new(image, reserved);
    let (mut good, mut seen) = (0_u64, 0_u64);
    for number in (1..=count).step_by(step as usize).take(SAMPLE as usize) {
        seen += 1;
        let well = reader.with(number, |bytes| {
            Page::of(number, bytes).is_some_and(|page| page.cells() > 0 && page.is_well_formed())
        })?;
        good += u64::from(well == Some(true));
    }
    Ok(good * 1_000_000 / seen.max(1))
}

/// The encoding in which the schema's own words are written: `text` is the first field of a row of it.
pub(crate) fn encoding_of(text: &[u8]) -> Option<TextEncoding> {
    match text {
        [0, letter, ..] if letter.is_ascii_alphabetic() => Some(TextEncoding::Utf16Be),
        [letter, 0, ..] if letter.is_ascii_alphabetic() => Some(TextEncoding::Utf16Le),
        [letter, next, ..] if letter.is_ascii_alphabetic() && next.is_ascii_alphabetic() => Some(TextEncoding::Utf8),
        _ => None,
    }
}
