//! Damage, the same for the same seed.

/// Numbers that look random (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Flipped,
    Zeroed,
    Torn,
    Truncated,
    Shuffled,
    Garbage,
    /// The first hundred bytes are gone.
    Header,
    /// The bytes of page 1 behind the header are gone in part.
    FirstPage,
    /// Interior pages of trees, where there are any.
    Interior,
}

pub(crate) const ALL: [Damage; 9] = [
    Damage::Flipped,
    Damage::Zeroed,
    Damage::Torn,
    Damage::Truncated,
    Damage::Shuffled,
    Damage::Garbage,
    Damage::Header,
    Damage::FirstPage,
    Damage::Interior,
];

impl Damage {
    pub(crate) fn apply(self, bytes: &mut Vec<u8>, page_size: usize, random: &mut Random) {
        let pages = bytes.len() / page_size;
        // Not the first, unless it says so: most damage to it is the same, everything lost.
        let some_page = |random: &mut Random| (1 + random.below(pages - 1)) * page_size;
        let times = 1 + random.below(4);
        match self {
            Damage::Flipped => {
                for _ in 0..times * 4 {
                    // Where it hurts: the start of a page, its cell pointers and lengths.
                    let page = some_page(random);
                    let reach = if random.below(2) == 0 { 64 } else { page_size };
                    let at = page + random.below(reach);
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            Damage::Zeroed => {
                for _ in 0..times {
                    let page = some_page(random);
                    bytes[page..page + page_size].fill(0);
                }
            }
            Damage::Torn => {
                for _ in 0..times {
                    let (page, from) = (some_page(random), some_page(random));
                    let sector = random.below(page_size / 512) * 512;
                    let end = sector + 512 * (1 + random.below((page_size - sector) / 512));
                    bytes.copy_within(from + sector..from + end, page + sector);
                }
            }
            Damage::Truncated => {
                let length = bytes.len() / 4 + random.below(bytes.len() * 3 / 4);
                bytes.truncate(length);
            }
            Damage::Shuffled => {
                for _ in 0..times {
                    let (a, b) = (some_page(random), some_page(random));
                    let page = bytes[a..a + page_size].to_vec();
                    bytes.copy_within(b..b + page_size, a);
                    bytes[b..b + page_size].copy_from_slice(&page);
                }
            }
            Damage::Garbage => {
                for _ in 0..times {
                    let page = some_page(random);
                    let end = page + 1 + random.below(page_size);
                    bytes[page..end].fill_with(|| random.next() as u8);
                }
            }
            Damage::Header => bytes[..100].fill_with(|| random.next() as u8),
            Damage::FirstPage => {
                let at = 100 + random.below(page_size - 100);
                let end = at + random.below(page_size - at);
                bytes[at..end].fill(0);
            }
            Damage::Interior => {
                let interior: Vec<usize> =
                    (1..pages).map(|page| page * page_size).filter(|at| matches!(bytes[*at], 2 | 5)).collect();
                if !interior.is_empty() {
                    let page = interior[random.below(interior.len())];
                    let end = page + [8, 16, page_size][random.below(3)];
                    bytes[page..end].fill(0);
                }
            }
        }
    }
}
