//! What `inspect` leaves behind: one safetensors file of f32 tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::Tensor;
use safetensors::{Dtype, View};

use crate::exit::{Blame, Failure};
use crate::output::print;

/// Where a result goes.
#[derive(Debug)]
pub(super) struct Sink(PathBuf);

impl Sink {
    /// Refuses a place that cannot be written to, before anything is computed.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        if path.is_dir() {
            return Err(Failure::Input(anyhow!("--out {shown} is a folder")));
        }
        // A bare file name lies in the working directory, its parent being empty.
        let folder = path.parent().filter(|parent| *parent != Path::new(""));
        match folder {
            Some(folder) if !folder.is_dir() => Err(Failure::Input(anyhow!(
                "--out {shown}: there is no folder {}",
                folder.display()
            ))),
            _ => Ok(Self(path.to_owned())),
        }
    }

    /// Writes the tensors and prints where they are.
    pub(super) fn write(&self, tensors: BTreeMap<String, Tensor>) -> Result<(), Failure> {
        let tensors = tensors.into_iter();
        let tensors = tensors.map(|(name, tensor)| (name, Stored(tensor)));
        safetensors::serialize_to_file(tensors, None, &self.0)
            .with_context(|| format!("{} cannot be written", self.0.display()))
            .environment()?;
        print(&self.0.display().to_string())
    }
}

/// A tensor of which the file's bytes are made when its turn comes.
struct Stored(Tensor);

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.0.values.iter();
        Cow::Owned(values.flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0.values.as_slice())
    }
}
