//! Trained slices put back into the whole checkpoint that they were taken from.
//!
//! The result has the files of the base: their names, their headers, the order of their bytes. Expert by
//! expert, bytes come from the slice that holds it, or from the base where none does; everything else is
//! the base's. So a slice in which nothing was trained changes nothing, and experts that were trained
//! change their own bytes alone.
//!
//! `donor.rs` decides whether a slice may be put back, `write.rs` does it. Nothing is mapped: bytes pass
//! through in chunks, except that a matrix which lies the other way round in its slice is turned in
//! memory, one expert at a time. Knows no groups: slices are told apart by the experts that they hold.

mod donor;
mod error;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::staging::Staging;
use super::stream::{Meter, Progress};
use super::{CONFIG, Checkpoint, CheckpointError, record};
use donor::Donor;
use write::Writer;

pub use error::JoinError;

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReport {
    /// Routed experts that slices hold, over all layers.
    pub experts: usize,
    /// Those of them that are not, bit for bit, what they were.
    pub changed: usize,
    /// Routed experts of the model, over all layers.
    pub model_experts: usize,
    /// Bytes of the weights files.
    pub bytes: u64,
    /// Tensors that slices store in another type than the base.
    pub conversions: Vec<Conversion>,
}

/// Tensors of a slice that were stored in another type than the base's and took on the base's, rounded to
/// nearest even where it is narrower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The folder of the slice.
    pub slice: PathBuf,
    /// How the slice stores them, as safetensors spells it.
    pub from: String,
    /// How the base does.
    pub to: String,
    /// How many they are.
    pub tensors: usize,
}

/// The model that slices are put back into.
#[derive(Debug)]
struct Base {
    checkpoint: Checkpoint,
    folder: PathBuf,
    /// Of its `config.json`.
    digest: String,
}

/// Writes the checkpoint `base` to `out` with the experts of the slices in the places of its own; `out`
/// must not exist or be empty, and nothing is left there if it fails. Experts that no slice holds stay as
/// they are. `watch` hears of every chunk.
///
/// A slice need not be one that [`super::write_slice`] wrote: any folder will do whose tensors are named
/// expert by expert. Values that are not finite numbers are refused unless the base has the same ones in
/// the same places.
///
/// # Errors
///
/// When a file is absent, damaged or cannot be read, the base is not whole, a slice belongs to another
/// model, has only some matrices of an expert, has another backbone or numbers that are not finite, two
/// slices hold the same expert, numbers would have to be converted to or from a type with scales, or
/// `out` cannot be written.
pub fn join_slices(
    base: &Path,
    slices: &[PathBuf],
    out: &Path,
    watch: &mut dyn FnMut(Progress),
) -> Result<JoinReport, JoinError> {
    let base = Base::open(base)?;
    let donors = slices
        .iter()
        .map(|folder| Donor::open(folder, &base))
        .collect::<Result<Vec<_>, _>>()?;
    let owners = owners(&donors)?;
    let mut inputs = vec![base.folder.as_path()];
    inputs.extend(slices.iter().map(PathBuf::as_path));
    let mut staging = Staging::new(out, &inputs)?;

    let bytes = base.checkpoint.files.size();
    let compared = donors.iter().map(Donor::backbone_bytes);
    let mut meter = Meter::new(compared.fold(bytes, u64::saturating_add), watch);
    for donor in &donors {
        donor.compare_backbone(&base, &mut meter)?;
    }
    let mut writer = Writer::new(&base, &donors, &owners, meter);
    for number in 0..base.checkpoint.files.files.len() {
        writer.file(number, &mut staging)?;
    }
    let changed = writer.changed();
    for name in base.checkpoint.companions()? {
        staging.copy(&base.folder.join(&name), &name)?;
    }
    staging.finish()?;
    let config = base.checkpoint.config();
    Ok(JoinReport {
        experts: owners.len(),
        changed,
        model_experts: config.moe_layers().count() * config.mixture.experts,
        bytes,
        conversions: donors.into_iter().flat_map(Donor::conversions).collect(),
    })
}

impl Base {
    fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::survey(folder)?;
        checkpoint.check_stored()?;
        Ok(Self {
            checkpoint,
            digest: record::digest(&folder.join(CONFIG))?,
            folder: folder.to_owned(),
        })
    }
}

/// Which slice an expert comes from, by layer and expert.
type Owners = BTreeMap<(usize, usize), usize>;

fn owners(donors: &[Donor]) -> Result<Owners, JoinError> {
    let mut owners = Owners::new();
    for (number, donor) in donors.iter().enumerate() {
        for (layer, expert) in donor.experts() {
            if let Some(first) = owners.insert((layer, expert), number) {
                return Err(JoinError::ExpertTwice {
                    layer,
                    expert,
                    first: donors[first].folder().to_owned(),
                    second: donor.folder().to_owned(),
                });
            }
        }
    }
    Ok(owners)
}
