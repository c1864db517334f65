//! What can go wrong between a folder, a batch and a model. One variant per thing a caller can mend;
//! every message names the file, key, tensor, sequence or expert at fault, and causes are sources only.

use std::path::PathBuf;

use crate::config::ConfigError;

/// Why a model could not be read, written, run or trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
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
        source: safetensors::SafeTensorError,
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
    /// The model has no tensor of this name, or the checkpoint lacks it.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// The checkpoint holds a tensor that the configured model does not have.
    #[error("tensor {name} does not belong to the configured model")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor's shape is not the configured one, or its values do not fill its shape.
    #[error("tensor {name} should have shape {expected:?}, found {found:?}")]
    MisshapenTensor {
        /// The tensor.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape that was given; one number when only a count of values was.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read here.
    #[error("tensor {name} is stored as {element_type}, only f32, f16 and bf16 are read")]
    ElementType {
        /// The tensor.
        name: String,
        /// Its type, as safetensors spells it.
        element_type: String,
    },
    /// There is nothing to compute a loss over.
    #[error("no sequences were given")]
    NoSequences,
    /// A sequence is too short to predict anything or longer than the model's positions.
    #[error("sequence {index} has {length} tokens, the model takes 2 to {longest}")]
    SequenceLength {
        /// Which sequence of the batch, from 0.
        index: usize,
        /// Its tokens.
        length: usize,
        /// `max_position_embeddings`.
        longest: usize,
    },
    /// A token id lies outside the vocabulary.
    #[error("sequence {index} holds token id {id}, the vocabulary has {vocabulary}")]
    TokenId {
        /// Which sequence of the batch, from 0.
        index: usize,
        /// The id.
        id: u32,
        /// `vocab_size`.
        vocabulary: usize,
    },
    /// A layer and expert were named that are not a routed expert of this model.
    #[error("layer {layer} has no routed expert {expert}")]
    NoSuchExpert {
        /// The layer, from 0.
        layer: usize,
        /// The expert, from 0.
        expert: usize,
    },
    /// Routing was restricted in a layer without routed experts.
    #[error("layer {layer} has no routed experts")]
    NoSuchMoeLayer {
        /// The layer, from 0.
        layer: usize,
    },
    /// Masked routing says nothing about one of the model's layers.
    #[error("masked routing does not list the experts of layer {layer}")]
    UnroutedLayer {
        /// The layer, from 0.
        layer: usize,
    },
    /// The set of experts to train is empty.
    #[error("no expert was named for training")]
    NothingToTrain,
    /// A trainer was given another model than the one that it was made for.
    #[error("the trainer was made for a model of another configuration")]
    AnotherModel,
    /// A step would have spoilt the model; the model and the optimiser are as before it.
    #[error("the loss or its gradient is not finite in optimiser step {step}")]
    NotFinite {
        /// The step, from 1.
        step: u64,
    },
}
