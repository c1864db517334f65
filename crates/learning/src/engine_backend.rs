//! The real backend: a Mixture-of-Experts transformer of the engine.
//!
//! One model is held for as long as a task lasts. Its backbone is packed once, when the task is opened;
//! installing a shard packs that shard's experts and touches nothing else, so that scoring many updates
//! against one base costs little more than their forward passes. Knows no groups, states or jobs.

use connito_engine::data::documents::{Batches, Limits, TokenDocuments};
use connito_engine::device::{Cpu, Device};
use connito_engine::routing::ExpertMap;
use connito_engine::{
    EngineError, Holding, Model, ModelConfig, Routing, expert_parameter_names, parse_expert_name,
};
use connito_protocol::partition::ExpertMapping;
use connito_protocol::rules::{InnerRules, TrainingRouting};
use connito_protocol::scoring::SequenceLoss;

use crate::backend::{Backend, BackendError, FixedParts, TrainedShard, TrainingPlan, Visited};
use crate::inner::{self, InnerTrainer, Method};
use crate::selection::{Score, ScoreSummary, Scores};
use crate::shard::{Layout, Shard};
use crate::task::experts_of;
use crate::wire;

/// A model of the engine, on a fixed number of threads.
#[derive(Debug)]
pub struct EngineBackend {
    threads: usize,
    method: Method,
    opened: Option<Opened>,
}

/// A task's model.
#[derive(Debug)]
struct Opened {
    model: Model,
    /// Names and shapes of all its tensors.
    expected: Layout,
    /// Longest sequence, in tokens.
    sequence_length: usize,
}

impl EngineBackend {
    /// A backend without a model.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            method: Method::default(),
            opened: None,
        }
    }

    /// A backend of a model that is there already, whole, for sequences of at most so many tokens. Experts
    /// that shards are installed in have to be stored in f32.
    #[must_use]
    pub fn holding(model: Model, sequence_length: usize) -> Self {
        Self {
            threads: 1,
            method: Method::default(),
            opened: Some(Opened {
                expected: Model::expected_tensors(model.config()),
                sequence_length,
                model,
            }),
        }
    }

    /// The same backend, training by another method.
    #[must_use]
    pub fn training_by(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn opened(&self) -> Result<&Opened, BackendError> {
        self.opened.as_ref().ok_or_else(no_model)
    }

    fn opened_mut(&mut self) -> Result<&mut Opened, BackendError> {
        self.opened.as_mut().ok_or_else(no_model)
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
        let device = Cpu::new(self.threads).map_err(|error| told("model", &error))?;
        // Experts are random until their shard is installed. Packing random numbers and replacing the
        // backbone's needs no second copy of the experts, as taking them from tensors would.
        let mut model = Model::random_on(device, &config, &Holding::whole(), 0);
        set_tensors(&mut model, &backbone).map_err(|error| told("backbone", &error))?;
        self.opened = Some(Opened {
            expected: Model::expected_tensors(&config),
            sequence_length: parts.sequence_length,
            model,
        });
        Ok(())
    }

    fn layout(&self, mapping: &ExpertMapping) -> Result<Layout, BackendError> {
        let expected = &self.opened()?.expected;
        mapping
            .param_keys
            .iter()
            .map(|key| match expected.get(key) {
                Some(_) if parse_expert_name(key).is_none() => Err(BackendError(format!(
                    "{key} is no routed expert's and cannot be trained"
                ))),
                Some(shape) => Ok((key.clone(), shape.clone())),
                None => Err(BackendError(format!("the model has no tensor {key}"))),
            })
            .collect()
    }

    fn install(&mut self, shard: &Shard) -> Result<(), BackendError> {
        let model = &mut self.opened_mut()?.model;
        set_tensors(model, shard).map_err(|error| told("shard", &error))
    }

    fn install_sum(&mut self, base: &Shard, update: &Shard) -> Result<(), BackendError> {
        let model = &mut self.opened_mut()?.model;
        let device = model.device().clone();
        device
            .session(|| base.each_sum(update, |name, values| model.set_tensor(name, values)))
            .map_err(|error| told("shard", &error))
    }

    fn read_documents(&self, bytes: &[u8]) -> Result<TokenDocuments, BackendError> {
        let opened = self.opened()?;
        let limits = Limits {
            vocabulary: opened.model.config().vocab_size,
            sequence_length: opened.sequence_length,
        };
        TokenDocuments::from_bytes(bytes, limits).map_err(|fault| told("token documents", &fault))
    }

    fn losses(&mut self, sequences: &[&[u32]]) -> Result<Vec<SequenceLoss>, BackendError> {
        let model = &self.opened()?.model;
        let losses = model
            .sequence_losses(sequences, &Routing::Classic)
            .map_err(|error| told("evaluation", &error))?;
        let plain = |loss: connito_engine::SequenceLoss| SequenceLoss {
            sum: loss.sum,
            tokens: loss.tokens as u64,
        };
        Ok(losses.into_iter().map(plain).collect())
    }

    fn experts(&self, mapping: &ExpertMapping) -> Result<ExpertMap, BackendError> {
        Ok(experts_of(mapping))
    }

    fn scores(
        &mut self,
        sequences: &[&[u32]],
        visited: Visited<'_>,
        score: Score,
    ) -> Result<Scores, BackendError> {
        let routing = match visited {
            Visited::AllExperts => Routing::Classic,
            Visited::Only(experts) => Routing::Masked {
                experts: experts.clone(),
            },
        };
        let model = &self.opened()?.model;
        let visits = model.routing_statistics(sequences, &routing);
        let visits = visits.map_err(|error| told("expert scores", &error))?;
        let summary = ScoreSummary::of(&visits).map_err(|error| told("expert scores", &error))?;
        Ok(summary.scores(score).clone())
    }

    fn train(
        &mut self,
        plan: &TrainingPlan<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<TrainedShard, BackendError> {
        let method = self.method;
        let model = &mut self.opened_mut()?.model;
        let mut progress = train_experts(model, (plan, method), go_on)
            .map_err(|error| told("training", &error))?;
        let family = model.config().family;
        for (layer, experts) in plan.experts {
            let names = experts.iter();
            for key in names.flat_map(|expert| expert_parameter_names(family, *layer, *expert)) {
                let tensor = model
                    .tensor(&key)
                    .ok_or_else(|| BackendError(format!("the model has no tensor {key}")))?;
                progress.shard.0.insert(key, tensor);
            }
        }
        Ok(progress)
    }
}

fn set_tensors(model: &mut Model, shard: &Shard) -> Result<(), EngineError> {
    let device = model.device().clone();
    device.session(|| {
        let mut tensors = shard.0.iter();
        tensors.try_for_each(|(name, tensor)| model.set_tensor(name, &tensor.values))
    })
}

fn train_experts(
    model: &mut Model,
    (plan, method): (&TrainingPlan<'_>, Method),
    go_on: &dyn Fn() -> bool,
) -> Result<TrainedShard, EngineError> {
    let inner = inner::Plan {
        experts: plan.experts.clone(),
        routing: &training_routing(plan),
        steps: plan.rules.steps.into(),
        seed: plan.seed,
    };
    let mut trainer = InnerTrainer::new(model, method, inner)?;
    let batch = plan.rules.batch_sequences as usize;
    let sequences = plan.domains.iter().map(TokenDocuments::len).sum();
    let mut batches = Batches::new(sequences, batch, plan.seed);
    let mut progress = TrainedShard {
        shard: Shard::default(),
        steps: 0,
        tokens: 0,
        loss_first: 0.0,
        loss_last: 0.0,
    };
    while progress.steps < plan.rules.steps && go_on() {
        let Some(picks) = batches.next() else { break };
        let domains = by_domain(plan.domains, &picks);
        let rate = learning_rate(progress.steps, plan.rules);
        let report = trainer.step(model, &domains, rate)?;
        if progress.steps == 0 {
            progress.loss_first = report.loss;
        }
        progress.loss_last = report.loss;
        progress.steps += 1;
        let predicted = |sequence: &&[u32]| sequence.len() as u64 - 1;
        progress.tokens += domains.iter().flatten().map(predicted).sum::<u64>();
    }
    Ok(progress)
}

/// The picked sequences, each in its domain's list; picks count through all domains.
fn by_domain<'a>(domains: &'a [TokenDocuments], picks: &[usize]) -> Vec<Vec<&'a [u32]>> {
    let mut first = 0;
    let lists = domains.iter().map(|documents| {
        let range = first..first + documents.len();
        first = range.end;
        let own = picks.iter().filter(|pick| range.contains(pick));
        let own: Vec<usize> = own.map(|pick| pick - range.start).collect();
        documents.select(&own)
    });
    lists.collect()
}

/// Which experts a forward pass of training chooses from.
fn training_routing(plan: &TrainingPlan<'_>) -> Routing {
    let (trained, kept) = (plan.experts.clone(), plan.kept.clone());
    match plan.rules.routing {
        TrainingRouting::Classic => Routing::Classic,
        TrainingRouting::Masked => Routing::Masked { experts: trained },
        TrainingRouting::FrozenKept => Routing::FrozenKept { trained, kept },
        TrainingRouting::Fallback => Routing::Fallback { trained, kept },
    }
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
