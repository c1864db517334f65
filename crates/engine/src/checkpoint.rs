//! Models in ordinary Hugging Face folders: `config.json` beside `model.safetensors`, or beside shards
//! and their `model.safetensors.index.json`.
//!
//! f32, f16 and bf16 are read into f32; f32 is written. Every tensor is accounted for by name, because
//! a loader that skips what it does not recognise leaves experts at their initial values. A file is
//! written beside its destination and renamed, so a reader sees the old one or the new one, whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::model::Model;
use crate::tensor::Tensor;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Written by old versions of `transformers`; follows from the configuration.
const DERIVED_SUFFIX: &str = ".rotary_emb.inv_freq";

impl Model {
    /// Reads a folder.
    ///
    /// # Errors
    ///
    /// When a file is absent, unreadable or truncated, the configuration is not one that this engine
    /// runs, or a tensor is missing, misshapen, of an unread type or not part of the model. The error
    /// names the file, key or tensor.
    pub fn load(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join(CONFIG);
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        let config =
            ModelConfig::from_json(&text).map_err(|source| EngineError::Config { path, source })?;
        let mut tensors = BTreeMap::new();
        for file in weight_files(folder)? {
            read_tensors(&file, &mut tensors)?;
        }
        Self::from_tensors(&config, tensors)
    }

    /// Writes a folder that [`Model::load`] and `transformers` read, creating it where needed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made or a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), EngineError> {
        fs::create_dir_all(folder).map_err(|source| write_error(folder, source))?;
        write_whole(&folder.join(WEIGHTS), |path| {
            let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            let tensors = self.tensors().map(|(name, tensor)| (name, Stored(tensor)));
            safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(into_io)
        })?;
        let config = self.config().to_json();
        write_whole(&folder.join(CONFIG), |path| fs::write(path, &config))
    }
}

/// The files that hold a folder's weights: the single one, or those that the index lists.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let index = folder.join(INDEX);
    if folder.join(WEIGHTS).exists() || !index.exists() {
        return Ok(vec![folder.join(WEIGHTS)]);
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index =
        serde_json::from_slice(&read(&index)?).map_err(|source| EngineError::Index {
            path: index.clone(),
            source,
        })?;
    let files: BTreeSet<String> = parsed.weight_map.into_values().collect();
    files
        .into_iter()
        .map(|file| {
            // An index from elsewhere must not reach outside its folder.
            if Path::new(&file).file_name() == Some(OsStr::new(&file)) {
                Ok(folder.join(file))
            } else {
                Err(EngineError::IndexEntry {
                    path: index.clone(),
                    file,
                })
            }
        })
        .collect()
}

/// Adds every tensor of one safetensors file.
fn read_tensors(path: &Path, into: &mut BTreeMap<String, Tensor>) -> Result<(), EngineError> {
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| EngineError::Safetensors {
        path: path.to_owned(),
        source,
    })?;
    // By name, so that of several faults the same one is always reported.
    let views: BTreeMap<&str, TensorView<'_>> = file.iter().collect();
    for (name, view) in views {
        if name.ends_with(DERIVED_SUFFIX) {
            continue;
        }
        let tensor = Tensor {
            shape: view.shape().to_vec(),
            values: values(name, &view)?,
        };
        into.insert(name.to_owned(), tensor);
    }
    Ok(())
}

/// The stored values in f32; every f16 and bf16 is one exactly.
fn values(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, EngineError> {
    let halves = || {
        view.data()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| u16::from_le_bytes(*bytes))
    };
    match view.dtype() {
        Dtype::F32 => Ok(view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()),
        Dtype::BF16 => Ok(halves()
            .map(|bits| f32::from_bits(u32::from(bits) << 16))
            .collect()),
        Dtype::F16 => Ok(halves().map(f16_to_f32).collect()),
        other => Err(EngineError::ElementType {
            name: name.to_owned(),
            element_type: format!("{other:?}"),
        }),
    }
}

/// An IEEE 754 half: 1 sign, 5 exponent and 10 fraction bits.
fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: a multiple of 2⁻²⁴, which f32 holds as a normal number.
        0 => fraction as f32 * 2f32.powi(-24),
        0x1f => f32::from_bits(0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(((exponent + 127 - 15) << 23) | (fraction << 13)),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// A tensor as safetensors asks for it; bytes are made one tensor at a time.
struct Stored<'a>(&'a Tensor);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn data_len(&self) -> usize {
        self.0.values.len() * size_of::<f32>()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    fs::read(path).map_err(|source| EngineError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Writes a neighbour of `path`, makes it durable and renames it into place.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), EngineError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let result = write(&unfinished)
        .and_then(|()| fs::File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, path));
    result.map_err(|source| {
        // Whatever was written is of no use; failing to remove it adds nothing to the first error.
        let _ = fs::remove_file(&unfinished);
        write_error(path, source)
    })
}

fn write_error(path: &Path, source: std::io::Error) -> EngineError {
    EngineError::Write {
        path: path.to_owned(),
        source,
    }
}

fn into_io(error: SafeTensorError) -> std::io::Error {
    match error {
        SafeTensorError::IoError(error) => error,
        other => std::io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One, the largest, the smallest normal and subnormal, minus zero, the infinities, NaN.
    #[test]
    fn halves_become_the_floats_that_they_denote() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2f32.powi(-14)),
            (0x0001, 2f32.powi(-24)),
            (0x83ff, -1023.0 * 2f32.powi(-24)),
            (0x8000, -0.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(
                f16_to_f32(bits).to_bits(),
                f32::to_bits(value),
                "{bits:#06x}"
            );
        }
        assert!(f16_to_f32(0x7e00).is_nan());
    }
}
