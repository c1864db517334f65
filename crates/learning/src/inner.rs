//! The two ways to fine-tune experts locally, behind one step: what a miner's job and a run outside any
//! network share.
//!
//! Both change the given experts and nothing else. [`Method::Esft`] treats all text alike;
//! [`Method::DesMoe`] lets each domain train the experts that it mainly visits, with routers corrected
//! meanwhile (the engine's `trainer/des_moe.rs` has the equations). Knows no files, groups or cycles.

use connito_engine::routing::ExpertMap;
use connito_engine::trainer::des_moe::{DesMoe, DomainBatch, Settings};
use connito_engine::{
    AdamW, EngineError, MemoryPlan, Model, Routing, StepReport, TrainableSet, Trainer,
};
use serde::{Deserialize, Serialize};

/// How experts are fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// In-place expert-specialised fine-tuning (arXiv 2407.01906).
    #[default]
    Esft,
    /// Dynamic expert specialisation over several domains (arXiv 2509.16882).
    DesMoe,
}

/// What is trained, and for how long.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The experts that change.
    pub experts: ExpertMap,
    /// Which experts a forward pass may choose from.
    pub routing: &'a Routing,
    /// Steps that will be taken; DES-MoE's phases are shares of them.
    pub steps: u64,
    /// Of whatever a method draws.
    pub seed: u64,
}

/// An optimiser with its memory, for one model.
#[derive(Debug)]
pub struct InnerTrainer(Kind);

#[derive(Debug)]
enum Kind {
    Esft(Box<Trainer>),
    DesMoe(Box<DesMoe>),
}

impl InnerTrainer {
    /// A trainer for `model`.
    ///
    /// # Errors
    /// The experts or the routing do not fit the model.
    pub fn new(model: &Model, method: Method, plan: Plan<'_>) -> Result<Self, EngineError> {
        let (adamw, memory) = (AdamW::default(), MemoryPlan::default());
        let kind = match method {
            Method::Esft => {
                let set = TrainableSet::experts(plan.experts);
                let trainer = Trainer::new(model, set, plan.routing, adamw, memory)?;
                Kind::Esft(Box::new(trainer))
            }
            Method::DesMoe => {
                let settings = Settings {
                    seed: plan.seed,
                    ..Settings::new(plan.steps)
                };
                let with = (adamw, memory);
                let trainer = DesMoe::new(model, plan.experts, plan.routing, settings, with)?;
                Kind::DesMoe(Box::new(trainer))
            }
        };
        Ok(Self(kind))
    }

    /// One step on the sequences of every domain; a domain without any takes no part in it.
    ///
    /// # Errors
    /// A sequence does not fit the model, or the loss or the gradient is not finite.
    pub fn step(
        &mut self,
        model: &mut Model,
        domains: &[Vec<&[u32]>],
        learning_rate: f32,
    ) -> Result<StepReport, EngineError> {
        match &mut self.0 {
            Kind::Esft(trainer) => trainer.step(model, &domains.concat(), learning_rate),
            Kind::DesMoe(trainer) => {
                let batches = domains.iter().enumerate();
                let batches: Vec<DomainBatch<'_>> = batches
                    .filter(|(_, sequences)| !sequences.is_empty())
                    .map(|(domain, sequences)| DomainBatch { domain, sequences })
                    .collect();
                Ok(trainer.step(model, &batches, learning_rate)?.step)
            }
        }
    }
}
