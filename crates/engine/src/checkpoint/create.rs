//! Writing a model that has no checkpoint yet, in the layout that `transformers` reads for its family.
//!
//! One file; one tensor per parameter, except that the experts of Qwen3-VL-MoE are fused by layer: that
//! family's class knows no others. The orientation is `[out, in]`, which is the one that is taken where
//! a shape fits both. The same model is always the same bytes.

use std::fs;
use std::path::Path;

use super::CONFIG;
use super::element::FileElement;
use super::error::CheckpointError;
use super::files::WEIGHTS;
use super::header::{self, NewEntry};
use super::layout::{Content, Layout, Part};
use super::write::{Put, Values, put, write_rows, write_whole};
use crate::config::{Family, ModelConfig};
use crate::names::{Parameter, Parameters, Role, block, prefix};

/// Writes `config.json` and `model.safetensors` in `element` (the routing bias always in single
/// precision, as published), creating the folder where needed. Replaces what it holds under these names.
///
/// # Errors
///
/// When a file cannot be written, `values` lacks a parameter, or `element` is one that is only read.
pub fn write_new(
    folder: &Path,
    config: &ModelConfig,
    element: FileElement,
    values: &Values<'_>,
) -> Result<(), CheckpointError> {
    let layout = Layout::new(config.clone());
    let tensors = tensors(config, element)?;
    fs::create_dir_all(folder).map_err(|source| CheckpointError::write(folder, source))?;
    let path = folder.join(WEIGHTS);
    write_whole(&path, |to| {
        let table = tensors.iter().map(NewTensor::entry);
        put(&path, to, &header::write(&header::pytorch(), table))?;
        for tensor in &tensors {
            tensor.write(&layout, values, &mut |bytes| put(&path, to, bytes))?;
        }
        Ok(())
    })?;
    let path = folder.join(CONFIG);
    let text = config.to_json_for(element.to_torch());
    write_whole(&path, |to| put(&path, to, text.as_bytes()))
}

/// A tensor of the new file.
struct NewTensor {
    name: String,
    element: FileElement,
    shape: Vec<usize>,
}

/// All tensors, in the order of their bytes.
fn tensors(config: &ModelConfig, element: FileElement) -> Result<Vec<NewTensor>, CheckpointError> {
    let mut tensors = Vec::new();
    let mut leaf = |parameter: Parameter<'_>| {
        let Parameter { name, shape, role } = parameter;
        let element = match (role, element) {
            (_, FileElement::F8E4M3) => {
                let element_type = element.to_safetensors().to_owned();
                return Err(CheckpointError::ReadOnly { name, element_type });
            }
            (Role::RouterBias, _) => FileElement::F32,
            _ => element,
        };
        let shape = shape.to_vec();
        tensors.push(NewTensor {
            name,
            element,
            shape,
        });
        Ok(())
    };
    let fused = config.family == Family::Qwen3VlMoe;
    Parameters::build(config, &|_, _| !fused, &mut leaf)?;
    if fused {
        let (experts, hidden, width) = (
            config.mixture.experts,
            config.hidden_size,
            config.mixture.width,
        );
        let (prefix, block) = (prefix(config.family), block(config.family));
        for layer in config.moe_layers() {
            for (matrices, shape) in [
                ("gate_up_proj", vec![experts, 2 * width, hidden]),
                ("down_proj", vec![experts, hidden, width]),
            ] {
                tensors.push(NewTensor {
                    name: format!("{prefix}layers.{layer}.{block}.experts.{matrices}"),
                    element,
                    shape,
                });
            }
        }
    }
    Ok(tensors)
}

impl NewTensor {
    fn entry(&self) -> NewEntry<'_> {
        NewEntry {
            name: &self.name,
            element_type: self.element.to_safetensors(),
            shape: &self.shape,
            bytes: self.shape.iter().product::<usize>() * self.element.size(),
        }
    }

    fn write(
        &self,
        layout: &Layout,
        values: &Values<'_>,
        put: &mut Put<'_>,
    ) -> Result<(), CheckpointError> {
        let parts: Vec<(String, Part)> = match layout.content(&self.name, None) {
            Content::Parameters(parts) => parts,
            Content::Passenger | Content::Unread | Content::Foreign => Vec::new(),
        };
        for (name, part) in parts {
            let view = layout.view(&part, &self.shape);
            let view = view.map_err(|expected| CheckpointError::MisshapenTensor {
                name: self.name.clone(),
                expected,
                found: self.shape.clone(),
            })?;
            let source = values(&name).ok_or(CheckpointError::MissingTensor { name })?;
            write_rows(&view, &*source, self.element, put)?;
        }
        Ok(())
    }
}
