//! What a disk holds when nothing runs: names and bytes.

use std::collections::BTreeMap;

/// The files of a disk by their full names.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Their contents.
    pub files: BTreeMap<String, Vec<u8>>,
    /// When each of them was last changed, in events; 0 if it does not say.
    pub changed: BTreeMap<String, usize>,
    /// How many events there have been.
    pub clock: usize,
}

impl PartialEq for Image {
    fn eq(&self, other: &Image) -> bool {
        self.files == other.files
    }
}

impl Eq for Image {}

impl Image {
    /// Two independent 64-bit hashes in one number, so that equal means identical for any practical number of images.
    pub fn hash(&self) -> u128 {
        let mut hash = Hash::default();
        for (name, bytes) in &self.files {
            hash.bytes(name.as_bytes());
            hash.bytes(bytes);
        }
        hash.finish()
    }
}

/// A fast hash for equality, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Hash(u64, u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0xa24b_aed4_963e_e407);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.word(number);
    }

    /// The length goes in as well, so that neighbours do not run together.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().unwrap()));
        }
        let mut rest = [0; 8];
        rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.word(u64::from_le_bytes(rest));
    }

    pub(crate) fn finish(mut self) -> u128 {
        for _ in 0..3 {
            let (a, b) = (self.0, self.1);
            self.word(a.rotate_left(32) ^ b);
        }
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}
