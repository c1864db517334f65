//! Causal attention on the CPU, sequence by sequence, head by head, in blocks of queries.
//!
//! ```text
//! S = Q·Kᵀ·scale      P = softmax of S over keys up to the query      O = P·V
//! dP = dO·Vᵀ   dS = P⊙(dP − rowsum(dO⊙O))·scale   dQ = dS·K   dK = dSᵀ·Q   dV = Pᵀ·dO
//! ```
//!
//! A block of queries meets only the keys up to its own end, which halves the work. The backward pass
//! computes P again from the saved logarithms of its denominators (as in FlashAttention, arXiv
//! 2205.14135), so memory stays linear in the length.

use std::ops::Range;

use super::kernels::{self, Destination, View, multiply};
use crate::device::{Attended, AttentionGradients, AttentionInputs, AttentionLayout, LatentHeads};
use crate::tensor::Tensor;

/// Queries per block: enough rows for an efficient product, few enough to skip most of the future.
const BLOCK: usize = 64;

/// `([k_n ; k_r] per head, value per head)` from `[k_n ; value]` per head and one `k_r` for all.
pub(super) fn assemble_keys_values(
    expanded: &Tensor,
    rotated: &Tensor,
    heads: LatentHeads,
) -> (Tensor, Tensor) {
    let rows = expanded.rows();
    let LatentHeads {
        heads,
        nope,
        rope,
        value,
    } = heads;
    let mut keys = Vec::with_capacity(rows * heads * (nope + rope));
    let mut values = Vec::with_capacity(rows * heads * value);
    for row in 0..rows {
        for head in expanded.row(row).chunks_exact(nope + value) {
            keys.extend_from_slice(&head[..nope]);
            keys.extend_from_slice(rotated.row(row));
            values.extend_from_slice(&head[nope..]);
        }
    }
    (
        Tensor::matrix(rows, heads * (nope + rope), keys),
        Tensor::matrix(rows, heads * value, values),
    )
}

/// The gradients of [`assemble_keys_values`]: the shared part collects from every head.
pub(super) fn assemble_keys_values_gradient(
    keys_gradient: &Tensor,
    values_gradient: &Tensor,
    heads: LatentHeads,
) -> (Tensor, Tensor) {
    let rows = keys_gradient.rows();
    let LatentHeads {
        heads,
        nope,
        rope,
        value,
    } = heads;
    let mut expanded = Vec::with_capacity(rows * heads * (nope + value));
    let mut rotated = Tensor::zeros(&[rows, rope]);
    for row in 0..rows {
        let keys = keys_gradient.row(row).chunks_exact(nope + rope);
        let values = values_gradient.row(row).chunks_exact(value);
        for (key, value) in keys.zip(values) {
            expanded.extend_from_slice(&key[..nope]);
            expanded.extend_from_slice(value);
            kernels::add(&key[nope..], rotated.row_mut(row));
        }
    }
    (
        Tensor::matrix(rows, heads * (nope + value), expanded),
        rotated,
    )
}

/// Attends within every sequence.
pub(super) fn forward(
    inputs: &AttentionInputs<'_, Tensor>,
    layout: &AttentionLayout<'_>,
) -> Attended<Tensor> {
    let mut output = Tensor::zeros(&inputs.values.shape);
    let mut log_sums = Tensor::zeros(&[inputs.queries.rows(), layout.heads]);
    let mut scratch = Vec::new();
    for block in blocks(layout) {
        let scores = scratch_of(&mut scratch, block.queries.len() * block.keys.len());
        block.scores(inputs, layout, scores);
        for (index, row) in scores.chunks_exact_mut(block.keys.len()).enumerate() {
            let (visible, future) = row.split_at_mut(block.visible(index));
            let (maximum, sum) = kernels::exponentials(visible);
            kernels::scale(1.0 / sum, visible);
            future.fill(0.0);
            log_sums.row_mut(block.queries.start + index)[block.head] = maximum + sum.ln();
        }
        multiply(
            1.0,
            View::new(scores, block.queries.len(), block.keys.len()),
            block.columns(inputs.values, &block.keys, layout),
            block.columns_mut(&mut output, &block.queries, layout),
        );
    }
    Attended { output, log_sums }
}

/// The gradients of [`forward`].
pub(super) fn gradient(
    inputs: &AttentionInputs<'_, Tensor>,
    attended: &Attended<Tensor>,
    output_gradient: &Tensor,
    layout: &AttentionLayout<'_>,
) -> AttentionGradients<Tensor> {
    let mut gradients = AttentionGradients {
        queries: Tensor::zeros(&inputs.queries.shape),
        keys: Tensor::zeros(&inputs.keys.shape),
        values: Tensor::zeros(&inputs.values.shape),
    };
    let (mut probabilities, mut by_scores) = (Vec::new(), Vec::new());
    for block in blocks(layout) {
        let size = block.queries.len() * block.keys.len();
        let probabilities = scratch_of(&mut probabilities, size);
        block.probabilities(inputs, &attended.log_sums, layout, probabilities);
        let by_scores = scratch_of(&mut by_scores, size);
        let arriving = block.columns(output_gradient, &block.queries, layout);
        multiply(
            1.0,
            arriving,
            block
                .columns(inputs.values, &block.keys, layout)
                .transposed(),
            Destination {
                values: by_scores,
                row_stride: block.keys.len(),
                accumulate: false,
            },
        );
        let inner = |row| block.inner(&attended.output, output_gradient, row, layout.heads);
        block.softmax_gradient(inner, layout.scale, probabilities, by_scores);

        let probabilities = View::new(probabilities, block.queries.len(), block.keys.len());
        let by_scores = View::new(by_scores, block.queries.len(), block.keys.len());
        let keys = block.columns(inputs.keys, &block.keys, layout);
        let queries = block.columns(inputs.queries, &block.queries, layout);
        let destination = block.columns_mut(&mut gradients.queries, &block.queries, layout);
        multiply(1.0, by_scores, keys, destination);
        let destination = block.columns_mut(&mut gradients.keys, &block.keys, layout);
        multiply(1.0, by_scores.transposed(), queries, destination);
        let destination = block.columns_mut(&mut gradients.values, &block.keys, layout);
        multiply(1.0, probabilities.transposed(), arriving, destination);
    }
    gradients
}

/// Consecutive queries of one head, and every key that the last of them sees.
struct Block {
    head: usize,
    queries: Range<usize>,
    keys: Range<usize>,
}

fn blocks(layout: &AttentionLayout<'_>) -> impl Iterator<Item = Block> {
    layout.sequences.iter().flat_map(move |sequence| {
        (0..layout.heads).flat_map(move |head| {
            sequence.clone().step_by(BLOCK).map(move |start| {
                let end = sequence.end.min(start + BLOCK);
                Block {
                    head,
                    queries: start..end,
                    keys: sequence.start..end,
                }
            })
        })
    })
}

impl Block {
    /// How many keys the block's query `index` sees.
    fn visible(&self, index: usize) -> usize {
        self.queries.start - self.keys.start + index + 1
    }

    /// This head's columns of `rows`.
    fn columns<'a>(
        &self,
        matrix: &'a Tensor,
        rows: &Range<usize>,
        layout: &AttentionLayout<'_>,
    ) -> View<'a> {
        let (stride, width) = (matrix.width(), matrix.width() / layout.heads);
        let values = &matrix.values[rows.start * stride + self.head * width..];
        View::strided(values, rows.len(), width, stride)
    }

    /// The same columns as a destination that is added to.
    fn columns_mut<'a>(
        &self,
        matrix: &'a mut Tensor,
        rows: &Range<usize>,
        layout: &AttentionLayout<'_>,
    ) -> Destination<'a> {
        let (stride, width) = (matrix.width(), matrix.width() / layout.heads);
        let values = &mut matrix.values[rows.start * stride + self.head * width..];
        Destination {
            values,
            row_stride: stride,
            accumulate: true,
        }
    }

    /// `Q·Kᵀ·scale`, `[queries, keys]`.
    fn scores(
        &self,
        inputs: &AttentionInputs<'_, Tensor>,
        layout: &AttentionLayout<'_>,
        scores: &mut [f32],
    ) {
        multiply(
            layout.scale,
            self.columns(inputs.queries, &self.queries, layout),
            self.columns(inputs.keys, &self.keys, layout).transposed(),
            Destination {
                values: scores,
                row_stride: self.keys.len(),
                accumulate: false,
            },
        );
    }

    /// The softmax of the forward pass once more, zero in the future.
    fn probabilities(
        &self,
        inputs: &AttentionInputs<'_, Tensor>,
        log_sums: &Tensor,
        layout: &AttentionLayout<'_>,
        probabilities: &mut [f32],
    ) {
        self.scores(inputs, layout, probabilities);
        for (index, row) in probabilities.chunks_exact_mut(self.keys.len()).enumerate() {
            let (visible, future) = row.split_at_mut(self.visible(index));
            let log_sum = log_sums.row(self.queries.start + index)[self.head];
            kernels::exponentials_shifted(log_sum, visible);
            future.fill(0.0);
        }
    }

    /// Turns `dP` into `dS`. The future needs no care: its probabilities are zero.
    fn softmax_gradient(
        &self,
        inner: impl Fn(usize) -> f32,
        scale: f32,
        probabilities: &[f32],
        gradient: &mut [f32],
    ) {
        let keys = self.keys.len();
        let rows = probabilities
            .chunks_exact(keys)
            .zip(gradient.chunks_exact_mut(keys));
        for (row, (probabilities, gradient)) in self.queries.clone().zip(rows) {
            kernels::softmax_gradient(probabilities, inner(row), scale, gradient);
        }
    }

    /// `⟨dO, O⟩` of one query, which equals `⟨dP, P⟩`.
    fn inner(&self, output: &Tensor, gradient: &Tensor, row: usize, heads: usize) -> f32 {
        let width = output.width() / heads;
        let columns = self.head * width..(self.head + 1) * width;
        kernels::dot(
            &output.row(row)[columns.clone()],
            &gradient.row(row)[columns],
        )
    }
}

/// The first `length` values of a reused buffer; what they hold is unspecified.
fn scratch_of(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}
