//! The port to whatever is trained and measured: the engine's model, or a toy.
//!
//! A backend holds one model at a time. The learner installs shards, asks for losses and lets it
//! train; it never sees a layer. Calls are synchronous and made from one thread.

use connito_engine::data::documents::TokenDocuments;
use connito_engine::routing::ExpertMap;
use connito_protocol::partition::ExpertMapping;
use connito_protocol::rules::InnerRules;
use connito_protocol::scoring::SequenceLoss;

use crate::selection::{Score, Scores};
use crate::shard::{Layout, Shard};

/// Why a backend could not do what it was asked. One sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BackendError(pub String);

/// A model that can be trained in part and measured as a whole.
pub trait Backend: Send {
    /// Takes the parts of the model that never change. Experts are undefined until installed.
    ///
    /// # Errors
    /// The bytes are not a model that this backend knows.
    fn open(&mut self, parts: &FixedParts<'_>) -> Result<(), BackendError>;

    /// Names and shapes of a group's tensors.
    ///
    /// # Errors
    /// The mapping names a tensor that the model does not have.
    fn layout(&self, mapping: &ExpertMapping) -> Result<Layout, BackendError>;

    /// A group's experts, layer by layer.
    ///
    /// # Errors
    /// The mapping is not one of this model.
    fn experts(&self, mapping: &ExpertMapping) -> Result<ExpertMap, BackendError>;

    /// Puts a group's tensors in place of the ones before.
    ///
    /// # Errors
    /// A tensor that the model does not have, or of another shape.
    fn install(&mut self, shard: &Shard) -> Result<(), BackendError>;

    /// Installs `base + update`. A backend that can do so tensor by tensor saves a whole shard's memory.
    ///
    /// # Errors
    /// As [`Self::install`].
    fn install_sum(&mut self, base: &Shard, update: &Shard) -> Result<(), BackendError> {
        self.install(&base.plus(update))
    }

    /// Reads token documents, checking them against the model's vocabulary.
    ///
    /// # Errors
    /// The bytes are not token documents for this model.
    fn read_documents(&self, bytes: &[u8]) -> Result<TokenDocuments, BackendError>;

    /// The loss of each sequence, under natural routing with everything installed.
    ///
    /// # Errors
    /// A sequence does not fit the model.
    fn losses(&mut self, sequences: &[&[u32]]) -> Result<Vec<SequenceLoss>, BackendError>;

    /// What every expert is worth to sequences, by where their tokens go.
    ///
    /// # Errors
    /// A sequence or a listed expert does not fit the model.
    fn scores(
        &mut self,
        sequences: &[&[u32]],
        visited: Visited<'_>,
        score: Score,
    ) -> Result<Scores, BackendError>;

    /// Trains experts from what is installed and gives their new values, of these experts alone. `go_on`
    /// is asked before every step.
    ///
    /// # Errors
    /// The documents or the experts do not fit the model.
    fn train(
        &mut self,
        plan: &TrainingPlan<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<TrainedShard, BackendError>;
}

/// Where tokens may go.
#[derive(Debug, Clone, Copy)]
pub enum Visited<'a> {
    /// Natural routing: everything has to be installed.
    AllExperts,
    /// To these experts alone.
    Only(&'a ExpertMap),
}

/// The parts of a model that no update changes.
#[derive(Debug, Clone, Copy)]
pub struct FixedParts<'a> {
    /// `config.json`.
    pub config: &'a [u8],
    /// Every tensor that is not a routed expert's.
    pub backbone: &'a [u8],
    /// Longest sequence that the task uses, in tokens.
    pub sequence_length: usize,
}

/// What to train on, and how.
#[derive(Debug, Clone, Copy)]
pub struct TrainingPlan<'a> {
    /// The experts to train.
    pub experts: &'a ExpertMap,
    /// Frozen experts that stay routable, where the rules' routing keeps any; none of them is trained.
    pub kept: &'a ExpertMap,
    /// The text, one entry a domain.
    pub domains: &'a [TokenDocuments],
    /// Steps, batch, rate and routing.
    pub rules: &'a InnerRules,
    /// Order of the data.
    pub seed: u64,
}

/// Trained experts.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedShard {
    /// Their tensors.
    pub shard: Shard,
    /// Steps taken.
    pub steps: u32,
    /// Tokens seen.
    pub tokens: u64,
    /// Loss of the first step.
    pub loss_first: f64,
    /// Loss of the last step.
    pub loss_last: f64,
}
