//! What an adaptive router needs besides linear maps: a smooth bend, and the distance of one router's
//! distribution from another's.
//!
//! ```text
//! gelu(x) = ½x·(1 + t)   t = tanh(u)   u = √(2/π)·(x + 0.044715·x³)          (arXiv 1606.08415)
//! gelu′(x) = ½·(1 + t) + ½x·(1 − t²)·u′
//!
//! KL(p ‖ q) = Σ p·(log p − log q)   ∂KL/∂z_q = (q − p)/τ   p, q = softmax(z/τ)
//! ```
//!
//! Rows are short and few beside the experts' products, so distributions are computed in f64, where equal
//! logits give a divergence and a gradient of exactly 0.

use super::storage::Buffer;
use super::{Cpu, blocks, rows};
use crate::device::{Blend, Distilled};

/// √(2/π).
const GELU_SLOPE: f32 = 0.797_884_6;

/// What the cube weighs.
const GELU_CUBE: f32 = 0.044_715;

pub(super) fn gelu(cpu: &Cpu, values: &Buffer) -> Buffer {
    let mut bent = rows::copy(cpu, values);
    cpu.change_rows(&mut bent, |_, row| {
        for value in row {
            *value *= 0.5 * (1.0 + bend(*value));
        }
    });
    bent
}

pub(super) fn gelu_gradient(cpu: &Cpu, before: &Buffer, by_output: &mut Buffer) {
    cpu.change_rows(by_output, |row, by_output| {
        for (gradient, &x) in by_output.iter_mut().zip(before.row(row)) {
            let tangent = bend(x);
            let slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * x * x);
            *gradient *= 0.5 * (1.0 + tangent) + 0.5 * x * (1.0 - tangent * tangent) * slope;
        }
    });
}

fn bend(x: f32) -> f32 {
    (GELU_SLOPE * (x + GELU_CUBE * x * x * x)).tanh()
}

pub(super) fn distil(
    cpu: &Cpu,
    Distilled { teacher, student }: Distilled<'_, Buffer>,
    blend: &Blend,
    by_student: &mut Buffer,
) -> f64 {
    let (tokens, experts) = (student.rows(), student.width());
    let share = cpu.rows_per_task(tokens, tokens.max(1));
    let gradients = by_student.values_mut().chunks_mut(share * experts);
    let tasks = blocks(tokens, share).zip(gradients).collect();
    let divergences = cpu.map(tasks, |(rows, gradients)| {
        let gradients = gradients.chunks_exact_mut(experts);
        let each = rows.zip(gradients).map(|(row, gradient)| {
            let logits = [teacher.row(row), student.row(row)];
            distil_row(logits, blend, gradient)
        });
        each.collect::<Vec<f64>>()
    });
    // Row by row: how rows were divided does not show.
    divergences.iter().flatten().sum()
}

fn distil_row([teacher, student]: [&[f32]; 2], blend: &Blend, gradient: &mut [f32]) -> f64 {
    let temperature = f64::from(blend.temperature);
    let wanted = log_softmax(teacher, temperature);
    let found = log_softmax(student, temperature);
    let mut divergence = 0.0;
    for ((gradient, wanted), found) in gradient.iter_mut().zip(&wanted).zip(&found) {
        divergence += wanted.exp() * (wanted - found);
        let slope = (found.exp() - wanted.exp()) / temperature;
        *gradient = blend.task * *gradient + blend.divergence * slope as f32;
    }
    divergence
}

/// Shifted by the largest logit, so that nothing overflows.
fn log_softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let scaled = logits.iter().map(|&logit| f64::from(logit) / temperature);
    let largest = scaled.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scaled.clone().map(|value| (value - largest).exp()).sum();
    let log_sum = largest + sum.ln();
    scaled.map(|value| value - log_sum).collect()
}
