//! AdamW (arXiv 1711.05101): its constants, what they become in one step, and the step on a run of
//! parameters.
//!
//! Parameters and their optimiser state are kept in whichever form memory allows (`WeightsMut`,
//! `Moments`); the arithmetic is the same `f32` arithmetic for all of them (`arithmetic`, compiled for
//! every instruction set as `kernels::optimizer::adamw`). What is stored in fewer bits is rounded
//! stochastically, so that in expectation nothing is lost, however small one step is. Which parameters
//! are stepped, with which gradient and rate, and whether a step is taken at all, is the trainer's.

pub(crate) mod arithmetic;
pub(crate) mod blockwise;
mod storage;
#[cfg(test)]
mod tests;

use crate::random::Rounding;

pub use storage::MomentsFormat;
pub(crate) use storage::{Moments, ParametersMut, WeightsMut};

/// Values that share the scales of [`MomentsFormat::Blockwise8`], and that one key of random bits
/// serves.
///
/// 8 bytes of scales per 512 bytes of codes cost 1.6 %; the paper's blocks of 2048 would cost next to
/// nothing, but an outlier would spoil eight times as many neighbours.
pub(crate) const BLOCK: usize = 256;

/// The constants of AdamW; the learning rate comes with every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the running mean of gradients.
    pub beta1: f32,
    /// Decay of the running mean of squares.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled decay per unit of learning rate. Vectors (norm weights) do not decay.
    pub weight_decay: f32,
}

impl Default for AdamW {
    /// β₂ = 0.95 forgets within the few dozen steps that a cycle has; 0.999 would need a thousand.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

impl AdamW {
    /// Step `number`, counted from 1, whose stochastic rounding is drawn from `seed`.
    ///
    /// `gradient_scale` is a factor on every gradient: what clipping leaves of it.
    pub(crate) fn step(
        self,
        number: u64,
        learning_rate: f32,
        gradient_scale: f32,
        seed: u64,
    ) -> AdamWStep {
        // Beyond any exponent that still changes the power; the corrections are 1 by then.
        let exponent = i32::try_from(number).unwrap_or(i32::MAX);
        AdamWStep {
            constants: self,
            learning_rate,
            gradient_scale,
            correction1: 1.0 - self.beta1.powi(exponent),
            correction2: 1.0 - self.beta2.powi(exponent),
            rounding: Rounding::new(seed, number),
        }
    }
}

/// One AdamW step, ready for a device.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    pub(crate) constants: AdamW,
    pub(crate) learning_rate: f32,
    /// Factor on the gradient: what clipping leaves of it.
    pub(crate) gradient_scale: f32,
    /// `1 − β₁ᵗ`.
    pub(crate) correction1: f32,
    /// `1 − β₂ᵗ`.
    pub(crate) correction2: f32,
    /// The random bits of this step.
    pub(crate) rounding: Rounding,
}

impl AdamWStep {
    /// The same step for a parameter that does not decay.
    pub(crate) fn without_decay(mut self) -> Self {
        self.constants.weight_decay = 0.0;
        self
    }
}
