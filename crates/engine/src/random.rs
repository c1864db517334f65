//! Random numbers without state: initial weights, and the bits that round stochastically.
//!
//! Both are counter-based: a number is a pure function of a key and its index, the same on every machine
//! and in whatever order or number of threads the indices are visited. [`Stream`] draws initial weights
//! from (seed, tensor name, index), uniform rather than normal, because a normal draw needs logarithms
//! whose last bit depends on the platform's library, and validators have to agree on the base model byte
//! for byte; networks train alike from either. [`Rounding`] draws 32 bits from (seed, step, index),
//! cheaply: rounding needs no more than a fair mean and no visible correlation.

/// The key of the tensor `name` under `seed`.
///
/// By name, so that what is drawn for a tensor does not depend on which others exist.
pub(crate) fn key(seed: u64, name: &str) -> u64 {
    // FNV-1a
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(mix(seed) ^ hash)
}

/// The values of one tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of the tensor `name` under `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self {
            key: key(seed, name),
        }
    }

    /// The values from `first_index` on, uniform with mean 0 and the given standard deviation.
    #[inline(always)]
    pub(crate) fn fill(self, first_index: u64, deviation: f32, into: &mut [f32]) {
        // Uniform on (−b, b) has variance b²/3.
        let bound = deviation * 3f32.sqrt();
        let first = self.key.wrapping_add(first_index.wrapping_mul(GOLDEN));
        for (offset, value) in (0u64..).zip(into) {
            let bits = mix(first.wrapping_add(offset.wrapping_mul(GOLDEN)));
            // 24 bits fill an f32's significand exactly: the quotient lies in [0, 1). Signed, because
            // that is the conversion which every instruction set has.
            let unit = (bits >> 40) as i32 as f32 / (1u32 << 24) as f32;
            *value = (2.0 * unit - 1.0) * bound;
        }
    }
}

/// The bits with which one optimiser step rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounding {
    key: u64,
}

impl Rounding {
    /// The bits of step `step` under `seed`.
    pub(crate) fn new(seed: u64, step: u64) -> Self {
        Self {
            key: mix(mix(seed).wrapping_add(step.wrapping_mul(GOLDEN))),
        }
    }

    /// The bits of the block of values that begins at `index`.
    #[inline(always)]
    pub(crate) fn block(self, index: u64) -> BlockRounding {
        let key = mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN)));
        BlockRounding {
            start: key as u32,
            salt: (key >> 32) as u32,
        }
    }
}

/// The bits for one block of values: a strong 64-bit key, then only 32-bit arithmetic per value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockRounding {
    start: u32,
    salt: u32,
}

impl BlockRounding {
    /// Thirty-two bits for lane `lane` of the block.
    ///
    /// The finaliser of Wellons' hash prospector (`16 21f0aaad 15 735a2d97 15`), with the key's other
    /// half in its middle: two blocks whose counters overlap still share nothing.
    #[inline(always)]
    pub(crate) fn bits(self, lane: u32) -> u32 {
        let mut word = self.start.wrapping_add(lane);
        word = (word ^ (word >> 16)).wrapping_mul(0x21f0_aaad);
        word = (word ^ (word >> 15) ^ self.salt).wrapping_mul(0x735a_2d97);
        word ^ (word >> 15)
    }
}

/// 2⁶⁴ divided by the golden ratio: consecutive multiples are spread as evenly as they can be.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
#[inline(always)]
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, name: &str, first_index: u64, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Stream::new(seed, name).fill(first_index, 0.5, &mut values);
        values
    }

    /// 100,000 draws: the mean's own deviation is 0.0016, so 0.01 is far outside luck.
    #[test]
    fn values_have_the_asked_for_mean_and_deviation() {
        let values = drawn(7, "lm_head.weight", 0, 100_000);
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / count;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!(
            (variance.sqrt() - 0.5).abs() < 0.005,
            "deviation {}",
            variance.sqrt()
        );
    }

    #[test]
    fn streams_differ_by_seed_and_by_name() {
        let first = drawn(1, "a", 0, 8);
        assert_eq!(first, drawn(1, "a", 0, 8));
        assert_ne!(first, drawn(2, "a", 0, 8));
        assert_ne!(first, drawn(1, "b", 0, 8));
    }

    /// Base models are agreed upon by seed: these bits must never change.
    #[test]
    fn the_values_of_a_stream_are_fixed_for_ever() {
        let bits = |first_index, count| -> Vec<u32> {
            let values = drawn(7, "lm_head.weight", first_index, count);
            values.iter().map(|value| value.to_bits()).collect()
        };
        assert_eq!(bits(0, 3), [0x3f1f_ccde, 0x3f3a_9ed7, 0x3e74_f324]);
        assert_eq!(bits(99_999, 2), [0xbea2_f3ac, 0xbec6_a2d5]);
    }

    #[test]
    fn a_range_of_a_stream_is_the_same_wherever_it_begins() {
        let whole = drawn(3, "expert", 0, 300);
        for start in [1, 17, 255] {
            assert_eq!(
                drawn(3, "expert", start as u64, 300 - start),
                whole[start..]
            );
        }
    }

    const BLOCKS: u64 = 2_048;
    const LANES: u32 = 512;

    /// The bits of 2,048 consecutive blocks, a million words.
    fn words(seed: u64, step: u64) -> Vec<u32> {
        let rounding = Rounding::new(seed, step);
        (0..BLOCKS)
            .flat_map(|block| {
                let block = rounding.block(block * 256);
                (0..LANES).map(move |lane| block.bits(lane))
            })
            .collect()
    }

    /// Each bit of a million words is set in half of them: deviation 0.0005.
    #[test]
    fn every_bit_of_rounding_is_fair() {
        let words = words(1, 2);
        for bit in 0..32 {
            let set = words.iter().filter(|word| *word >> bit & 1 == 1).count();
            let share = set as f64 / words.len() as f64;
            assert!((share - 0.5).abs() < 0.002_5, "bit {bit}: {share}");
        }
    }

    /// Correlation of a million pairs: deviation 0.001. Neighbours, the two halves of a word, the two
    /// words of one parameter, the same lane of neighbouring blocks, and the same parameter in the next
    /// step or under another seed.
    #[test]
    fn rounding_is_uncorrelated_in_every_direction() {
        let low = |word: u32| f64::from(word & 0xffff) / 65_535.0 - 0.5;
        let high = |word: u32| f64::from(word >> 16) / 65_535.0 - 0.5;
        let correlation = |one: &[u32], two: &[u32], second: &dyn Fn(u32) -> f64| {
            let products = one
                .iter()
                .zip(two)
                .map(|(one, two)| high(*one) * second(*two));
            12.0 * products.sum::<f64>() / one.len().min(two.len()) as f64
        };
        let words = words(1, 2);
        for (what, other) in [
            ("neighbours", &words[1..]),
            ("the words of a parameter", &words[256..]),
            ("blocks", &words[LANES as usize..]),
            ("steps", &self::words(1, 3)),
            ("seeds", &self::words(2, 2)),
        ] {
            for second in [&low as &dyn Fn(u32) -> f64, &high] {
                let correlation = correlation(&words, other, second);
                assert!(correlation.abs() < 0.005, "{what}: {correlation}");
            }
        }
        let halves = correlation(&words, &words, &low);
        assert!(halves.abs() < 0.005, "halves: {halves}");
    }

    /// What should not happen: that two blocks whose 32-bit counters overlap, as some of millions do, draw the
    /// same bits in another order.
    #[test]
    fn blocks_with_overlapping_counters_share_no_bits() {
        let one = BlockRounding { start: 5, salt: 1 };
        let two = BlockRounding { start: 0, salt: 2 };
        let shared = (0..LANES).filter(|lane| one.bits(*lane) == two.bits(lane + 5));
        assert_eq!(shared.count(), 0);
    }
}
