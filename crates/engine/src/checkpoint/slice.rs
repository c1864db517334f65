//! The part of a checkpoint that a miner of some experts needs, as a folder of its own.
//!
//! One file of weights holds the backbone, the shared experts and the given routed experts, each tensor
//! under its own name and in its own bytes. A tensor that fuses the experts of a layer keeps its name and
//! the rows of the given ones; which those are, the file says of itself (`record.rs`). Tensors that nobody
//! reads (a module for predicting several tokens, tables that follow from the configuration) and weights
//! in other formats are left behind; configuration and tokenizer come along.
//!
//! The new header follows from the old headers alone. Ranges of bytes are then passed on in chunks, so the
//! memory this takes does not grow with the model. Knows no groups: they are notes of the caller's.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::error::CheckpointError;
use super::files::{INDEX, WEIGHTS};
use super::header::{self, Entry, NewEntry};
use super::layout::{Content, Part, SCALE_SUFFIX};
use super::staging::Staging;
use super::stream::{Meter, Progress, Reader};
use super::{CONFIG, Checkpoint, record};
use crate::names::parse_expert_name;
use crate::routing::{ExpertMap, RoutingError};

/// What to take from which model.
#[derive(Debug, Clone, Copy)]
pub struct SlicePlan<'a> {
    /// A Hugging Face folder with all of a model.
    pub model: &'a Path,
    /// The routed experts to take.
    pub experts: &'a ExpertMap,
    /// Text that the file should carry besides what it says of itself.
    pub notes: &'a BTreeMap<String, String>,
}

/// What a slice consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceReport {
    /// Tensors.
    pub tensors: usize,
    /// Routed experts, over all layers.
    pub experts: usize,
    /// Bytes of its weights file.
    pub bytes: u64,
    /// Bytes of the whole model's.
    pub model_bytes: u64,
}

/// Why a slice cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// A file cannot be read or written, or the model is not whole.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model does not have these experts.
    #[error(transparent)]
    Experts(#[from] RoutingError),
    /// No experts were asked for.
    #[error("a slice without experts has nothing to train")]
    NoExperts,
    /// The experts of a fused tensor do not divide its bytes.
    #[error("the bytes of tensor {name} are not those of {experts} experts")]
    Rows {
        /// The tensor.
        name: String,
        /// Experts of a layer.
        experts: usize,
    },
}

/// Writes a slice of a model to `out`, which must not exist or be empty; nothing is left there if it
/// fails. `watch` hears of every chunk.
///
/// # Errors
///
/// When a file of the model is absent, damaged or cannot be read, a tensor is missing, misshapen or not
/// part of the model, experts are asked for that it does not have, or `out` cannot be written.
pub fn write_slice(
    plan: &SlicePlan<'_>,
    out: &Path,
    watch: &mut dyn FnMut(Progress),
) -> Result<SliceReport, SliceError> {
    let model = Checkpoint::survey(plan.model)?;
    model.check_stored()?;
    let experts = normal(plan.experts);
    record::check(&experts, model.config())?;
    let count = experts.values().map(Vec::len).sum();
    if count == 0 {
        return Err(SliceError::NoExperts);
    }
    let tensors = tensors(&model, &experts)?;
    let digest = record::digest(&plan.model.join(CONFIG))?;
    let text = record::write(plan.notes, &experts, &digest);
    let table = header::write(&text, tensors.iter().map(Taken::entry));
    let data: usize = tensors.iter().map(Taken::bytes).sum();

    let mut staging = Staging::new(out, &[plan.model])?;
    let mut meter = Meter::new(data as u64, watch);
    staging.file(Path::new(WEIGHTS), |file| {
        file.put(&table)?;
        let mut reader = Reader::new(&model.files);
        for tensor in &tensors {
            for range in &tensor.ranges {
                reader.each_chunk(tensor.file, range.clone(), |chunk| {
                    meter.advance(chunk.len());
                    file.put(chunk)
                })?;
            }
        }
        Ok::<_, CheckpointError>(())
    })?;
    for name in model.companions()? {
        // What was many files is one.
        if name != Path::new(INDEX) {
            staging.copy(&plan.model.join(&name), &name)?;
        }
    }
    staging.finish()?;
    Ok(SliceReport {
        tensors: tensors.len(),
        experts: count,
        bytes: (table.len() + data) as u64,
        model_bytes: model.files.size(),
    })
}

/// Ascending, without repetitions and empty layers.
fn normal(experts: &ExpertMap) -> ExpertMap {
    let mut normal = experts.clone();
    for listed in normal.values_mut() {
        listed.sort_unstable();
        listed.dedup();
    }
    normal.retain(|_, listed| !listed.is_empty());
    normal
}

/// A tensor of the slice, and where its bytes are.
#[derive(Debug)]
struct Taken<'a> {
    name: &'a str,
    element_type: &'a str,
    shape: Vec<usize>,
    /// Of the model's weights files.
    file: usize,
    ranges: Vec<Range<usize>>,
}

impl Taken<'_> {
    fn bytes(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    fn entry(&self) -> NewEntry<'_> {
        NewEntry {
            name: self.name,
            element_type: self.element_type,
            shape: &self.shape,
            bytes: self.bytes(),
        }
    }
}

/// The tensors of the slice in the order of their bytes.
fn tensors<'a>(model: &'a Checkpoint, experts: &ExpertMap) -> Result<Vec<Taken<'a>>, SliceError> {
    let mut taken = Vec::new();
    for (number, file) in model.files.files.iter().enumerate() {
        for (name, entry) in file.tensors() {
            // A file may hold more than the index says; the index is believed.
            if !model.files.tensors.contains_key(name) {
                continue;
            }
            let (shape, ranges) = match share(model, name, experts) {
                Share::None => continue,
                Share::Whole => (entry.shape.clone(), vec![entry.bytes.clone()]),
                Share::Rows(rows) => some_rows(name, entry, &rows, model)?,
            };
            taken.push(Taken {
                name,
                element_type: &entry.element_type,
                shape,
                file: number,
                ranges,
            });
        }
    }
    // As others write it: wide numbers first, so that every number lies at a multiple of its size. Within
    // a size the order of the model stays, which is that of reading.
    taken.sort_by_key(|tensor| {
        let size = header::element_size(tensor.element_type);
        std::cmp::Reverse(size.unwrap_or(0))
    });
    Ok(taken)
}

/// What of a tensor goes into a slice.
enum Share {
    None,
    Whole,
    /// One row for each of these experts.
    Rows(Vec<usize>),
}

fn share(model: &Checkpoint, tensor: &str, experts: &ExpertMap) -> Share {
    // Scales go with what they scale.
    let scaled = tensor.strip_suffix(SCALE_SUFFIX).unwrap_or(tensor);
    let parameters = match model.layout.content(scaled, None) {
        Content::Parameters(parameters) => parameters,
        Content::Passenger => return Share::Whole,
        Content::Unread | Content::Foreign => return Share::None,
    };
    let Some((name, part)) = parameters.first() else {
        return Share::None;
    };
    let Some((layer, expert)) = parse_expert_name(name) else {
        return Share::Whole;
    };
    let listed = experts.get(&layer).map_or(&[][..], Vec::as_slice);
    match part {
        Part::OfAll { .. } if listed.is_empty() => Share::None,
        Part::OfAll { .. } => Share::Rows(listed.to_vec()),
        Part::Whole { .. } | Part::OfOne { .. } if listed.contains(&expert) => Share::Whole,
        Part::Whole { .. } | Part::OfOne { .. } => Share::None,
    }
}

/// The shape of some rows of a fused tensor, and where they are. Experts are the first dimension of every
/// such tensor, whichever way the rest of it lies.
fn some_rows(
    name: &str,
    entry: &Entry,
    rows: &[usize],
    model: &Checkpoint,
) -> Result<(Vec<usize>, Vec<Range<usize>>), SliceError> {
    let experts = model.config().mixture.experts;
    let mut shape = entry.shape.clone();
    let leading = shape.first_mut().filter(|leading| **leading == experts);
    let (Some(leading), 0) = (leading, entry.bytes.len() % experts.max(1)) else {
        let name = name.to_owned();
        return Err(SliceError::Rows { name, experts });
    };
    *leading = rows.len();
    let row_bytes = entry.bytes.len() / experts;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in rows {
        let start = entry.bytes.start + row * row_bytes;
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end += row_bytes,
            _ => ranges.push(start..start + row_bytes),
        }
    }
    Ok((shape, ranges))
}
