//! The scale that fits kept magnitudes best, and which of them are large.
//!
//! Of magnitudes in ascending order the first are small and written as `s`, the rest large and written
//! as `L·s`. For a given number of large ones the `s` of least squared error is
//!
//! ```text
//! s = (Σ small + L·Σ large) / (#small + L²·#large)        error = Σ m² − s·(Σ small + L·Σ large)
//! ```
//!
//! so all splits are tried, and the one with the largest `s·(Σ small + L·Σ large)` wins, of equal ones
//! that with fewer large. At least one stays small, so that equal magnitudes are written in one way.
//! Sums are in f64: magnitudes that are exactly `s` and `L·s` are found again without any error.

use super::{LARGE, LARGEST_SCALE, SMALLEST_SCALE};
use crate::wire::chunk::to_bf16;

/// How a chunk's kept magnitudes are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// In bf16.
    pub(super) scale: u16,
    /// Magnitudes from here on are large.
    pub(super) large: f32,
}

/// Fits at least one magnitude above zero.
pub(super) fn fit(magnitudes: impl Iterator<Item = f32>) -> Fit {
    let mut magnitudes: Vec<f32> = magnitudes.collect();
    magnitudes.sort_unstable_by(|a, b| b.total_cmp(a));
    let ratio = f64::from(LARGE);
    let mut weight = magnitudes.len() as f64;
    let mut sum: f64 = magnitudes.iter().map(|m| f64::from(*m)).sum();
    let (mut scale, mut best, mut large) = (sum / weight, sum * sum / weight, f32::INFINITY);
    let all_but_one = magnitudes.len().saturating_sub(1);
    for magnitude in &magnitudes[..all_but_one] {
        sum += (ratio - 1.0) * f64::from(*magnitude);
        weight += ratio * ratio - 1.0;
        let gain = sum * sum / weight;
        if gain > best {
            (scale, best, large) = (sum / weight, gain, *magnitude);
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded once more right after"
    )]
    let scale = to_bf16(scale as f32).clamp(SMALLEST_SCALE, LARGEST_SCALE);
    Fit { scale, large }
}
