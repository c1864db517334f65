//! A dense f32 array with its shape: how values enter and leave the engine.

use crate::device::Rows;

/// Row-major values with the shape that they fill.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first. Weights of linear maps are `[out, in]`.
    pub shape: Vec<usize>,
    /// As many values as the shape's product.
    pub values: Vec<f32>,
}

impl Tensor {
    /// All zeros.
    #[must_use]
    pub fn zeros(shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            values: vec![0.0; shape.iter().product()],
        }
    }

    /// `[rows, width]` from as many values.
    pub(crate) fn matrix(rows: usize, width: usize, values: Vec<f32>) -> Self {
        debug_assert_eq!(values.len(), rows * width);
        Self {
            shape: vec![rows, width],
            values,
        }
    }

    /// The innermost size: the length of a row.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How many rows of [`Self::width`] there are.
    pub(crate) fn rows(&self) -> usize {
        self.values.len().checked_div(self.width()).unwrap_or(0)
    }

    /// Row `index`.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        let width = self.width();
        &self.values[index * width..(index + 1) * width]
    }

    /// Row `index`, to be changed.
    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [f32] {
        let width = self.width();
        &mut self.values[index * width..(index + 1) * width]
    }
}

impl Rows for Tensor {
    fn rows(&self) -> usize {
        Self::rows(self)
    }

    fn width(&self) -> usize {
        Self::width(self)
    }

    fn read_row(&self, row: usize, into: &mut [f32]) {
        into.copy_from_slice(self.row(row));
    }
}
