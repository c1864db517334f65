//! Causal attention on the CPU, sequence by sequence, head by head, in blocks of queries.
//!
//! ```text
//! S = Q·Kᵀ·scale      P = softmax of S over the keys that a query sees      O = P·V
//! dP = dO·Vᵀ   dS = P⊙(dP − rowsum(P⊙dP))·scale   dQ = dS·K   dK = dSᵀ·Q   dV = Pᵀ·dO
//! ```
//!
//! A block of queries meets only the keys between its first window's start and its own end, which halves
//! the work. The backward pass computes P again from the saved logarithms of its denominators (as in
//! FlashAttention, arXiv 2205.14135), so memory stays linear in the length.

use std::ops::Range;

use super::Cpu;
use super::product::blocks;
use super::storage::{Buffer, Values};
use crate::device::{Attended, AttentionGradients, AttentionInputs, AttentionLayout};
use crate::kernels::{self, Destination, Left, Level, Matrix, PANEL, Write};

/// Queries per block: whole tiles of the kernel, few enough to skip most of the future.
const BLOCK: usize = 42;

/// One key head of one sequence and the query heads that read it.
#[derive(Debug, Clone)]
struct Head {
    rows: Range<usize>,
    key_head: usize,
    queries: Range<usize>,
}

/// All heads of all sequences, the longest sequences first.
fn heads(layout: &AttentionLayout<'_>) -> Vec<Head> {
    let shared = layout.heads / layout.key_heads;
    let mut sequences = layout.sequences.to_vec();
    sequences.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let of_sequence = |rows: Range<usize>| {
        (0..layout.key_heads).map(move |key_head| Head {
            rows: rows.clone(),
            key_head,
            queries: key_head * shared..(key_head + 1) * shared,
        })
    };
    sequences.into_iter().flat_map(of_sequence).collect()
}

/// Columns of one head: rows of a buffer, `stride` apart.
#[derive(Debug, Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Columns<'a> {
    fn new(buffer: &'a Buffer, rows: &Range<usize>, head: usize, width: usize) -> Self {
        let first = rows.start * buffer.width() + head * width;
        let last = (rows.end - 1) * buffer.width() + (head + 1) * width;
        Self {
            values: &buffer.values()[first..last],
            stride: buffer.width(),
            width,
        }
    }

    fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Matrix<'a> {
        Matrix {
            values: &self.values[rows.start * self.stride + columns.start..],
            rows: rows.len(),
            columns: columns.len(),
            row_stride: self.stride,
        }
    }

    /// Consecutive rows as the left side of a product.
    fn left(&self, rows: &Range<usize>) -> Left<'a> {
        Left {
            values: &self.values[rows.start * self.stride..],
            rows: rows.len(),
            depth: self.width,
            row_stride: self.stride,
            depth_stride: 1,
        }
    }
}

/// One head's matrix in panels, in either orientation.
#[derive(Debug)]
struct Panels {
    values: Values,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// `Xᵀ`: a column for every row of `x`.
    fn of_rows(cpu: &Cpu, x: Columns<'_>, count: usize) -> Self {
        let panels = count.div_ceil(PANEL);
        let mut values = cpu.spare.take(panels * x.width * PANEL);
        for (rows, panel) in
            blocks(count, PANEL).zip(values.as_mut().chunks_exact_mut(x.width * PANEL))
        {
            kernels::pack_rows(cpu.level, x.part(rows, 0..x.width), panel);
        }
        Self {
            values,
            depth: x.width,
            columns: count,
        }
    }

    /// `X`: its own columns.
    fn of_columns(cpu: &Cpu, x: Columns<'_>, count: usize) -> Self {
        let mut values = cpu.spare.take(x.width.div_ceil(PANEL) * count * PANEL);
        let panels = values.as_mut().chunks_exact_mut(count * PANEL);
        for (columns, panel) in blocks(x.width, PANEL).zip(panels) {
            kernels::pack_columns(x.part(0..count, columns), panel);
        }
        Self {
            values,
            depth: count,
            columns: x.width,
        }
    }

    /// `into (+)= left·self[depth, columns]`, where `left` covers `depth` terms; `into` begins at the first
    /// of the columns, which begin with a panel.
    fn multiply(
        &self,
        level: Level,
        left: Left<'_>,
        (depth, columns): (Range<usize>, Range<usize>),
        into: Place<'_>,
    ) {
        debug_assert!(columns.start.is_multiple_of(PANEL) && depth.len() == left.depth);
        let end = columns.end.min(self.columns);
        for from in blocks(end - columns.start, PANEL) {
            let panel = (columns.start + from.start) / PANEL;
            let first = (panel * self.depth + depth.start) * PANEL;
            let right = &self.values.as_ref()[first..first + depth.len() * PANEL];
            let destination = Destination {
                values: &mut into.values[from.start..],
                row_stride: into.stride,
                columns: from.len(),
                write: into.write,
            };
            kernels::multiply_panel(level, left, right, destination);
        }
    }
}

/// Where a product goes.
#[derive(Debug)]
struct Place<'a> {
    values: &'a mut [f32],
    stride: usize,
    write: Write,
}

/// A block of queries and the keys that any of them sees; keys begin with a panel.
#[derive(Debug, Clone)]
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
    window: usize,
}

impl Block {
    fn all(length: usize, window: Option<usize>) -> impl Iterator<Item = Self> {
        let window = window.unwrap_or(usize::MAX);
        blocks(length, BLOCK).map(move |queries| {
            let first = (queries.start + 1).saturating_sub(window);
            Self {
                keys: first / PANEL * PANEL..queries.end,
                queries,
                window,
            }
        })
    }

    /// The keys that a query of the block sees, counted from the block's first key.
    fn seen(&self, query: usize) -> Range<usize> {
        let first = (query + 1).saturating_sub(self.window).max(self.keys.start);
        first - self.keys.start..query + 1 - self.keys.start
    }

    /// The block's probabilities or their gradients as the left side of a product.
    fn left<'a>(&self, scores: &'a [f32]) -> Left<'a> {
        Left {
            values: scores,
            rows: self.queries.len(),
            depth: self.keys.len(),
            row_stride: self.keys.len(),
            depth_stride: 1,
        }
    }

    /// The transpose of [`Self::left`].
    fn transposed<'a>(&self, scores: &'a [f32]) -> Left<'a> {
        Left {
            values: scores,
            rows: self.keys.len(),
            depth: self.queries.len(),
            row_stride: 1,
            depth_stride: self.keys.len(),
        }
    }
}

/// Attends within every sequence.
pub(super) fn forward(
    cpu: &Cpu,
    inputs: &AttentionInputs<'_, Buffer>,
    layout: &AttentionLayout<'_>,
) -> Attended<Buffer> {
    let rows = inputs.queries.rows();
    let widths = Widths::new(inputs, layout);
    let heads = heads(layout);
    let attended = cpu.map(heads.clone(), |head| attend(cpu, inputs, layout, &head));

    let mut output = cpu.buffer(rows, layout.heads * widths.value);
    let mut log_sums = cpu.buffer(rows, layout.heads);
    let outputs: Vec<&Values> = attended.iter().map(|(output, _)| output).collect();
    let sums: Vec<&Values> = attended.iter().map(|(_, sums)| sums).collect();
    let shared = layout.heads / layout.key_heads;
    scatter(cpu, &heads, &outputs, shared * widths.value, &mut output);
    scatter(cpu, &heads, &sums, shared, &mut log_sums);
    Attended { output, log_sums }
}

/// Columns of a key head and of a value head.
#[derive(Debug, Clone, Copy)]
struct Widths {
    key: usize,
    value: usize,
}

impl Widths {
    fn new(inputs: &AttentionInputs<'_, Buffer>, layout: &AttentionLayout<'_>) -> Self {
        Self {
            key: inputs.keys.width() / layout.key_heads,
            value: inputs.values.width() / layout.key_heads,
        }
    }
}

/// Puts every head's columns `[length, width]` in their place.
fn scatter(cpu: &Cpu, heads: &[Head], parts: &[&Values], width: usize, into: &mut Buffer) {
    let mut by_row = vec![Vec::new(); into.rows()];
    for (index, head) in heads.iter().enumerate() {
        for row in head.rows.clone() {
            by_row[row].push(index);
        }
    }
    cpu.change_rows(into, |row, into| {
        for &index in &by_row[row] {
            let head = &heads[index];
            let from = &parts[index].as_ref()[(row - head.rows.start) * width..][..width];
            into[head.key_head * width..][..width].copy_from_slice(from);
        }
    });
}

/// Output `[length, shared heads·value]` and logarithms `[length, shared heads]` of one key head.
fn attend(
    cpu: &Cpu,
    inputs: &AttentionInputs<'_, Buffer>,
    layout: &AttentionLayout<'_>,
    head: &Head,
) -> (Values, Values) {
    let widths = Widths::new(inputs, layout);
    let length = head.rows.len();
    let shared = head.queries.len();
    let of_keys = Columns::new(inputs.keys, &head.rows, head.key_head, widths.key);
    let of_values = Columns::new(inputs.values, &head.rows, head.key_head, widths.value);
    let keys = Panels::of_rows(cpu, of_keys, length);
    let values = Panels::of_columns(cpu, of_values, length);
    let mut output = cpu.spare.take(length * shared * widths.value);
    let mut log_sums = cpu.spare.take(length * shared);
    let mut scores = cpu.spare.take(BLOCK * length.next_multiple_of(PANEL));

    for (index, query_head) in head.queries.clone().enumerate() {
        let queries = Columns::new(inputs.queries, &head.rows, query_head, widths.key);
        for block in Block::all(length, layout.window) {
            let scores = scores.as_mut();
            score(cpu.level, &block, queries, &keys, scores);
            for (query, row) in block
                .queries
                .clone()
                .zip(scores.chunks_exact_mut(block.keys.len()))
            {
                let seen = block.seen(query);
                row[..seen.start].fill(0.0);
                row[seen.end..].fill(0.0);
                log_sums.as_mut()[query * shared + index] =
                    kernels::softmax_scaled(cpu.level, layout.scale, &mut row[seen]);
            }
            let stride = shared * widths.value;
            let first = block.queries.start * stride + index * widths.value;
            let place = Place {
                values: &mut output.as_mut()[first..],
                stride,
                write: Write::Overwrite,
            };
            let part = (block.keys.clone(), 0..widths.value);
            values.multiply(cpu.level, block.left(scores), part, place);
        }
    }
    (output, log_sums)
}

/// `Q·Kᵀ` of a block, without scale, rows consecutive.
fn score(level: Level, block: &Block, queries: Columns<'_>, keys: &Panels, into: &mut [f32]) {
    let place = Place {
        values: into,
        stride: block.keys.len(),
        write: Write::Overwrite,
    };
    let part = (0..queries.width, block.keys.clone());
    keys.multiply(level, queries.left(&block.queries), part, place);
}

/// The gradients of [`forward`].
pub(super) fn backward(
    cpu: &Cpu,
    inputs: &AttentionInputs<'_, Buffer>,
    log_sums: &Buffer,
    by_output: &Buffer,
    layout: &AttentionLayout<'_>,
) -> AttentionGradients<Buffer> {
    let widths = Widths::new(inputs, layout);
    let heads = heads(layout);
    let pass = BackwardPass {
        cpu,
        inputs,
        log_sums,
        by_output,
        layout,
    };
    let parts = cpu.map(heads.clone(), |head| pass.head(&head));

    let rows = inputs.queries.rows();
    let shared = layout.heads / layout.key_heads;
    let widths = [shared * widths.key, widths.key, widths.value];
    let [queries, keys, values] = [0, 1, 2].map(|which: usize| {
        let width = widths[which];
        let mut into = cpu.buffer(rows, layout.key_heads * width);
        let parts: Vec<&Values> = parts.iter().map(|part| &part[which]).collect();
        scatter(cpu, &heads, &parts, width, &mut into);
        into
    });
    AttentionGradients {
        queries,
        keys,
        values,
    }
}

struct BackwardPass<'a> {
    cpu: &'a Cpu,
    inputs: &'a AttentionInputs<'a, Buffer>,
    log_sums: &'a Buffer,
    by_output: &'a Buffer,
    layout: &'a AttentionLayout<'a>,
}

impl BackwardPass<'_> {
    /// Gradients of queries, keys and values of one key head.
    fn head(&self, head: &Head) -> [Values; 3] {
        let (cpu, layout) = (self.cpu, self.layout);
        let widths = Widths::new(self.inputs, layout);
        let length = head.rows.len();
        let of_keys = Columns::new(self.inputs.keys, &head.rows, head.key_head, widths.key);
        let of_values = Columns::new(self.inputs.values, &head.rows, head.key_head, widths.value);
        let turned_keys = Panels::of_rows(cpu, of_keys, length);
        let keys = Panels::of_columns(cpu, of_keys, length);
        let turned_values = Panels::of_rows(cpu, of_values, length);

        let stride = head.queries.len() * widths.key;
        let mut by_queries = cpu.spare.take(length * stride);
        let mut by_keys = cpu.spare.zeros(length * widths.key);
        let mut by_values = cpu.spare.zeros(length * widths.value);
        let most = BLOCK * length.next_multiple_of(PANEL);
        let (mut scores, mut by_scores) = (cpu.spare.take(most), cpu.spare.take(most));

        for (index, query_head) in head.queries.clone().enumerate() {
            let queries = Columns::new(self.inputs.queries, &head.rows, query_head, widths.key);
            let by_output = Columns::new(self.by_output, &head.rows, query_head, widths.value);
            let as_panels = Panels::of_columns(cpu, queries, length);
            let by_output_panels = Panels::of_columns(cpu, by_output, length);
            for block in Block::all(length, layout.window) {
                let (scores, by_scores) = (scores.as_mut(), by_scores.as_mut());
                score(cpu.level, &block, queries, &turned_keys, scores);
                score(cpu.level, &block, by_output, &turned_values, by_scores);
                self.through_softmax(head, query_head, &block, (scores, by_scores));

                let add = |values, stride| Place {
                    values,
                    stride,
                    write: Write::Add,
                };
                let into = &mut by_values.as_mut()[block.keys.start * widths.value..];
                let part = (block.queries.clone(), 0..widths.value);
                let left = block.transposed(scores);
                by_output_panels.multiply(cpu.level, left, part, add(into, widths.value));
                let into = &mut by_keys.as_mut()[block.keys.start * widths.key..];
                let part = (block.queries.clone(), 0..widths.key);
                let left = block.transposed(by_scores);
                as_panels.multiply(cpu.level, left, part, add(into, widths.key));

                let first = block.queries.start * stride + index * widths.key;
                let place = Place {
                    values: &mut by_queries.as_mut()[first..],
                    stride,
                    write: Write::Overwrite,
                };
                let part = (block.keys.clone(), 0..widths.key);
                keys.multiply(cpu.level, block.left(by_scores), part, place);
            }
        }
        [by_queries, by_keys, by_values]
    }

    /// Scores become probabilities, and the gradients of probabilities those of scores.
    fn through_softmax(
        &self,
        head: &Head,
        query_head: usize,
        block: &Block,
        (scores, by_scores): (&mut [f32], &mut [f32]),
    ) {
        let (level, scale) = (self.cpu.level, self.layout.scale);
        let rows = scores
            .chunks_exact_mut(block.keys.len())
            .zip(by_scores.chunks_exact_mut(block.keys.len()));
        for (query, (scores, by_scores)) in block.queries.clone().zip(rows) {
            let log_sum = self.log_sums.row(head.rows.start + query)[query_head];
            let seen = block.seen(query);
            for values in [&mut *scores, &mut *by_scores] {
                values[..seen.start].fill(0.0);
                values[seen.end..].fill(0.0);
            }
            let (scores, by_scores) = (&mut scores[seen.clone()], &mut by_scores[seen]);
            kernels::exp_scaled_minus(level, scale, log_sum, scores);
            kernels::softmax_gradient(level, scale, scores, by_scores);
        }
    }
}
