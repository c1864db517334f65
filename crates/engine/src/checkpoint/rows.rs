//! The values of one parameter, row by row in single precision, straight from the mapped file.

use super::element::FileElement;
use super::layout::View;
use crate::device::Rows;

/// Numbers of a tensor that share a scale, along rows and along columns.
pub(super) const SCALE_BLOCK: usize = 128;

/// One parameter of a checkpoint, not yet read.
#[derive(Debug, Clone, Copy)]
pub struct StoredRows<'a> {
    /// Of the whole tensor that the parameter lies in.
    pub(super) bytes: &'a [u8],
    pub(super) element: FileElement,
    pub(super) view: View,
    pub(super) scales: Option<Scales<'a>>,
}

/// One factor per block of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) element: FileElement,
    /// Blocks along a row.
    pub(super) width: usize,
}

impl StoredRows<'_> {
    /// How the numbers are stored.
    #[must_use]
    pub fn element(&self) -> FileElement {
        self.element
    }

    /// Numbers of the tensor, from number `start` on, `stride` apart.
    fn widen(&self, start: usize, stride: usize, into: &mut [f32]) {
        let bytes = &self.bytes[start * self.element.size()..];
        self.element.widen(bytes, stride, into);
    }
}

impl Rows for StoredRows<'_> {
    fn rows(&self) -> usize {
        self.view.rows
    }

    fn width(&self) -> usize {
        self.view.width
    }

    fn read_row(&self, row: usize, into: &mut [f32]) {
        assert!(row < self.view.rows, "row {row} of {}", self.view.rows);
        let view = &self.view;
        self.widen(
            view.offset + row * view.row_stride,
            view.column_stride,
            into,
        );
        if let Some(scales) = &self.scales {
            scales.apply(row, into);
        }
    }

    fn read_rows(&self, first: usize, into: &mut [f32]) {
        let view = &self.view;
        let width = view.width;
        if view.column_stride == 1 || into.len() <= width {
            for (row, into) in into.chunks_exact_mut(width.max(1)).enumerate() {
                self.read_row(first + row, into);
            }
            return;
        }
        let rows = into.len() / width;
        assert!(
            rows <= view.rows && first <= view.rows - rows,
            "rows {first} to {} of {}",
            first + rows,
            view.rows
        );
        // A stored row is a column here: read each where its numbers lie side by side.
        let mut column_values = vec![0.0; rows];
        for column in 0..width {
            let start = view.offset + first * view.row_stride + column * view.column_stride;
            self.widen(start, view.row_stride, &mut column_values);
            for (row, value) in column_values.iter().enumerate() {
                into[row * width + column] = *value;
            }
        }
    }
}

impl Scales<'_> {
    fn apply(&self, row: usize, values: &mut [f32]) {
        let first = row / SCALE_BLOCK * self.width;
        let bytes = &self.bytes[first * self.element.size()..];
        for (block, values) in values.chunks_mut(SCALE_BLOCK).enumerate() {
            let mut scale = [0.0];
            let bytes = &bytes[block * self.element.size()..];
            self.element.widen(bytes, 1, &mut scale);
            values.iter_mut().for_each(|value| *value *= scale[0]);
        }
    }
}
