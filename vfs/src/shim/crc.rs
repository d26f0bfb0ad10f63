//! CRC-32C of the sectors of a page, four at a time where the processor has an instruction for it: each waits for its own last
//! word only, so four of them take little longer than one, and nothing has to be put together afterwards.

use crate::guard::sums::SECTOR;

/// Appends the sum of each whole sector of `page` to `into`.
pub(crate) fn append(page: &[u8], into: &mut Vec<u32>) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        into.reserve(page.len() / SECTOR);
        let (fours, rest) = page.split_at(page.len() - page.len() % FOUR);
        for four in fours.chunks_exact(FOUR) {
            // SAFETY: the processor has the instructions.
            into.extend_from_slice(&unsafe { of_four(four) });
        }
        into.extend(rest.chunks_exact(SECTOR).map(crc32c::crc32c));
        return;
    }
    into.extend(page.chunks_exact(SECTOR).map(crc32c::crc32c));
}

#[cfg(target_arch = "x86_64")]
const FOUR: usize = 4 * SECTOR;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[allow(unused_unsafe)]
unsafe fn of_four(sectors: &[u8]) -> [u32; 4] {
    use std::arch::x86_64::_mm_crc32_u64;
    const AT_ONCE: usize = 32;
    let mut sums = [u64::from(u32::MAX); 4];
    let (one, rest) = sectors.split_at(SECTOR);
    let (two, rest) = rest.split_at(SECTOR);
    let (three, four) = rest.split_at(SECTOR);
    let together = one.chunks_exact(AT_ONCE).zip(two.chunks_exact(AT_ONCE));
    let together = together.zip(three.chunks_exact(AT_ONCE).zip(four.chunks_exact(AT_ONCE)));
    for ((one, two), (three, four)) in together {
        for at in (0..AT_ONCE).step_by(8) {
            for (sum, piece) in sums.iter_mut().zip([one, two, three, four]) {
                let mut word = [0; 8];
                word.copy_from_slice(&piece[at..at + 8]);
                // SAFETY: the processor has the instruction, as the caller has seen to.
                *sum = unsafe { _mm_crc32_u64(*sum, u64::from_le_bytes(word)) };
            }
        }
    }
    sums.map(|sum| !(sum as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_sectors_one_by_one() {
        let bytes: Vec<u8> = (0..65536_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for length in [0, 511, 512, 1024, 2048, 3000, 4096, 4608, 65536] {
            for start in [0, 1, 24] {
                let page = &bytes[start.min(65536 - length)..][..length];
                let mut sums = vec![7];
                append(page, &mut sums);
                let one_by_one: Vec<u32> = page.chunks_exact(SECTOR).map(crc32c::crc32c).collect();
                assert_eq!(sums, [&[7][..], &one_by_one].concat(), "{length} from {start}");
            }
        }
    }
}
