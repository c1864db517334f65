//! The seam between the model and the machine: fused operations on buffers that stay on a device.
//!
//! The model is written once over [`Device`]; a device decides how an operation is tiled, packed and
//! vectorised, never what it means. Operations are coarse (a whole attention, all experts of a layer) so
//! that an accelerator crosses the seam rarely and nothing comes back to the host on the way: routing
//! decisions, token ids and positions live on the device too. Work is issued in order, as on one stream;
//! only [`Device::download`] and the operations that return host values wait for it.
//!
//! Activations are matrices `[rows, width]` with one row per token, sequences one after the other without
//! padding. Weights are `[out, in]`, applied as `y = x·Wᵀ`, stored as the device likes: [`Device::weight`]
//! packs them once. A result that is returned is a new buffer; a `&mut` buffer or gradient is added to.
//!
//! Row independence: what an operation computes for one token depends on no other sequence of the batch,
//! to the bit. Evaluation relies on it: a loss must not depend on its neighbours.

pub mod cpu;
mod rotary;

use std::fmt::Debug;
use std::ops::Range;

pub use cpu::Cpu;
pub(crate) use cpu::{run_tokens, stored_bytes};
pub use rotary::RotaryTable;

use crate::config::{GateConfig, Pairing};
use crate::element::Element;
use crate::names::SwiGlu;
use crate::optimizer::{AdamWStep, MomentsFormat};
use crate::routing::{LayerRouting, Picks};

/// What a transformer needs of the machine that it runs on.
///
/// A device is a handle: its clones share the machine.
pub trait Device: Clone + Debug + Send + Sync + Sized {
    /// Activations: a matrix of f32.
    type Buffer: Debug + Send + Sync;
    /// Token ids, positions or row numbers.
    type Indices: Debug + Send + Sync;
    /// A parameter in the device's own packing and element type.
    type Weight: Debug + Send + Sync;
    /// The gradient of a parameter: f32, in the order of its weight.
    type Gradient: Debug + Send + Sync;
    /// The optimiser's memory of a parameter.
    type Moments: Debug + Send + Sync;
    /// Which rows every expert computes, and with what weight they are mixed.
    type Routes: Debug + Send + Sync;
    /// Cosines and sines.
    type Rotary: Debug + Send + Sync;

    /// Runs `work`, which issues operations, where issuing them is cheapest.
    fn session<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    // Host and device.

    /// Packs a parameter; values are asked for row by row, so no second copy of it ever exists.
    fn weight(&self, source: &dyn Rows, layout: Layout, element: Element) -> Self::Weight;
    /// The values of a parameter, row-major, widened to f32.
    fn read_weight(&self, weight: &Self::Weight) -> Vec<f32>;
    /// Zeros for the gradient of `weight`.
    fn gradient(&self, weight: &Self::Weight) -> Self::Gradient;
    /// The values of a gradient, row-major.
    fn read_gradient(&self, gradient: &Self::Gradient) -> Vec<f32>;
    /// Makes a gradient zero again.
    fn clear(&self, gradient: &mut Self::Gradient);
    /// The sum of all squared values.
    fn sum_of_squares(&self, gradient: &Self::Gradient) -> f64;
    /// Zero moments for `weight`.
    fn moments(&self, weight: &Self::Weight, format: MomentsFormat) -> Self::Moments;
    /// One AdamW update of one parameter.
    fn adamw(
        &self,
        weight: &mut Self::Weight,
        gradient: &Self::Gradient,
        moments: &mut Self::Moments,
        step: &AdamWStep,
    );
    /// Moves numbers in.
    fn indices(&self, values: &[u32]) -> Self::Indices;
    /// Moves a table of angles in.
    fn rotary(&self, table: RotaryTable) -> Self::Rotary;
    /// Copies a buffer out, row-major.
    fn download(&self, buffer: &Self::Buffer) -> Vec<f32>;

    // Rows.

    /// Zeros of the same shape.
    fn zeros_like(&self, buffer: &Self::Buffer) -> Self::Buffer;
    /// A copy.
    fn copy(&self, buffer: &Self::Buffer) -> Self::Buffer;
    /// `into += addend`.
    fn add(&self, addend: &Self::Buffer, into: &mut Self::Buffer);
    /// `table[ids[i]]` for every `i`.
    fn embed(&self, table: &Self::Weight, ids: &Self::Indices) -> Self::Buffer;
    /// `table_gradient[ids[i]] += by_output[i]`, in the order of `i`.
    fn embed_gradient(
        &self,
        by_output: &Self::Buffer,
        ids: &Self::Indices,
        table: &mut Self::Gradient,
    );
    /// `source[rows[i]]` for every `i`.
    fn gather(&self, source: &Self::Buffer, rows: &Self::Indices) -> Self::Buffer;
    /// A buffer of `count` rows with `by_output[i]` in row `rows[i]`, which are distinct, and zeros elsewhere.
    fn gather_gradient(
        &self,
        by_output: &Self::Buffer,
        rows: &Self::Indices,
        count: usize,
    ) -> Self::Buffer;
    /// The first `at` columns, and the rest.
    fn split_columns(&self, source: &Self::Buffer, at: usize) -> (Self::Buffer, Self::Buffer);
    /// The inverse of [`Self::split_columns`].
    fn join_columns(&self, left: &Self::Buffer, right: &Self::Buffer) -> Self::Buffer;

    // Linear maps.

    /// `x·Wᵀ`.
    fn linear(&self, input: &Self::Buffer, weight: &Self::Weight) -> Self::Buffer;
    /// `dy·W`.
    fn linear_input_gradient(
        &self,
        by_output: &Self::Buffer,
        weight: &Self::Weight,
    ) -> Self::Buffer;
    /// `into += dy·W`.
    fn linear_input_gradient_add(
        &self,
        by_output: &Self::Buffer,
        weight: &Self::Weight,
        into: &mut Self::Buffer,
    );
    /// `dW += dyᵀ·x`.
    fn linear_weight_gradient(
        &self,
        by_output: &Self::Buffer,
        input: &Self::Buffer,
        gradient: &mut Self::Gradient,
    );

    // Norms and bounds.

    /// `w ⊙ x·(mean(x²)+ε)^(−1/2)` of every run of as many columns as the weight has: a whole row, or
    /// every head of it.
    fn rms_norm(&self, norm: &RmsNorm<'_, Self>) -> Self::Buffer;
    /// Adds the gradient of [`Self::rms_norm`] to that of its input and, where wanted, of its weight.
    fn rms_norm_gradient(
        &self,
        norm: &RmsNorm<'_, Self>,
        by_output: &Self::Buffer,
        by_input: &mut Self::Buffer,
        by_weight: Option<&mut Self::Gradient>,
    );
    /// Every value bounded to `±bound`.
    fn clip(&self, values: &mut Self::Buffer, bound: f32);
    /// Zero where [`Self::clip`] has changed `before`.
    fn clip_gradient(&self, before: &Self::Buffer, bound: f32, by_output: &mut Self::Buffer);

    // Attention.

    /// Rotates columns of every head by position, in place; the gradient is the inverse turn.
    fn rotate(&self, heads: &mut Self::Buffer, rotation: &Rotation<'_, Self>);
    /// Builds keys `[rows, heads·(nope+rope)]` and values `[rows, heads·value]` from the expanded latent
    /// `[rows, heads·(nope+value)]` and the rotated key part `[rows, rope]` that all heads share.
    fn assemble(
        &self,
        expanded: &Self::Buffer,
        rotated: &Self::Buffer,
        heads: LatentHeads,
    ) -> (Self::Buffer, Self::Buffer);
    /// The gradients of [`Self::assemble`] towards expanded latent and rotated part.
    fn assemble_gradient(
        &self,
        by_keys: &Self::Buffer,
        by_values: &Self::Buffer,
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
        log_sums: &Self::Buffer,
        by_output: &Self::Buffer,
        layout: &AttentionLayout<'_>,
    ) -> AttentionGradients<Self::Buffer>;

    // Feed-forward networks.

    /// `down(silu(gate·x) ⊙ up·x)`, and what its gradient needs if it is asked for.
    fn network(
        &self,
        input: &Self::Buffer,
        network: &SwiGlu<Self::Weight>,
        keep: Keep,
    ) -> (Self::Buffer, Option<Gated<Self::Buffer>>);
    /// Adds the gradients of [`Self::network`] where they are wanted.
    fn network_gradient(
        &self,
        network: &SwiGlu<Self::Weight>,
        saved: Saved<'_, Self>,
        by_network: Option<&mut SwiGlu<Option<Self::Gradient>>>,
        by_input: Option<&mut Self::Buffer>,
    );
    /// Chooses and weighs experts for every row of router logits `[tokens, experts]`.
    fn route(&self, logits: &Self::Buffer, gate: &Gate<'_, Self>) -> Self::Routes;
    /// Copies the decisions out.
    fn picks(&self, routes: &Self::Routes) -> Picks;
    /// `into[t] += Σ w_i·Expert_i(x_t)` over the experts that each token visits.
    fn experts(
        &self,
        experts: RoutedExperts<'_, Self>,
        input: &Self::Buffer,
        keep: Keep,
        into: &mut Self::Buffer,
    ) -> Option<Gated<Self::Buffer>>;
    /// Adds the gradients of [`Self::experts`] where they are wanted. With `by_input`, returns the
    /// gradient of the router's logits; without, experts that are not trained are not computed at all.
    fn experts_gradient(
        &self,
        experts: RoutedExperts<'_, Self>,
        saved: Saved<'_, Self>,
        by_experts: &mut [Option<SwiGlu<Option<Self::Gradient>>>],
        by_input: Option<&mut Self::Buffer>,
    ) -> Option<Self::Buffer>;

    // Adaptive routers.

    /// `½x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` of every value.
    fn gelu(&self, values: &Self::Buffer) -> Self::Buffer;
    /// Turns the gradient of [`Self::gelu`]'s result into that of `before`, what it was applied to.
    fn gelu_gradient(&self, before: &Self::Buffer, by_output: &mut Self::Buffer);
    /// The sum over rows of `KL(softmax(teacher/τ) ‖ softmax(student/τ))`. Blends its gradient into the
    /// one that is there: `ḡ ← task·ḡ + divergence·∂KL/∂student`.
    fn distil(
        &self,
        logits: Distilled<'_, Self::Buffer>,
        blend: &Blend,
        by_student: &mut Self::Buffer,
    ) -> f64;

    // Loss.

    /// Cross-entropy in nats of every row of `hidden·headᵀ` against its target. Logits never exist as a
    /// whole; with `gradients`, those of the scaled sum are added on the way.
    fn cross_entropy(
        &self,
        hidden: &Self::Buffer,
        head: &Self::Weight,
        targets: &Self::Indices,
        gradients: Option<HeadGradients<'_, Self>>,
    ) -> Vec<f32>;
}

/// Where the values of a parameter come from: memory, a mapped file, a generator.
pub trait Rows: Sync {
    /// How many rows; a vector is one row.
    fn rows(&self) -> usize;
    /// Length of a row.
    fn width(&self) -> usize;
    /// Writes row `row` into `into`, which is [`Self::width`] long.
    fn read_row(&self, row: usize, into: &mut [f32]);
    /// Writes the rows from `first` on, as many as fill `into`. Where a row's values lie far apart, many
    /// rows at once cost hardly more than one.
    fn read_rows(&self, first: usize, into: &mut [f32]) {
        for (row, into) in into.chunks_exact_mut(self.width().max(1)).enumerate() {
            self.read_row(first + row, into);
        }
    }
}

impl<T: Rows + ?Sized> Rows for &T {
    fn rows(&self) -> usize {
        (**self).rows()
    }

    fn width(&self) -> usize {
        (**self).width()
    }

    fn read_row(&self, row: usize, into: &mut [f32]) {
        (**self).read_row(row, into);
    }

    fn read_rows(&self, first: usize, into: &mut [f32]) {
        (**self).read_rows(first, into);
    }
}

/// What a parameter is used for, which decides how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A linear map: packed for matrix products.
    Linear,
    /// A table or a vector: read by rows.
    Table,
}

/// Whether a forward pass keeps what its gradient needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// For a backward pass.
    Everything,
    /// Only the result.
    Nothing,
}

/// A root-mean-square norm and what it is applied to.
#[derive(Debug)]
pub struct RmsNorm<'a, D: Device> {
    /// `[rows, n·width]`.
    pub input: &'a D::Buffer,
    /// `[width]`.
    pub weight: &'a D::Weight,
    /// ε.
    pub epsilon: f32,
}

/// A turn of pairs of columns by position (RoPE, arXiv 2104.09864).
#[derive(Debug)]
pub struct Rotation<'a, D: Device> {
    /// Heads of a row; the last `2·pairs` columns of each are turned.
    pub heads: usize,
    /// Which two columns are a pair.
    pub pairing: Pairing,
    /// Position of every row in its sequence.
    pub positions: &'a D::Indices,
    /// Cosines and sines `[position, pair]`.
    pub table: &'a D::Rotary,
    /// Which way.
    pub turn: Turn,
}

/// Which way a rotation turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// As the model does.
    Forward,
    /// The transpose of it, which is its gradient.
    Back,
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
    /// `[rows, key heads·key width]`.
    pub keys: &'a B,
    /// `[rows, key heads·value width]`.
    pub values: &'a B,
}

/// How rows and columns divide into sequences and heads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionLayout<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `j` reads key head `j·key_heads/heads`.
    pub key_heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// How many positions a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
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

/// The two halves of SwiGLU before they are multiplied: `[rows, width]` each, for experts one row for
/// every visit of a token.
#[derive(Debug)]
pub struct Gated<B> {
    /// `gate·x`.
    pub gate: B,
    /// `up·x`.
    pub up: B,
}

/// What a backward pass through a network starts from.
#[derive(Debug)]
pub struct Saved<'a, D: Device> {
    /// What the forward pass was given.
    pub input: &'a D::Buffer,
    /// What it kept; used up.
    pub gated: Gated<D::Buffer>,
    /// The gradient of what it returned.
    pub by_output: &'a D::Buffer,
}

/// The experts of a layer, `None` where one is not in memory, and what each of them computes.
#[derive(Debug)]
pub struct RoutedExperts<'a, D: Device> {
    /// By expert id.
    pub experts: &'a [Option<SwiGlu<D::Weight>>],
    /// Which rows, with what weight.
    pub routes: &'a D::Routes,
}

/// How a layer chooses.
#[derive(Debug)]
pub struct Gate<'a, D: Device> {
    /// The family's rule.
    pub rule: &'a GateConfig,
    /// Which experts may be chosen.
    pub routing: &'a LayerRouting,
    /// Experts of a token.
    pub per_token: usize,
    /// Added to the scores for the choice (DeepSeek-V3).
    pub bias: Option<&'a D::Weight>,
}

/// Logits of one batch by two routers, `[tokens, experts]` each.
#[derive(Debug)]
pub struct Distilled<'a, B> {
    /// Of the router that is to be followed.
    pub teacher: &'a B,
    /// Of the one that follows.
    pub student: &'a B,
}

/// What two gradients have in their sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blend {
    /// τ: both distributions are taken over logits divided by it.
    pub temperature: f32,
    /// Factor on the loss's gradient.
    pub task: f32,
    /// Factor on the divergence's.
    pub divergence: f32,
}

/// Where the gradients of the loss go.
#[derive(Debug)]
pub struct HeadGradients<'a, D: Device> {
    /// Factor on every row's loss: one over the tokens of the whole step.
    pub scale: f32,
    /// Of the hidden states: set, not added to.
    pub hidden: &'a mut Option<D::Buffer>,
    /// Of the head, where wanted.
    pub head: Option<&'a mut D::Gradient>,
}
