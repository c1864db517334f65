//! What `inspect` leaves behind: one safetensors file of f32 tensors.
//!
//! It takes the place of an earlier result at most: never that of something the command reads, nor of
//! anything that is no regular file. A neighbour is written and renamed, so that whatever goes wrong
//! leaves the place as it was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::Tensor;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::args::inspect::BatchArguments;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// Where a result goes.
#[derive(Debug)]
pub(super) struct Sink(PathBuf);

impl Sink {
    /// Refuses a place that cannot be written to or must not be, before anything is read.
    pub(super) fn new(batch: &BatchArguments, experts: Option<&Path>) -> Result<Self, Failure> {
        let path = batch.out.as_path();
        let shown = path.display();
        let refused = |what: String| Err(Failure::Input(anyhow!("--out {shown} {what}")));
        // A link is not followed: what it points to was not named.
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
            return refused("is there and is no regular file".to_owned());
        }
        // A bare file name lies in the working directory, its parent being empty.
        let folder = path.parent().filter(|parent| *parent != Path::new(""));
        let folder = folder.unwrap_or(Path::new("."));
        let Some(name) = path.file_name().filter(|_| folder.is_dir()) else {
            return refused(format!(
                "has no place: there is no folder {}",
                folder.display()
            ));
        };
        let place = folder
            .canonicalize()
            .with_context(|| format!("cannot find {}", folder.display()))
            .input()?
            .join(name);
        let inputs = [
            ("--ids", Some(batch.ids.as_path())),
            ("--experts", experts),
            ("--kept", batch.kept.as_deref()),
        ];
        for (option, input) in inputs {
            if input.is_some_and(|input| is_at(input, &place)) {
                return refused(format!("is the file of {option}"));
            }
        }
        if is_part_of(&batch.model, &place) {
            return refused(format!("belongs to --model {}", batch.model.display()));
        }
        Ok(Self(path.to_owned()))
    }

    /// Writes the tensors, all or nothing.
    pub(super) fn write(&self, tensors: &BTreeMap<String, Tensor>) -> Result<(), Failure> {
        self.replace(tensors)
            .with_context(|| format!("cannot write {}", self.0.display()))
            .environment()
    }

    /// Says on standard error what a reader of the file should know.
    pub(super) fn warn(&self, warning: &str) {
        eprintln!("connito: {}: {warning}", self.0.display());
    }

    /// Prints where the file is.
    pub(super) fn tell(&self) -> Result<(), Failure> {
        print(&self.0.display().to_string())
    }

    fn replace(&self, tensors: &BTreeMap<String, Tensor>) -> anyhow::Result<()> {
        let mut unfinished = self.0.as_os_str().to_owned();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        // Whatever has that name already is not this command's to overwrite or to remove.
        let file = File::create_new(&unfinished)?;
        let result = written(file, tensors).and_then(|()| Ok(fs::rename(&unfinished, &self.0)?));
        if result.is_err() {
            // Failing to remove what is of no use adds nothing to the first error.
            drop(fs::remove_file(&unfinished));
        }
        result
    }
}

/// Whether a path leads to the place, links followed.
fn is_at(path: &Path, place: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == place)
}

/// Whether the place is inside a model's folder, or is where a link in it leads: downloaded models are
/// often folders of links into a store.
fn is_part_of(model: &Path, place: &Path) -> bool {
    if model
        .canonicalize()
        .is_ok_and(|model| place.starts_with(model))
    {
        return true;
    }
    let entries = fs::read_dir(model).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_at(&entry.path(), place))
}

/// The format: the length of the header, the header, the values in its order. Tensors go to the file one
/// value after the other, because together they may be too large to be held twice.
fn written(file: File, tensors: &BTreeMap<String, Tensor>) -> anyhow::Result<()> {
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
    let file = file.into_inner();
    let file = file.map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(())
}
