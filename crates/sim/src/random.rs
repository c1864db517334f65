//! Pseudo-random numbers for the simulator: a key, a counter, and a mixer (Steele, Lea and Flood 2014).
//!
//! The n-th number of a stream is a function of the stream's key and n, and a stream's key one of the
//! run's seed and a label. Whoever draws more numbers than before therefore changes nobody else's, and
//! equal seeds give equal runs on every machine: integers throughout, and of floating point only what
//! IEEE 754 fixes to the bit. Nothing here is fit to keep a secret.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    key: u64,
    counter: u64,
}

/// 2⁶⁴ divided by the golden ratio, odd: consecutive counters land far apart.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The stream of a run's seed that carries this label and number.
    pub(crate) fn new(seed: u64, label: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 simulator stream");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.update(label.as_bytes());
        Self {
            key: first_word(hasher.finalize().as_bytes()),
            counter: 0,
        }
    }

    /// A stream that is a function of bytes alone.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            key: first_word(blake3::hash(bytes).as_bytes()),
            counter: 0,
        }
    }

    /// The next number, all 64 bits of it.
    pub(crate) fn word(&mut self) -> u64 {
        self.counter += 1;
        let mut word = self.key.wrapping_add(self.counter.wrapping_mul(STRIDE));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 to just below `bound`; 0 if that is 0. The bias is below `bound / 2⁶⁴`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.word()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A place in a list of this length; 0 if it is empty.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// From 0 to just below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Nearly normal, with mean 0 and variance 1: twelve uniform numbers added up (Irwin–Hall). Never
    /// beyond ±6, and without a logarithm that two machines could round differently.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Sixteen bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.word().to_le_bytes());
        bytes[8..].copy_from_slice(&self.word().to_le_bytes());
        bytes
    }

    /// Puts a list into random order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, self.place(place + 1));
        }
    }
}

fn first_word(hash: &[u8; 32]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_seed_label_and_number() {
        let first = |seed, label, number| Random::new(seed, label, number).word();
        assert_eq!(first(1, "links", 2), first(1, "links", 2));
        let all = [
            first(1, "links", 2),
            first(2, "links", 2),
            first(1, "faults", 2),
            first(1, "links", 3),
        ];
        let distinct: std::collections::BTreeSet<u64> = all.into();
        assert_eq!(distinct.len(), 4);
    }

    /// With 20,000 draws the mean of a unit is known to 0.002 and that of a normal to 0.007 (one σ);
    /// five times that leaves no room for a wrong mixer and none for luck either.
    #[test]
    fn numbers_are_spread_evenly_and_normally() {
        let mut random = Random::new(7, "test", 0);
        let draws = 20_000;
        let mean = (0..draws).map(|_| random.unit()).sum::<f64>() / f64::from(draws);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let normals: Vec<f64> = (0..draws).map(|_| random.normal()).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(draws);
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / f64::from(draws);
        assert!(mean.abs() < 0.035 && (variance - 1.0).abs() < 0.05);
        let mut counts = [0; 5];
        (0..draws).for_each(|_| counts[random.place(5)] += 1);
        assert!(
            counts.iter().all(|count| (3_700..4_300).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn bounds_are_kept_at_their_edges() {
        let mut random = Random::of(b"edges");
        assert_eq!(
            (random.below(0), random.below(1), random.place(0)),
            (0, 0, 0)
        );
        assert!((0..100).all(|_| !random.chance(0.0) && random.chance(1.0)));
    }
}
