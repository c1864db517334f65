//! The optimiser's step, compiled for every instruction set: the arithmetic is [`arithmetic`]'s.

use super::vectorised::vectorised;
use crate::optimizer::{AdamWStep, ParametersMut, arithmetic};

vectorised! {
    /// Steps `parameters` along `gradient`, which has as many values; the same bits on every level.
    fn adamw(parameters: ParametersMut<'_>, gradient: &[f32], step: &AdamWStep) {
        arithmetic::step(parameters, gradient, step);
    }
}
