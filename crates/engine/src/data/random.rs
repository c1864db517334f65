//! Deterministic pseudo-random numbers: splitmix64 (Steele, Lea and Flood, 2014).
//!
//! The state is a counter that advances by a fixed odd constant, and every output is a bijective
//! mix of it, so a stream is a function of its starting point alone and costs three
//! multiplications per number. It is not cryptographic: where the *seed* must be unpredictable
//! (drawing held-out documents from a block hash), its 32 bytes go through SHA-256 first, and the
//! generator only spreads what is then known to everybody.

use sha2::{Digest, Sha256};

/// 2⁶⁴ divided by the golden ratio, made odd: consecutive states differ in about half their bits.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream named by `label` under `seed`, at position `index`.
    ///
    /// Different labels, seeds or indices give unrelated streams.
    pub fn named(label: &str, seed: u64, index: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(index.to_le_bytes());
        hash.update(label);
        Self::from_digest(&hash.finalize())
    }

    /// The stream named by `label` under the 32 bytes of `seed`.
    pub fn from_bytes(label: &str, seed: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed);
        hash.update(label);
        Self::from_digest(&hash.finalize())
    }

    fn from_digest(digest: &[u8]) -> Self {
        let state = digest
            .iter()
            .take(8)
            .fold(0, |state, byte| state << 8 | u64::from(*byte));
        Self { state }
    }

    /// The next 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(INCREMENT);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A uniform number in `0..bound`; 0 where `bound` is 0.
    ///
    /// Draws in the last, incomplete multiple of `bound` are thrown away, so no value is favoured.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let unbiased = u64::MAX - u64::MAX % bound;
        loop {
            let draw = self.next_u64();
            if draw < unbiased {
                return draw % bound;
            }
        }
    }

    /// A uniform number in `0..bound`; 0 where `bound` is 0.
    pub fn index(&mut self, bound: usize) -> usize {
        // The value is below a usize, so it fits one.
        self.below(bound as u64) as usize
    }

    /// A uniform whole number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// One of `items`, each as likely as the others; the default where there are none.
    pub fn pick<T: Copy + Default>(&mut self, items: &[T]) -> T {
        items
            .get(self.index(items.len()))
            .copied()
            .unwrap_or_default()
    }

    /// Moves a uniformly drawn selection of `count` items to the front, in drawn order.
    ///
    /// This is the first part of a Fisher–Yates shuffle: every ordered selection is equally likely.
    /// With `count` at least the number of items the whole slice is shuffled.
    pub fn shuffle_front<T>(&mut self, items: &mut [T], count: usize) {
        let length = items.len();
        for position in 0..count.min(length) {
            let other = position + self.index(length - position);
            items.swap(position, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    /// The first outputs for state 0 as published with the reference implementation: a change of
    /// the generator would silently change every built-in document and every drawn sample.
    #[test]
    fn gives_the_published_numbers() {
        let mut random = Random { state: 0 };
        let expected = [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f,
        ];
        assert_eq!(expected.map(|_| random.next_u64()), expected);
    }

    #[test]
    fn streams_differ_in_label_seed_and_index() {
        let first = |mut random: Random| random.next_u64();
        let draws = [
            first(Random::named("a", 1, 1)),
            first(Random::named("b", 1, 1)),
            first(Random::named("a", 2, 1)),
            first(Random::named("a", 1, 2)),
            first(Random::from_bytes("a", &[1; 32])),
        ];
        for (i, a) in draws.iter().enumerate() {
            assert!(
                draws.iter().skip(i + 1).all(|b| a != b),
                "draw {i} appears twice"
            );
        }
    }

    /// What should happen: every value of a small range about equally often (5 standard errors).
    /// What should not happen: a value outside the range, or a panic for an empty one.
    #[test]
    fn draws_are_uniform_and_in_range() {
        let mut random = Random::named("uniform", 7, 0);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[random.index(6)] += 1;
        }
        assert!(
            counts.iter().all(|&n| (9_540..10_460).contains(&n)),
            "{counts:?}"
        );
        assert_eq!(random.below(0), 0);
        assert_eq!(random.between(4, 4), 4);
        assert_eq!(random.pick::<u8>(&[]), 0);
    }
}
