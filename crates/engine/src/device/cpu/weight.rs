//! How parameters lie in memory.
//!
//! A linear map `[out, in]` is stored in panels of 32 outputs, `[out/32][in][32]`: what the matrix kernel
//! reads in order, forwards as it is and backwards after turning 32×32 blocks in cache. There is no
//! second copy, neither row-major nor transposed; gradients and moments lie in the same order, so the
//! optimiser walks all of them together and nothing is ever repacked. Tables and vectors are row-major.
//!
//! Elements: f32, bf16, or 8 bits with one f32 scale per output row.

use super::storage::Aligned;
use crate::device::{Layout, Rows};
use crate::element::{self, Element};
use crate::kernels::{self, Level, Matrix, PANEL, convert};

/// A parameter on the CPU.
#[derive(Debug)]
pub struct Weight {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
    pub(super) values: Elements,
}

/// Values in one of the element types; panels are padded with zeros to whole ones.
#[derive(Debug)]
pub(super) enum Elements {
    F32(Aligned<f32>),
    Bf16(Aligned<u16>),
    Int8 {
        codes: Aligned<i8>,
        scales: Vec<f32>,
    },
    Fp8 {
        codes: Aligned<u8>,
        scales: Vec<f32>,
    },
}

/// The gradient of a [`Weight`], in its order.
#[derive(Debug)]
pub struct Gradient {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
    pub(super) values: Aligned<f32>,
}

/// Values that a parameter takes up in memory, padding included.
fn stored_len(rows: usize, width: usize, layout: Layout) -> usize {
    match layout {
        Layout::Linear => rows.next_multiple_of(PANEL) * width,
        Layout::Table => rows * width,
    }
}

/// Bytes of a parameter, padding and scales included.
pub(crate) fn stored_bytes(rows: usize, width: usize, layout: Layout, element: Element) -> u64 {
    let values = stored_len(rows, width, layout) as u64;
    let stored_rows = match layout {
        Layout::Linear => rows.next_multiple_of(PANEL),
        Layout::Table => rows,
    };
    match element {
        Element::F32 => 4 * values,
        Element::Bf16 => 2 * values,
        Element::Int8 | Element::Fp8 => values + 4 * stored_rows as u64,
    }
}

impl Weight {
    /// Values in memory, padding included.
    pub(super) fn stored_len(&self) -> usize {
        stored_len(self.rows, self.width, self.layout)
    }

    /// An unfilled parameter.
    pub(super) fn zeros(source: &dyn Rows, layout: Layout, element: Element) -> Self {
        let (rows, width) = (source.rows(), source.width());
        let len = stored_len(rows, width, layout);
        let scales = || {
            let rows = match layout {
                Layout::Linear => rows.next_multiple_of(PANEL),
                Layout::Table => rows,
            };
            vec![0.0; rows]
        };
        let values = match element {
            Element::F32 => Elements::F32(Aligned::zeros(len)),
            Element::Bf16 => Elements::Bf16(Aligned::zeros(len)),
            Element::Int8 => Elements::Int8 {
                codes: Aligned::zeros(len),
                scales: scales(),
            },
            Element::Fp8 => Elements::Fp8 {
                codes: Aligned::zeros(len),
                scales: scales(),
            },
        };
        Self {
            rows,
            width,
            layout,
            values,
        }
    }

    /// Every panel, or as many rows of a table, to be filled independently.
    pub(super) fn parts(&mut self) -> Vec<Part<'_>> {
        let part = PANEL * self.width;
        let values: Vec<PartElements<'_>> = match &mut self.values {
            Elements::F32(values) => values.chunks_mut(part).map(PartElements::F32).collect(),
            Elements::Bf16(values) => values.chunks_mut(part).map(PartElements::Bf16).collect(),
            Elements::Int8 { codes, scales } => codes
                .chunks_mut(part)
                .zip(scales.chunks_mut(PANEL))
                .map(|(codes, scales)| PartElements::Int8(codes, scales))
                .collect(),
            Elements::Fp8 { codes, scales } => codes
                .chunks_mut(part)
                .zip(scales.chunks_mut(PANEL))
                .map(|(codes, scales)| PartElements::Fp8(codes, scales))
                .collect(),
        };
        let rows = self.rows;
        values
            .into_iter()
            .enumerate()
            .map(|(index, values)| Part {
                first_row: index * PANEL,
                rows: PANEL.min(rows - index * PANEL),
                values,
            })
            .collect()
    }

    /// `depth` rows of panel `panel` from input `from` on, as f32: borrowed where they are, or widened
    /// into `scratch`.
    pub(super) fn block<'a>(
        &'a self,
        level: Level,
        panel: usize,
        [from, depth]: [usize; 2],
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        debug_assert_eq!(self.layout, Layout::Linear);
        let start = (panel * self.width + from) * PANEL;
        let range = start..start + depth * PANEL;
        let scales = panel * PANEL..(panel + 1) * PANEL;
        let scratch = &mut scratch[..if matches!(self.values, Elements::F32(_)) {
            0
        } else {
            depth * PANEL
        }];
        match &self.values {
            Elements::F32(values) => return &values[range],
            Elements::Bf16(values) => kernels::widen_bf16(level, &values[range], scratch),
            Elements::Int8 { codes, scales: of } => {
                kernels::widen_int8(level, &codes[range], &of[scales], scratch);
            }
            Elements::Fp8 { codes, scales: of } => {
                kernels::widen_fp8(level, &codes[range], &of[scales], scratch);
            }
        }
        scratch
    }

    /// The panels of a linear map.
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Columns of panel `panel` that are outputs and not padding.
    pub(super) fn columns(&self, panel: usize) -> usize {
        PANEL.min(self.rows - panel * PANEL)
    }

    /// A vector's values; those of a norm or a bias, which are always f32.
    pub(super) fn vector(&self) -> &[f32] {
        match &self.values {
            Elements::F32(values) if self.layout == Layout::Table => values,
            _ => unreachable!("vectors are stored as f32 tables"),
        }
    }

    /// Row `row` in f32.
    pub(super) fn read_row(&self, row: usize, into: &mut [f32]) {
        let (start, stride) = match self.layout {
            Layout::Table => (row * self.width, 1),
            Layout::Linear => ((row / PANEL * self.width) * PANEL + row % PANEL, PANEL),
        };
        let places = (0..self.width).map(|index| start + index * stride);
        match &self.values {
            Elements::F32(values) => {
                for (into, place) in into.iter_mut().zip(places) {
                    *into = values[place];
                }
            }
            Elements::Bf16(values) => {
                for (into, place) in into.iter_mut().zip(places) {
                    *into = element::bf16_widen(values[place]);
                }
            }
            Elements::Int8 { codes, scales } => {
                for (into, place) in into.iter_mut().zip(places) {
                    *into = f32::from(codes[place]) * scales[row];
                }
            }
            Elements::Fp8 { codes, scales } => {
                for (into, place) in into.iter_mut().zip(places) {
                    *into = element::fp8_widen(codes[place]) * scales[row];
                }
            }
        }
    }
}

/// A panel of a [`Weight`], or as many rows of a table.
#[derive(Debug)]
pub(super) struct Part<'a> {
    first_row: usize,
    rows: usize,
    values: PartElements<'a>,
}

#[derive(Debug)]
enum PartElements<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
    Int8(&'a mut [i8], &'a mut [f32]),
    Fp8(&'a mut [u8], &'a mut [f32]),
}

impl Part<'_> {
    /// Asks `source` for the rows of this part and stores them.
    pub(super) fn fill(self, level: Level, source: &dyn Rows, layout: Layout) {
        let width = source.width();
        let mut rows = vec![0.0; self.rows * width];
        source.read_rows(self.first_row, &mut rows);
        match self.values {
            PartElements::F32(into) => arrange(level, layout, &rows, width, into),
            PartElements::Bf16(into) => {
                let mut arranged = vec![0.0; into.len()];
                arrange(level, layout, &rows, width, &mut arranged);
                convert::round_bf16(level, &arranged, into);
            }
            PartElements::Int8(into, scales) => {
                let mut codes = vec![0; rows.len()];
                quantise(&rows, &mut codes, width, scales, |row, codes| {
                    convert::quantise_int8(level, row, codes)
                });
                store_codes(layout, &codes, width, into);
            }
            PartElements::Fp8(into, scales) => {
                let mut codes = vec![0; rows.len()];
                quantise(&rows, &mut codes, width, scales, |row, codes| {
                    convert::quantise_fp8(level, row, codes)
                });
                store_codes(layout, &codes, width, into);
            }
        }
    }
}

/// Rows into their places.
fn arrange(level: Level, layout: Layout, rows: &[f32], width: usize, into: &mut [f32]) {
    match layout {
        Layout::Table => into.copy_from_slice(rows),
        Layout::Linear => {
            let rows = Matrix {
                values: rows,
                rows: rows.len() / width,
                columns: width,
                row_stride: width,
            };
            kernels::pack_rows(level, rows, into);
        }
    }
}

fn quantise<T>(
    rows: &[f32],
    codes: &mut [T],
    width: usize,
    scales: &mut [f32],
    one: impl Fn(&[f32], &mut [T]) -> f32,
) {
    let rows = rows.chunks_exact(width).zip(codes.chunks_exact_mut(width));
    for ((row, codes), scale) in rows.zip(scales) {
        *scale = one(row, codes);
    }
}

fn store_codes<T: Copy>(layout: Layout, codes: &[T], width: usize, into: &mut [T]) {
    match layout {
        Layout::Table => into.copy_from_slice(codes),
        Layout::Linear => {
            for (row, codes) in codes.chunks_exact(width).enumerate() {
                for (index, code) in codes.iter().enumerate() {
                    into[index * PANEL + row] = *code;
                }
            }
        }
    }
}

impl Gradient {
    /// Zeros.
    pub(super) fn zeros(weight: &Weight) -> Self {
        let (rows, width, layout) = (weight.rows, weight.width, weight.layout);
        Self {
            rows,
            width,
            layout,
            values: Aligned::zeros(stored_len(rows, width, layout)),
        }
    }

    /// Adds to one row.
    pub(super) fn add_row(&mut self, level: Level, row: usize, addend: &[f32]) {
        match self.layout {
            Layout::Table => {
                let start = row * self.width;
                kernels::add(level, addend, &mut self.values[start..start + self.width]);
            }
            Layout::Linear => {
                let start = row / PANEL * self.width * PANEL + row % PANEL;
                let places = self.values[start..].iter_mut().step_by(PANEL);
                for (value, addend) in places.zip(addend) {
                    *value += addend;
                }
            }
        }
    }

    /// Row-major values.
    pub(super) fn read(&self) -> Vec<f32> {
        match self.layout {
            Layout::Table => self.values.to_vec(),
            Layout::Linear => (0..self.rows)
                .flat_map(|row| {
                    let start = (row / PANEL * self.width) * PANEL + row % PANEL;
                    (0..self.width).map(move |index| self.values[start + index * PANEL])
                })
                .collect(),
        }
    }
}
