//! The kernels against their definitions in f64, and what they promise about bits.

mod loops;
mod panels;
mod products;
mod speed;

use super::Level;

/// Varied values in (−1, 1), different for every seed; whole multiples of 2⁻²³.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Whether two values have the same bits, or are both NaN: its payload is no promise.
fn identical(a: &[f32], b: &[f32]) -> bool {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// What every level gives, after checking that all give the same bits.
fn at_every_level(run: impl Fn(Level) -> Vec<f32>) -> Vec<f32> {
    let mut levels = Level::available().into_iter();
    let portable = run(levels.next().expect("the portable level is always there"));
    for level in levels {
        let other = run(level);
        assert!(
            identical(&portable, &other),
            "{level:?} gives {other:?}, not {portable:?}"
        );
    }
    portable
}
