//! Gradients of the mean loss, and AdamW steps along them.
//!
//! Loss: the mean over all predicted tokens of all sequences (position t predicts t+1). What may change
//! is a [`TrainableSet`]; everything else gets no gradient, no optimiser memory and no arithmetic.
//! Every thread adds up the gradients of its own sequences; the sums are then added in thread order, so
//! a step is a function of its inputs and the number of threads.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::config::ModelConfig;
use crate::device::{Cpu, Device, Moments};
use crate::error::EngineError;
use crate::model::Model;
use crate::model::batch::{self, Batch};
use crate::model::decoder::{self, Gradients};
use crate::model::parameters::{Parameters, parse_expert_name};
use crate::optimizer::AdamW;
use crate::routing::{Routing, RoutingPlan, check_experts};
use crate::tensor::Tensor;

/// A gradient whose norm over all trained parameters exceeds this is scaled down to it.
const LARGEST_NORM: f64 = 1.0;

/// Which parameters are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainableSet {
    /// The three matrices of each listed routed expert, layer by layer.
    Experts(BTreeMap<usize, Vec<usize>>),
    /// All of them: how a base model is pretrained.
    Everything,
}

/// What one step saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean loss in nats before the step.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// Trains a model's chosen parameters; owns the optimiser's memory of them.
#[derive(Debug)]
pub struct Trainer {
    config: ModelConfig,
    trainable: TrainableSet,
    routing: RoutingPlan,
    optimizer: AdamW,
    threads: usize,
    steps: u64,
    moments: BTreeMap<String, Moments<Tensor>>,
}

impl Trainer {
    /// A trainer that has taken no step.
    ///
    /// # Errors
    ///
    /// When the trainable set is empty or names an expert that the model does not have, or the routing
    /// does not fit the model.
    pub fn new(
        model: &Model,
        trainable: TrainableSet,
        routing: Routing,
        optimizer: AdamW,
        threads: usize,
    ) -> Result<Self, EngineError> {
        trainable.check(model)?;
        let moments = model
            .tensors()
            .filter(|(name, _)| trainable.contains(name))
            .map(|(name, tensor)| {
                let first = Tensor::zeros(&tensor.shape);
                let second = first.clone();
                (name.to_owned(), Moments { first, second })
            });
        Ok(Self {
            config: model.config().clone(),
            moments: moments.collect(),
            routing: RoutingPlan::new(&routing, model.config())?,
            trainable,
            optimizer,
            threads,
            steps: 0,
        })
    }

    /// One AdamW step on the mean loss of `sequences`, the gradient's norm clipped to 1.
    ///
    /// # Errors
    ///
    /// When the model has another configuration than the one that the trainer was made for, the sequences
    /// do not fit it, or the loss or gradient is not finite; model and
    /// optimiser are then as they were.
    pub fn step(
        &mut self,
        model: &mut Model,
        sequences: &[&[u32]],
        learning_rate: f32,
    ) -> Result<StepReport, EngineError> {
        if *model.config() != self.config {
            return Err(EngineError::AnotherModel);
        }
        let batch = TrainingBatch {
            sequences,
            threads: self.threads,
        };
        let (loss, gradients) = batch.gradients(model, &self.trainable, &self.routing)?;
        let squares: f64 = gradients
            .values()
            .map(|gradient| Cpu.sum_of_squares(gradient))
            .sum();
        let gradient_norm = squares.sqrt();
        let number = self.steps + 1;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(EngineError::NotFinite { step: number });
        }
        let clip = (LARGEST_NORM / gradient_norm).min(1.0) as f32;
        let step = self.optimizer.step(number, learning_rate, clip);
        // Moments and gradients were made for one set and lie in one order.
        for ((name, gradient), moments) in gradients.iter().zip(self.moments.values_mut()) {
            let parameter = model.tensor_mut(name)?;
            let is_vector = parameter.shape.len() < 2;
            let step = if is_vector {
                step.without_decay()
            } else {
                step
            };
            Cpu.adamw(parameter, gradient, moments, step);
        }
        self.steps = number;
        Ok(StepReport {
            loss,
            gradient_norm,
        })
    }
}

/// The mean loss of `sequences` in nats, and its gradient by parameter name, computed on one thread.
/// Frozen parameters have no entry.
///
/// # Errors
///
/// When the trainable set, the routing or the sequences do not fit the model.
pub fn gradients(
    model: &Model,
    trainable: &TrainableSet,
    routing: &Routing,
    sequences: &[&[u32]],
) -> Result<(f64, BTreeMap<String, Tensor>), EngineError> {
    trainable.check(model)?;
    let routing = RoutingPlan::new(routing, model.config())?;
    TrainingBatch {
        sequences,
        threads: 1,
    }
    .gradients(model, trainable, &routing)
}

impl TrainableSet {
    /// Whether the parameter called `name` is trained.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Experts(experts) => parse_expert_name(name).is_some_and(|(layer, expert)| {
                experts
                    .get(&layer)
                    .is_some_and(|listed| listed.contains(&expert))
            }),
        }
    }

    fn check(&self, model: &Model) -> Result<(), EngineError> {
        match self {
            Self::Everything => Ok(()),
            Self::Experts(experts) if experts.values().all(Vec::is_empty) => {
                Err(EngineError::NothingToTrain)
            }
            Self::Experts(experts) => check_experts(experts, model.config()),
        }
    }

    /// Where the backward pass may stop.
    fn lowest_layer(&self) -> Option<usize> {
        match self {
            Self::Everything => None,
            Self::Experts(experts) => experts
                .iter()
                .find(|(_, listed)| !listed.is_empty())
                .map(|(&layer, _)| layer),
        }
    }

    /// A zeroed buffer for every parameter of the set.
    fn zero_gradients(&self, model: &Model) -> Gradients<Tensor> {
        let mut leaf = |name: String, shape: &[usize]| {
            Ok::<_, Infallible>(self.contains(&name).then(|| Tensor::zeros(shape)))
        };
        let Ok(parameters) = Parameters::build(model.config(), &mut leaf);
        Gradients {
            parameters,
            lowest_layer: self.lowest_layer(),
        }
    }
}

/// The sequences of one step and how many threads share them.
#[derive(Debug, Clone, Copy)]
struct TrainingBatch<'a> {
    sequences: &'a [&'a [u32]],
    threads: usize,
}

impl TrainingBatch<'_> {
    /// Mean loss and gradients for a set and a plan that fit the model.
    fn gradients(
        self,
        model: &Model,
        trainable: &TrainableSet,
        routing: &RoutingPlan,
    ) -> Result<(f64, BTreeMap<String, Tensor>), EngineError> {
        batch::check(self.sequences, 2, model.config())?;
        let weights = model.weights()?;
        let rotary = model.rotary_table(self.sequences);
        let predicted: usize = self
            .sequences
            .iter()
            .map(|sequence| sequence.len() - 1)
            .sum();
        let scale = 1.0 / predicted as f32;

        let shares = batch::shares(self.sequences, self.threads);
        let of_shares = batch::on_threads(shares, |share| {
            let mut gradients = trainable.zero_gradients(model);
            let mut loss = 0.0;
            for sequences in batch::passes(share) {
                let batch = Batch::new(sequences);
                let pass = model.pass(routing, &rotary, &batch);
                let losses = decoder::losses_with_gradients(&pass, &weights, scale, &mut gradients);
                loss += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            }
            (loss, gradients.parameters.into_leaves())
        });
        let (loss, leaves) = sum(of_shares);
        let named = names(model).into_iter().zip(leaves);
        let gradients = named.filter_map(|(name, gradient)| Some((name, gradient?)));
        Ok((loss / predicted as f64, gradients.collect()))
    }
}

/// Adds losses and gradients up, in order.
fn sum(shares: Vec<(f64, Vec<Option<Tensor>>)>) -> (f64, Vec<Option<Tensor>>) {
    let mut shares = shares.into_iter();
    let (mut loss, mut leaves) = shares.next().unwrap_or_default();
    for (other_loss, other_leaves) in shares {
        loss += other_loss;
        for (leaf, other) in leaves
            .iter_mut()
            .flatten()
            .zip(other_leaves.iter().flatten())
        {
            Cpu.add(other, leaf);
        }
    }
    (loss, leaves)
}

/// The model's parameter names in the order of [`Parameters::into_leaves`].
fn names(model: &Model) -> Vec<String> {
    let mut leaf = |name, _: &[usize]| Ok::<_, Infallible>(name);
    let Ok(parameters) = Parameters::build(model.config(), &mut leaf);
    parameters.into_leaves()
}
