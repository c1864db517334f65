//! DES-MoE (arXiv 2509.16882): experts fine-tuned on several domains at once, each domain changing only
//! the experts that it mainly visits.
//!
//! ```text
//! steps        0 ─────────── 0.2·T ─────────────────── 0.7·T ───────────── T
//! phase          warm-up             stabilisation           consolidation
//! learns         router, experts     router, experts of      experts of the
//!                                    the domain              domain
//!
//! router   R_adapt = R + W₂·gelu(W₁·h + b₁) + b₂     λ·KL(softmax(R/τ) ‖ softmax(R_adapt/τ)) + (1−λ)·loss
//!                                                    λ = 1 − steps taken ÷ T
//! expert   ∂ℓ/∂θ_e = Σ over domains d with M_{d,e} = 1
//! ```
//!
//! The paper is silent or at odds with itself in places; these are the readings. The model's router R is
//! part of the backbone and frozen: the correction is a training aid that ends with the trainer, and
//! nothing but expert weights changes in the model. It exists in layers with a trained expert and begins as
//! 0. Warm-up trains experts too. Masks are refreshed every so many steps and when the warm-up ends. The
//! gradient towards hidden states is that of the loss alone, also through the correction.
//!
//! Each domain's sequences of a step are passes of their own that add to the gradients of its experts
//! only; the input gradient still flows through all of them. An expert that no domain of the step may
//! train is not stepped at all: neither decay nor old momentum moves it. Experts and routers are clipped
//! to a norm of 1 separately, so that a router's gradient takes nothing from the experts'.

mod affinity;
mod parked;
mod routers;
#[cfg(test)]
mod tests;

use affinity::Affinity;
use parked::Parked;
use routers::Routers;

use super::{KeptSink, Setting, Step, StepReport, TrainableSet, Trainer, norm, predicted};
use crate::device::{Blend, Cpu, Device};
use crate::error::EngineError;
use crate::memory::{GradientMemory, MemoryPlan};
use crate::model::{Model, batch};
use crate::names::Parameters;
use crate::optimizer::{AdamW, MomentsFormat};
use crate::routing::{ExpertMap, Routing};

/// How a run is divided and what its masks and routers are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// T: optimiser steps of the whole run, from which the phases and λ follow. Steps beyond them
    /// continue the last phase.
    pub steps: u64,
    /// Width of a router's correction; four times the hidden size if `None`.
    pub router_width: Option<usize>,
    /// τ of the divergence.
    pub temperature: f32,
    /// φ: which share of its favourite's visits an expert needs to count as the domain's.
    pub threshold: f64,
    /// Steps between two refreshes of the masks.
    pub refresh_steps: u64,
    /// Chooses the initial values of the corrections.
    pub seed: u64,
}

impl Settings {
    /// The published constants, and masks refreshed every 50 steps, which the paper leaves open.
    #[must_use]
    pub fn new(steps: u64) -> Self {
        Self {
            steps,
            router_width: None,
            temperature: 0.7,
            threshold: 0.6,
            refresh_steps: 50,
            seed: 0,
        }
    }

    fn check(&self) -> Result<(), DesMoeError> {
        let zero = |name, value: u64| match value {
            0 => Err(DesMoeError::Zero { name }),
            _ => Ok(()),
        };
        zero("steps", self.steps)?;
        zero("refresh_steps", self.refresh_steps)?;
        zero(
            "router_width",
            self.router_width.map_or(1, |width| width as u64),
        )?;
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let temperature = self.temperature;
            return Err(DesMoeError::Temperature { temperature });
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            let threshold = self.threshold;
            return Err(DesMoeError::Threshold { threshold });
        }
        Ok(())
    }

    /// What step `taken`, counted from 0, belongs to.
    #[must_use]
    pub fn phase(&self, taken: u64) -> Phase {
        // In 128 bits no count of steps overflows.
        let (taken, steps) = (u128::from(taken), u128::from(self.steps));
        if taken * 10 < steps * 2 {
            Phase::WarmUp
        } else if taken * 10 < steps * 7 {
            Phase::Stabilisation
        } else {
            Phase::Consolidation
        }
    }

    /// λ of step `taken`, counted from 0.
    #[must_use]
    pub fn divergence_weight(&self, taken: u64) -> f64 {
        (1.0 - taken as f64 / self.steps as f64).max(0.0)
    }

    /// Whether masks are refreshed before step `taken`.
    fn refreshes(&self, taken: u64) -> bool {
        let Some(last) = taken.checked_sub(1) else {
            return false;
        };
        let left = self.phase(last) == Phase::WarmUp && self.phase(taken) != Phase::WarmUp;
        left || taken.is_multiple_of(self.refresh_steps)
    }

    /// What routers learn from in step `taken` of `tokens` tokens.
    fn blend(&self, taken: u64, tokens: u64) -> Blend {
        let divergence = self.divergence_weight(taken);
        Blend {
            temperature: self.temperature,
            task: (1.0 - divergence) as f32,
            divergence: (divergence / tokens as f64) as f32,
        }
    }
}

/// What a step trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Routers, and all trained experts by every domain.
    WarmUp,
    /// Routers, and each domain's experts.
    Stabilisation,
    /// Each domain's experts; routers are frozen as they have become.
    Consolidation,
}

/// Why a model cannot be trained this way.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DesMoeError {
    /// A number of the settings has to be at least 1.
    #[error("{name} of DES-MoE must be at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// Logits cannot be divided by it.
    #[error("temperature of DES-MoE must be a positive number, found {temperature}")]
    Temperature {
        /// What was given.
        temperature: f32,
    },
    /// No share.
    #[error("threshold of DES-MoE must lie between 0 and 1, found {threshold}")]
    Threshold {
        /// What was given.
        threshold: f64,
    },
    /// A plan under which gradients of several domains cannot be summed, or states are not f32.
    #[error(
        "DES-MoE needs gradients that are kept until the step is whole and optimiser states in f32"
    )]
    Plan,
    /// There is nothing to step on.
    #[error("DES-MoE was given a step without any domain")]
    NoDomains,
}

/// Sequences of one domain.
#[derive(Debug, Clone, Copy)]
pub struct DomainBatch<'a> {
    /// Any number that stands for the domain in all steps.
    pub domain: usize,
    /// At least one, each of at least two tokens.
    pub sequences: &'a [&'a [u32]],
}

/// What one step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Over all tokens and all experts that were stepped.
    pub step: StepReport,
    /// Mean loss of every batch before the step, in nats, in the order in which they were given.
    pub losses: Vec<f64>,
    /// What was trained.
    pub phase: Phase,
    /// Of all pairs of a batch and a trained expert, the share in which the batch trained the expert.
    pub trained_share: f64,
    /// What the routers' corrections learnt from; `None` once they are frozen.
    pub router: Option<RouterReport>,
}

/// What the routers' corrections learnt from in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterReport {
    /// λ.
    pub divergence_weight: f64,
    /// Mean over tokens and adapted layers, in nats.
    pub divergence: f64,
    /// `λ·divergence + (1−λ)·loss`.
    pub loss: f64,
    /// Norm of all corrections' gradient before clipping.
    pub gradient_norm: f64,
}

/// A trainer for one run over several domains.
#[derive(Debug)]
pub struct DesMoe<D: Device = Cpu> {
    trainer: Trainer<D>,
    experts: ExpertMap,
    settings: Settings,
    routers: Routers<D>,
    affinity: Affinity,
}

impl<D: Device> DesMoe<D> {
    /// A trainer of `experts` along `routing`, to which corrections are added.
    ///
    /// # Errors
    ///
    /// When a setting is out of its range, the plan releases gradients layer by layer or holds the
    /// optimiser's states in fewer bits, and whenever [`Trainer::new`] refuses.
    pub fn new(
        model: &Model<D>,
        experts: ExpertMap,
        routing: &Routing,
        settings: Settings,
        (adamw, plan): (AdamW, MemoryPlan),
    ) -> Result<Self, EngineError> {
        settings.check()?;
        if plan.gradients != GradientMemory::Kept || plan.moments != MomentsFormat::F32 {
            return Err(DesMoeError::Plan.into());
        }
        let trainable = TrainableSet::experts(experts.clone());
        Ok(Self {
            trainer: Trainer::new(model, trainable, routing, adamw, plan)?,
            routers: Routers::new(model, &experts, &settings),
            affinity: Affinity::new(settings.threshold),
            experts,
            settings,
        })
    }

    /// One step of AdamW on the mean loss over all tokens of all batches, each domain changing its own
    /// experts.
    ///
    /// # Errors
    ///
    /// When there are no batches, the model is not the one that the trainer was made for, sequences do not
    /// fit it, or the loss or a gradient is not finite. Model and trainer are then as they were.
    pub fn step(
        &mut self,
        model: &mut Model<D>,
        batches: &[DomainBatch<'_>],
        learning_rate: f32,
    ) -> Result<Report, EngineError> {
        self.trainer.recognise(model)?;
        if batches.is_empty() {
            return Err(DesMoeError::NoDomains.into());
        }
        for batch in batches {
            batch::check(batch.sequences, 2, model.config())?;
        }
        let step = Step {
            sequences: &[],
            learning_rate,
            number: self.trainer.steps + 1,
        };
        let device = model.device().clone();
        let report = device.session(|| self.step_checked(model, batches, &step))?;
        self.trainer.steps += 1;
        Ok(report)
    }

    fn step_checked(
        &mut self,
        model: &mut Model<D>,
        batches: &[DomainBatch<'_>],
        step: &Step<'_>,
    ) -> Result<Report, EngineError> {
        let device = model.device().clone();
        if self.settings.refreshes(self.trainer.steps) {
            self.affinity.refresh();
        }
        let mut gradients = self.trainer.take_gradients(model);
        let found = self.accumulate(model, batches, &mut gradients);
        let of_nobody = |layer, expert| {
            let trains = |batch: &DomainBatch<'_>| self.trains(batch.domain, layer, expert);
            !batches.iter().any(trains)
        };
        let parked = Parked::take(&mut gradients, &self.experts, &of_nobody);
        let gradient_norm = norm(&device, gradients.leaves().into_iter().flatten());
        let router = self.router_report(&device, &found);
        let router_norm = router.map_or(0.0, |router| router.gradient_norm);
        let finite = found.loss.is_finite() && gradient_norm.is_finite() && router_norm.is_finite();
        if finite {
            let optimizer = &mut self.trainer.optimizer;
            optimizer.apply(model, &gradients, gradient_norm, step);
            let (adamw, at) = (optimizer.adamw, (step.number, step.learning_rate));
            self.routers.step(&device, adamw, at, router_norm);
        }
        parked.put_back(&mut gradients);
        self.trainer.keep(&device, gradients);
        self.routers.clear(&device);
        if !finite {
            return Err(EngineError::NotFinite { step: step.number });
        }
        let report = Report {
            step: StepReport {
                loss: found.loss,
                gradient_norm,
            },
            losses: found.losses,
            phase: self.phase(),
            trained_share: self.trained_share(batches),
            router,
        };
        for (batch, visits) in batches.iter().zip(found.visits) {
            self.affinity.observe(batch.domain, batch.tokens(), visits);
        }
        Ok(report)
    }

    /// Adds the gradients of all batches, each to its own experts' only.
    fn accumulate(
        &mut self,
        model: &Model<D>,
        batches: &[DomainBatch<'_>],
        gradients: &mut Parameters<Option<D::Gradient>>,
    ) -> Found {
        let predictions: usize = batches.iter().map(|batch| predicted(batch.sequences)).sum();
        let tokens = batches.iter().map(DomainBatch::tokens).sum();
        if self.phase() == Phase::Consolidation {
            self.routers.freeze();
        }
        self.routers
            .listen(self.settings.blend(self.trainer.steps, tokens));
        let scale = 1.0 / predictions as f32;
        let trainer = &self.trainer;
        let mut plan = trainer
            .plan
            .backward(&trainer.trainable, model.config(), scale);
        plan.trains_routers = self.phase() != Phase::Consolidation;
        let mut found = Found::default();
        for batch in batches {
            let of_others = |layer, expert| !self.trains(batch.domain, layer, expert);
            let parked = Parked::take(gradients, &self.experts, &of_others);
            let setting = Setting {
                trainable: &self.trainer.trainable,
                routing: &self.trainer.routing,
                plan: &self.trainer.plan,
                adaptive: &self.routers.adaptive,
            };
            let mut sink = KeptSink {
                weights: model.parameters(),
                gradients,
                routers: &mut self.routers.learning,
            };
            let sum = setting.backward(model, batch.sequences, &plan, &mut sink);
            parked.put_back(gradients);
            found.loss += sum / predictions as f64;
            found.losses.push(sum / predicted(batch.sequences) as f64);
            found.visits.push(self.routers.take_visits());
        }
        found.divergence = self.routers.divergence() / tokens as f64;
        found
    }

    /// The step in progress, or the next one.
    fn phase(&self) -> Phase {
        self.settings.phase(self.trainer.steps)
    }

    /// Whether a domain's tokens change an expert.
    fn trains(&self, domain: usize, layer: usize, expert: usize) -> bool {
        self.phase() == Phase::WarmUp || self.affinity.trains(domain, layer, expert)
    }

    fn trained_share(&self, batches: &[DomainBatch<'_>]) -> f64 {
        let (mut trained, mut all) = (0.0, 0.0);
        for batch in batches {
            for (&layer, listed) in &self.experts {
                let own = listed
                    .iter()
                    .filter(|&&expert| self.trains(batch.domain, layer, expert));
                trained += own.count() as f64;
                all += listed.len() as f64;
            }
        }
        trained / all
    }

    fn router_report(&self, device: &D, found: &Found) -> Option<RouterReport> {
        if self.phase() == Phase::Consolidation {
            return None;
        }
        let divergence_weight = self.settings.divergence_weight(self.trainer.steps);
        Some(RouterReport {
            divergence_weight,
            divergence: found.divergence,
            loss: divergence_weight * found.divergence + (1.0 - divergence_weight) * found.loss,
            gradient_norm: self.routers.gradient_norm(device),
        })
    }
}

impl DomainBatch<'_> {
    fn tokens(&self) -> u64 {
        let lengths = self.sequences.iter().map(|sequence| sequence.len() as u64);
        lengths.sum()
    }
}

/// What a step's passes found, besides gradients.
#[derive(Debug, Default)]
struct Found {
    /// Mean over all tokens.
    loss: f64,
    /// Mean over the tokens of every batch.
    losses: Vec<f64>,
    /// Of every batch: layer and visits of its experts.
    visits: Vec<Vec<(usize, Vec<u64>)>>,
    /// Mean over tokens and layers.
    divergence: f64,
}
