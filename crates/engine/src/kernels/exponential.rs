//! The exponential, and what is built on it: softmax and SwiGLU with their gradients.

use super::vector::{LANES, fold, largest, sum_pairs};
use super::vectorised::vectorised;

/// eˣ with a relative error below 1.2e-7, about one unit in the last place, wherever that is a normal
/// number; 0 below, ∞ above, and NaN stays NaN.
///
/// Cody–Waite reduction and the polynomial of Cephes' `expf`, evaluated in pairs because the chain of
/// operations, not their number, is what takes time. Without a branch.
#[inline(always)]
pub(super) fn exponential(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // The logarithms of the smallest normal number and of the largest number.
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.722_83;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts; the first has nine bits, so that its product with n is exact.
    let r = clamped - n * (355.0 / 512.0) + n * 2.121_944_4e-4;
    let square = r * r;
    let ends = 1.398_199_9e-3 * r + 8.333_452e-3 + 1.987_569_1e-4 * square;
    let p = (4.166_579_6e-2 * r + 0.166_666_65) * r + 0.5 + ends * (square * r);
    let fraction = p * square + r + 1.0;
    // The fraction lies in (0.7, 1.5), so adding n to its exponent is a product with 2ⁿ.
    let product = f32::from_bits(fraction.to_bits().wrapping_add(shifted.to_bits() << 23));
    let large = if x > HIGHEST { f32::INFINITY } else { product };
    // False for NaN too, where the difference is NaN; below the range it is zero.
    if x >= LOWEST { large } else { clamped - LOWEST }
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exponential(-x))
}

/// The gradients of `silu(gate)·up` by gate and up: `silu′(z) = σ(z)·(1 + z·(1 − σ(z)))`.
#[inline(always)]
fn gradients(gate: f32, up: f32, by_out: f32) -> (f32, f32) {
    let sigmoid = sigmoid(gate);
    let by_gate = by_out * up * (sigmoid * (1.0 + gate * (1.0 - sigmoid)));
    (by_gate, by_out * (gate * sigmoid))
}

vectorised! {
    /// `row = softmax(scale·row)`; returns `log Σ exp(scale·row)`.
    ///
    /// A NaN anywhere, or nothing but −∞, gives NaN everywhere.
    fn softmax_scaled(scale: f32, row: &mut [f32]) -> f32 {
        for value in row.iter_mut() {
            *value *= scale;
        }
        let maximum = largest(row);
        let mut lanes = [0.0f32; LANES];
        let (body, tail) = row.as_chunks_mut::<LANES>();
        for chunk in body {
            for value in chunk.iter_mut() {
                *value = exponential(*value - maximum);
            }
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += *value;
            }
        }
        for (lane, value) in lanes.iter_mut().zip(tail) {
            *value = exponential(*value - maximum);
            *lane += *value;
        }
        let sum = fold(lanes, |a, b| a + b);
        let inverse = 1.0 / sum;
        for value in row.iter_mut() {
            *value *= inverse;
        }
        maximum + sum.ln()
    }

    /// `row = exp(scale·row − log_sum)`: the probabilities again, from what [`softmax_scaled`] returned.
    fn exp_scaled_minus(scale: f32, log_sum: f32, row: &mut [f32]) {
        for value in row {
            *value = exponential(scale * *value - log_sum);
        }
    }

    /// The gradient of [`softmax_scaled`]: `by_out` becomes `scale·p ⊙ (by_out − ⟨p, by_out⟩)`.
    fn softmax_gradient(scale: f32, probabilities: &[f32], by_out: &mut [f32]) {
        assert_eq!(probabilities.len(), by_out.len(), "a gradient of another length");
        let inner = sum_pairs(probabilities, by_out, |p, d| p * d);
        for (d, p) in by_out.iter_mut().zip(probabilities) {
            *d = scale * p * (*d - inner);
        }
    }

    /// `out = silu(gate)·up`.
    fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == out.len() && up.len() == out.len(), "SwiGLU of different lengths");
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(gate) * up;
        }
    }

    /// The gradient of [`swiglu`], in place: `gate` and `up` become their own gradients.
    fn swiglu_gradient(by_out: &[f32], gate: &mut [f32], up: &mut [f32]) {
        let len = by_out.len();
        assert!(gate.len() == len && up.len() == len, "SwiGLU of different lengths");
        for ((gate, up), &by_out) in gate.iter_mut().zip(up).zip(by_out) {
            (*gate, *up) = gradients(*gate, *up, by_out);
        }
    }
}
