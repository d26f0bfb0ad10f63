//! What page 1 says about sums.

use super::sum;

/// The page size of a database with sums, from the first 24 bytes of its file or more; `None` if it has none.
pub(crate) fn sealed_size(page: &[u8]) -> Option<u32> {
    let header = page.first_chunk::<24>()?;
    (header.starts_with(MAGIC) && usize::from(header[20]) == sum::SIZE).then(|| size(header)).flatten()
}

/// The page size that a header names.
pub(crate) fn size(header: &[u8; 24]) -> Option<u32> {
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => u32::from(size),
    };
    (size.is_power_of_two() && size >= 512).then_some(size)
}

/// Whether this is a page 1 with the right sum in which nothing but the number of reserved bytes is wrong. A damaged mark
/// would otherwise switch off the very check that finds it.
pub(crate) fn lost_its_mark(page: &[u8]) -> bool {
    let Some(header) = page.first_chunk::<24>() else { return false };
    if !header.starts_with(MAGIC) || size(header).is_none_or(|size| size as usize != page.len()) {
        return false;
    }
    let mut copy = Vec::new();
    if copy.try_reserve_exact(page.len()).is_err() {
        return false;
    }
    copy.extend_from_slice(page);
    copy[20] = sum::SIZE as u8;
    sum::holds(&copy)
}

const MAGIC: &[u8] = b"SQLite format 3\0";

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: u16, reserved: u8) -> Vec<u8> {
        let mut page = vec![7; if size == 1 { 65536 } else { usize::from(size) }];
        page[..16].copy_from_slice(MAGIC);
        page[16..18].copy_from_slice(&size.to_be_bytes());
        page[20] = reserved;
        page
    }

    #[test]
    fn eight_reserved_bytes_and_nothing_else_mean_sums() {
        assert_eq!(sealed_size(&page(4096, 8)), Some(4096));
        assert_eq!(sealed_size(&page(1, 8)), Some(65536));
        for reserved in (0..=255).filter(|reserved| *reserved != 8) {
            assert_eq!(sealed_size(&page(4096, reserved)), None);
        }
        for nonsense in [0_u16, 2, 256, 4095] {
            let mut page = page(4096, 8);
            page[16..18].copy_from_slice(&nonsense.to_be_bytes());
            assert_eq!(sealed_size(&page), None, "{nonsense}");
        }
        let mut encrypted = page(4096, 8);
        encrypted[0] ^= 1;
        assert_eq!(sealed_size(&encrypted), None);
        assert_eq!(sealed_size(&page(512, 8)[..23]), None);
    }

    #[test]
    fn a_damaged_mark_is_known_by_the_sum_of_the_rest() {
        let mut page = page(512, 8);
        let sum = sum::of(&page);
        page[504..].copy_from_slice(&sum);
        for bit in 0..8 {
            page[20] ^= 1 << bit;
            assert!(lost_its_mark(&page));
            page[30] ^= 1;
            assert!(!lost_its_mark(&page), "another page that never had sums");
            page[30] ^= 1;
            page[20] ^= 1 << bit;
        }
    }
}
