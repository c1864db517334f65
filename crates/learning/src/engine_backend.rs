//! The real backend: a Mixture-of-Experts transformer of the engine.

use std::collections::BTreeMap;

use connito_engine::data::documents::{Batches, Limits, TokenDocuments};
use connito_engine::{
    AdamW, EngineError, Model, ModelConfig, Routing, Tensor, TrainableSet, Trainer,
    parse_expert_name,
};
use connito_protocol::partition::ExpertMapping;
use connito_protocol::rules::{InnerRules, TrainingRouting};
use connito_protocol::scoring::SequenceLoss;

use crate::backend::{Backend, BackendError, FixedParts, TrainedShard, TrainingPlan};
use crate::shard::{Layout, Shard};
use crate::wire;

/// A model of the engine, on a fixed number of threads.
#[derive(Debug)]
pub struct EngineBackend {
    threads: usize,
    sequence_length: usize,
    model: Option<Model>,
}

impl EngineBackend {
    /// A backend without a model.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            sequence_length: 0,
            model: None,
        }
    }

    fn model(&self) -> Result<&Model, BackendError> {
        self.model.as_ref().ok_or_else(no_model)
    }
}

/// Names and shapes of everything that is not a routed expert's.
#[must_use]
pub fn backbone_layout(config: &ModelConfig) -> Layout {
    let mut layout = Model::expected_tensors(config);
    layout.retain(|name, _| parse_expert_name(name).is_none());
    layout
}

impl Backend for EngineBackend {
    fn open(&mut self, parts: &FixedParts<'_>) -> Result<(), BackendError> {
        let json = std::str::from_utf8(parts.config)
            .map_err(|_| BackendError("the model's config.json is not UTF-8".to_owned()))?;
        let config = ModelConfig::from_json(json).map_err(|error| told("config.json", &error))?;
        let backbone = wire::decode_shard(parts.backbone, &backbone_layout(&config))
            .map_err(|error| told("backbone", &error))?;
        // Experts stay zero until their shard is installed.
        let mut tensors: BTreeMap<String, Tensor> = Model::expected_tensors(&config)
            .into_iter()
            .filter(|(name, _)| parse_expert_name(name).is_some())
            .map(|(name, shape)| (name, Tensor::zeros(&shape)))
            .collect();
        tensors.extend(backbone.0);
        self.model =
            Some(Model::from_tensors(&config, tensors).map_err(|error| told("model", &error))?);
        self.sequence_length = parts.sequence_length;
        Ok(())
    }

    fn layout(&self, mapping: &ExpertMapping) -> Result<Layout, BackendError> {
        let model = self.model()?;
        mapping
            .param_keys
            .iter()
            .map(|key| match model.tensor(key) {
                Some(_) if parse_expert_name(key).is_none() => Err(BackendError(format!(
                    "{key} is no routed expert's and cannot be trained"
                ))),
                Some(tensor) => Ok((key.clone(), tensor.shape.clone())),
                None => Err(BackendError(format!("the model has no tensor {key}"))),
            })
            .collect()
    }

    fn install(&mut self, shard: &Shard) -> Result<(), BackendError> {
        let model = self.model.as_mut().ok_or_else(no_model)?;
        for (name, tensor) in &shard.0 {
            model
                .set_tensor(name, &tensor.values)
                .map_err(|error| told("shard", &error))?;
        }
        Ok(())
    }

    fn read_documents(&self, bytes: &[u8]) -> Result<TokenDocuments, BackendError> {
        let limits = Limits {
            vocabulary: self.model()?.config().vocab_size,
            sequence_length: self.sequence_length,
        };
        TokenDocuments::from_bytes(bytes, limits).map_err(|fault| told("token documents", &fault))
    }

    fn losses(&mut self, sequences: &[&[u32]]) -> Result<Vec<SequenceLoss>, BackendError> {
        let losses = self
            .model()?
            .sequence_losses(sequences, self.threads, &Routing::Classic)
            .map_err(|error| told("evaluation", &error))?;
        let plain = |loss: connito_engine::SequenceLoss| SequenceLoss {
            sum: loss.sum,
            tokens: loss.tokens as u64,
        };
        Ok(losses.into_iter().map(plain).collect())
    }

    fn train(
        &mut self,
        plan: &TrainingPlan<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<TrainedShard, BackendError> {
        let threads = self.threads;
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let mut progress =
            train_experts(model, plan, threads, go_on).map_err(|error| told("training", &error))?;
        for key in &plan.mapping.param_keys {
            let tensor = model
                .tensor(key)
                .ok_or_else(|| BackendError(format!("the model has no tensor {key}")))?;
            progress.shard.0.insert(key.clone(), tensor.clone());
        }
        Ok(progress)
    }
}

fn train_experts(
    model: &mut Model,
    plan: &TrainingPlan<'_>,
    threads: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<TrainedShard, EngineError> {
    let experts: BTreeMap<usize, Vec<usize>> = plan
        .mapping
        .layer_indices
        .iter()
        .map(|layer| (*layer, plan.mapping.expert_indices.clone()))
        .collect();
    let routing = match plan.rules.routing {
        TrainingRouting::Classic => Routing::Classic,
        TrainingRouting::Masked => Routing::Masked {
            experts: experts.clone(),
        },
    };
    let trainable = TrainableSet::Experts(experts);
    let mut trainer = Trainer::new(model, trainable, routing, AdamW::default(), threads)?;
    let batch = plan.rules.batch_sequences as usize;
    let mut batches = Batches::new(plan.documents.len(), batch, plan.seed);
    let mut progress = TrainedShard {
        shard: Shard::default(),
        steps: 0,
        tokens: 0,
        loss_first: 0.0,
        loss_last: 0.0,
    };
    while progress.steps < plan.rules.steps && go_on() {
        let Some(picks) = batches.next() else { break };
        let sequences = plan.documents.select(&picks);
        let rate = learning_rate(progress.steps, plan.rules);
        let report = trainer.step(model, &sequences, rate)?;
        if progress.steps == 0 {
            progress.loss_first = report.loss;
        }
        progress.loss_last = report.loss;
        progress.steps += 1;
        progress.tokens += sequences
            .iter()
            .map(|sequence| sequence.len() as u64 - 1)
            .sum::<u64>();
    }
    Ok(progress)
}

/// A short warm-up, for AdamW's moments start empty, then down to zero in a straight line: what is
/// sent is the last iterate, and only small last steps take out the noise of a few dozen batches.
fn learning_rate(step: u32, rules: &InnerRules) -> f32 {
    const WARM_UP_STEPS: f32 = 4.0;
    let (done, all) = (step as f32 + 1.0, rules.steps as f32);
    let rising = (done / WARM_UP_STEPS).min(1.0);
    let falling = (all - step as f32) / all;
    rules.learning_rate * rising * falling
}

fn no_model() -> BackendError {
    BackendError("no model has been opened".to_owned())
}

fn told(what: &str, error: &dyn std::error::Error) -> BackendError {
    BackendError(format!("{what}: {error}"))
}
