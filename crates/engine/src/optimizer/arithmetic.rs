//! The arithmetic of one AdamW step, in blocks that stay in the first-level cache.
//!
//! For every parameter `w` with gradient `g` (times the clipping factor), moments `m`, `v`:
//!
//! ```text
//! m ← β₁·m + (1 − β₁)·g
//! v ← β₂·v + (1 − β₂)·g·g
//! w ← w − η·( m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε) + λ·w )
//! ```
//!
//! in exactly this order of `f32` operations, each rounded once and none fused: every instruction set
//! computes the same bits. `w` sees the moments before they are stored in fewer bits. The bodies are
//! compiled for every instruction set by [`kernels::optimizer`](crate::kernels::optimizer).

use super::storage::{MomentsMut, ParametersMut, WeightsMut};
use super::{AdamWStep, BLOCK, blockwise};
use crate::element;
use crate::random::BlockRounding;

/// Steps `parameters` along `gradient`, which has as many values.
#[inline(always)]
pub(crate) fn step(parameters: ParametersMut<'_>, gradient: &[f32], step: &AdamWStep) {
    assert_eq!(parameters.len(), gradient.len(), "one gradient per weight");
    let blocks = parameters.chunks(BLOCK).zip(gradient.chunks(BLOCK));
    for (block, gradient) in blocks {
        let rounding = step.rounding.block(block.first_index);
        match block.moments {
            MomentsMut::Full { first, second } => {
                accumulate(first, second, gradient, step);
                apply(block.weights, (first, second), step, rounding);
            }
            MomentsMut::Blockwise {
                first,
                second,
                scales,
            } => {
                // A run of one block has one pair.
                let scales = &mut scales[0];
                let mut buffers = ([0.0; BLOCK], [0.0; BLOCK]);
                let wide_first = &mut buffers.0[..gradient.len()];
                let wide_second = &mut buffers.1[..gradient.len()];
                blockwise::widen((first, second), *scales, wide_first, wide_second);
                accumulate(wide_first, wide_second, gradient, step);
                apply(block.weights, (wide_first, wide_second), step, rounding);
                *scales = blockwise::narrow(wide_first, wide_second, rounding, (first, second));
            }
        }
    }
}

/// The first two equations.
#[inline(always)]
fn accumulate(first: &mut [f32], second: &mut [f32], gradient: &[f32], step: &AdamWStep) {
    let (beta1, beta2) = (step.constants.beta1, step.constants.beta2);
    let moments = first.iter_mut().zip(second);
    for ((first, second), gradient) in moments.zip(gradient) {
        let gradient = gradient * step.gradient_scale;
        *first = beta1 * *first + (1.0 - beta1) * gradient;
        *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
    }
}

/// The third equation.
#[inline(always)]
fn apply(
    weights: WeightsMut<'_>,
    moments: (&[f32], &[f32]),
    step: &AdamWStep,
    rounding: BlockRounding,
) {
    let moments = moments.0.iter().zip(moments.1);
    match weights {
        WeightsMut::F32(weights) => {
            for (weight, (first, second)) in weights.iter_mut().zip(moments) {
                *weight = moved(*weight, *first, *second, step);
            }
        }
        WeightsMut::Bf16(weights) => {
            let weights = (0..BLOCK as u32).zip(weights);
            for ((lane, weight), (first, second)) in weights.zip(moments) {
                let exact = moved(element::bf16_widen(*weight), *first, *second, step);
                *weight = element::bf16_stochastic(exact, (rounding.bits(lane) >> 16) as u16);
            }
        }
    }
}

#[inline(always)]
fn moved(weight: f32, first: f32, second: f32, step: &AdamWStep) -> f32 {
    let direction =
        (first / step.correction1) / ((second / step.correction2).sqrt() + step.constants.epsilon);
    weight - step.learning_rate * (direction + step.constants.weight_decay * weight)
}
