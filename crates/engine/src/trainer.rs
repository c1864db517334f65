//! Training: which parameters change, AdamW over them, and the order in which gradients come and go.
//!
//! Only what is trained has gradients and moments. A step's gradient is the mean over all its tokens,
//! summed over micro-batches; its norm is clipped to 1. Two ways to hold gradients:
//!
//! ```text
//! kept        all of them, until the step is complete          clip by the norm of all of them
//! released    one layer's, stepped as soon as it is complete   clip every layer by its share
//! ```
//!
//! Released gradients need no memory beyond one layer's, but the norm of the whole is not known when the
//! first of them is used. Each of the n trained layers is therefore clipped to 1/√n on its own, which
//! bounds the norm of the whole by 1 as well; the direction changes where layers exceed their share
//! unequally. A released step is one micro-batch, for a layer cannot be stepped before all tokens
//! have been through it.

pub mod des_moe;
mod sinks;
mod trainable;

use std::collections::BTreeMap;
use std::sync::Arc;

use sinks::{GradientPool, KeptSink, ReleasedSink, first_leaves};

use crate::config::ModelConfig;
use crate::device::{Cpu, Device};
use crate::error::EngineError;
use crate::memory::{GradientMemory, MemoryPlan};
use crate::model::adaptive_router::AdaptiveRouter;
use crate::model::batch::{self, Batch};
use crate::model::decoder::{self, BackwardPlan, GradientSink, Pass};
use crate::model::{Description, Model};
use crate::names::{Parameters, Role};
use crate::optimizer::{AdamW, AdamWStep};
use crate::random;
use crate::routing::{Routing, RoutingPlan};
use crate::tensor::Tensor;

pub use trainable::TrainableSet;

/// The norm to which a step's gradient is clipped.
const LARGEST_NORM: f64 = 1.0;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean loss over the step's tokens before the step, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// An optimiser with its memory, for one model.
#[derive(Debug)]
pub struct Trainer<D: Device = Cpu> {
    config: ModelConfig,
    /// What the model holds, in its order; moments are in that order too.
    descriptions: Arc<[Description]>,
    trainable: TrainableSet,
    routing: RoutingPlan,
    optimizer: Optimizer<D>,
    plan: MemoryPlan,
    gradients: Held<D>,
    steps: u64,
}

/// AdamW and its memory of every parameter in the model's order, where it is trained.
#[derive(Debug)]
struct Optimizer<D: Device> {
    adamw: AdamW,
    moments: Vec<Option<D::Moments>>,
    /// Of the bits of stochastic rounding.
    seed: u64,
}

/// Gradients between steps: cleared, so that their memory is touched once.
#[derive(Debug)]
enum Held<D: Device> {
    Kept(Option<Box<Parameters<Option<D::Gradient>>>>),
    Released(GradientPool<D>),
}

impl<D: Device> Trainer<D> {
    /// A trainer for `model` that holds states as `plan` says. How weights are stored was decided when
    /// the model was built.
    ///
    /// # Errors
    ///
    /// When the trainable set is empty or names an expert that the model does not hold, the routing does
    /// not fit the model, or the plan cannot train the set as the model stores it.
    pub fn new(
        model: &Model<D>,
        trainable: TrainableSet,
        routing: &Routing,
        adamw: AdamW,
        plan: MemoryPlan,
    ) -> Result<Self, EngineError> {
        trainable.check(model)?;
        let gradients = match plan.gradients {
            GradientMemory::Kept => Held::Kept(None),
            GradientMemory::Released if trainable == TrainableSet::Everything => {
                return Err(EngineError::ReleasedBackbone);
            }
            GradientMemory::Released => Held::Released(GradientPool::default()),
        };
        for parameter in model.descriptions().iter() {
            if trainable.contains(parameter.role) && parameter.element.is_scaled() {
                return Err(EngineError::TrainedInEightBits {
                    name: parameter.name.clone(),
                });
            }
        }
        let weights = model.parameters().leaves();
        let parameters = model.descriptions().iter().zip(weights);
        let moments = parameters.map(|(parameter, weight)| {
            let wanted = trainable.contains(parameter.role);
            wanted.then(|| model.device().moments(weight, plan.moments))
        });
        let moments = moments.collect();
        Ok(Self {
            config: model.config().clone(),
            descriptions: Arc::clone(model.descriptions()),
            routing: model.routing_plan(routing)?,
            trainable,
            optimizer: Optimizer {
                adamw,
                moments,
                seed: 0,
            },
            plan,
            gradients,
            steps: 0,
        })
    }

    /// Draws the bits of stochastic rounding from `seed`; 0 unless told.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.optimizer.seed = seed;
        self
    }

    /// One AdamW step on the mean loss of `sequences`.
    ///
    /// # Errors
    ///
    /// When the model is configured otherwise than the one that the trainer was made for, or holds other
    /// parameters or the same in another form, when the sequences do not fit it, or the loss or gradient is not finite. Model and optimiser are then as they were,
    /// except that with released gradients the layers above the one whose gradient is not finite have
    /// been stepped.
    pub fn step(
        &mut self,
        model: &mut Model<D>,
        sequences: &[&[u32]],
        learning_rate: f32,
    ) -> Result<StepReport, EngineError> {
        self.recognise(model)?;
        batch::check(sequences, 2, &self.config)?;
        let step = Step {
            sequences,
            learning_rate,
            number: self.steps + 1,
        };
        let device = model.device().clone();
        let report = device.session(|| {
            if self.plan.gradients == GradientMemory::Kept {
                self.step_kept(model, &step)
            } else {
                self.step_released(model, &step)
            }
        })?;
        self.steps += 1;
        Ok(report)
    }

    /// Refuses a model that is not the one that this trainer was made for.
    fn recognise(&self, model: &Model<D>) -> Result<(), EngineError> {
        let same_parameters = self.descriptions == *model.descriptions();
        if *model.config() == self.config && same_parameters {
            Ok(())
        } else {
            Err(EngineError::AnotherModel)
        }
    }

    /// The gradients that a step adds to, all of them zero; to be given back with [`Self::keep`].
    fn take_gradients(&mut self, model: &Model<D>) -> Parameters<Option<D::Gradient>> {
        match std::mem::replace(&mut self.gradients, Held::Kept(None)) {
            Held::Kept(Some(gradients)) => *gradients,
            _ => gradient_tree(model, &self.trainable),
        }
    }

    fn keep(&mut self, device: &D, mut gradients: Parameters<Option<D::Gradient>>) {
        for gradient in gradients.leaves_mut().into_iter().flatten() {
            device.clear(gradient);
        }
        self.gradients = Held::Kept(Some(Box::new(gradients)));
    }

    fn step_kept(
        &mut self,
        model: &mut Model<D>,
        step: &Step<'_>,
    ) -> Result<StepReport, EngineError> {
        let device = model.device().clone();
        let mut gradients = self.take_gradients(model);
        let setting = Setting {
            trainable: &self.trainable,
            routing: &self.routing,
            plan: &self.plan,
            adaptive: &[],
        };
        let loss = setting.accumulate(model, step.sequences, &mut gradients);
        let gradient_norm = norm(&device, gradients.leaves().into_iter().flatten());
        let finite = loss.is_finite() && gradient_norm.is_finite();
        if finite {
            self.optimizer.apply(model, &gradients, gradient_norm, step);
        }
        self.keep(&device, gradients);
        if !finite {
            return Err(EngineError::NotFinite { step: step.number });
        }
        Ok(StepReport {
            loss,
            gradient_norm,
        })
    }

    fn step_released(
        &mut self,
        model: &mut Model<D>,
        step: &Step<'_>,
    ) -> Result<StepReport, EngineError> {
        let rotary = model.rotary(step.sequences);
        let trained_layers = self.trainable.trained_layers(&self.config);
        let (device, config, weights, descriptions) = model.parts_mut();
        let batch = Batch::new(device, step.sequences);
        let pass = Pass {
            device,
            config,
            routing: &self.routing,
            rotary: &rotary,
            batch: &batch,
            trains_backbone: false,
            adaptive: &[],
        };
        let predicted = predicted(step.sequences);
        let plan = self
            .plan
            .backward(&self.trainable, config, 1.0 / predicted as f32);
        let mut pool = match std::mem::replace(&mut self.gradients, Held::Kept(None)) {
            Held::Released(pool) => pool,
            Held::Kept(_) => GradientPool::default(),
        };
        let mut sink = ReleasedSink {
            device,
            weights,
            trainable: &self.trainable,
            descriptions,
            first_leaves: Vec::new(),
            stepping: Stepping::new(&self.optimizer, step),
            moments: &mut self.optimizer.moments,
            largest_norm: LARGEST_NORM / (trained_layers as f64).sqrt(),
            pool: &mut pool,
            current: None,
            squares: 0.0,
        };
        sink.first_leaves = first_leaves(sink.weights);
        let finite = |losses: &[f32]| losses.iter().all(|loss| loss.is_finite());
        let losses = decoder::losses_with_gradients(&pass, &plan, &mut sink, finite);
        let gradient_norm = sink.squares.sqrt();
        self.gradients = Held::Released(pool);
        let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / predicted as f64;
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(EngineError::NotFinite { step: step.number });
        }
        Ok(StepReport {
            loss,
            gradient_norm,
        })
    }
}

/// The norm of several gradients as one.
fn norm<'a, D: Device>(device: &D, gradients: impl Iterator<Item = &'a D::Gradient>) -> f64
where
    D::Gradient: 'a,
{
    let squares = gradients.map(|gradient| device.sum_of_squares(gradient));
    squares.sum::<f64>().sqrt()
}

/// What is left of gradients of this norm.
fn clip(norm: f64) -> f32 {
    (LARGEST_NORM / norm).min(1.0) as f32
}

impl<D: Device> Optimizer<D> {
    /// Steps every parameter that has a gradient; `norm` is that of all of them.
    fn apply(
        &mut self,
        model: &mut Model<D>,
        gradients: &Parameters<Option<D::Gradient>>,
        norm: f64,
        step: &Step<'_>,
    ) {
        let stepping = Stepping::new(self, step);
        let (device, _, parameters, descriptions) = model.parts_mut();
        let leaves = parameters.leaves_mut().into_iter().zip(gradients.leaves());
        let states = self.moments.iter_mut().zip(descriptions);
        for ((weight, gradient), (moments, parameter)) in leaves.zip(states) {
            if let (Some(gradient), Some(moments)) = (gradient, moments) {
                let step = stepping.of(parameter, clip(norm));
                device.adamw(weight, gradient, moments, &step);
            }
        }
    }
}

/// What one step is about.
#[derive(Debug)]
struct Step<'a> {
    sequences: &'a [&'a [u32]],
    learning_rate: f32,
    /// Counted from 1.
    number: u64,
}

/// One step of AdamW over parameters that each have their own random bits.
#[derive(Debug, Clone, Copy)]
struct Stepping {
    adamw: AdamW,
    number: u64,
    learning_rate: f32,
    seed: u64,
}

impl Stepping {
    fn new<D: Device>(optimizer: &Optimizer<D>, step: &Step<'_>) -> Self {
        Self {
            adamw: optimizer.adamw,
            number: step.number,
            learning_rate: step.learning_rate,
            seed: optimizer.seed,
        }
    }

    /// The step of one parameter. Norm weights do not decay.
    fn of(self, parameter: &Description, gradient_scale: f32) -> AdamWStep {
        // By name: a slice and the whole model round alike.
        let seed = random::key(self.seed, &parameter.name);
        let step = self
            .adamw
            .step(self.number, self.learning_rate, gradient_scale, seed);
        match parameter.role {
            Role::Norm => step.without_decay(),
            _ => step,
        }
    }
}

/// The mean loss of `sequences` in nats, and its gradient by parameter name. Frozen parameters have no
/// entry.
///
/// # Errors
///
/// When the trainable set, the routing or the sequences do not fit the model.
pub fn gradients<D: Device>(
    model: &Model<D>,
    trainable: &TrainableSet,
    routing: &Routing,
    sequences: &[&[u32]],
) -> Result<(f64, BTreeMap<String, Tensor>), EngineError> {
    trainable.check(model)?;
    batch::check(sequences, 2, model.config())?;
    let setting = Setting {
        trainable,
        routing: &model.routing_plan(routing)?,
        plan: &MemoryPlan::default(),
        adaptive: &[],
    };
    let mut gradients = gradient_tree(model, trainable);
    let loss = model
        .device()
        .session(|| setting.accumulate(model, sequences, &mut gradients));
    let named = model.descriptions().iter().zip(gradients.into_leaves());
    let read = named.filter_map(|(parameter, gradient)| {
        let tensor = Tensor {
            shape: parameter.shape.clone(),
            values: model.device().read_gradient(&gradient?),
        };
        Some((parameter.name.clone(), tensor))
    });
    Ok((loss, read.collect()))
}

/// Zeros for everything that is trained.
fn gradient_tree<D: Device>(
    model: &Model<D>,
    trainable: &TrainableSet,
) -> Parameters<Option<D::Gradient>> {
    let mut roles = model.descriptions().iter().map(|parameter| parameter.role);
    model.parameters().map_ref(&mut |weight| {
        let wanted = roles.next().is_some_and(|role| trainable.contains(role));
        wanted.then(|| model.device().gradient(weight))
    })
}

fn predicted(sequences: &[&[u32]]) -> usize {
    sequences.iter().map(|sequence| sequence.len() - 1).sum()
}

/// What is trained, along which routes, and what is held meanwhile.
#[derive(Debug)]
struct Setting<'a, D: Device> {
    trainable: &'a TrainableSet,
    routing: &'a RoutingPlan,
    plan: &'a MemoryPlan,
    /// Corrections to routers, by layer; empty where there are none.
    adaptive: &'a [Option<AdaptiveRouter<D>>],
}

impl<D: Device> Setting<'_, D> {
    /// The mean loss of checked sequences; adds its gradient.
    fn accumulate(
        &self,
        model: &Model<D>,
        sequences: &[&[u32]],
        gradients: &mut Parameters<Option<D::Gradient>>,
    ) -> f64 {
        let predicted = predicted(sequences);
        let plan = self
            .plan
            .backward(self.trainable, model.config(), 1.0 / predicted as f32);
        let mut sink = KeptSink {
            weights: model.parameters(),
            gradients,
            routers: &mut [],
        };
        self.backward(model, sequences, &plan, &mut sink) / predicted as f64
    }

    /// The summed loss of checked sequences; adds the gradient of `plan.scale` times it.
    fn backward(
        &self,
        model: &Model<D>,
        sequences: &[&[u32]],
        plan: &BackwardPlan,
        sink: &mut impl GradientSink<D>,
    ) -> f64 {
        let (device, config) = (model.device(), model.config());
        let rotary = model.rotary(sequences);
        let mut loss = 0.0;
        for sequences in batch::passes(sequences, self.plan.pass_tokens) {
            let batch = Batch::new(device, sequences);
            let pass = Pass {
                device,
                config,
                routing: self.routing,
                rotary: &rotary,
                batch: &batch,
                trains_backbone: *self.trainable == TrainableSet::Everything,
                adaptive: self.adaptive,
            };
            let losses = decoder::losses_with_gradients(&pass, plan, sink, |_| true);
            loss += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        }
        loss
    }
}

impl MemoryPlan {
    fn backward(&self, trainable: &TrainableSet, config: &ModelConfig, scale: f32) -> BackwardPlan {
        BackwardPlan {
            scale,
            lowest_layer: trainable.lowest_layer(config),
            trains_routers: trainable.trains_routers(),
            activations: self.activations,
        }
    }
}

#[cfg(test)]
mod tests;
