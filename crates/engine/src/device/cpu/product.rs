//! Matrix products with parameters: blocking, and copies that keep the kernel's operands in cache.
//!
//! ```text
//! forward           Y = X·Wᵀ        panels as they are
//! input gradient    X̄ = Ȳ·W         panels turned, 32×32 values at a time, in cache
//! weight gradient   W̄ += Ȳᵀ·X       into the panel order
//! ```
//!
//! All three run the one kernel `multiply_panel`. A block of left rows is copied to a stride that spreads
//! over the cache's sets; sums run in blocks of [`DEPTH`] terms. Both depend on absolute positions only,
//! so a row's result does not depend on its neighbours or on how rows were divided among threads.

use std::ops::Range;

use super::storage::{Buffer, Spare, Values};
use super::weight::{Gradient, Weight};
use crate::kernels::{self, Destination, Left, Level, PANEL, Write};
use std::sync::Arc;

/// Terms of a sum that are added before the next block is: a left block of [`BLOCK_ROWS`] such rows fits
/// a second-level cache.
const DEPTH: usize = 512;

/// Rows that share one pass over a parameter.
pub(super) const BLOCK_ROWS: usize = 140;

/// Rows that share one turning of a parameter.
pub(super) const TURNED_ROWS: usize = 384;

/// Columns of a parameter that are turned together: runs of 16 KB, results that stay in cache.
const TURNED_COLUMNS: usize = 4 * PANEL;

/// Rows that a weight gradient sums before it adds to memory.
const GRADIENT_ROWS: usize = 256;

/// A stride that is no multiple of a large power of two.
const fn padded(width: usize) -> usize {
    width + 16
}

/// Whether rows at this stride fall on enough different sets of a cache.
const fn spreads(width: usize) -> bool {
    !(width * size_of::<f32>()).is_multiple_of(512)
}

/// Where the rows of a left matrix come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Consecutive rows of a given width.
    Rows(&'a [f32], usize),
    /// The listed rows of a buffer.
    Listed(&'a Buffer, &'a [u32]),
}

impl<'a> Source<'a> {
    fn count(self) -> usize {
        match self {
            Self::Rows(values, width) => values.len() / width,
            Self::Listed(_, rows) => rows.len(),
        }
    }

    pub(super) fn row(self, index: usize) -> &'a [f32] {
        match self {
            Self::Rows(values, width) => &values[index * width..(index + 1) * width],
            Self::Listed(buffer, rows) => buffer.row(rows[index] as usize),
        }
    }

    /// Some columns of some rows as the left side of a product: where they are if cache sets are no
    /// concern, else copied into `scratch` at a stride that spreads over them.
    fn block<'s>(
        self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        scratch: &'s mut [f32],
    ) -> Left<'s>
    where
        'a: 's,
    {
        let left = |values, row_stride| Left {
            values,
            rows: rows.len(),
            depth: columns.len(),
            row_stride,
            depth_stride: 1,
        };
        match self {
            Self::Rows(values, width) if columns.len() == width && spreads(width) => {
                left(&values[rows.start * width..rows.end * width], width)
            }
            _ => {
                let stride = padded(columns.len());
                self.copy(rows.clone(), columns.clone(), scratch, stride);
                left(scratch, stride)
            }
        }
    }

    /// Some columns of some rows, at a given stride.
    fn copy(self, rows: Range<usize>, columns: Range<usize>, into: &mut [f32], stride: usize) {
        for (row, into) in rows.zip(into.chunks_mut(stride)) {
            into[..columns.len()].copy_from_slice(&self.row(row)[columns.clone()]);
        }
    }
}

/// What the products of one thread work with.
#[derive(Debug)]
pub(super) struct Workspace {
    level: Level,
    left: Values,
    panel: Values,
    turned: Values,
}

impl Workspace {
    pub(super) fn new(level: Level, spare: &Arc<Spare>) -> Self {
        Self {
            level,
            left: spare.take(TURNED_ROWS * padded(DEPTH)),
            panel: spare.take(DEPTH * PANEL),
            turned: spare.take(DEPTH * TURNED_COLUMNS),
        }
    }

    /// `into = left·Wᵀ` for every weight and its destination; rows of `into` are consecutive.
    pub(super) fn forward(&mut self, left: Source<'_>, targets: &mut [(&Weight, &mut [f32])]) {
        let Some(depth) = targets.first().map(|(weight, _)| weight.width) else {
            return;
        };
        for rows in blocks(left.count(), BLOCK_ROWS) {
            for from in blocks(depth, DEPTH) {
                let left = left.block(&rows, &from, self.left.as_mut());
                for (weight, into) in targets.iter_mut() {
                    let into = Destination {
                        values: &mut into[rows.start * weight.rows..rows.end * weight.rows],
                        row_stride: weight.rows,
                        columns: PANEL,
                        write: if from.start == 0 {
                            Write::Overwrite
                        } else {
                            Write::Add
                        },
                    };
                    let scratch = self.panel.as_mut();
                    every_panel(self.level, left, (*weight, from.start), scratch, into);
                }
            }
        }
    }

    /// `into (+)= left·W`; rows of `into` are consecutive.
    ///
    /// Rows go in longer blocks than forwards, for each block turns the whole weight once.
    pub(super) fn input_gradient(
        &mut self,
        left: Source<'_>,
        weight: &Weight,
        into: &mut [f32],
        write: Write,
    ) {
        for rows in blocks(left.count(), TURNED_ROWS) {
            let into = &mut into[rows.start * weight.width..rows.end * weight.width];
            for from in blocks(weight.rows, DEPTH) {
                let write = if from.start == 0 { write } else { Write::Add };
                let left = left.block(&rows, &from, self.left.as_mut());
                for columns in blocks(weight.width, TURNED_COLUMNS) {
                    let scratch = self.panel.as_mut();
                    turn(
                        self.level,
                        weight,
                        (&from, &columns),
                        scratch,
                        self.turned.as_mut(),
                    );
                    let turned = self.turned.as_ref().chunks_exact(DEPTH * PANEL);
                    for (part, turned) in blocks(columns.len(), PANEL).zip(turned) {
                        let destination = Destination {
                            values: &mut into[columns.start + part.start..],
                            row_stride: weight.width,
                            columns: part.len(),
                            write,
                        };
                        kernels::multiply_panel(self.level, left, turned, destination);
                    }
                }
            }
        }
    }

    /// `gradient[panels] += outputᵀ·input`, where `gradient` holds just these panels.
    pub(super) fn weight_gradient(
        &mut self,
        by_output: Source<'_>,
        input: Source<'_>,
        panels: Range<usize>,
        gradient: PanelsMut<'_>,
    ) {
        let PanelsMut {
            values,
            width,
            outputs,
        } = gradient;
        for rows in blocks(input.count(), GRADIENT_ROWS) {
            for columns in blocks(width, DEPTH) {
                let stride = padded(columns.len());
                input.copy(rows.clone(), columns.clone(), self.left.as_mut(), stride);
                for (panel, into) in panels.clone().zip(values.chunks_exact_mut(width * PANEL)) {
                    let wanted = panel * PANEL..outputs.min((panel + 1) * PANEL);
                    let right = &mut self.panel.as_mut()[..rows.len() * PANEL];
                    if wanted.len() < PANEL {
                        right.fill(0.0);
                    }
                    by_output.copy(rows.clone(), wanted, right, PANEL);
                    let left = Left {
                        values: self.left.as_ref(),
                        rows: columns.len(),
                        depth: rows.len(),
                        row_stride: 1,
                        depth_stride: stride,
                    };
                    let destination = Destination {
                        values: &mut into[columns.start * PANEL..],
                        row_stride: PANEL,
                        columns: PANEL,
                        write: Write::Add,
                    };
                    kernels::multiply_panel(self.level, left, right, destination);
                }
            }
        }
    }
}

/// All panels of one weight from input `from` on, as deep as `left`, whose rows are those of `into`.
fn every_panel(
    level: Level,
    left: Left<'_>,
    (weight, from): (&Weight, usize),
    scratch: &mut [f32],
    into: Destination<'_>,
) {
    for panel in 0..weight.panels() {
        let right = weight.block(level, panel, [from, left.depth], scratch);
        let destination = Destination {
            values: &mut into.values[panel * PANEL..],
            columns: weight.columns(panel),
            ..into
        };
        kernels::multiply_panel(level, left, right, destination);
    }
}

/// Puts `W[from, columns]` into panels of [`DEPTH`] rows, one row of 32 for every output in `from`. Several
/// panels at once, because then every panel of the weight is read in runs that the processor foresees.
fn turn(
    level: Level,
    weight: &Weight,
    (from, columns): (&Range<usize>, &Range<usize>),
    scratch: &mut [f32],
    turned: &mut [f32],
) {
    for panel in from.start / PANEL..from.end.div_ceil(PANEL) {
        let place = [columns.start, columns.len()];
        let block = weight.block(level, panel, place, scratch);
        let first = panel * PANEL - from.start;
        let into = turned.chunks_exact_mut(DEPTH * PANEL);
        for (part, into) in blocks(columns.len(), PANEL).zip(into) {
            let into = &mut into[first * PANEL..(first + PANEL) * PANEL];
            let block = &block[part.start * PANEL..part.end * PANEL];
            kernels::transpose_panel(level, block, part.len(), into);
        }
    }
}

/// Consecutive panels of a gradient.
#[derive(Debug)]
pub(super) struct PanelsMut<'a> {
    pub(super) values: &'a mut [f32],
    /// Inputs of the linear map.
    pub(super) width: usize,
    /// Outputs of the whole map.
    pub(super) outputs: usize,
}

impl Gradient {
    /// Runs of at most `panels` panels, with the panels that they are.
    pub(super) fn panels_mut(
        &mut self,
        panels: usize,
    ) -> impl Iterator<Item = (Range<usize>, PanelsMut<'_>)> {
        let (width, outputs) = (self.width, self.rows);
        let runs = self.values.chunks_mut(panels * width * PANEL);
        runs.enumerate().map(move |(index, values)| {
            let first = index * panels;
            let count = values.len() / (width * PANEL);
            let run = PanelsMut {
                values,
                width,
                outputs,
            };
            (first..first + count, run)
        })
    }
}

/// `0..len` in runs of `size`, the last one shorter.
pub(super) fn blocks(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..len)
        .step_by(size)
        .map(move |start| start..len.min(start + size))
}
