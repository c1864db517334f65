//! All strategies of all models, played at every share of failing workers.

use connito_sim::comparison::{
    Batch, Conditions, Kind, NetworkModel, Outcome, Plan, Strategy, formulas, plan, play,
};

use super::models::Model;
use crate::args::compare::CompareArguments;
use crate::exit::{Blame, Failure};

/// Shares of failing workers that a page has room for.
const MOST_SHARES: usize = 6;

/// How far a worker's rates lie from the mean at most.
const SPREAD: f64 = 0.1;

/// Mean length of an outage.
const OUTAGE_SECONDS: f64 = 600.0;

/// The rate at which steps are usually counted: 100 a minute.
const STEPS_PER_HOUR: f64 = 6000.0;

/// Sixteen sequences of 2,048 tokens: 256 workers have 8.4 million tokens in a step, about as many as the 20 peers
/// of Covenant-72B with their 192 sequences each.
const BATCH: Batch = Batch {
    sequence_tokens: 2048,
    sequences: 16,
};

/// What was played, and what came of it.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) network: NetworkModel,
    pub(super) batch: Batch,
    pub(super) replicas: u32,
    pub(super) hours: f64,
    pub(super) seed: u64,
    /// Shares of failing workers, rising.
    pub(super) failing: Vec<f64>,
    pub(super) models: Vec<ModelResult>,
}

/// One model.
#[derive(Debug)]
pub(super) struct ModelResult {
    pub(super) model: Model,
    /// In the order of [`Kind::ALL`], without those that the model cannot be divided by.
    pub(super) strategies: Vec<StrategyResult>,
}

/// One strategy.
#[derive(Debug)]
pub(super) struct StrategyResult {
    pub(super) kind: Kind,
    pub(super) plan: Plan,
    /// Events of the network in an hour as they are usually counted, links taking no time; of a pipeline nobody
    /// counts them so.
    pub(super) counted_events: Option<f64>,
    /// One for each share of failing workers.
    pub(super) outcomes: Vec<Outcome>,
}

impl Comparison {
    /// Plays everything.
    pub(super) fn play(arguments: &CompareArguments, models: Vec<Model>) -> Result<Self, Failure> {
        let mut failing: Vec<f64> = arguments.fail.iter().map(|share| share.0 / 100.0).collect();
        failing.sort_by(f64::total_cmp);
        failing.dedup();
        if failing.len() > MOST_SHARES {
            return Err(Failure::Input(anyhow::anyhow!(
                "--fail has {} values, at most {MOST_SHARES} are played",
                failing.len()
            )));
        }
        let asked = &arguments.network;
        let mut comparison = Self {
            network: NetworkModel {
                workers: asked.workers.into(),
                up_bits_per_second: asked.bandwidth.bits_per_second,
                down_bits_per_second: asked.down.bits_per_second,
                latency_seconds: f64::from(asked.latency) / 1e3,
                flop_per_second: asked.tflops.0 * 1e12,
                spread: SPREAD,
                outage_seconds: OUTAGE_SECONDS,
            },
            batch: BATCH,
            replicas: arguments.replicas,
            hours: arguments.hours.into(),
            seed: arguments.seed,
            failing,
            models: Vec::new(),
        };
        for model in models {
            let strategies = Kind::ALL.map(|kind| comparison.strategy(kind, &model));
            let strategies = strategies.into_iter().filter_map(Result::transpose);
            let strategies = strategies.collect::<Result<_, _>>()?;
            comparison.models.push(ModelResult { model, strategies });
        }
        Ok(comparison)
    }

    fn strategy(&self, kind: Kind, model: &Model) -> Result<Option<StrategyResult>, Failure> {
        let workers = self.network.workers;
        let Some(plan) = plan(kind, &model.size, self.batch, self.replicas, workers) else {
            return Ok(None);
        };
        let outcome = |failing: &f64| {
            let conditions = Conditions {
                failing: *failing,
                hours: self.hours,
                seed: self.seed,
            };
            play(&plan.strategy, &self.network, conditions).input()
        };
        let outcomes = self.failing.iter().map(outcome).collect::<Result<_, _>>()?;
        Ok(Some(StrategyResult {
            kind,
            counted_events: counted_events(&plan.strategy, workers),
            plan,
            outcomes,
        }))
    }
}

/// Events at the usual rate of steps, or at the pace of the cycles.
fn counted_events(strategy: &Strategy, workers: usize) -> Option<f64> {
    match strategy {
        Strategy::DataParallel(strategy) => {
            let events = formulas::data_parallel_events(workers, STEPS_PER_HOUR, strategy.steps);
            Some(events)
        }
        Strategy::Pipeline(_) => None,
        Strategy::ExpertParallel(strategy) => {
            let events = formulas::expert_parallel_events(workers, strategy.cycle_seconds());
            Some(events)
        }
    }
}

impl StrategyResult {
    /// What came of it with the fewest failing.
    pub(super) fn calm(&self) -> &Outcome {
        // There is at least one share: the option has a default, and takes no empty list.
        &self.outcomes[0]
    }

    /// Seconds of one event on a link of the mean rate.
    pub(super) fn event_seconds(&self, network: &NetworkModel) -> f64 {
        formulas::transfer_seconds(self.plan.event_bytes, network.up_bits_per_second)
    }

    /// Share of a step that is bubble whatever the links, of a pipeline.
    pub(super) fn bubble_share(&self) -> Option<f64> {
        let (stages, micro_batches) = self.plan.pipeline?;
        Some(formulas::bubble_share(stages, micro_batches))
    }
}
