//! A model without tensors: sixteen numbers an expert, and a loss that can be computed by hand.
//!
//! Each document asks for a target vector, derived from its first token; every expert contributes its
//! squared distance to it. Training is gradient descent on half of each expert's numbers, which half
//! depending on the seed, so that two miners' updates differ as those of real ones do. All rules of the
//! network (partition, update, clip, momentum, gate) meet real numbers, and a cycle takes
//! microseconds, which is what the protocol's tests and simulations are run on.

pub mod task;

use connito_engine::Tensor;
use connito_engine::data::documents::{Limits, TokenDocuments};
use connito_engine::routing::ExpertMap;
use connito_protocol::partition::ExpertMapping;
use connito_protocol::scoring::SequenceLoss;

use crate::backend::{Backend, BackendError, FixedParts, TrainedShard, TrainingPlan, Visited};
use crate::learner::StateLearner;
use crate::selection::{Score, Scores};
use crate::shard::{Layout, Shard};

/// The learner that protocol tests run on.
pub type ToyLearner<S> = StateLearner<S, ToyBackend>;

/// Numbers in a toy expert.
pub const WIDTH: usize = 16;

/// Token ids of toy documents are below this.
pub const VOCABULARY: usize = 1 << 16;

/// Tensor name of a toy expert.
#[must_use]
pub fn expert_names(layer: usize, expert: usize) -> Vec<String> {
    vec![format!("toy.layers.{layer}.experts.{expert}.all.weight")]
}

/// The inverse of [`expert_names`].
fn layer_and_expert(name: &str) -> Option<(usize, usize)> {
    let (layer, expert) = name
        .strip_prefix("toy.layers.")?
        .strip_suffix(".all.weight")?
        .split_once(".experts.")?;
    Some((layer.parse().ok()?, expert.parse().ok()?))
}

/// The toy model.
#[derive(Debug, Default)]
pub struct ToyBackend {
    parameters: Shard,
    sequence_length: usize,
}

impl Backend for ToyBackend {
    fn open(&mut self, parts: &FixedParts<'_>) -> Result<(), BackendError> {
        self.parameters = Shard::default();
        self.sequence_length = parts.sequence_length;
        Ok(())
    }

    fn layout(&self, mapping: &ExpertMapping) -> Result<Layout, BackendError> {
        Ok(mapping
            .param_keys
            .iter()
            .map(|key| (key.clone(), vec![WIDTH]))
            .collect())
    }

    fn install(&mut self, shard: &Shard) -> Result<(), BackendError> {
        let tensors = shard
            .0
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.clone()));
        self.parameters.0.extend(tensors);
        Ok(())
    }

    fn read_documents(&self, bytes: &[u8]) -> Result<TokenDocuments, BackendError> {
        let limits = Limits {
            vocabulary: VOCABULARY,
            sequence_length: self.sequence_length,
        };
        TokenDocuments::from_bytes(bytes, limits).map_err(|fault| BackendError(fault.to_string()))
    }

    fn losses(&mut self, sequences: &[&[u32]]) -> Result<Vec<SequenceLoss>, BackendError> {
        let loss = |sequence: &&[u32]| {
            let target = target(sequence);
            let distance: f64 = self
                .parameters
                .0
                .values()
                .flat_map(|tensor| tensor.values.iter().zip(&target))
                .map(|(value, target)| (f64::from(*value) - target).powi(2))
                .sum();
            SequenceLoss {
                sum: (1.0 + distance) * (sequence.len() - 1) as f64,
                tokens: sequence.len() as u64 - 1,
            }
        };
        Ok(sequences.iter().map(loss).collect())
    }

    fn experts(&self, mapping: &ExpertMapping) -> Result<ExpertMap, BackendError> {
        let of_layer = |layer: &usize| (*layer, mapping.expert_indices.clone());
        Ok(mapping.layer_indices.iter().map(of_layer).collect())
    }

    /// Every token visits every expert that is installed.
    fn scores(
        &mut self,
        _sequences: &[&[u32]],
        _visited: Visited<'_>,
        _score: Score,
    ) -> Result<Scores, BackendError> {
        let mut experts = ExpertMap::new();
        for name in self.parameters.0.keys() {
            if let Some((layer, expert)) = layer_and_expert(name) {
                experts.entry(layer).or_default().push(expert);
            }
        }
        let row = |experts: Vec<usize>| {
            let count = experts.iter().max().map_or(0, |last| last + 1);
            vec![1.0 / count as f64; count]
        };
        let rows = experts.into_iter().map(|(layer, ids)| (layer, row(ids)));
        Scores::new(rows.collect()).map_err(|error| BackendError(error.to_string()))
    }

    fn train(
        &mut self,
        plan: &TrainingPlan<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<TrainedShard, BackendError> {
        let experts = plan.experts.iter();
        let pairs = experts.flat_map(|(layer, experts)| experts.iter().map(|id| (*layer, *id)));
        let keys: Vec<String> = pairs
            .flat_map(|(layer, expert)| expert_names(layer, expert))
            .collect();
        let mut documents = TokenDocuments::default();
        plan.domains
            .iter()
            .for_each(|domain| documents.append(domain));
        let (mut steps, mut tokens, mut loss_first, mut loss_last) = (0, 0, 0.0, 0.0);
        let count = documents.len().max(1) as u64;
        while steps < plan.rules.steps && go_on() {
            let index = plan.seed.wrapping_add(u64::from(steps) * 7) % count;
            let Some(document) = usize::try_from(index)
                .ok()
                .and_then(|index| documents.get(index))
            else {
                return Err(BackendError("there is nothing to train on".to_owned()));
            };
            let loss = self.losses(&[document])?[0];
            loss_last = loss.sum / loss.tokens as f64;
            if steps == 0 {
                loss_first = loss_last;
            }
            let target = target(document);
            for key in &keys {
                if let Some(tensor) = self.parameters.0.get_mut(key) {
                    descend(tensor, &target, half(key, plan.seed));
                }
            }
            steps += 1;
            tokens += loss.tokens;
        }
        let trained = keys
            .iter()
            .filter_map(|key| Some((key.clone(), self.parameters.0.get(key)?.clone())));
        Ok(TrainedShard {
            shard: Shard(trained.collect()),
            steps,
            tokens,
            loss_first,
            loss_last,
        })
    }
}

/// About half of an expert's numbers, as bits. Another half of each expert, or a few miners' updates would
/// be mixtures of each other.
fn half(key: &str, seed: u64) -> u16 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(key.as_bytes());
    let hash = hasher.finalize();
    u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])
}

/// One step on the numbers whose bits are set.
fn descend(tensor: &mut Tensor, target: &[f64; WIDTH], bits: u16) {
    const RATE: f64 = 0.01;
    let numbers = tensor.values.iter_mut().zip(target).enumerate();
    for (_, (value, target)) in numbers.filter(|(bit, _)| bits >> bit & 1 == 1) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a toy's parameters are f32 like a model's"
        )]
        let step = (RATE * 2.0 * (target - f64::from(*value))) as f32;
        *value += step;
    }
}

/// One half, a little to either side of it depending on the document's first token.
fn target(sequence: &[u32]) -> [f64; WIDTH] {
    let hash = blake3::hash(&sequence.first().copied().unwrap_or(0).to_le_bytes());
    let mut target = [0.5; WIDTH];
    for (value, byte) in target.iter_mut().zip(hash.as_bytes()) {
        *value += (f64::from(*byte) / 255.0 - 0.5) * 0.2;
    }
    target
}
