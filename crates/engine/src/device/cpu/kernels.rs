//! Arithmetic on slices: matrix products and the element-wise loops of the CPU device.
//!
//! The only file with unsafe code, and two reasons for it: `matrixmultiply` takes pointers, and a loop
//! compiled for AVX2 may only be called where AVX2 is. The loops are plain Rust compiled twice; no
//! fused multiply-add and a fixed order of summation, so both compilations give the same bits.
//! Knows nothing of tensors: shapes are lengths and strides.

use crate::optimizer::AdamWStep;

/// Partial sums of a reduction: two AVX2 registers hide the latency of an addition.
const LANES: usize = 16;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `rows × columns` values, rows `row_stride` apart.
    pub(super) fn strided(
        values: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Consecutive rows.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// The same values read by columns.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A product's destination: rows `row_stride` apart inside a slice.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) row_stride: usize,
    /// Whether to add to what is there, or to overwrite it.
    pub(super) accumulate: bool,
}

/// `destination (+)= scale·left·right`.
///
/// Every element is summed in an order that depends on the inner size alone, so a row of the result
/// does not depend on how many rows there are.
pub(super) fn multiply(scale: f32, left: View<'_>, right: View<'_>, destination: Destination<'_>) {
    let (rows, inner, columns) = (left.rows, left.columns, right.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert_eq!(inner, right.rows, "inner sizes of a product");
    assert!(
        extent(&left) <= left.values.len(),
        "left matrix reaches past its slice"
    );
    assert!(
        extent(&right) <= right.values.len(),
        "right matrix reaches past its slice"
    );
    assert!(
        destination.row_stride >= columns
            && (rows - 1) * destination.row_stride + columns <= destination.values.len(),
        "destination rows overlap or reach past their slice"
    );
    let keep = if destination.accumulate { 1.0 } else { 0.0 };
    #[expect(unsafe_code, reason = "matrixmultiply takes pointers")]
    // SAFETY: the assertions above keep the last element that each matrix addresses inside its slice;
    // strides are within isize because slices are; the destination's rows do not overlap, and as a
    // unique borrow it overlaps neither input.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            inner,
            columns,
            scale,
            left.values.as_ptr(),
            left.row_stride as isize,
            left.column_stride as isize,
            right.values.as_ptr(),
            right.row_stride as isize,
            right.column_stride as isize,
            keep,
            destination.values.as_mut_ptr(),
            destination.row_stride as isize,
            1,
        );
    }
}

/// One past the last element that a view addresses.
fn extent(view: &View<'_>) -> usize {
    match (view.rows.checked_sub(1), view.columns.checked_sub(1)) {
        (Some(row), Some(column)) => row * view.row_stride + column * view.column_stride + 1,
        _ => 0,
    }
}

/// What an RMSNorm was applied to: consecutive rows as wide as the weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormedRows<'a> {
    pub(super) input: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) epsilon: f32,
}

/// Compiles a function's body for the baseline and for AVX2, and picks when called.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        pub(super) fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn portable($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $kind),*) $(-> $result)? {
                    portable($($argument),*)
                }
                if is_x86_feature_detected!("avx2") {
                    #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
                    // SAFETY: AVX2 was just detected, and it is all that the function needs.
                    return unsafe { wide($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    )*};
}

/// eˣ with a relative error below 2e-7 (two units in the last place) on [−87, 88], outside which the
/// argument is clamped; NaN stays NaN. Cody–Waite reduction and the polynomial of Cephes' `expf`.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to the nearest integer and leaves it in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts; the first has nine bits, so that its product with n is exact.
    let r = x - n * (355.0 / 512.0) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let fraction = p * r * r + r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    fraction * f32::from_bits(exponent)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exponential(-x))
}

/// `Σ term(aᵢ, bᵢ)`, in lanes.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(&a, &b)| term(a, b)).sum();
    lanes.iter().sum::<f32>() + tail
}

#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (body, tail) = row.as_chunks::<LANES>();
    for chunk in body {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    lanes
        .iter()
        .chain(tail)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max)
}

/// The factor `(mean(x²)+ε)^(−1/2)` of one row.
#[inline(always)]
fn inverse_root_mean_square(row: &[f32], epsilon: f32) -> f32 {
    let squares = sum_pairs(row, row, |a, b| a * b);
    1.0 / (squares / row.len() as f32 + epsilon).sqrt()
}

vectorised! {
    /// `into += addend`.
    fn add(addend: &[f32], into: &mut [f32]) {
        for (into, addend) in into.iter_mut().zip(addend) {
            *into += addend;
        }
    }

    /// `into += scale·addend`.
    fn add_scaled(scale: f32, addend: &[f32], into: &mut [f32]) {
        for (into, addend) in into.iter_mut().zip(addend) {
            *into += scale * addend;
        }
    }

    /// `values *= scale`.
    fn scale(scale: f32, values: &mut [f32]) {
        for value in values {
            *value *= scale;
        }
    }

    /// `⟨a, b⟩`.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum_pairs(a, b, |a, b| a * b)
    }

    /// `Σ x²` in f64, because a gradient's norm adds up millions of squares.
    fn sum_of_squares(values: &[f32]) -> f64 {
        values
            .chunks(4096)
            .map(|chunk| f64::from(sum_pairs(chunk, chunk, |a, b| a * b)))
            .sum()
    }

    /// Replaces a row by `exp(x − max)` and returns the maximum and the new row's sum.
    fn exponentials(row: &mut [f32]) -> (f32, f32) {
        let maximum = maximum(row);
        for value in row.iter_mut() {
            *value = exponential(*value - maximum);
        }
        (maximum, sum_pairs(row, row, |value, _| value))
    }

    /// Replaces a row by `exp(x − shift)`.
    fn exponentials_shifted(shift: f32, row: &mut [f32]) {
        for value in row {
            *value = exponential(*value - shift);
        }
    }

    /// Attention's softmax gradient of one row: `dP` becomes `P ⊙ (dP − inner)·scale`.
    fn softmax_gradient(probabilities: &[f32], inner: f32, scale: f32, gradient: &mut [f32]) {
        for (gradient, probability) in gradient.iter_mut().zip(probabilities) {
            *gradient = probability * (*gradient - inner) * scale;
        }
    }

    /// `silu(gate)·up`.
    fn swiglu(gate: &[f32], up: &[f32], output: &mut [f32]) {
        for ((output, &gate), &up) in output.iter_mut().zip(gate).zip(up) {
            *output = gate * sigmoid(gate) * up;
        }
    }

    /// The gradients of [`swiglu`]: `silu′(z) = σ(z)·(1 + z·(1 − σ(z)))`.
    fn swiglu_gradient(
        gate: &[f32],
        up: &[f32],
        output_gradient: &[f32],
        gate_gradient: &mut [f32],
        up_gradient: &mut [f32],
    ) {
        let inputs = gate.iter().zip(up).zip(output_gradient);
        let outputs = gate_gradient.iter_mut().zip(up_gradient);
        for (((&gate, &up), &gradient), (gate_gradient, up_gradient)) in inputs.zip(outputs) {
            let sigmoid = sigmoid(gate);
            *gate_gradient = gradient * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
            *up_gradient = gradient * gate * sigmoid;
        }
    }

    /// RMSNorm of consecutive rows as wide as `weight`.
    fn rms_norm(input: &[f32], weight: &[f32], epsilon: f32, output: &mut [f32]) {
        let width = weight.len();
        for (x, y) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
            let r = inverse_root_mean_square(x, epsilon);
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * r * w;
            }
        }
    }

    /// `dx += r·(w⊙dy) − r³/width·⟨w⊙dy, x⟩·x` for every row, `r` the row's factor.
    fn rms_norm_input_gradient(
        norm: NormedRows<'_>,
        output_gradient: &[f32],
        input_gradient: &mut [f32],
    ) {
        let NormedRows { input, weight, epsilon } = norm;
        let width = weight.len();
        let rows = input.chunks_exact(width).zip(output_gradient.chunks_exact(width));
        for ((x, dy), dx) in rows.zip(input_gradient.chunks_exact_mut(width)) {
            let r = inverse_root_mean_square(x, epsilon);
            let mut inner = 0.0;
            for ((dy, w), x) in dy.chunks(LANES).zip(weight.chunks(LANES)).zip(x.chunks(LANES)) {
                let mut weighted = [0.0; LANES];
                for ((weighted, dy), w) in weighted.iter_mut().zip(dy).zip(w) {
                    *weighted = dy * w;
                }
                inner += sum_pairs(&weighted[..x.len()], x, |a, b| a * b);
            }
            let back = r * r * r * inner / width as f32;
            for (((dx, dy), w), x) in dx.iter_mut().zip(dy).zip(weight).zip(x) {
                *dx += r * (dy * w) - back * x;
            }
        }
    }

    /// `dw += dy⊙x·r`, summed over rows.
    fn rms_norm_weight_gradient(
        input: &[f32],
        epsilon: f32,
        output_gradient: &[f32],
        weight_gradient: &mut [f32],
    ) {
        let width = weight_gradient.len();
        for (x, dy) in input.chunks_exact(width).zip(output_gradient.chunks_exact(width)) {
            let r = inverse_root_mean_square(x, epsilon);
            for ((dw, dy), x) in weight_gradient.iter_mut().zip(dy).zip(x) {
                *dw += dy * (x * r);
            }
        }
    }

    /// AdamW with decoupled decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2).
    fn adamw(
        parameter: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        step: AdamWStep,
    ) {
        let moments = first.iter_mut().zip(second);
        let values = parameter.iter_mut().zip(gradient);
        for ((parameter, gradient), (first, second)) in values.zip(moments) {
            let gradient = gradient * step.gradient_scale;
            *first = step.beta1 * *first + (1.0 - step.beta1) * gradient;
            *second = step.beta2 * *second + (1.0 - step.beta2) * gradient * gradient;
            let direction = (*first / step.correction1)
                / ((*second / step.correction2).sqrt() + step.epsilon);
            *parameter -= step.learning_rate * (direction + step.weight_decay * *parameter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against f64 on a grid of the whole range; 2e-7 is the documented bound.
    #[test]
    fn the_exponential_keeps_its_documented_error() {
        let mut worst = 0.0f64;
        for index in 0..=1_750_000 {
            let x = -87.0 + index as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exponential(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst}");
    }

    /// A loss that swallowed a NaN would make a broken update look harmless.
    #[test]
    fn the_exponential_is_finite_at_the_ends_and_keeps_nan() {
        assert!(exponential(f32::INFINITY).is_finite());
        assert!(exponential(f32::NEG_INFINITY) > 0.0);
        assert!(exponential(f32::NAN).is_nan());
    }

    /// Sizes around the micro-kernel's edges, transposed operands and a padded destination.
    #[test]
    fn products_agree_with_the_definition_and_leave_the_padding_alone() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (16, 33, 17), (70, 300, 9)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let stride = n + 3;
            let mut c = vec![0.5; m * stride];
            multiply(
                2.0,
                View::new(&a, m, k),
                View::new(&b, n, k).transposed(),
                Destination {
                    values: &mut c,
                    row_stride: stride,
                    accumulate: true,
                },
            );
            for (i, row) in c.chunks(stride).enumerate() {
                for (j, value) in row[..n].iter().enumerate() {
                    let sum: f32 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                    // Small whole numbers: every partial sum is exact.
                    assert_eq!(*value, 0.5 + 2.0 * sum);
                }
                assert_eq!(row[n..], [0.5; 3]);
            }
        }
    }

    /// What makes losses independent of batches: one row alone gives the bits that it has among many.
    #[test]
    fn a_row_of_a_product_does_not_depend_on_the_other_rows() {
        let (m, k, n) = (67, 300, 45);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.11).cos()).collect();
        let product = |rows: View<'_>, count: usize| {
            let mut c = vec![0.0; count * n];
            let destination = Destination {
                values: &mut c,
                row_stride: n,
                accumulate: false,
            };
            multiply(1.0, rows, View::new(&b, k, n), destination);
            c
        };
        let whole = product(View::new(&a, m, k), m);
        for row in 0..m {
            let alone = product(View::new(&a[row * k..], 1, k), 1);
            assert_eq!(alone, whole[row * n..(row + 1) * n], "row {row}");
        }
    }
}
