//! Mixture-of-Experts transformers: forward, hand-written backward, routing modes, AdamW, Hugging Face
//! checkpoints, text and tokens.
//!
//! ```text
//! checkpoint ──► Model ──► sequence_losses          evaluate: the same bits in any batch, on any threads
//!                  │
//!                  ├─────► Trainer::step            train the experts of one group, or everything
//!                  │
//!                  └─────► tensor / set_tensor      take shards out, put merged ones in
//! ```
//!
//! [`model`] reads like the equations and is written once over [`device::Device`], the seam towards the
//! machine; `device/cpu` is the first machine. There is no automatic differentiation: frozen weights
//! need no gradient, and the backward pass below the lowest trained layer never runs.
//!
//! Everything is synchronous and does as it is told: the engine knows no miners, cycles or networks,
//! and reads no clock.

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
pub mod element;
pub mod error;
pub mod exact;
pub mod formula;
mod kernels;
pub mod memory;
pub mod model;
mod names;
pub mod optimizer;
pub mod pretrain;
mod random;
pub mod routing;
pub mod tensor;
pub mod tokenizer;
pub mod trainer;

pub use config::ModelConfig;
pub use error::EngineError;
pub use exact::Exact;
pub use kernels::mapped_file::MappedFile;
pub use memory::MemoryPlan;
pub use model::{Holding, Model, Residency, SequenceLoss};
pub use names::{SwiGlu, expert_parameter_names, parse_expert_name};
pub use optimizer::AdamW;
pub use routing::{Routing, RoutingStatistics};
pub use tensor::Tensor;
pub use trainer::{StepReport, TrainableSet, Trainer, gradients};
