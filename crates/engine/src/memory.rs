//! What a model and its training hold in memory, chosen field by field and accounted for before anything
//! is allocated.

mod account;
mod parameters;
mod tokens;

pub use account::{MemoryAccount, MemoryFormulas, StepSize};

use crate::element::Element;
pub use crate::model::decoder::Activations;
use crate::optimizer::MomentsFormat;

/// Bytes of an f32.
const F32: u64 = 4;

/// How everything that takes memory is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Frozen matrices. Norms, biases and routers are always f32.
    pub frozen: Element,
    /// Trained matrices: f32 is its own master copy, bf16 is rounded stochastically in every step.
    pub trained: Element,
    /// AdamW's two states of every trained value.
    pub moments: MomentsFormat,
    /// Gradients of trained parameters.
    pub gradients: GradientMemory,
    /// What layers hold between forward and backward pass.
    pub activations: Activations,
    /// Tokens of one pass at most; a step with more is accumulated over several.
    pub pass_tokens: usize,
}

/// How long gradients live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GradientMemory {
    /// Until the whole step's are complete.
    Kept,
    /// Until their own layer's are: the optimiser runs inside the backward pass.
    Released,
}

impl Default for MemoryPlan {
    /// The fastest: f32 throughout, nothing computed twice.
    fn default() -> Self {
        Self {
            frozen: Element::F32,
            trained: Element::F32,
            moments: MomentsFormat::F32,
            gradients: GradientMemory::Kept,
            activations: Activations::Kept,
            pass_tokens: 2048,
        }
    }
}
