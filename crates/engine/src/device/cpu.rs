//! The CPU device: buffers are [`Tensor`]s, so a model's weights are used where they lie.
//!
//! Single-threaded by design: the caller gives every thread its own sequences, which scales better on
//! small models than splitting products, and keeps every result independent of the thread count.

mod attention;
mod kernels;

use std::ops::Range;

use kernels::{Destination, View, multiply};

use super::{
    Attended, AttentionGradients, AttentionInputs, AttentionLayout, Device, HeadGradients,
    LatentHeads, Moments, RmsNorm, Rotation, RowMap,
};
use crate::optimizer::AdamWStep;
use crate::tensor::Tensor;

/// Rows of logits that exist at a time: with a vocabulary of 1,024 they just fit a second-level cache.
const LOGIT_ROWS: usize = 128;

/// This machine's processor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

impl Device for Cpu {
    type Buffer = Tensor;

    fn upload(&self, rows: usize, width: usize, values: Vec<f32>) -> Tensor {
        Tensor::matrix(rows, width, values)
    }

    fn download(&self, buffer: &Tensor) -> Vec<f32> {
        buffer.values.clone()
    }

    fn zeros_like(&self, buffer: &Tensor) -> Tensor {
        Tensor::zeros(&buffer.shape)
    }

    fn rows(&self, buffer: &Tensor) -> usize {
        buffer.rows()
    }

    fn add(&self, addend: &Tensor, into: &mut Tensor) {
        kernels::add(&addend.values, &mut into.values);
    }

    fn sum_of_squares(&self, buffer: &Tensor) -> f64 {
        kernels::sum_of_squares(&buffer.values)
    }

    fn gather_rows(&self, source: &Tensor, rows: &[u32]) -> Tensor {
        let mut gathered = Vec::with_capacity(rows.len() * source.width());
        for &row in rows {
            gathered.extend_from_slice(source.row(row as usize));
        }
        Tensor::matrix(rows.len(), source.width(), gathered)
    }

    fn gather_rows_gradient(
        &self,
        output_gradient: &Tensor,
        rows: &[u32],
        source_gradient: &mut Tensor,
    ) {
        for (index, &row) in rows.iter().enumerate() {
            let into = source_gradient.row_mut(row as usize);
            kernels::add(output_gradient.row(index), into);
        }
    }

    fn scatter_rows(&self, source: &Tensor, map: RowMap<'_>, into: &mut Tensor) {
        for (index, (&row, &scale)) in map.rows.iter().zip(map.scales).enumerate() {
            kernels::add_scaled(scale, source.row(index), into.row_mut(row as usize));
        }
    }

    fn scatter_rows_gradient(
        &self,
        source: &Tensor,
        map: RowMap<'_>,
        output_gradient: &Tensor,
    ) -> (Tensor, Vec<f32>) {
        let mut gradient = Tensor::zeros(&source.shape);
        let mut scale_gradient = Vec::with_capacity(map.rows.len());
        for (index, (&row, &scale)) in map.rows.iter().zip(map.scales).enumerate() {
            let arriving = output_gradient.row(row as usize);
            kernels::add_scaled(scale, arriving, gradient.row_mut(index));
            scale_gradient.push(kernels::dot(arriving, source.row(index)));
        }
        (gradient, scale_gradient)
    }

    fn split_columns(&self, source: &Tensor, at: usize) -> (Tensor, Tensor) {
        let rows = source.rows();
        let mut left = Vec::with_capacity(rows * at);
        let mut right = Vec::with_capacity(source.values.len() - rows * at);
        for row in source.values.chunks_exact(source.width()) {
            left.extend_from_slice(&row[..at]);
            right.extend_from_slice(&row[at..]);
        }
        let rest = source.width() - at;
        (
            Tensor::matrix(rows, at, left),
            Tensor::matrix(rows, rest, right),
        )
    }

    fn join_columns(&self, left: &Tensor, right: &Tensor) -> Tensor {
        let mut joined = Vec::with_capacity(left.values.len() + right.values.len());
        for row in 0..left.rows() {
            joined.extend_from_slice(left.row(row));
            joined.extend_from_slice(right.row(row));
        }
        Tensor::matrix(left.rows(), left.width() + right.width(), joined)
    }

    fn grouped_linear(
        &self,
        input: &Tensor,
        weights: &[&Tensor],
        groups: &[Range<usize>],
    ) -> Tensor {
        let width = weights.first().map_or(0, |weight| weight.rows());
        let mut output = Tensor::zeros(&[input.rows(), width]);
        for (weight, group) in weights.iter().zip(groups) {
            multiply(
                1.0,
                rows_of(input, group),
                whole(weight).transposed(),
                overwrite(&mut output, group),
            );
        }
        output
    }

    fn grouped_input_gradient(
        &self,
        output_gradient: &Tensor,
        weights: &[&Tensor],
        groups: &[Range<usize>],
        input_gradient: &mut Tensor,
    ) {
        for (weight, group) in weights.iter().zip(groups) {
            let destination = accumulate(input_gradient, group);
            multiply(
                1.0,
                rows_of(output_gradient, group),
                whole(weight),
                destination,
            );
        }
    }

    fn grouped_weight_gradient(
        &self,
        output_gradient: &Tensor,
        input: &Tensor,
        groups: &[Range<usize>],
        weight_gradients: &mut [Option<&mut Tensor>],
    ) {
        for (gradient, group) in weight_gradients.iter_mut().zip(groups) {
            let Some(gradient) = gradient else { continue };
            let every_row = 0..gradient.rows();
            multiply(
                1.0,
                rows_of(output_gradient, group).transposed(),
                rows_of(input, group),
                accumulate(gradient, &every_row),
            );
        }
    }

    fn rms_norm(&self, norm: &RmsNorm<'_, Tensor>) -> Tensor {
        let mut output = Tensor::zeros(&norm.input.shape);
        let (input, weight) = (&norm.input.values, &norm.weight.values);
        kernels::rms_norm(input, weight, norm.epsilon, &mut output.values);
        output
    }

    fn rms_norm_gradient(
        &self,
        norm: &RmsNorm<'_, Tensor>,
        output_gradient: &Tensor,
        input_gradient: &mut Tensor,
        weight_gradient: Option<&mut Tensor>,
    ) {
        let (input, weight) = (&norm.input.values, &norm.weight.values);
        let output_gradient = &output_gradient.values;
        let rows = kernels::NormedRows {
            input,
            weight,
            epsilon: norm.epsilon,
        };
        kernels::rms_norm_input_gradient(rows, output_gradient, &mut input_gradient.values);
        if let Some(gradient) = weight_gradient {
            let gradient = &mut gradient.values;
            kernels::rms_norm_weight_gradient(input, norm.epsilon, output_gradient, gradient);
        }
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Tensor {
        let mut output = Tensor::zeros(&gate.shape);
        kernels::swiglu(&gate.values, &up.values, &mut output.values);
        output
    }

    fn swiglu_gradient(
        &self,
        gate: &Tensor,
        up: &Tensor,
        output_gradient: &Tensor,
    ) -> (Tensor, Tensor) {
        let mut gate_gradient = Tensor::zeros(&gate.shape);
        let mut up_gradient = Tensor::zeros(&up.shape);
        kernels::swiglu_gradient(
            &gate.values,
            &up.values,
            &output_gradient.values,
            &mut gate_gradient.values,
            &mut up_gradient.values,
        );
        (gate_gradient, up_gradient)
    }

    fn softmax(&self, logits: &Tensor) -> Tensor {
        let mut probabilities = logits.clone();
        for row in probabilities.values.chunks_exact_mut(logits.width()) {
            let (_, sum) = kernels::exponentials(row);
            kernels::scale(1.0 / sum, row);
        }
        probabilities
    }

    fn rotate(&self, heads: &mut Tensor, rotation: &Rotation<'_>) {
        let width = heads.width() / rotation.heads;
        let pairs = rotation.table.pairs;
        let turn = if rotation.inverse { -1.0 } else { 1.0 };
        for (row, &position) in rotation.positions.iter().enumerate() {
            let start = position as usize * pairs;
            let cosines = &rotation.table.cosines[start..start + pairs];
            let sines = &rotation.table.sines[start..start + pairs];
            for head in heads.row_mut(row).chunks_exact_mut(width) {
                let (rotated, _) = head[width - 2 * pairs..].as_chunks_mut::<2>();
                for (([a, b], cosine), sine) in rotated.iter_mut().zip(cosines).zip(sines) {
                    let sine = turn * sine;
                    (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
                }
            }
        }
    }

    fn assemble_keys_values(
        &self,
        expanded: &Tensor,
        rotated: &Tensor,
        heads: LatentHeads,
    ) -> (Tensor, Tensor) {
        attention::assemble_keys_values(expanded, rotated, heads)
    }

    fn assemble_keys_values_gradient(
        &self,
        keys_gradient: &Tensor,
        values_gradient: &Tensor,
        heads: LatentHeads,
    ) -> (Tensor, Tensor) {
        attention::assemble_keys_values_gradient(keys_gradient, values_gradient, heads)
    }

    fn attention(
        &self,
        inputs: &AttentionInputs<'_, Tensor>,
        layout: &AttentionLayout<'_>,
    ) -> Attended<Tensor> {
        attention::forward(inputs, layout)
    }

    fn attention_gradient(
        &self,
        inputs: &AttentionInputs<'_, Tensor>,
        attended: &Attended<Tensor>,
        output_gradient: &Tensor,
        layout: &AttentionLayout<'_>,
    ) -> AttentionGradients<Tensor> {
        attention::gradient(inputs, attended, output_gradient, layout)
    }

    fn cross_entropy(
        &self,
        hidden: &Tensor,
        head: &Tensor,
        targets: &[u32],
        mut gradients: Option<HeadGradients<'_, Tensor>>,
    ) -> Vec<f32> {
        let vocabulary = head.rows();
        let mut losses = Vec::with_capacity(targets.len());
        let mut chunk = Tensor::zeros(&[LOGIT_ROWS.min(targets.len()), vocabulary]);
        for (index, targets) in targets.chunks(LOGIT_ROWS).enumerate() {
            let rows = index * LOGIT_ROWS..index * LOGIT_ROWS + targets.len();
            let in_chunk = 0..targets.len();
            let logits = overwrite(&mut chunk, &in_chunk);
            multiply(
                1.0,
                rows_of(hidden, &rows),
                whole(head).transposed(),
                logits,
            );
            let scale = gradients.as_ref().map(|gradients| gradients.scale);
            for (row, &target) in targets.iter().enumerate() {
                losses.push(row_cross_entropy(
                    chunk.row_mut(row),
                    target as usize,
                    scale,
                ));
            }
            let Some(gradients) = &mut gradients else {
                continue;
            };
            let by_logits = rows_of(&chunk, &in_chunk); // ∂ℓ/∂logits, in place of the logits
            let destination = accumulate(gradients.hidden, &rows);
            multiply(1.0, by_logits, whole(head), destination);
            if let Some(gradient) = &mut gradients.head {
                let destination = accumulate(gradient, &(0..vocabulary));
                multiply(
                    1.0,
                    by_logits.transposed(),
                    rows_of(hidden, &rows),
                    destination,
                );
            }
        }
        losses
    }

    fn adamw(
        &self,
        parameter: &mut Tensor,
        gradient: &Tensor,
        moments: &mut Moments<Tensor>,
        step: AdamWStep,
    ) {
        kernels::adamw(
            &mut parameter.values,
            &gradient.values,
            &mut moments.first.values,
            &mut moments.second.values,
            step,
        );
    }
}

/// `−ln softmax(logits)[target]`; with a scale, logits become `scale·(softmax − one-hot)`.
fn row_cross_entropy(logits: &mut [f32], target: usize, scale: Option<f32>) -> f32 {
    let at_target = logits[target];
    let (maximum, sum) = kernels::exponentials(logits);
    if let Some(scale) = scale {
        kernels::scale(scale / sum, logits);
        logits[target] -= scale;
    }
    sum.ln() + (maximum - at_target)
}

fn whole(matrix: &Tensor) -> View<'_> {
    View::new(&matrix.values, matrix.rows(), matrix.width())
}

fn rows_of<'a>(matrix: &'a Tensor, rows: &Range<usize>) -> View<'a> {
    let width = matrix.width();
    let values = &matrix.values[rows.start * width..rows.end * width];
    View::new(values, rows.len(), width)
}

fn overwrite<'a>(matrix: &'a mut Tensor, rows: &Range<usize>) -> Destination<'a> {
    destination(matrix, rows, false)
}

fn accumulate<'a>(matrix: &'a mut Tensor, rows: &Range<usize>) -> Destination<'a> {
    destination(matrix, rows, true)
}

fn destination<'a>(
    matrix: &'a mut Tensor,
    rows: &Range<usize>,
    accumulate: bool,
) -> Destination<'a> {
    let width = matrix.width();
    Destination {
        values: &mut matrix.values[rows.start * width..rows.end * width],
        row_stride: width,
        accumulate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::RotaryTable;

    /// The worked example of interleaved pairs: width 4, base 10,000, position 1.
    #[test]
    fn rotation_turns_interleaved_pairs_and_back() {
        let table = RotaryTable::new(4, 10_000.0, 2);
        let mut rotation = Rotation {
            heads: 1,
            positions: &[1],
            table: &table,
            inverse: false,
        };
        let mut heads = Tensor::matrix(1, 4, vec![1.0, 2.0, 3.0, 4.0]);
        Cpu.rotate(&mut heads, &rotation);
        for (found, expected) in heads
            .values
            .iter()
            .zip([-1.14264, 1.922_076, 2.959_851, 4.0298])
        {
            assert!(
                (found - expected).abs() < 2e-6,
                "{found} instead of {expected}"
            );
        }
        rotation.inverse = true;
        Cpu.rotate(&mut heads, &rotation);
        for (found, expected) in heads.values.iter().zip([1.0, 2.0, 3.0, 4.0]) {
            assert!(
                (found - expected).abs() < 2e-6,
                "{found} instead of {expected}"
            );
        }
    }
}
