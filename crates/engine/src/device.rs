//! The seam between the model and the machine: fused operations on buffers that stay on a device.
//!
//! The model is written once over [`Device`]; a device decides how an operation is tiled, packed and
//! vectorised, never what it means. Operations are coarse (a whole attention, a whole grouped product)
//! so that an accelerator crosses the seam rarely; only routing decisions come back to the host.
//!
//! Buffers are matrices `[rows, width]`. Activations have one row per token, sequences one after the
//! other without padding. Weights are `[out, in]`, applied as `y = x·Wᵀ`. A method named `…_gradient`
//! that takes a `&mut` buffer adds to it; every other result is a new buffer.
//!
//! Row independence: what an operation computes for one token depends on no other sequence of the
//! batch, to the bit. Evaluation relies on it: a loss must not depend on its neighbours.

mod cpu;

use std::ops::Range;

pub use cpu::Cpu;

use crate::optimizer::AdamWStep;

/// What a transformer needs of the machine that it runs on.
pub trait Device: Sync {
    /// A matrix of f32 on this device.
    type Buffer: Send + Sync;

    /// Moves row-major host values in.
    fn upload(&self, rows: usize, width: usize, values: Vec<f32>) -> Self::Buffer;
    /// Copies a buffer out, row-major.
    fn download(&self, buffer: &Self::Buffer) -> Vec<f32>;
    /// A zeroed buffer of the same shape.
    fn zeros_like(&self, buffer: &Self::Buffer) -> Self::Buffer;
    /// How many rows a buffer has.
    fn rows(&self, buffer: &Self::Buffer) -> usize;

    /// `into += addend`.
    fn add(&self, addend: &Self::Buffer, into: &mut Self::Buffer);
    /// The sum of all squared values.
    fn sum_of_squares(&self, buffer: &Self::Buffer) -> f64;
    /// `output[i] = source[rows[i]]`.
    fn gather_rows(&self, source: &Self::Buffer, rows: &[u32]) -> Self::Buffer;
    /// `source_gradient[rows[i]] += output_gradient[i]`, in the order of `i`.
    fn gather_rows_gradient(
        &self,
        output_gradient: &Self::Buffer,
        rows: &[u32],
        source_gradient: &mut Self::Buffer,
    );
    /// `into[map.rows[i]] += map.scales[i]·source[i]`, in the order of `i`.
    fn scatter_rows(&self, source: &Self::Buffer, map: RowMap<'_>, into: &mut Self::Buffer);
    /// The gradient of [`Self::scatter_rows`] towards its source, and towards every scale:
    /// `(scales[i]·g[rows[i]], ⟨g[rows[i]], source[i]⟩)`.
    fn scatter_rows_gradient(
        &self,
        source: &Self::Buffer,
        map: RowMap<'_>,
        output_gradient: &Self::Buffer,
    ) -> (Self::Buffer, Vec<f32>);
    /// The first `at` columns, and the rest.
    fn split_columns(&self, source: &Self::Buffer, at: usize) -> (Self::Buffer, Self::Buffer);
    /// The inverse of [`Self::split_columns`].
    fn join_columns(&self, left: &Self::Buffer, right: &Self::Buffer) -> Self::Buffer;

    /// `y[g] = x[g]·W_gᵀ` for every group of consecutive rows `g`; rows in no group are zero.
    fn grouped_linear(
        &self,
        input: &Self::Buffer,
        weights: &[&Self::Buffer],
        groups: &[Range<usize>],
    ) -> Self::Buffer;
    /// `dx[g] += dy[g]·W_g` for every group.
    fn grouped_input_gradient(
        &self,
        output_gradient: &Self::Buffer,
        weights: &[&Self::Buffer],
        groups: &[Range<usize>],
        input_gradient: &mut Self::Buffer,
    );
    /// `dW_g += dy[g]ᵀ·x[g]` for every group whose gradient is wanted.
    fn grouped_weight_gradient(
        &self,
        output_gradient: &Self::Buffer,
        input: &Self::Buffer,
        groups: &[Range<usize>],
        weight_gradients: &mut [Option<&mut Self::Buffer>],
    );

    /// `y = x·Wᵀ` over all rows.
    fn linear(&self, input: &Self::Buffer, weight: &Self::Buffer) -> Self::Buffer {
        let every_row = 0..self.rows(input);
        self.grouped_linear(input, &[weight], &[every_row])
    }
    /// `dx += dy·W` over all rows.
    fn linear_input_gradient(
        &self,
        output_gradient: &Self::Buffer,
        weight: &Self::Buffer,
        input_gradient: &mut Self::Buffer,
    ) {
        let every_row = 0..self.rows(output_gradient);
        self.grouped_input_gradient(output_gradient, &[weight], &[every_row], input_gradient);
    }
    /// `dW += dyᵀ·x` over all rows, where the gradient is wanted.
    fn linear_weight_gradient(
        &self,
        output_gradient: &Self::Buffer,
        input: &Self::Buffer,
        weight_gradient: Option<&mut Self::Buffer>,
    ) {
        let every_row = 0..self.rows(input);
        self.grouped_weight_gradient(output_gradient, input, &[every_row], &mut [weight_gradient]);
    }

    /// `w ⊙ x·(mean(x²)+ε)^(−1/2)`, row by row.
    fn rms_norm(&self, norm: &RmsNorm<'_, Self::Buffer>) -> Self::Buffer;
    /// Adds the gradient of [`Self::rms_norm`] to that of its input and, where wanted, of its weight.
    fn rms_norm_gradient(
        &self,
        norm: &RmsNorm<'_, Self::Buffer>,
        output_gradient: &Self::Buffer,
        input_gradient: &mut Self::Buffer,
        weight_gradient: Option<&mut Self::Buffer>,
    );

    /// `silu(gate) ⊙ up`.
    fn swiglu(&self, gate: &Self::Buffer, up: &Self::Buffer) -> Self::Buffer;
    /// The gradients of [`Self::swiglu`] towards gate and up.
    fn swiglu_gradient(
        &self,
        gate: &Self::Buffer,
        up: &Self::Buffer,
        output_gradient: &Self::Buffer,
    ) -> (Self::Buffer, Self::Buffer);

    /// Softmax of every row.
    fn softmax(&self, logits: &Self::Buffer) -> Self::Buffer;

    /// Rotates the last columns of every head by position, in place; the gradient is the inverse turn.
    fn rotate(&self, heads: &mut Self::Buffer, rotation: &Rotation<'_>);
    /// Builds keys `[rows, heads·(nope+rope)]` and values `[rows, heads·value]` from the expanded latent
    /// `[rows, heads·(nope+value)]` and the rotated key part `[rows, rope]` that all heads share.
    fn assemble_keys_values(
        &self,
        expanded: &Self::Buffer,
        rotated: &Self::Buffer,
        heads: LatentHeads,
    ) -> (Self::Buffer, Self::Buffer);
    /// The gradients of [`Self::assemble_keys_values`] towards expanded latent and rotated part.
    fn assemble_keys_values_gradient(
        &self,
        keys_gradient: &Self::Buffer,
        values_gradient: &Self::Buffer,
        heads: LatentHeads,
    ) -> (Self::Buffer, Self::Buffer);
    /// Causal softmax attention within every sequence.
    fn attention(
        &self,
        inputs: &AttentionInputs<'_, Self::Buffer>,
        layout: &AttentionLayout<'_>,
    ) -> Attended<Self::Buffer>;
    /// The gradients of [`Self::attention`] towards queries, keys and values.
    fn attention_gradient(
        &self,
        inputs: &AttentionInputs<'_, Self::Buffer>,
        attended: &Attended<Self::Buffer>,
        output_gradient: &Self::Buffer,
        layout: &AttentionLayout<'_>,
    ) -> AttentionGradients<Self::Buffer>;

    /// Cross-entropy in nats of every row of `hidden·headᵀ` against its target. Logits never exist as a
    /// whole; with `gradients`, those of the scaled sum are added on the way.
    fn cross_entropy(
        &self,
        hidden: &Self::Buffer,
        head: &Self::Buffer,
        targets: &[u32],
        gradients: Option<HeadGradients<'_, Self::Buffer>>,
    ) -> Vec<f32>;

    /// One AdamW update of one parameter.
    fn adamw(
        &self,
        parameter: &mut Self::Buffer,
        gradient: &Self::Buffer,
        moments: &mut Moments<Self::Buffer>,
        step: AdamWStep,
    );
}

/// Which row goes where, and with what weight.
#[derive(Debug, Clone, Copy)]
pub struct RowMap<'a> {
    /// Destination of every source row.
    pub rows: &'a [u32],
    /// Factor on every source row.
    pub scales: &'a [f32],
}

/// A root-mean-square norm and what it is applied to.
#[derive(Debug)]
pub struct RmsNorm<'a, B> {
    /// `[rows, width]`.
    pub input: &'a B,
    /// `[width]`.
    pub weight: &'a B,
    /// ε.
    pub epsilon: f32,
}

/// A turn of interleaved pairs by position (RoPE, arXiv 2104.09864).
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Heads of a row; the last `2·pairs` columns of each are turned.
    pub heads: usize,
    /// Position of every row in its sequence.
    pub positions: &'a [u32],
    /// Cosines and sines `[position, pair]`.
    pub table: &'a RotaryTable,
    /// Whether to turn back.
    pub inverse: bool,
}

impl Rotation<'_> {
    /// The turn back.
    #[must_use]
    pub fn inverted(self) -> Self {
        Self {
            inverse: !self.inverse,
            ..self
        }
    }
}

/// Cosine and sine of every position and frequency.
#[derive(Debug)]
pub struct RotaryTable {
    pub(crate) pairs: usize,
    pub(crate) cosines: Vec<f32>,
    pub(crate) sines: Vec<f32>,
}

impl RotaryTable {
    /// Angles `m·θ^(−2i/width)` for positions `m < positions` and pairs `i < width/2`.
    #[must_use]
    pub fn new(width: usize, theta: f64, positions: usize) -> Self {
        let pairs = width / 2;
        let angles = (0..positions).flat_map(|position| {
            (0..pairs).map(move |pair| {
                let frequency = (theta.powf(-2.0 * pair as f64 / width as f64)) as f32;
                // The angle is rounded to f32 as in the reference, then its functions are taken exactly.
                f64::from(position as f32 * frequency)
            })
        });
        let (sines, cosines) = angles
            .map(|angle| (angle.sin() as f32, angle.cos() as f32))
            .unzip();
        Self {
            pairs,
            cosines,
            sines,
        }
    }
}

/// The columns of multi-head latent attention.
#[derive(Debug, Clone, Copy)]
pub struct LatentHeads {
    /// Heads.
    pub heads: usize,
    /// Columns of a key head without position.
    pub nope: usize,
    /// Rotated columns of a key head.
    pub rope: usize,
    /// Columns of a value head.
    pub value: usize,
}

/// What attention reads.
#[derive(Debug)]
pub struct AttentionInputs<'a, B> {
    /// `[rows, heads·key width]`.
    pub queries: &'a B,
    /// `[rows, heads·key width]`.
    pub keys: &'a B,
    /// `[rows, heads·value width]`.
    pub values: &'a B,
}

/// How rows and columns divide into sequences and heads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionLayout<'a> {
    /// Heads.
    pub heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Rows of every sequence.
    pub sequences: &'a [Range<usize>],
}

/// The result of attention, and what its gradient needs instead of the probabilities.
#[derive(Debug)]
pub struct Attended<B> {
    /// `[rows, heads·value width]`.
    pub output: B,
    /// Logarithm of every softmax denominator, `[rows, heads]`.
    pub log_sums: B,
}

/// Gradients of attention's inputs.
#[derive(Debug)]
pub struct AttentionGradients<B> {
    /// Towards the queries.
    pub queries: B,
    /// Towards the keys.
    pub keys: B,
    /// Towards the values.
    pub values: B,
}

/// Where the gradients of the loss go.
#[derive(Debug)]
pub struct HeadGradients<'a, B> {
    /// Factor on every row's loss: one over the tokens of the whole step.
    pub scale: f32,
    /// Of the hidden states.
    pub hidden: &'a mut B,
    /// Of the head, where wanted.
    pub head: Option<&'a mut B>,
}

/// The optimiser's memory of one parameter.
#[derive(Debug, Clone)]
pub struct Moments<B> {
    /// Running mean of the gradient.
    pub first: B,
    /// Running mean of its square.
    pub second: B,
}
