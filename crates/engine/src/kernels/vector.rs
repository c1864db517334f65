//! Sums, scalings and inner products of slices.

use super::vectorised::vectorised;

/// Partial sums of a reduction. Part of the result: another number rounds differently.
pub(super) const LANES: usize = 16;

/// `Σ term(aᵢ, bᵢ)`: lane l sums the terms i ≡ l (mod [`LANES`]), then halves are folded together.
#[inline(always)]
pub(super) fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane += term(a, b);
    }
    fold(lanes, |a, b| a + b)
}

/// The largest value; NaN is passed over, and nothing at all gives −∞.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (body, tail) = values.as_chunks::<LANES>();
    for chunk in body {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = larger(*lane, value);
    }
    fold(lanes, larger)
}

/// Joins lane l with lane l + 8, then with l + 4, l + 2 and l + 1.
#[inline(always)]
pub(super) fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

vectorised! {
    /// `⟨a, b⟩` of slices of the same length.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "an inner product of different lengths");
        sum_pairs(a, b, |a, b| a * b)
    }

    /// `Σ xᵢ²`.
    fn sum_of_squares(values: &[f32]) -> f32 {
        sum_pairs(values, values, |a, b| a * b)
    }

    /// `into += addend`.
    fn add(addend: &[f32], into: &mut [f32]) {
        assert_eq!(addend.len(), into.len(), "a sum of different lengths");
        for (into, addend) in into.iter_mut().zip(addend) {
            *into += addend;
        }
    }

    /// `into += factor·addend`.
    fn add_scaled(factor: f32, addend: &[f32], into: &mut [f32]) {
        assert_eq!(addend.len(), into.len(), "a sum of different lengths");
        for (into, addend) in into.iter_mut().zip(addend) {
            *into += factor * addend;
        }
    }

    /// `values *= factor`.
    fn scale(factor: f32, values: &mut [f32]) {
        for value in values {
            *value *= factor;
        }
    }
}
