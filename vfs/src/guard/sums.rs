//! The image of a page as the checksums of its sectors.
//!
//! Invariant: a page of `n` bytes has `n / 512` sums, each the CRC-32C of one sector. A sector is what a disk writes
//! whole or not at all, so a torn page shows as sums of two images.

/// The unit in which disks write: 512 bytes, or a multiple of it.
pub const SECTOR: usize = 512;

/// How many sectors a page has.
///
/// ```
/// assert_eq!(hardened_vfs::guard::sums::sectors(4096), 8);
/// ```
#[must_use]
pub fn sectors(page_size: u32) -> usize {
    page_size as usize / SECTOR
}

/// Appends the sums of `page` to `into`: what to use where many pages share one buffer.
pub fn append(page: &[u8], into: &mut Vec<u32>) {
    crate::shim::crc::append(page, into);
}

/// The sums of one page.
///
/// ```
/// use hardened_vfs::guard::sums::Sums;
///
/// let (old, mut page) = (Sums::of(&[0; 4096]), [0; 4096]);
/// page[5000 - 4096] = 1;
/// let new = Sums::of(&page);
/// assert_eq!(old.as_slice()[0], new.as_slice()[0]);
/// assert_ne!(old.as_slice()[1], new.as_slice()[1]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sums(Box<[u32]>);

impl Sums {
    /// The sums of this page. Bytes after the last whole sector are left out; a page has none.
    #[must_use]
    pub fn of(page: &[u8]) -> Sums {
        let mut sums = Vec::with_capacity(page.len() / SECTOR);
        append(page, &mut sums);
        Sums(sums.into())
    }

    /// One sum per sector, in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl From<&[u32]> for Sums {
    fn from(sums: &[u32]) -> Sums {
        Sums(sums.into())
    }
}
