//! What can go wrong between a folder, a batch and a model. One variant per thing a caller can mend;
//! every message names the file, key, tensor, sequence or expert at fault, and causes are sources only.

use crate::checkpoint::CheckpointError;
use crate::routing::RoutingError;
use crate::trainer::des_moe::DesMoeError;

/// Why a model could not be read, written, run or trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A folder is no usable checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A routing or a set of experts does not fit the model.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// DES-MoE cannot train this way.
    #[error(transparent)]
    DesMoe(#[from] DesMoeError),
    /// The operating system refuses threads.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the operating system said.
        reason: String,
    },
    /// The model has no tensor of this name, or it is not in memory.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor does not belong to the configured model.
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
    /// There is nothing to compute a loss over.
    #[error("no sequences were given")]
    NoSequences,
    /// A sequence is too short to predict anything or longer than the model's positions.
    #[error("sequence {index} has {length} tokens, the model takes {shortest} to {longest}")]
    SequenceLength {
        /// Which sequence of the batch, from 0.
        index: usize,
        /// Its tokens.
        length: usize,
        /// 1 for logits, 2 for a loss.
        shortest: usize,
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
    /// A router's weights are not numbers: the model is spoilt, or its text drives it out of range.
    #[error("the router of layer {layer} gives weights that are not finite")]
    SpoiltRouter {
        /// The layer, from 0.
        layer: usize,
    },
    /// The set of parameters to train is empty.
    #[error("no expert was named for training")]
    NothingToTrain,
    /// A parameter is to be trained that is stored in 8 bits.
    #[error("tensor {name} is stored in 8 bits and cannot be trained")]
    TrainedInEightBits {
        /// The tensor.
        name: String,
    },
    /// Gradients were to be released layer by layer although what is in no layer is trained too.
    #[error("gradients can be released layer by layer only where the backbone is frozen")]
    ReleasedBackbone,
    /// A trainer was given another model than the one that it was made for.
    #[error("the trainer was made for a model of another configuration or with other parameters")]
    AnotherModel,
    /// A step would have spoilt the model.
    #[error("the loss or its gradient is not finite in optimiser step {step}")]
    NotFinite {
        /// The step, from 1.
        step: u64,
    },
}
