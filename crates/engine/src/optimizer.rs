//! AdamW (arXiv 1711.05101): its constants, and what they become in one step.
//!
//! The arithmetic on values is the device's; which parameters are stepped is the trainer's.

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
    /// What the kernel needs in step `number`, counted from 1.
    pub(crate) fn step(self, number: u64, learning_rate: f32, gradient_scale: f32) -> AdamWStep {
        // Beyond any exponent that still changes the power; the corrections are 1 by then.
        let exponent = i32::try_from(number).unwrap_or(i32::MAX);
        AdamWStep {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            learning_rate,
            gradient_scale,
            correction1: 1.0 - self.beta1.powi(exponent),
            correction2: 1.0 - self.beta2.powi(exponent),
        }
    }
}

/// One AdamW step, ready for a device.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) epsilon: f32,
    pub(crate) weight_decay: f32,
    pub(crate) learning_rate: f32,
    /// Factor on the gradient: what clipping leaves of it.
    pub(crate) gradient_scale: f32,
    /// `1 − β₁ᵗ`.
    pub(crate) correction1: f32,
    /// `1 − β₂ᵗ`.
    pub(crate) correction2: f32,
}

impl AdamWStep {
    /// The same step for a parameter that does not decay.
    pub(crate) fn without_decay(self) -> Self {
        Self {
            weight_decay: 0.0,
            ..self
        }
    }
}
