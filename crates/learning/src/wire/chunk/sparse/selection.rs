//! The largest values of a chunk, found without sorting it.
//!
//! ```text
//! 128 interleaved columns ──▶ their maxima ──▶ the k-th largest of these: a bound
//! values from the bound on (typically 90 of 4,096) ──▶ the k largest, equal ones by lower index
//! ```
//!
//! `k` columns reach the bound, so at least `k` values do, and a value below it is not among the largest.
//! The two passes over the chunk have no branches and use vectors. Subnormal values count as zero, and
//! zero is never chosen.

/// Columns: enough that the bound is close to the k-th largest value for `k` of 64, few enough that
/// finding it costs nothing.
const COLUMNS: usize = 128;

/// Bits of a magnitude that are not below the smallest normal number.
const SMALLEST: u32 = f32::MIN_POSITIVE.to_bits();

/// Magnitudes from here on are infinite or not a number.
const INFINITE: u32 = f32::INFINITY.to_bits();

/// Indices of the `count` values of largest magnitude, ascending; fewer where fewer differ from zero.
/// Of equal magnitudes the lower index wins. `None` if a value is not finite. A chunk has at most
/// 4,096 values, and `count` is at most 64.
pub(super) fn largest(values: &[f32], count: usize) -> Option<Vec<u16>> {
    let mut maxima = [0_u32; COLUMNS];
    for row in values.chunks(COLUMNS) {
        for (maximum, value) in maxima.iter_mut().zip(row) {
            *maximum = (*maximum).max(magnitude(*value));
        }
    }
    if maxima.iter().any(|maximum| *maximum >= INFINITE) {
        return None;
    }
    let (_, bound, _) = maxima.select_nth_unstable_by(count.clamp(1, COLUMNS) - 1, |a, b| b.cmp(a));
    let mut chosen = reaching(values, (*bound).max(SMALLEST));
    if chosen.len() > count {
        // One number to compare by: larger magnitudes first, then lower indices.
        let key = |index: &u16| {
            let magnitude = magnitude(values[usize::from(*index)]);
            u64::from(magnitude) << 16 | u64::from(u16::MAX - index)
        };
        let mut keys: Vec<u64> = chosen.iter().map(key).collect();
        let (_, last, _) = keys.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
        let last = *last;
        chosen.retain(|index| key(index) >= last);
    }
    Some(chosen)
}

/// Indices of all values from a magnitude on.
fn reaching(values: &[f32], bound: u32) -> Vec<u16> {
    let mut found = [0_u16; super::super::CHUNK];
    let mut count = 0;
    for (index, value) in (0_u16..).zip(values) {
        // Written either way and kept by counting on: which values are large cannot be predicted.
        if let Some(place) = found.get_mut(count) {
            *place = index;
        }
        count += usize::from(magnitude(*value) >= bound);
    }
    found[..count].to_vec()
}

/// Orders like the absolute value.
#[inline]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & 0x7fff_ffff
}
