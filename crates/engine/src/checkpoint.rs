//! Models in ordinary Hugging Face folders: `config.json` beside `model.safetensors`, or beside shards
//! and their `model.safetensors.index.json`.
//!
//! A folder is opened by mapping its files and reading their headers; values are read where they are
//! asked for, row by row, so that a slice of a model costs no more than the slice. Parameters are asked
//! for by canonical name, however the folder stores them: one tensor per expert matrix, all experts of
//! a layer fused (in two orientations), or fused expert by expert. What is written has the layout that
//! was read. A slice of a model may be a folder of its own: [`write_slice`] makes one, [`join_slices`] puts
//! it back, and both move bytes without mapping them.
//!
//! Every tensor is accounted for by name, because a loader that skips what it does not recognise leaves
//! experts at their initial values. Knows nothing of devices.

mod create;
mod element;
mod error;
mod files;
mod header;
mod join;
mod layout;
mod listing;
mod record;
mod rows;
mod slice;
mod staging;
mod stored;
mod stream;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::ModelConfig;
use crate::names::{Parameter, Parameters};
use files::Files;
use header::Entry;
use layout::{Content, Layout, Part, SCALE_SUFFIX, View};
use rows::{SCALE_BLOCK, Scales};

pub use create::write_new;
pub use element::FileElement;
pub use error::{CheckpointError, HeaderError, RecordError};
pub use join::{Conversion, JoinError, JoinReport, join_slices};
pub use listing::{ExpertParameters, Listing, ListingError};
pub use rows::StoredRows;
pub use slice::{SliceError, SlicePlan, SliceReport, write_slice};
pub use stream::Progress;
pub use write::Values;

const CONFIG: &str = "config.json";

/// The head's own tensor; a tied model without it uses the embedding.
const HEAD: &str = "lm_head.weight";

/// A model's folder, open for reading.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    layout: Layout,
    files: Files,
    /// Where parameters are stored, by canonical name.
    sources: BTreeMap<String, Source>,
    /// The first tensor that is none of the model's.
    foreign: Option<String>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Source {
    tensor: String,
    part: Part,
}

/// A parameter's place, found and measured.
struct Located<'a> {
    tensor: &'a str,
    part: &'a Part,
    entry: &'a Entry,
    view: View,
}

impl Checkpoint {
    /// Opens a folder without reading any weights. Whether it holds a whole model, or all that a slice
    /// of one needs, is asked with [`Self::check`].
    ///
    /// # Errors
    ///
    /// When a file is absent, unreadable or truncated, the configuration is not one that this engine
    /// runs, the index is broken or points elsewhere, or a parameter is stored twice. Files that the
    /// index lists may be absent.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        Self::read(folder, Files::open)
    }

    /// Opens a folder whose weights are only moved about: nothing is mapped, and no values can be read.
    fn survey(folder: &Path) -> Result<Self, CheckpointError> {
        Self::read(folder, Files::survey)
    }

    fn read(
        folder: &Path,
        open: fn(&Path) -> Result<Files, CheckpointError>,
    ) -> Result<Self, CheckpointError> {
        if folder.is_file() {
            let path = folder.to_owned();
            return Err(CheckpointError::NoFolder { path });
        }
        let path = folder.join(CONFIG);
        let text = std::fs::read(&path).map_err(|source| CheckpointError::read(&path, source))?;
        let text = String::from_utf8_lossy(&text);
        let mut config = ModelConfig::from_json(&text)
            .map_err(|source| CheckpointError::Config { path, source })?;
        let files = open(folder)?;
        // A head that is there is used, whatever the flag says.
        config.tied_head &= !files.tensors.contains_key(HEAD);
        let mut checkpoint = Self::of(folder, config, files)?;
        checkpoint
            .warnings
            .splice(..0, ModelConfig::warnings(&text));
        Ok(checkpoint)
    }

    /// Files as those of a model of this configuration.
    fn of(folder: &Path, config: ModelConfig, files: Files) -> Result<Self, CheckpointError> {
        for file in &files.files {
            let held = file.held.as_ref();
            held.map_or(Ok(()), |held| record::check(held, &config))
                .map_err(|error| CheckpointError::SliceRecord {
                    path: file.path.clone(),
                    source: error.into(),
                })?;
        }
        let mut checkpoint = Self {
            folder: folder.to_owned(),
            layout: Layout::new(config),
            sources: BTreeMap::new(),
            foreign: None,
            warnings: Vec::new(),
            files,
        };
        checkpoint.recognise()?;
        Ok(checkpoint)
    }

    /// What the folder's model consists of; its head is tied only if there is no tensor for it.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.layout.config
    }

    /// What was decided although published code disagrees about it, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether everything is there that a model with these resident experts consists of, in the right
    /// shapes and readable types, and nothing that belongs to no model of this configuration. Experts
    /// that are not resident may be there or not.
    ///
    /// # Errors
    ///
    /// When a tensor is missing, misshapen, of an unread type, or not part of the model.
    pub fn check(&self, resident: &dyn Fn(usize, usize) -> bool) -> Result<(), CheckpointError> {
        let mut leaf = |parameter: Parameter<'_>| self.parameter(&parameter.name).map(|_| ());
        Parameters::build(self.config(), resident, &mut leaf)?;
        self.nothing_foreign()
    }

    /// Whether all files and all tensors of a whole model are there, in the right shapes and in whatever
    /// types: what is only moved about need not be understood.
    fn check_stored(&self) -> Result<(), CheckpointError> {
        for file in &self.files.files {
            file.present()?;
        }
        let mut leaf = |parameter: Parameter<'_>| {
            let located = self.locate(&parameter.name)?;
            let whole = matches!(located.part, Part::Whole { .. });
            if whole && located.entry.element() == Some(FileElement::F8E4M3) {
                self.scales_of(&located)?;
            }
            Ok::<_, CheckpointError>(())
        };
        Parameters::build(self.config(), &|_, _| true, &mut leaf)?;
        self.nothing_foreign()
    }

    fn nothing_foreign(&self) -> Result<(), CheckpointError> {
        match &self.foreign {
            Some(name) => Err(CheckpointError::UnexpectedTensor { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// A parameter by canonical name; nothing is read yet.
    ///
    /// # Errors
    ///
    /// When the parameter, its file or its scales are missing, or its tensor is misshapen or of an unread
    /// type.
    pub fn parameter(&self, name: &str) -> Result<StoredRows<'_>, CheckpointError> {
        let located = self.locate(name)?;
        let element = located.element()?;
        let scales = match element {
            FileElement::F8E4M3 => Some(self.scales(&located)?),
            FileElement::F32 | FileElement::F16 | FileElement::Bf16 => None,
        };
        let (_, bytes) = self.files.tensor(located.tensor)?;
        Ok(StoredRows {
            bytes,
            element,
            view: located.view,
            scales,
        })
    }

    /// How a parameter is stored.
    ///
    /// # Errors
    ///
    /// As [`Self::parameter`].
    pub fn element(&self, name: &str) -> Result<FileElement, CheckpointError> {
        self.locate(name)?.element()
    }

    /// Notes what every tensor holds.
    fn recognise(&mut self) -> Result<(), CheckpointError> {
        for (tensor, stored) in &self.files.tensors {
            let held = self.files.files[stored.file].held.as_ref();
            let parameters = match self.layout.content(tensor, held) {
                Content::Parameters(parameters) => parameters,
                Content::Passenger | Content::Unread => continue,
                Content::Foreign => {
                    self.foreign.get_or_insert_with(|| tensor.clone());
                    continue;
                }
            };
            let both_ways = |(_, part): &(_, Part)| self.layout.is_ambiguous(part);
            if stored.entry.is_some() && parameters.first().is_some_and(both_ways) {
                self.warnings.push(format!(
                    "tensor {tensor} has a shape that fits both orientations and is read as [out, in]"
                ));
            }
            for (name, part) in parameters {
                let tensor = tensor.clone();
                let previous = self.sources.insert(name.clone(), Source { tensor, part });
                if let Some(previous) = previous {
                    return Err(CheckpointError::StoredTwice {
                        second: self.sources[&name].tensor.clone(),
                        first: previous.tensor,
                        name,
                    });
                }
            }
        }
        Ok(())
    }

    fn locate(&self, name: &str) -> Result<Located<'_>, CheckpointError> {
        let missing = || CheckpointError::MissingTensor { name: name.into() };
        let source = self.sources.get(name).ok_or_else(missing)?;
        let (_, entry) = self.files.entry(&source.tensor)?;
        Ok(Located {
            tensor: &source.tensor,
            part: &source.part,
            entry,
            view: self.view_of(source, &entry.shape)?,
        })
    }

    fn view_of(&self, source: &Source, shape: &[usize]) -> Result<View, CheckpointError> {
        let view = self.layout.view(&source.part, shape);
        view.map_err(|expected| CheckpointError::MisshapenTensor {
            name: source.tensor.clone(),
            expected,
            found: shape.to_vec(),
        })
    }

    /// The scales of a parameter that is stored in eight bits: their tensor, and what it is.
    fn scales_of(&self, located: &Located<'_>) -> Result<(String, &Entry), CheckpointError> {
        let name = format!("{}{SCALE_SUFFIX}", located.tensor);
        let (_, entry) = self.files.entry(&name)?;
        let view = &located.view;
        let expected = [view.rows, view.width].map(|size| size.div_ceil(SCALE_BLOCK));
        if entry.shape != expected {
            return Err(CheckpointError::MisshapenTensor {
                name,
                expected: expected.to_vec(),
                found: entry.shape.clone(),
            });
        }
        Ok((name, entry))
    }

    fn scales(&self, located: &Located<'_>) -> Result<Scales<'_>, CheckpointError> {
        let (name, entry) = self.scales_of(located)?;
        let element = entry
            .element()
            .filter(|element| *element != FileElement::F8E4M3);
        Ok(Scales {
            bytes: self.files.tensor(&name)?.1,
            element: element.ok_or_else(|| CheckpointError::ElementType {
                name,
                element_type: entry.element_type.clone(),
            })?,
            width: located.view.width.div_ceil(SCALE_BLOCK),
        })
    }
}

impl Located<'_> {
    /// Its type where this engine reads it.
    fn element(&self) -> Result<FileElement, CheckpointError> {
        let element = self.entry.element().filter(|element| {
            // Scales belong to blocks of a matrix that is a tensor of its own.
            *element != FileElement::F8E4M3 || matches!(self.part, Part::Whole { .. })
        });
        element.ok_or_else(|| CheckpointError::ElementType {
            name: self.tensor.to_owned(),
            element_type: self.entry.element_type.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
