//! RMSNorm of one row, `y = w ⊙ x·r` with `r = (mean(x²) + ε)^(−1/2)`, and its gradient.

use super::vector::{LANES, fold, sum_pairs};
use super::vectorised::vectorised;

/// What a row was normed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    /// The row before the norm.
    pub(crate) x: &'a [f32],
    /// The learned factors, as long as the row.
    pub(crate) weight: &'a [f32],
    /// What keeps the root away from zero.
    pub(crate) epsilon: f32,
}

/// The factor r of a row.
#[inline(always)]
fn inverse_root_mean_square(x: &[f32], epsilon: f32) -> f32 {
    let squares = sum_pairs(x, x, |a, b| a * b);
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

/// `Σ aᵢ·bᵢ·cᵢ`, in lanes.
#[inline(always)]
fn sum_triples(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    let (c_body, c_tail) = c.as_chunks::<LANES>();
    for ((a, b), c) in a_body.iter().zip(b_body).zip(c_body) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane] * c[lane];
        }
    }
    let tails = a_tail.iter().zip(b_tail).zip(c_tail);
    for (lane, ((a, b), c)) in lanes.iter_mut().zip(tails) {
        *lane += a * b * c;
    }
    fold(lanes, |a, b| a + b)
}

vectorised! {
    /// `out = w ⊙ x·r`; returns r.
    fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) -> f32 {
        assert!(weight.len() == x.len() && out.len() == x.len(), "a norm of different lengths");
        let r = inverse_root_mean_square(x, epsilon);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * r * weight;
        }
        r
    }

    /// `by_x += r·(w ⊙ by_out) − r³/width·⟨w ⊙ by_out, x⟩·x`, and `by_weight += by_out ⊙ x·r` where it
    /// is wanted.
    fn rms_norm_gradient(
        norm: Norm<'_>,
        by_out: &[f32],
        by_x: &mut [f32],
        by_weight: Option<&mut [f32]>,
    ) {
        let Norm { x, weight, epsilon } = norm;
        let width = x.len();
        assert!(weight.len() == width && by_out.len() == width, "a norm of different lengths");
        assert_eq!(by_x.len(), width, "a gradient of another length");
        let r = inverse_root_mean_square(x, epsilon);
        let back = r * r * r * sum_triples(by_out, weight, x) / width as f32;
        for (((by_x, by_out), weight), x) in by_x.iter_mut().zip(by_out).zip(weight).zip(x) {
            *by_x += r * (by_out * weight) - back * x;
        }
        if let Some(by_weight) = by_weight {
            assert_eq!(by_weight.len(), width, "a gradient of another length");
            for ((by_weight, by_out), x) in by_weight.iter_mut().zip(by_out).zip(x) {
                *by_weight += by_out * (x * r);
            }
        }
    }
}
