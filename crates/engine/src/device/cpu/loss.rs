//! Cross-entropy in runs of tokens: a run's logits live as long as the run.
//!
//! `ℓ = log Σ exp(z) − z_target`, `∂ℓ/∂z = softmax(z) − 1_target`.

use std::ops::Range;

use super::Cpu;
use super::product::{PanelsMut, Source, TURNED_ROWS, blocks};
use super::storage::Buffer;
use super::weight::{Gradient, Weight};
use crate::device::HeadGradients;
use crate::kernels::{self, PANEL, Write};

/// Bytes of logits that one thread holds at a time, unless a few tokens have more.
const RUN_BYTES: usize = 16 << 20;

/// Tokens whose logits one thread holds at a time: many share one pass over the head, few take less memory.
pub(crate) fn run_tokens(vocabulary: usize) -> usize {
    (RUN_BYTES / size_of::<f32>() / vocabulary).clamp(128, TURNED_ROWS)
}

pub(super) fn cross_entropy(
    cpu: &Cpu,
    hidden: &Buffer,
    head: &Weight,
    targets: &[u32],
    gradients: Option<HeadGradients<'_, Cpu>>,
) -> Vec<f32> {
    let Some(wanted) = gradients else {
        return losses(cpu, hidden, head, targets);
    };
    let pass = Pass {
        cpu,
        hidden,
        head,
        targets,
        scale: wanted.scale,
    };
    let (losses, by_hidden) = pass.rounds(wanted.head);
    *wanted.hidden = Some(by_hidden);
    losses
}

fn losses(cpu: &Cpu, hidden: &Buffer, head: &Weight, targets: &[u32]) -> Vec<f32> {
    let mut losses = vec![0.0; hidden.rows()];
    let share = cpu.rows_per_task(hidden.rows(), run_tokens(head.rows));
    let runs = blocks(hidden.rows(), share).zip(losses.chunks_mut(share));
    cpu.each(runs.collect(), |(rows, losses)| {
        let mut logits = cpu.spare.take(rows.len() * head.rows);
        let logits = logits.as_mut();
        project(cpu, hidden.rows_of(rows.clone()), head, logits);
        let tokens = logits.chunks_exact_mut(head.rows).zip(&targets[rows]);
        for ((logits, &target), loss) in tokens.zip(losses) {
            let wanted = logits[target as usize];
            *loss = kernels::softmax_scaled(cpu.level, 1.0, logits) - wanted;
        }
    });
    losses
}

/// `hidden·headᵀ`.
fn project(cpu: &Cpu, hidden: &[f32], head: &Weight, logits: &mut [f32]) {
    let source = Source::Rows(hidden, head.width);
    let targets = &mut [(head, logits)];
    cpu.workspace().forward(source, targets);
}

struct Pass<'a> {
    cpu: &'a Cpu,
    hidden: &'a Buffer,
    head: &'a Weight,
    targets: &'a [u32],
    scale: f32,
}

impl Pass<'_> {
    /// Losses and the gradient of the hidden states, round by round: a run for every thread.
    fn rounds(&self, mut by_head: Option<&mut Gradient>) -> (Vec<f32>, Buffer) {
        let (cpu, rows, vocabulary) = (self.cpu, self.hidden.rows(), self.head.rows);
        let width = self.hidden.width();
        let mut losses = vec![0.0; rows];
        let mut by_hidden = cpu.buffer(rows, width);
        let most = (run_tokens(vocabulary) * cpu.threads).min(rows);
        let mut of_rounds = cpu.spare.take(most * vocabulary);
        for round in blocks(rows, most.max(1)) {
            let logits = &mut of_rounds.as_mut()[..round.len() * vocabulary];
            let into = &mut by_hidden.values_mut()[round.start * width..round.end * width];
            let share = round.len().div_ceil(cpu.threads);
            let runs = blocks(round.len(), share)
                .map(|run| round.start + run.start..round.start + run.end)
                .zip(logits.chunks_mut(share * vocabulary))
                .zip(into.chunks_mut(share * width))
                .zip(losses[round.clone()].chunks_mut(share));
            cpu.each(runs.collect(), |(((rows, logits), into), losses)| {
                self.run(rows, logits, (into, losses));
            });
            if let Some(by_head) = by_head.as_deref_mut() {
                self.head_gradient(round.start, logits, by_head);
            }
        }
        (losses, by_hidden)
    }

    /// One run: its losses, the gradient of its hidden states, and that of its logits.
    fn run(
        &self,
        rows: Range<usize>,
        logits: &mut [f32],
        (into, losses): (&mut [f32], &mut [f32]),
    ) {
        let (cpu, vocabulary) = (self.cpu, self.head.rows);
        project(cpu, self.hidden.rows_of(rows.clone()), self.head, logits);
        let tokens = logits.chunks_exact_mut(vocabulary).zip(&self.targets[rows]);
        for ((logits, &target), loss) in tokens.zip(losses) {
            let wanted = logits[target as usize];
            *loss = kernels::softmax_scaled(cpu.level, 1.0, logits) - wanted;
            logits[target as usize] -= 1.0;
            kernels::scale(cpu.level, self.scale, logits);
        }
        cpu.workspace().input_gradient(
            Source::Rows(logits, vocabulary),
            self.head,
            into,
            Write::Overwrite,
        );
    }

    /// `dW += dzᵀ·hidden` of one round, which begins at token `first`.
    ///
    /// Sums are cut at multiples of [`run_tokens`], where every round begins: neither the rounds nor the threads
    /// that shared one change a bit.
    fn head_gradient(&self, first: usize, logits: &[f32], by_head: &mut Gradient) {
        let (cpu, vocabulary) = (self.cpu, self.head.rows);
        let panels = vocabulary.div_ceil(PANEL);
        let share = panels.div_ceil(4 * cpu.threads).max(1);
        let tasks: Vec<(Range<usize>, PanelsMut<'_>)> = by_head.panels_mut(share).collect();
        cpu.each(tasks, |(panels, gradient)| {
            let mut workspace = cpu.workspace();
            let PanelsMut {
                values,
                width,
                outputs,
            } = gradient;
            let mut start = first;
            for logits in logits.chunks(run_tokens(vocabulary) * vocabulary) {
                let count = logits.len() / vocabulary;
                let hidden = self.hidden.rows_of(start..start + count);
                let gradient = PanelsMut {
                    values: &mut *values,
                    width,
                    outputs,
                };
                workspace.weight_gradient(
                    Source::Rows(logits, vocabulary),
                    Source::Rows(hidden, width),
                    panels.clone(),
                    gradient,
                );
                start += count;
            }
        });
    }
}
