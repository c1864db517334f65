//! Why slices cannot be put back: one sentence each, naming the slice and what of it is at fault.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;

/// Why slices cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The base cannot be read or is not whole, or the result cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A slice cannot be read, or is none of the base.
    #[error("{} is no slice of the model", slice.display())]
    Slice {
        /// Its folder.
        slice: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<CheckpointError>,
    },
    /// A slice says that it was taken from a model of another configuration.
    #[error(
        "{} was taken beside another config.json than {}", slice.display(), config.display()
    )]
    AnotherModel {
        /// The slice's weights file.
        slice: PathBuf,
        /// The base's `config.json`.
        config: PathBuf,
    },
    /// A slice holds no routed expert.
    #[error("{} holds no experts", slice.display())]
    NoExperts {
        /// Its folder.
        slice: PathBuf,
    },
    /// A fused tensor has fewer rows than the model has experts, and nothing says whose they are.
    #[error(
        "tensor {name} of {} has {rows} of {experts} experts and the file does not say which",
        slice.display()
    )]
    UnnamedRows {
        /// The slice's folder.
        slice: PathBuf,
        /// The tensor.
        name: String,
        /// Experts that it holds.
        rows: usize,
        /// Experts that the model has in a layer.
        experts: usize,
    },
    /// Two slices hold the same expert.
    #[error(
        "expert {expert} of layer {layer} is in {} and in {}", first.display(), second.display()
    )]
    ExpertTwice {
        /// The layer, from 0.
        layer: usize,
        /// The expert, from 0.
        expert: usize,
        /// One folder.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A slice changes something that is no routed expert.
    #[error(
        "tensor {name} of {} is not the model's, and only routed experts may be trained",
        slice.display()
    )]
    Backbone {
        /// The slice's folder.
        slice: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor would have to be converted to or from a type that is not converted.
    #[error(
        "tensor {name} of {} is stored as {found} and cannot become {expected}", slice.display()
    )]
    ElementType {
        /// The slice's folder.
        slice: PathBuf,
        /// The tensor.
        name: String,
        /// Its type, as safetensors spells it.
        found: String,
        /// The base's.
        expected: String,
    },
    /// A trained value is infinite or no number, or becomes so in the base's type.
    #[error(
        "tensor {name} of {} has values that are not finite as {element_type}", slice.display()
    )]
    NotFinite {
        /// The slice's folder.
        slice: PathBuf,
        /// The tensor.
        name: String,
        /// The base's type.
        element_type: String,
    },
}
