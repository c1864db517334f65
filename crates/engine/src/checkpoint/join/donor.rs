//! A slice, and whether it may be put back into a model.
//!
//! It may if every tensor is one of the model's in the model's shape, every expert it touches is there
//! with all its matrices, and the rest, as far as it is there, is what the model has: only routed experts
//! are trained. Numbers may be stored in another floating-point type. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Base, Conversion, JoinError};
use crate::checkpoint::files::Files;
use crate::checkpoint::header::Entry;
use crate::checkpoint::layout::{Content, Part, SCALE_SUFFIX};
use crate::checkpoint::stream::{CHUNK, Meter, Reader};
use crate::checkpoint::{CONFIG, Checkpoint, CheckpointError, FileElement, Located, record};
use crate::names::{expert_parameter_names, parse_expert_name};

/// A slice that fits.
#[derive(Debug)]
pub(super) struct Donor {
    folder: PathBuf,
    /// Its files, read as those of a model of the base's configuration.
    pub(super) checkpoint: Checkpoint,
    experts: BTreeSet<(usize, usize)>,
    /// Tensors of no routed expert, and what the base calls them.
    backbone: Vec<(String, String)>,
    /// Tensors that change their type, by the old type and the new one.
    converted: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Donor {
    pub(super) fn open(folder: &Path, base: &Base) -> Result<Self, JoinError> {
        let broken = |source| JoinError::Slice {
            slice: folder.to_owned(),
            source: Box::new(source),
        };
        let files = Files::survey(folder).map_err(broken)?;
        for file in &files.files {
            let header = file.present().map_err(broken)?;
            let digest = record::config_digest(&header.metadata);
            if digest.is_some_and(|digest| digest != base.digest) {
                return Err(JoinError::AnotherModel {
                    slice: file.path.clone(),
                    config: base.folder.join(CONFIG),
                });
            }
        }
        let config = base.checkpoint.config().clone();
        let checkpoint = Checkpoint::of(folder, config, files).map_err(broken)?;
        checkpoint.nothing_foreign().map_err(broken)?;
        let mut donor = Self {
            folder: folder.to_owned(),
            checkpoint,
            experts: BTreeSet::new(),
            backbone: Vec::new(),
            converted: BTreeMap::new(),
        };
        donor.take_stock()?;
        donor.check_types(base)?;
        donor.backbone = donor.backbone(base);
        Ok(donor)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Layer and number of every expert it holds.
    pub(super) fn experts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.experts.iter().copied()
    }

    /// What is converted when it is put back.
    pub(super) fn conversions(self) -> impl Iterator<Item = Conversion> {
        let Self {
            folder, converted, ..
        } = self;
        converted
            .into_iter()
            .map(move |((from, to), tensors)| Conversion {
                slice: folder.clone(),
                from,
                to,
                tensors: tensors.len(),
            })
    }

    pub(super) fn broken(&self, source: CheckpointError) -> JoinError {
        JoinError::Slice {
            slice: self.folder.clone(),
            source: Box::new(source),
        }
    }

    /// Every shape is right, and every expert has all its matrices.
    fn take_stock(&mut self) -> Result<(), JoinError> {
        for (name, source) in &self.checkpoint.sources {
            self.check_rows(&source.tensor, &source.part)?;
            self.checkpoint
                .locate(name)
                .map_err(|error| self.broken(error))?;
        }
        let names = self.checkpoint.sources.keys();
        self.experts = names.filter_map(|name| parse_expert_name(name)).collect();
        let listed = self
            .checkpoint
            .files
            .files
            .iter()
            .flat_map(|file| &file.held);
        for (&layer, experts) in listed.flatten() {
            let listed = experts.iter().map(|&expert| (layer, expert));
            self.experts.extend(listed);
        }
        if self.experts.is_empty() {
            let slice = self.folder.clone();
            return Err(JoinError::NoExperts { slice });
        }
        let family = self.checkpoint.config().family;
        for &(layer, expert) in &self.experts {
            for name in expert_parameter_names(family, layer, expert) {
                if !self.checkpoint.sources.contains_key(&name) {
                    return Err(self.broken(CheckpointError::MissingTensor { name }));
                }
            }
        }
        Ok(())
    }

    /// A fused tensor whose rows are not those of all experts is of use only if they are named.
    fn check_rows(&self, tensor: &str, part: &Part) -> Result<(), JoinError> {
        let Part::OfAll { rows: experts, .. } = *part else {
            return Ok(());
        };
        let stored = self.checkpoint.files.entry(tensor);
        let (file, entry) = stored.map_err(|error| self.broken(error))?;
        match entry.shape.first() {
            Some(&rows) if file.held.is_none() && rows < experts => Err(JoinError::UnnamedRows {
                slice: self.folder.clone(),
                name: tensor.to_owned(),
                rows,
                experts,
            }),
            _ => Ok(()),
        }
    }

    /// Every expert's numbers can become numbers of the base's type.
    fn check_types(&mut self, base: &Base) -> Result<(), JoinError> {
        let mut converted: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let names = self.checkpoint.sources.keys();
        for name in names.filter(|name| parse_expert_name(name).is_some()) {
            let own = self.checkpoint.locate(name);
            let own = own.map_err(|error| self.broken(error))?;
            let old = base.checkpoint.locate(name)?;
            let (from, to) = (&own.entry.element_type, &old.entry.element_type);
            let alike = own.is_arranged_as(&old);
            let plain = is_plain(own.entry) && is_plain(old.entry);
            if !(plain || alike && from == to) {
                return Err(self.cannot_become(own.tensor, own.entry, old.entry));
            }
            if from != to {
                let tensors = converted.entry((from.clone(), to.clone())).or_default();
                tensors.insert(own.tensor.to_owned());
            }
            self.check_scales(&own, &old, base)?;
        }
        self.converted = converted;
        Ok(())
    }

    /// What is scaled in the base is scaled alike in the slice, and nothing else is.
    fn check_scales(
        &self,
        own: &Located<'_>,
        old: &Located<'_>,
        base: &Base,
    ) -> Result<(), JoinError> {
        let entry = |checkpoint: &Checkpoint, tensor: &str| {
            let name = format!("{tensor}{SCALE_SUFFIX}");
            let entry = checkpoint.files.entry(&name);
            entry.ok().map(|(_, entry)| entry.clone())
        };
        let name = format!("{}{SCALE_SUFFIX}", own.tensor);
        let own_scales = entry(&self.checkpoint, own.tensor);
        match (own_scales, entry(&base.checkpoint, old.tensor)) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(self.broken(CheckpointError::MissingTensor { name })),
            (Some(_), None) => Err(self.broken(CheckpointError::UnexpectedTensor { name })),
            (Some(own_scales), Some(old_scales)) if !own.is_arranged_as(old) => {
                Err(self.cannot_become(&name, &own_scales, &old_scales))
            }
            (Some(own_scales), Some(old_scales)) => {
                let leading = usize::from(matches!(old.part, Part::OfAll { .. }));
                let (found, expected) = (&own_scales.shape, &old_scales.shape);
                // As many rows of scales as of what is scaled, where experts share both.
                let rows =
                    own_scales.shape[..leading.min(found.len())] == own.entry.shape[..leading];
                if !rows || found.get(leading..) != expected.get(leading..) {
                    return Err(self.broken(CheckpointError::MisshapenTensor {
                        name,
                        expected: expected.clone(),
                        found: found.clone(),
                    }));
                }
                if own_scales.element_type == old_scales.element_type {
                    Ok(())
                } else {
                    Err(self.cannot_become(&name, &own_scales, &old_scales))
                }
            }
        }
    }

    fn cannot_become(&self, name: &str, own: &Entry, old: &Entry) -> JoinError {
        JoinError::ElementType {
            slice: self.folder.clone(),
            name: name.to_owned(),
            found: own.element_type.clone(),
            expected: old.element_type.clone(),
        }
    }

    /// Tensors of no routed expert, and what the base calls them.
    fn backbone(&self, base: &Base) -> Vec<(String, String)> {
        let files = &self.checkpoint.files;
        let named = files.tensors.iter().filter_map(|(tensor, stored)| {
            let held = files.files[stored.file].held.as_ref();
            let scaled = tensor.strip_suffix(SCALE_SUFFIX);
            let content = self
                .checkpoint
                .layout
                .content(scaled.unwrap_or(tensor), held);
            let Content::Parameters(parameters) = content else {
                return Some((tensor.clone(), tensor.clone()));
            };
            let (name, _) = parameters.first()?;
            if parse_expert_name(name).is_some() {
                return None;
            }
            let source = base.checkpoint.sources.get(name);
            let old = source.map_or(name, |source| &source.tensor);
            let suffix = scaled.map_or("", |_| SCALE_SUFFIX);
            Some((tensor.clone(), format!("{old}{suffix}")))
        });
        named.collect()
    }

    /// Bytes that [`Self::compare_backbone`] reads of the slice.
    pub(super) fn backbone_bytes(&self) -> u64 {
        let files = &self.checkpoint.files;
        let entries = self.backbone.iter();
        let entries = entries.filter_map(|(own, _)| files.tensors.get(own)?.entry.as_ref());
        entries.map(|entry| entry.bytes.len() as u64).sum()
    }

    /// Everything but the experts is the base's.
    pub(super) fn compare_backbone(
        &self,
        base: &Base,
        meter: &mut Meter<'_>,
    ) -> Result<(), JoinError> {
        let mut readers = [&self.checkpoint, &base.checkpoint].map(|of| Reader::new(&of.files));
        for (own, old) in &self.backbone {
            self.compare(base, (own, old), &mut readers, meter)?;
        }
        Ok(())
    }

    /// One tensor: the base's, in the slice's type, is the slice's.
    fn compare(
        &self,
        base: &Base,
        (own_name, old_name): (&str, &str),
        [own_reader, old_reader]: &mut [Reader<'_>; 2],
        meter: &mut Meter<'_>,
    ) -> Result<(), JoinError> {
        let changed = || JoinError::Backbone {
            slice: self.folder.clone(),
            name: own_name.to_owned(),
        };
        let own = at(&self.checkpoint, own_name);
        let old = at(&base.checkpoint, old_name);
        let ((own_file, own), (old_file, old)) = own.zip(old).ok_or_else(changed)?;
        if own.shape != old.shape {
            return Err(changed());
        }
        let plain = is_plain(own) && is_plain(old);
        let types = match own.element().zip(old.element()) {
            _ if own.element_type == old.element_type => None,
            Some((own, old)) if plain => Some((own, old)),
            _ => return Err(self.cannot_become(own_name, own, old)),
        };
        // What is not converted is compared byte by byte.
        let (own_size, old_size) = types.map_or((1, 1), |(own, old)| (own.size(), old.size()));
        let numbers = own.bytes.len() / own_size;
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        let (mut values, mut converted) = (Vec::new(), Vec::new());
        let at_once = CHUNK / size_of::<f32>();
        for first in (0..numbers).step_by(at_once) {
            let count = at_once.min(numbers - first);
            found.resize(count * own_size, 0);
            expected.resize(count * old_size, 0);
            own_reader
                .read(own_file, own.bytes.start + first * own_size, &mut found)
                .map_err(|error| self.broken(error))?;
            old_reader.read(old_file, old.bytes.start + first * old_size, &mut expected)?;
            if let Some((to, from)) = types {
                convert(&expected, (from, to), &mut values, &mut converted);
                std::mem::swap(&mut expected, &mut converted);
            }
            if expected != found {
                return Err(changed());
            }
            meter.advance(found.len());
        }
        Ok(())
    }
}

/// A tensor by name: which file it is in, and what it is.
fn at<'a>(checkpoint: &'a Checkpoint, name: &str) -> Option<(usize, &'a Entry)> {
    let stored = checkpoint.files.tensors.get(name)?;
    Some((stored.file, stored.entry.as_ref()?))
}

/// Whether numbers of the type stand for themselves and can be converted.
pub(super) fn is_plain(entry: &Entry) -> bool {
    match entry.element() {
        Some(FileElement::F32 | FileElement::F16 | FileElement::Bf16) => true,
        Some(FileElement::F8E4M3) | None => false,
    }
}

/// Numbers of one type in another; `values` is room for them in single precision.
pub(super) fn convert(
    bytes: &[u8],
    (from, to): (FileElement, FileElement),
    values: &mut Vec<f32>,
    into: &mut Vec<u8>,
) {
    values.resize(bytes.len() / from.size(), 0.0);
    from.widen(bytes, 1, values);
    into.clear();
    to.narrow(values, into);
}

impl Located<'_> {
    /// Whether the numbers of an expert follow each other in both tensors alike.
    pub(super) fn is_arranged_as(&self, other: &Located<'_>) -> bool {
        let (own, others) = (&self.entry.shape, &other.entry.shape);
        match (self.part, other.part) {
            (Part::Whole { .. }, Part::Whole { .. }) => own == others,
            (
                Part::OfOne {
                    fused: own_fused, ..
                },
                Part::OfOne { fused, .. },
            ) => own_fused == fused && own == others,
            (
                Part::OfAll {
                    fused: own_fused, ..
                },
                Part::OfAll { fused, .. },
            ) => own_fused == fused && own.get(1..) == others.get(1..),
            _ => false,
        }
    }
}
