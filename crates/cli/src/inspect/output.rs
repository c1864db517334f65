//! What `inspect` leaves behind: one safetensors file of f32 tensors.
//!
//! Knows how tensors lie in it; `result_file.rs` sees to it that nothing else is lost for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use connito_engine::Tensor;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::args::inspect::BatchArguments;
use crate::exit::Failure;
use crate::output::print;
use crate::result_file::ResultFile;

/// Where a result goes.
#[derive(Debug)]
pub(super) struct Sink(ResultFile);

impl Sink {
    /// Refuses a place that cannot be written to or must not be, before anything is read.
    pub(super) fn new(batch: &BatchArguments, experts: Option<&Path>) -> Result<Self, Failure> {
        let inputs = [
            ("--ids", Some(batch.ids.as_path())),
            ("--experts", experts),
            ("--kept", batch.kept.as_deref()),
            ("--model", Some(batch.model.as_path())),
        ];
        let inputs = inputs.into_iter();
        let inputs: Vec<_> = inputs
            .filter_map(|(option, path)| Some((option, path?)))
            .collect();
        ResultFile::new("--out", &batch.out, &inputs).map(Self)
    }

    /// Writes the tensors, all or nothing.
    pub(super) fn write(&self, tensors: &BTreeMap<String, Tensor>) -> Result<(), Failure> {
        self.0.prepare(|file| written(file, tensors))?.put()
    }

    /// Says on standard error what a reader of the file should know.
    pub(super) fn warn(&self, warning: &str) {
        eprintln!("connito: {}: {warning}", self.0.path().display());
    }

    /// Prints where the file is.
    pub(super) fn tell(&self) -> Result<(), Failure> {
        print(&self.0.path().display().to_string())
    }
}

/// The format: the length of the header, the header, the values in its order. Tensors go to the file one
/// value after the other, because together they may be too large to be held twice.
fn written(file: &mut File, tensors: &BTreeMap<String, Tensor>) -> anyhow::Result<()> {
    let mut begin = 0;
    let entry = |(name, tensor): (&String, &Tensor)| {
        let end = begin + size_of_val(tensor.values.as_slice());
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            data_offsets: (begin, end),
        };
        begin = end;
        (name.clone(), info)
    };
    let metadata = Metadata::new(None, tensors.iter().map(entry).collect())?;
    let mut header = serde_json::to_vec(&metadata)?;
    // Values begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(file);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for value in tensors.values().flat_map(|tensor| &tensor.values) {
        file.write_all(&value.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}
