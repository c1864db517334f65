//! What turns a model engine into a network participant.
//!
//! ```text
//! task blobs ──▶ Learner ──Train──▶ update blob
//!                        ──Score──▶ findings
//!                        ──Merge──▶ the next state's blobs, gate losses
//! ```
//!
//! [`shard`] and [`wire`] say what an expert group's parameters are and how they travel;
//! [`aggregate`] is the arithmetic that everyone repeats bit for bit; [`learner`] does a role's jobs
//! over two ports, [`store`] and [`backend`]. The [`engine_backend`] is the real model, [`toy`] one
//! without tensors on which the protocol is tested. [`expert_manager`] finds out which
//! experts a model has; [`task`] takes a model apart and puts it together.
//! [`scorer`] measures one update, [`copies`] knows which are copies by their [`sketch`]es.
//! [`selection`] says which of a group's experts matter for a text, [`inner`] trains them.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod audit;
pub mod backend;
pub mod copies;
pub mod engine_backend;
pub mod expert_manager;
pub mod feedback;
pub mod inner;
pub mod learner;
pub mod scorer;
pub mod selection;
pub mod shard;
pub mod sketch;
pub mod store;
pub mod succession;
pub mod task;
pub mod toy;
pub mod update;
pub mod wire;

pub use engine_backend::EngineBackend;
pub use expert_manager::{ExpertManager, ExpertManagerError};
pub use learner::{Conduct, Learner, StateLearner};
