//! Which parameters of routed experts a path stands for, without reading a value.
//!
//! A path is a Hugging Face folder, a `model.safetensors.index.json`, one safetensors file, or a
//! `config.json` alone. Names are made canonical, one for each expert's matrix, however the tensors
//! store them. A configuration beside weights must agree with them; without one, the spelling of the
//! names tells the layers and experts, and a tensor that fuses all experts of a layer tells by its
//! shape how many there are. Only headers and JSON are read. Whether layers are alike is not asked here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::CONFIG;
use super::error::CheckpointError;
use super::files::{Files, INDEX, WEIGHTS, WeightsFile};
use super::layout::{Content, Layout, SCALE_SUFFIX, fused, index, parts};
use crate::config::{Family, ModelConfig};
use crate::names::{block, expert_parameter_names, parse_expert_name, prefix};

/// Canonical names of routed experts' matrices, by layer and expert.
pub type ExpertParameters = BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>;

/// Five times the index of DeepSeek-V3. What is longer is no index, and must not be held in memory to
/// find that out.
const LONGEST_JSON: u64 = 64 << 20;

/// As many experts in all layers together as a configuration may have.
const MOST_EXPERTS: usize = 1 << 17;

/// Families that spell experts in each of the three ways that there are.
const SPELLINGS: [Family; 3] = [Family::DeepseekV2, Family::Qwen3VlMoe, Family::Mixtral];

/// What only the module that predicts several tokens at once has; its experts are not the model's.
const PREDICTION_SUFFIX: &str = ".eh_proj.weight";

/// What a path says about a model.
#[derive(Debug)]
pub struct Listing {
    /// The configuration that the path is, or that lies beside the weights.
    pub config: Option<ModelConfig>,
    /// Tensors by name; shapes where a header was there to be read. `None` where there are no weights.
    tensors: Option<BTreeMap<String, Option<Vec<usize>>>>,
}

/// Why a path does not tell what experts a model has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListingError {
    /// A file cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A folder without a model.
    #[error("{} has neither {CONFIG} nor {WEIGHTS} nor {INDEX}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is nothing of what is read here.
    #[error("{} is no safetensors file by its name and no JSON by its content", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Where its syntax breaks.
        #[source]
        source: serde_json::Error,
    },
    /// A file that is too long to be a configuration or an index.
    #[error("{} is longer than {LONGEST_JSON} bytes, no configuration or index is", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// No name is an expert's.
    #[error("no tensor is named as a routed expert of a known family")]
    NoExperts,
    /// A name like an expert's that no family spells so.
    #[error("tensor {name} is named like a routed expert's, but as in no known family")]
    Unspelled {
        /// The tensor.
        name: String,
    },
    /// Names of two families.
    #[error("tensors {first} and {second} are named in the ways of different families")]
    TwoSpellings {
        /// One tensor.
        first: String,
        /// The other.
        second: String,
    },
    /// How many experts a fused tensor holds is not known.
    #[error(
        "tensor {name} holds all experts of a layer, and nothing says how many ({CONFIG} would)"
    )]
    NoShape {
        /// The tensor.
        name: String,
    },
    /// A fused tensor of an impossible shape.
    #[error("tensor {name} has shape {found:?}, expected experts, rows and columns")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// More experts than any configuration may have.
    #[error("there are more than {MOST_EXPERTS} experts, the last of them in tensor {name}")]
    TooMany {
        /// The tensor.
        name: String,
    },
    /// An expert's tensor that the configuration does not have.
    #[error("tensor {name} is an expert's, but none of the configured model")]
    NotConfigured {
        /// The tensor.
        name: String,
    },
}

impl Listing {
    /// Reads what a path names: a folder, an index, a safetensors file or a configuration.
    ///
    /// # Errors
    /// When there is nothing at the path, a file is unreadable, truncated or neither JSON nor
    /// safetensors, the configuration is not one that this engine runs, or the index is broken.
    pub fn read(path: &Path) -> Result<Self, ListingError> {
        if path.is_dir() {
            return Self::of_folder(path);
        }
        if path.extension() == Some(OsStr::new("safetensors")) {
            let files = Files::single(path, WeightsFile::survey)?;
            return Self::of_weights(path, files);
        }
        let text = read_json(path)?;
        let told: Told = serde_json::from_slice(&text).map_err(|source| ListingError::Unknown {
            path: path.to_owned(),
            source,
        })?;
        match told.weight_map {
            Some(_) => Self::of_weights(path, Files::indexed(path, WeightsFile::survey)?),
            None => Ok(Self {
                config: Some(config(path, &text)?),
                tensors: None,
            }),
        }
    }

    fn of_folder(folder: &Path) -> Result<Self, ListingError> {
        let has = |name: &str| folder.join(name).exists();
        let weights = has(WEIGHTS) || has(INDEX);
        if !weights && !has(CONFIG) {
            let path = folder.to_owned();
            return Err(ListingError::Empty { path });
        }
        Ok(Self {
            config: config_in(folder)?,
            tensors: match weights {
                true => Some(tensors(Files::survey(folder)?)),
                false => None,
            },
        })
    }

    fn of_weights(path: &Path, files: Files) -> Result<Self, ListingError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            config: config_in(folder)?,
            tensors: Some(tensors(files)),
        })
    }

    /// The matrices of all routed experts, under their canonical names.
    ///
    /// # Errors
    /// No tensor is an expert's, or a matrix of an expert is missing, stored twice or misshapen. With a
    /// configuration: the two disagree about a tensor. Without: names are of two families, or a fused
    /// tensor does not tell its number of experts.
    pub fn experts(&self) -> Result<ExpertParameters, ListingError> {
        match (&self.config, &self.tensors) {
            (Some(config), None) => Ok(configured(config)),
            (Some(config), Some(tensors)) => agreed(config, tensors),
            (None, tensors) => spelled(tensors.as_ref().unwrap_or(&BTreeMap::new())),
        }
    }
}

/// What tells an index from a configuration.
#[derive(Deserialize)]
#[serde(expecting = "an object with a model's configuration or an index of its tensors")]
struct Told {
    weight_map: Option<IgnoredAny>,
}

fn read_json(path: &Path) -> Result<Vec<u8>, ListingError> {
    let unread = |source| CheckpointError::read(path, source);
    let file = File::open(path).map_err(unread)?;
    let mut text = Vec::new();
    file.take(LONGEST_JSON + 1)
        .read_to_end(&mut text)
        .map_err(unread)?;
    if text.len() as u64 > LONGEST_JSON {
        let path = path.to_owned();
        return Err(ListingError::TooLong { path });
    }
    Ok(text)
}

fn config(path: &Path, text: &[u8]) -> Result<ModelConfig, ListingError> {
    let config = ModelConfig::from_json(&String::from_utf8_lossy(text));
    let path = path.to_owned();
    Ok(config.map_err(|source| CheckpointError::Config { path, source })?)
}

fn config_in(folder: &Path) -> Result<Option<ModelConfig>, ListingError> {
    let path = folder.join(CONFIG);
    match path.exists() {
        true => config(&path, &read_json(&path)?).map(Some),
        false => Ok(None),
    }
}

fn tensors(files: Files) -> BTreeMap<String, Option<Vec<usize>>> {
    let tensors = files.tensors.into_iter();
    tensors
        .map(|(name, stored)| (name, stored.entry.map(|entry| entry.shape)))
        .collect()
}

/// What a configuration alone asks for.
fn configured(config: &ModelConfig) -> ExpertParameters {
    let experts = |layer| {
        let experts = 0..config.mixture.experts;
        experts.map(move |expert| {
            let names = expert_parameter_names(config.family, layer, expert);
            (expert, names.into())
        })
    };
    let layers = config.moe_layers();
    layers
        .map(|layer| (layer, experts(layer).collect()))
        .collect()
}

/// What a configuration asks for, all of which the tensors hold, and of experts nothing else.
fn agreed(
    config: &ModelConfig,
    tensors: &BTreeMap<String, Option<Vec<usize>>>,
) -> Result<ExpertParameters, ListingError> {
    let layout = Layout::new(config.clone());
    let mut held: BTreeMap<String, &str> = BTreeMap::new();
    for (tensor, shape) in tensors {
        let parameters = match layout.content(tensor, None) {
            Content::Parameters(parameters) => parameters,
            Content::Foreign if tensor.contains(".experts.") => {
                let name = tensor.clone();
                return Err(ListingError::NotConfigured { name });
            }
            Content::Passenger | Content::Unread | Content::Foreign => continue,
        };
        let of_experts = parameters.into_iter();
        for (name, part) in of_experts.filter(|(name, _)| parse_expert_name(name).is_some()) {
            if let Some(found) = shape {
                let view = layout.view(&part, found);
                view.map_err(|expected| CheckpointError::MisshapenTensor {
                    name: tensor.clone(),
                    expected,
                    found: found.clone(),
                })?;
            }
            hold(&mut held, name, tensor)?;
        }
    }
    let experts = configured(config);
    let mut names = experts.values().flat_map(BTreeMap::values).flatten();
    match names.find(|name| !held.contains_key(*name)) {
        Some(name) => Err(CheckpointError::MissingTensor { name: name.clone() }.into()),
        None => Ok(experts),
    }
}

/// Notes which tensor holds a parameter.
fn hold<'a>(
    held: &mut BTreeMap<String, &'a str>,
    name: String,
    tensor: &'a str,
) -> Result<(), ListingError> {
    match held.insert(name.clone(), tensor) {
        None => Ok(()),
        Some(first) => Err(CheckpointError::StoredTwice {
            name,
            first: first.to_owned(),
            second: tensor.to_owned(),
        }
        .into()),
    }
}

/// What the names of tensors say by themselves.
fn spelled(
    tensors: &BTreeMap<String, Option<Vec<usize>>>,
) -> Result<ExpertParameters, ListingError> {
    let predicting: Vec<&str> = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(PREDICTION_SUFFIX))
        .collect();
    let mut first: Option<(Family, &str)> = None;
    let mut held = BTreeMap::new();
    for (tensor, shape) in tensors {
        let predicts = |module: &&str| {
            let rest = tensor.strip_prefix(*module);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        if tensor.ends_with(SCALE_SUFFIX) || predicting.iter().any(predicts) {
            continue;
        }
        let Some((family, holds)) = recognised(tensor) else {
            if tensor.contains(".experts.") {
                let name = tensor.clone();
                return Err(ListingError::Unspelled { name });
            }
            continue;
        };
        let (spelling, other) = first.get_or_insert((family, tensor));
        if *spelling != family {
            return Err(ListingError::TwoSpellings {
                first: (*other).to_owned(),
                second: tensor.clone(),
            });
        }
        for name in holds.parameters(family, (tensor, shape.as_deref()))? {
            hold(&mut held, name, tensor)?;
            if held.len() > 3 * MOST_EXPERTS {
                let name = tensor.clone();
                return Err(ListingError::TooMany { name });
            }
        }
    }
    let (family, _) = first.ok_or(ListingError::NoExperts)?;
    let mut experts = ExpertParameters::new();
    for (layer, expert) in held.keys().filter_map(|name| parse_expert_name(name)) {
        experts.entry(layer).or_default().entry(expert).or_default();
    }
    for (layer, experts) in &mut experts {
        for (expert, names) in experts {
            *names = expert_parameter_names(family, *layer, *expert).into();
            if let Some(name) = names.iter().find(|name| !held.contains_key(*name)) {
                return Err(CheckpointError::MissingTensor { name: name.clone() }.into());
            }
        }
    }
    Ok(experts)
}

/// What a tensor holds, by its name.
#[derive(Debug, PartialEq)]
enum Held {
    /// One matrix of one expert, under its canonical name.
    Matrix(String),
    /// Gate and up, or down, of one expert.
    OfOne { layer: usize, expert: usize },
    /// The same of all experts of a layer.
    OfAll { layer: usize },
}

/// A tensor of routed experts, and a family that spells as it is spelled.
fn recognised(tensor: &str) -> Option<(Family, Held)> {
    // In memory `transformers` calls Mixtral's block as everybody else's; its matrices tell it apart.
    let on_disk = tensor.replacen(".mlp.", ".block_sparse_moe.", 1);
    for name in [tensor, &on_disk] {
        if let Some((layer, expert)) = parse_expert_name(name) {
            let spells = |family: &Family| {
                let names = expert_parameter_names(*family, layer, expert);
                names.iter().any(|known| known == name)
            };
            let family = SPELLINGS.into_iter().find(spells)?;
            return Some((family, Held::Matrix(name.to_owned())));
        }
    }
    SPELLINGS.into_iter().find_map(|family| {
        let (layer, rest) = tensor
            .strip_prefix(prefix(family))?
            .strip_prefix("layers.")?
            .split_once('.')?;
        let layer = index(layer)?;
        let rest = rest.strip_prefix(block(family))?;
        let rest = rest.strip_prefix(".experts.")?;
        if fused(rest).is_some() {
            return Some((family, Held::OfAll { layer }));
        }
        let (expert, matrix) = rest.split_once('.')?;
        let expert = index(expert)?;
        fused(matrix).map(|_| (family, Held::OfOne { layer, expert }))
    })
}

impl Held {
    /// The parameters of a tensor with this name and shape.
    fn parameters(
        self,
        family: Family,
        (tensor, shape): (&str, Option<&[usize]>),
    ) -> Result<Vec<String>, ListingError> {
        let last = tensor.rsplit('.').next().unwrap_or(tensor);
        let matrices = |layer, expert| {
            let names = expert_parameter_names(family, layer, expert);
            fused(last).map_or(Vec::new(), |fused| parts(names, fused))
        };
        match self {
            Self::Matrix(name) => Ok(vec![name]),
            Self::OfOne { layer, expert } => Ok(matrices(layer, expert)),
            Self::OfAll { layer } => {
                let name = tensor.to_owned();
                match shape {
                    None => Err(ListingError::NoShape { name }),
                    Some(&[experts, rows, columns]) if experts.min(rows).min(columns) > 0 => {
                        if experts > MOST_EXPERTS {
                            return Err(ListingError::TooMany { name });
                        }
                        let experts = 0..experts;
                        Ok(experts.flat_map(|expert| matrices(layer, expert)).collect())
                    }
                    Some(found) => {
                        let found = found.to_vec();
                        Err(ListingError::Shape { name, found })
                    }
                }
            }
        }
    }
}
