//! Values of parameters as the checkpoint would store them: its tensors' names, shapes and orientations.

use std::collections::BTreeMap;

use super::{Checkpoint, CheckpointError};
use crate::tensor::Tensor;

impl Checkpoint {
    /// Puts values of parameters, by canonical name, where this folder's layout has them. A tensor that
    /// holds several parameters is zero where none was given.
    ///
    /// # Errors
    ///
    /// When the folder has no such parameter, or has it in another size.
    pub fn as_stored(
        &self,
        values: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
        let mut stored: BTreeMap<String, Tensor> = BTreeMap::new();
        for (name, given) in values {
            let missing = || CheckpointError::MissingTensor { name: name.clone() };
            let source = self.sources.get(name).ok_or_else(missing)?;
            let (entry, _) = self.files.tensor(&source.tensor)?;
            let view = self.view_of(source, &entry.shape)?;
            if given.values.len() != view.rows * view.width {
                return Err(CheckpointError::MisshapenTensor {
                    name: name.clone(),
                    expected: vec![view.rows, view.width],
                    found: given.shape.clone(),
                });
            }
            let tensor = stored
                .entry(source.tensor.clone())
                .or_insert_with(|| Tensor::zeros(&entry.shape));
            for (row, values) in given.values.chunks_exact(view.width).enumerate() {
                let first = view.offset + row * view.row_stride;
                for (column, value) in values.iter().enumerate() {
                    tensor.values[first + column * view.column_stride] = *value;
                }
            }
        }
        Ok(stored)
    }
}
