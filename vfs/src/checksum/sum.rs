//! The sum of a page.
//!
//! The format (<https://www.sqlite.org/cksumvfs.html>): the last 8 bytes of a page hold two little-endian 32-bit numbers.
//! Reading the words before them in turn, each word is added to the sum of the last two results, and the last two results
//! are stored: `x[k] = w[k] + x[k-1] + x[k-2]`, from zero, modulo 2^32.
//!
//! Invariant: [`of`] and that recurrence answer the same for every page; how fast is the only difference.
//!
//! One step waits for the step before it, so read like that a word costs a cycle. But the recurrence is linear, and so a word
//! that stands `d` places before the end counts `F(d + 1)` times, with the Fibonacci numbers F. As
//! `F(n + L) = C * F(n) - F(n - L)` for an even L and the Lucas number C of L, L lanes can take every L-th word each, by
//! `y[k] = w[k] + C * y[k-1] - y[k-2]`, and none waits for its neighbour. The 8 bytes of the sum are read like the others, so
//! that the blocks are aligned, and taken back at the end.

use multiversion::multiversion;

/// How many bytes of a page the sum takes.
pub const SIZE: usize = 8;

/// How many lanes: four registers of AVX2, which is where most of the speed is, eight of SSE2 or NEON.
const LANES: usize = 32;

/// The Lucas number of [`LANES`].
const LUCAS: u32 = 4_870_847;

/// The last two results over all words of a page, in all lanes. Zeros stand in for what is missing before the first word,
/// which changes nothing.
#[multiversion(targets("x86_64+avx2", "x86+avx2"))]
fn through(page: &[u8]) -> [u32; 2] {
    // Two generations that take turns: what was the last becomes the one before without being moved.
    let (mut before, mut last) = ([0_u32; LANES], [0_u32; LANES]);
    let mut both = |words: &[u8]| {
        let (first, second) = words.split_at(4 * LANES);
        for (lane, word) in first.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            before[lane] = word.wrapping_add(LUCAS.wrapping_mul(last[lane])).wrapping_sub(before[lane]);
        }
        for (lane, word) in second.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            last[lane] = word.wrapping_add(LUCAS.wrapping_mul(before[lane])).wrapping_sub(last[lane]);
        }
    };
    let (odd, blocks) = page.split_at(page.len() % (8 * LANES));
    if !odd.is_empty() {
        let mut block = [0_u8; 256];
        block[8 * LANES - odd.len()..8 * LANES].copy_from_slice(odd);
        both(&block[..8 * LANES]);
    }
    for block in blocks.chunks_exact(8 * LANES) {
        both(block);
    }
    let mut results = [0_u32; 2];
    for lane in 0..LANES {
        for (result, weight) in results.iter_mut().zip(&Weights::OF) {
            let sum =
                weight.last[lane].wrapping_mul(last[lane]).wrapping_sub(weight.before[lane].wrapping_mul(before[lane]));
            *result = result.wrapping_add(sum);
        }
    }
    results
}

/// What the lanes count for the two results: in lane l the last word stands LANES - 1 - l places before the end.
struct Weights {
    last: [u32; LANES],
    before: [u32; LANES],
}

impl Weights {
    const OF: [Weights; 2] = [Weights::new(1), Weights::new(0)];

    const fn new(shift: usize) -> Weights {
        let mut weights = Weights { last: [0; LANES], before: [0; LANES] };
        let mut lane = 0;
        while lane < LANES {
            weights.last[lane] = FIBONACCI[LANES - lane - shift];
            // F(-k) is F(k) for an odd k, else -F(k).
            let mirrored = FIBONACCI[lane + shift];
            weights.before[lane] = if (lane + shift) % 2 == 1 { mirrored } else { mirrored.wrapping_neg() };
            lane += 1;
        }
        weights
    }
}

const FIBONACCI: [u32; 33] = {
    let mut numbers = [0_u32; 33];
    numbers[1] = 1;
    let mut n = 2;
    while n < numbers.len() {
        numbers[n] = numbers[n - 1].wrapping_add(numbers[n - 2]);
        n += 1;
    }
    numbers
};

/// The sum of the page without its last 8 bytes, as it is stored there. `page` must be at least 8 bytes long, and a multiple of
/// 4; of anything else the answer means nothing.
#[inline]
pub fn of(page: &[u8]) -> [u8; SIZE] {
    let [first, second] = through(page);
    let word = |from_end: usize| match page.len().checked_sub(from_end).and_then(|at| page.get(at..at + 4)) {
        Some(word) => u32::from_le_bytes([word[0], word[1], word[2], word[3]]),
        None => 0,
    };
    let second = second.wrapping_sub(first).wrapping_sub(word(4));
    let first = first.wrapping_sub(second).wrapping_sub(word(8));
    (u64::from(second) << 32 | u64::from(first)).to_le_bytes()
}

/// Whether the last 8 bytes are the sum of the others.
#[inline]
pub fn holds(page: &[u8]) -> bool {
    page.last_chunk::<SIZE>().is_some_and(|stored| *stored == of(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recurrence as the format describes it.
    fn plainly(page: &[u8]) -> [u8; SIZE] {
        let (mut before, mut last) = (0_u32, 0_u32);
        for word in page[..page.len() - SIZE].chunks_exact(4) {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            (before, last) = (last, word.wrapping_add(last).wrapping_add(before));
        }
        (u64::from(last) << 32 | u64::from(before)).to_le_bytes()
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn page(&mut self, size: usize) -> Vec<u8> {
            (0..size / 8).flat_map(|_| self.next().to_le_bytes()).collect()
        }
    }

    const SIZES: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

    #[test]
    fn every_way_to_add_gives_what_the_format_says() {
        const SEED: u64 = 0x5eed_0001;
        let mut random = Random(SEED);
        let mut pages = 0;
        for size in SIZES.into_iter().chain([8, 16, 24, 40, 504, 520, 4088, 4104]) {
            for round in 0..50 {
                let page = match round {
                    0 => vec![0; size],
                    1 => vec![0xff; size],
                    _ => random.page(size),
                };
                let expected = plainly(&page);
                assert_eq!(of(&page), expected, "size {size} round {round} seed {SEED:#x}");
                let back = |[first, second]: [u32; 2]| {
                    let tail = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
                    let second = second.wrapping_sub(first).wrapping_sub(tail(size - 4));
                    let first = first.wrapping_sub(second).wrapping_sub(tail(size - 8));
                    (u64::from(second) << 32 | u64::from(first)).to_le_bytes()
                };
                assert_eq!(back(through(&page)), expected);
                pages += 1;
            }
        }
        println!("{pages} pages, seed {SEED:#x}");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        const SEED: u64 = 0x5eed_0002;
        let mut random = Random(SEED);
        let mut flips = 0;
        for size in SIZES {
            let mut page = random.page(size);
            let sum = of(&page);
            page[size - SIZE..].copy_from_slice(&sum);
            assert!(holds(&page));
            // Every bit of small pages; of large ones every bit of one byte in each stretch of 61.
            let step = if size <= 4096 { 1 } else { 61 };
            for byte in (0..size).step_by(step) {
                for bit in 0..8 {
                    page[byte] ^= 1 << bit;
                    assert!(!holds(&page), "size {size} byte {byte} bit {bit} seed {SEED:#x}");
                    page[byte] ^= 1 << bit;
                    flips += 1;
                }
            }
            assert!(holds(&page));
        }
        println!("{flips} flips, seed {SEED:#x}");
    }

    #[test]
    fn a_page_of_zeros_is_in_order_and_what_is_too_short_is_not() {
        assert!(holds(&[0; 512]), "SQLite leaves holes for pages it frees before they are written");
        assert!(!holds(&[1; 512]));
        assert!(!holds(&[]) && !holds(&[0; 7]));
    }
}
