//! The files of a folder that hold weights, mapped, and which tensor lies in which.
//!
//! Either `model.safetensors`, or the files that `model.safetensors.index.json` lists. A listed file may
//! be absent as long as nobody needs a tensor of it: that is how a slice of a large model is kept.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use super::header::{self, Entry};
use crate::kernels::mapped_file::MappedFile;

pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// One file of weights.
#[derive(Debug)]
pub(super) struct WeightsFile {
    pub(super) path: PathBuf,
    /// `None` where the file is absent.
    pub(super) map: Option<MappedFile>,
    /// In the order of their bytes.
    pub(super) tensors: Vec<(String, Entry)>,
}

/// A tensor by name.
#[derive(Debug)]
pub(super) struct Stored {
    /// Which of the files.
    pub(super) file: usize,
    /// `None` where the file is absent.
    pub(super) entry: Option<Entry>,
}

/// All weights of a folder.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Vec<WeightsFile>,
    pub(super) tensors: BTreeMap<String, Stored>,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let index = folder.join(INDEX);
        // As `transformers`, which looks for the single file first.
        if folder.join(WEIGHTS).exists() || !index.exists() {
            return Self::single(folder.join(WEIGHTS));
        }
        let text = std::fs::read(&index).map_err(|source| CheckpointError::read(&index, source))?;
        let parsed: Index =
            serde_json::from_slice(&text).map_err(|source| CheckpointError::Index {
                path: index.clone(),
                source,
            })?;
        Self::listed(folder, &index, parsed.weight_map)
    }

    fn single(path: PathBuf) -> Result<Self, CheckpointError> {
        let file = WeightsFile::open(path)?;
        if file.map.is_none() {
            let absent = io::Error::from(io::ErrorKind::NotFound);
            return Err(CheckpointError::read(&file.path, absent));
        }
        let tensors = file.tensors.iter().map(|(name, entry)| {
            let entry = Some(entry.clone());
            (name.clone(), Stored { file: 0, entry })
        });
        Ok(Self {
            tensors: tensors.collect(),
            files: vec![file],
        })
    }

    fn listed(
        folder: &Path,
        index: &Path,
        weight_map: BTreeMap<String, String>,
    ) -> Result<Self, CheckpointError> {
        let mut files = Vec::new();
        let mut numbers = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (name, listed) in weight_map {
            let number = match numbers.get(&listed) {
                Some(number) => *number,
                None => {
                    // An index from elsewhere must not reach outside its folder.
                    if Path::new(&listed).file_name() != Some(OsStr::new(&listed)) {
                        return Err(CheckpointError::IndexEntry {
                            path: index.to_owned(),
                            file: listed,
                        });
                    }
                    files.push(WeightsFile::open(folder.join(&listed))?);
                    numbers.insert(listed, files.len() - 1);
                    files.len() - 1
                }
            };
            tensors.insert(name, number);
        }
        let entries: Vec<BTreeMap<&str, &Entry>> = files.iter().map(WeightsFile::by_name).collect();
        let stored = tensors.into_iter().map(|(name, number)| {
            let file = &files[number];
            let entry = entries[number]
                .get(name.as_str())
                .map(|entry| (*entry).clone());
            if entry.is_none() && file.map.is_some() {
                let path = file.path.clone();
                return Err(CheckpointError::NotWhereListed { name, path });
            }
            let file = number;
            Ok((name, Stored { file, entry }))
        });
        let tensors = stored.collect::<Result<_, _>>()?;
        Ok(Self { files, tensors })
    }

    /// What a tensor is and its bytes.
    pub(super) fn tensor(&self, name: &str) -> Result<(&Entry, &[u8]), CheckpointError> {
        let missing = || CheckpointError::MissingTensor { name: name.into() };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        let file = &self.files[stored.file];
        match (&stored.entry, &file.map) {
            (Some(entry), Some(map)) => {
                let bytes = map.bytes().get(entry.bytes.clone());
                Ok((entry, bytes.ok_or_else(missing)?))
            }
            _ => Err(CheckpointError::MissingFile {
                name: name.into(),
                path: file.path.clone(),
            }),
        }
    }
}

impl WeightsFile {
    fn open(path: PathBuf) -> Result<Self, CheckpointError> {
        let map = match MappedFile::open(&path) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    path,
                    map: None,
                    tensors: Vec::new(),
                });
            }
            Err(source) => return Err(CheckpointError::read(&path, source)),
        };
        match header::read(map.bytes()) {
            Ok(tensors) => Ok(Self {
                path,
                map: Some(map),
                tensors,
            }),
            Err(source) => Err(CheckpointError::Safetensors { path, source }),
        }
    }

    fn by_name(&self) -> BTreeMap<&str, &Entry> {
        let entries = self.tensors.iter();
        entries
            .map(|(name, entry)| (name.as_str(), entry))
            .collect()
    }
}
