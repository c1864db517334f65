//! Initial weights: a pure function of (seed, tensor name, index), the same on every machine.
//!
//! Counter-based: value `i` of a stream needs no value before it. Uniform rather than normal, because a
//! normal draw needs logarithms whose last bit depends on the platform's library, and validators have
//! to agree on the base model byte for byte; networks train alike from either.

/// The values of one tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of the tensor `name` under `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name, so that a tensor's values do not depend on which others exist.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            key: mix(mix(seed) ^ hash),
        }
    }

    /// `count` values, uniform with mean 0 and the given standard deviation.
    pub(crate) fn uniform(self, count: usize, deviation: f32) -> Vec<f32> {
        // Uniform on (−b, b) has variance b²/3.
        let bound = deviation * 3f32.sqrt();
        (0..count as u64)
            .map(|index| {
                let bits = mix(self
                    .key
                    .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                // 24 bits fill an f32's significand exactly: the quotient lies in [0, 1).
                let unit = (bits >> 40) as f32 / (1u32 << 24) as f32;
                (2.0 * unit - 1.0) * bound
            })
            .collect()
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100,000 draws: the mean's own deviation is 0.003 of the values', so 0.02 is far outside luck.
    #[test]
    fn values_have_the_asked_for_mean_and_deviation() {
        let values = Stream::new(7, "lm_head.weight").uniform(100_000, 0.5);
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
        let first = Stream::new(1, "a").uniform(8, 1.0);
        assert_eq!(first, Stream::new(1, "a").uniform(8, 1.0));
        assert_ne!(first, Stream::new(2, "a").uniform(8, 1.0));
        assert_ne!(first, Stream::new(1, "b").uniform(8, 1.0));
    }
}
