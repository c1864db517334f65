//! What can go wrong between a folder and a model: one sentence each, naming file, tensor or key.

use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::routing::RoutingError;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint would be mixed with files that are already there.
    #[error("{} is not empty, a checkpoint is written to a folder of its own", path.display())]
    FolderNotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A `config.json` does not describe a model that this engine runs.
    #[error("unusable configuration {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key at fault.
        #[source]
        source: ConfigError,
    },
    /// A weights file is truncated or is no safetensors file.
    #[error("{} is not a complete safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Where its structure breaks.
        #[source]
        source: HeaderError,
    },
    /// A `model.safetensors.index.json` is not one.
    #[error("{} is not an index of weights files", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Where its syntax breaks.
        #[source]
        source: serde_json::Error,
    },
    /// An index names something other than a file beside it.
    #[error("{} lists {file:?}, which is not a file name", path.display())]
    IndexEntry {
        /// The index.
        path: PathBuf,
        /// What it lists.
        file: String,
    },
    /// Two listed files hold a tensor of one name.
    #[error("tensor {name} is in {} and in {}", first.display(), second.display())]
    InTwoFiles {
        /// The tensor.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A slice's own account of its experts cannot be used.
    #[error("{} does not say properly which experts it holds", path.display())]
    SliceRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with the account.
        #[source]
        source: RecordError,
    },
    /// A folder is to be written into one that is read.
    #[error("{} is, or lies in, {}, which is only read", path.display(), input.display())]
    WithinInput {
        /// The folder to be written.
        path: PathBuf,
        /// The folder that is read.
        input: PathBuf,
    },
    /// What should be a model's folder is a file.
    #[error("{} is no folder", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// Something stands where a folder is to be written, or the path leads nowhere.
    #[error("{} is no place for a folder", path.display())]
    NoPlace {
        /// The path.
        path: PathBuf,
    },
    /// A tensor is not in the file that the index gives for it.
    #[error("tensor {name} is not in {}, where the index has it", path.display())]
    NotWhereListed {
        /// The tensor.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A tensor that is needed lies in a file that is absent.
    #[error("tensor {name} lies in {}, which is missing", path.display())]
    MissingFile {
        /// The tensor.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The model has no parameter of this name, or the checkpoint lacks it.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// The parameter.
        name: String,
    },
    /// The checkpoint holds a tensor that the configured model does not have.
    #[error("tensor {name} does not belong to the configured model")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
    },
    /// Two tensors claim to be the same parameter.
    #[error("tensors {first} and {second} both hold {name}")]
    StoredTwice {
        /// The parameter.
        name: String,
        /// One tensor.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor's shape is not the configured one.
    #[error("tensor {name} should have shape {expected:?}, found {found:?}")]
    MisshapenTensor {
        /// The tensor.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape that was found.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read here.
    #[error(
        "tensor {name} is stored as {element_type}, only F32, F16, BF16 and scaled F8_E4M3 are read"
    )]
    ElementType {
        /// The tensor.
        name: String,
        /// Its type, as safetensors spells it.
        element_type: String,
    },
    /// New values were given for a tensor whose type is only read here.
    #[error("tensor {name} is stored as {element_type}, which is read but not written")]
    ReadOnly {
        /// The tensor.
        name: String,
        /// Its type, as safetensors spells it.
        element_type: String,
    },
}

/// What is wrong with a slice's account of its experts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is no table of layers.
    #[error("the experts are not listed by layer")]
    Syntax {
        /// Where its syntax breaks.
        #[source]
        source: serde_json::Error,
    },
    /// Ids are repeated or not in order, so that rows could not be told apart.
    #[error("the experts of layer {layer} are not in ascending order")]
    Order {
        /// The layer.
        layer: usize,
    },
    /// The model has no such experts.
    #[error(transparent)]
    Experts(#[from] RoutingError),
}

/// Where the structure of a safetensors file breaks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file ends before its header does.
    #[error("the file ends within its header")]
    Truncated,
    /// The header is longer than the format allows.
    #[error("the header is said to be {bytes} bytes long")]
    TooLong {
        /// The length that the file begins with.
        bytes: u64,
    },
    /// The header is not a table of tensors.
    #[error("the header is not a table of tensors")]
    Syntax {
        /// Where its syntax breaks.
        #[source]
        source: serde_json::Error,
    },
    /// Tensors overlap or leave a gap.
    #[error("tensor {name} does not begin where the one before it ends")]
    Offsets {
        /// The tensor.
        name: String,
    },
    /// A tensor's shape and type do not fit its bytes.
    #[error("tensor {name} does not fill its bytes")]
    Size {
        /// The tensor.
        name: String,
    },
    /// The file is shorter or longer than its tensors.
    #[error("the tensors end at byte {expected}, the file at byte {found}")]
    Length {
        /// Where the last tensor ends.
        expected: u64,
        /// Where the file ends.
        found: u64,
    },
}

impl CheckpointError {
    pub(super) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }
}
