//! The files of a folder that hold weights, and which tensor lies in which.
//!
//! Either `model.safetensors`, or the files that `model.safetensors.index.json` lists. A listed file may
//! be absent as long as nobody needs a tensor of it: that is one way to keep a slice of a large model.
//! Whoever computes with the weights maps the files; whoever only moves bytes about reads their headers
//! and takes no address space for the rest.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::CheckpointError;
use super::header::{self, Entry, Header, PREFIX};
use super::record;
use crate::kernels::mapped_file::MappedFile;
use crate::routing::ExpertMap;

pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// One file of weights.
#[derive(Debug)]
pub(super) struct WeightsFile {
    pub(super) path: PathBuf,
    /// `None` where the file is absent.
    pub(super) header: Option<Header>,
    /// The experts that a slice says it holds; `None` in every other file.
    pub(super) held: Option<ExpertMap>,
    /// `None` where the file is absent, or was not mapped.
    map: Option<MappedFile>,
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

/// How a file is opened.
type Open = fn(&Path) -> Result<WeightsFile, CheckpointError>;

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Tensor → file; a tensor that is listed twice is refused, not taken from where it is listed last.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor).map(Self)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tensors to files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, file)) = entries.next_entry::<String, String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor {name} is listed twice")));
            }
            map.insert(name, file);
        }
        Ok(map)
    }
}

impl Files {
    /// Maps every file that is there.
    pub(super) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        Self::find(folder, WeightsFile::open)
    }

    /// Reads headers only: [`Self::tensor`] has no bytes.
    pub(super) fn survey(folder: &Path) -> Result<Self, CheckpointError> {
        Self::find(folder, WeightsFile::survey)
    }

    fn find(folder: &Path, open: Open) -> Result<Self, CheckpointError> {
        let index = folder.join(INDEX);
        // As `transformers`, which looks for the single file first.
        if folder.join(WEIGHTS).exists() || !index.exists() {
            return Self::single(&folder.join(WEIGHTS), open);
        }
        Self::indexed(&index, open)
    }

    /// One file.
    pub(super) fn single(path: &Path, open: Open) -> Result<Self, CheckpointError> {
        let file = open(path)?;
        file.present()?;
        let tensors = file.tensors().iter().map(|(name, entry)| {
            let entry = Some(entry.clone());
            (name.clone(), Stored { file: 0, entry })
        });
        Ok(Self {
            tensors: tensors.collect(),
            files: vec![file],
        })
    }

    /// The files that an index lists, which lie beside it.
    pub(super) fn indexed(index: &Path, open: Open) -> Result<Self, CheckpointError> {
        let text = std::fs::read(index).map_err(|source| CheckpointError::read(index, source))?;
        let parsed: Index =
            serde_json::from_slice(&text).map_err(|source| CheckpointError::Index {
                path: index.to_owned(),
                source,
            })?;
        let WeightMap(weight_map) = parsed.weight_map;
        Self::listed(index, weight_map, open)
    }

    fn listed(
        index: &Path,
        weight_map: BTreeMap<String, String>,
        open: Open,
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
                    files.push(open(&index.with_file_name(&listed))?);
                    numbers.insert(listed, files.len() - 1);
                    files.len() - 1
                }
            };
            tensors.insert(name, number);
        }
        in_one_file_each(&files)?;
        let entries: Vec<BTreeMap<&str, &Entry>> = files.iter().map(WeightsFile::by_name).collect();
        let stored = tensors.into_iter().map(|(name, number)| {
            let file = &files[number];
            let entry = entries[number]
                .get(name.as_str())
                .map(|entry| (*entry).clone());
            if entry.is_none() && file.header.is_some() {
                let path = file.path.clone();
                return Err(CheckpointError::NotWhereListed { name, path });
            }
            let file = number;
            Ok((name, Stored { file, entry }))
        });
        let tensors = stored.collect::<Result<_, _>>()?;
        Ok(Self { files, tensors })
    }

    /// What a tensor is and where it lies.
    pub(super) fn entry(&self, name: &str) -> Result<(&WeightsFile, &Entry), CheckpointError> {
        let missing = || CheckpointError::MissingTensor { name: name.into() };
        let stored = self.tensors.get(name).ok_or_else(missing)?;
        let file = &self.files[stored.file];
        match &stored.entry {
            Some(entry) => Ok((file, entry)),
            None => Err(CheckpointError::MissingFile {
                name: name.into(),
                path: file.path.clone(),
            }),
        }
    }

    /// What a tensor is and its bytes, in a folder whose files are mapped.
    pub(super) fn tensor(&self, name: &str) -> Result<(&Entry, &[u8]), CheckpointError> {
        let missing = || CheckpointError::MissingTensor { name: name.into() };
        let (file, entry) = self.entry(name)?;
        let bytes = file.bytes()?.get(entry.bytes.clone());
        Ok((entry, bytes.ok_or_else(missing)?))
    }

    /// Bytes of all files together.
    pub(super) fn size(&self) -> u64 {
        let sizes = self.files.iter().map(WeightsFile::size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// Which of two tensors of one name is meant depends on who reads them.
fn in_one_file_each(files: &[WeightsFile]) -> Result<(), CheckpointError> {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for file in files {
        for (name, _) in file.tensors() {
            if let Some(first) = seen.insert(name, &file.path) {
                return Err(CheckpointError::InTwoFiles {
                    name: name.clone(),
                    first: first.to_owned(),
                    second: file.path.clone(),
                });
            }
        }
    }
    Ok(())
}

impl WeightsFile {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = match MappedFile::open(path) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::absent(path)),
            Err(source) => return Err(CheckpointError::read(path, source)),
        };
        let bytes = map.bytes();
        let file = Self::described(path, bytes, bytes.len() as u64)?;
        Ok(Self {
            map: Some(map),
            ..file
        })
    }

    pub(super) fn survey(path: &Path) -> Result<Self, CheckpointError> {
        let unreadable = |source| CheckpointError::read(path, source);
        let broken = |source| CheckpointError::Safetensors {
            path: path.to_owned(),
            source,
        };
        let length = match std::fs::metadata(path) {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => {
                let message = "this is not an ordinary file";
                let error = io::Error::new(io::ErrorKind::InvalidInput, message);
                return Err(unreadable(error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::absent(path)),
            Err(source) => return Err(unreadable(source)),
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let mut beginning = Vec::new();
        let mut read = |bytes: usize| {
            let mut next = (&mut file).take(bytes as u64);
            next.read_to_end(&mut beginning).map_err(unreadable)?;
            Ok::<_, CheckpointError>(beginning.first_chunk().copied())
        };
        if let Some(prefix) = read(PREFIX)? {
            let start = header::data_start(prefix, length).map_err(broken)?;
            read(start - PREFIX)?;
        }
        Self::described(path, &beginning, length)
    }

    fn absent(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            header: None,
            held: None,
            map: None,
        }
    }

    /// A file by its first bytes and its length.
    fn described(path: &Path, beginning: &[u8], length: u64) -> Result<Self, CheckpointError> {
        let header =
            header::read(beginning, length).map_err(|source| CheckpointError::Safetensors {
                path: path.to_owned(),
                source,
            })?;
        let held =
            record::held(&header.metadata).map_err(|source| CheckpointError::SliceRecord {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            header: Some(header),
            held,
            map: None,
        })
    }

    /// In the order of their bytes; none where the file is absent.
    pub(super) fn tensors(&self) -> &[(String, Entry)] {
        self.header.as_ref().map_or(&[], |header| &header.tensors)
    }

    /// What the file says of itself, or that it is absent.
    pub(super) fn present(&self) -> Result<&Header, CheckpointError> {
        let absent = || CheckpointError::read(&self.path, io::ErrorKind::NotFound.into());
        self.header.as_ref().ok_or_else(absent)
    }

    /// All of the file, where it is mapped.
    pub(super) fn bytes(&self) -> Result<&[u8], CheckpointError> {
        let absent = || CheckpointError::read(&self.path, io::ErrorKind::NotFound.into());
        Ok(self.map.as_ref().ok_or_else(absent)?.bytes())
    }

    /// Its bytes; none where the file is absent.
    pub(super) fn size(&self) -> u64 {
        let Some(header) = &self.header else {
            return 0;
        };
        let last = header.tensors.last();
        last.map_or(header.data, |(_, entry)| entry.bytes.end) as u64
    }

    fn by_name(&self) -> BTreeMap<&str, &Entry> {
        let entries = self.tensors().iter();
        entries
            .map(|(name, entry)| (name.as_str(), entry))
            .collect()
    }
}
