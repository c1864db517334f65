//! Strategies of training one model by many, played on one network: who would get how far, and at what price.
//!
//! ```text
//! NetworkModel ──▶ Cluster: links, rates and outages of every worker, from a seed
//!                     │
//! Strategy ───────────┴──▶ play ──▶ Outcome: tokens, bytes, events, idle time per hour
//! ```
//!
//! Three machines cover the field. `rounds.rs` is data parallelism: every worker holds the model, takes so many
//! steps and then exchanges, by a ring or through a store. `pipeline.rs` is pipeline parallelism: chains of
//! workers pass activations, micro-batch by micro-batch (`schedule.rs`), and merge their stages now and then.
//! `experts.rs` is this system: a cycle of blocks, a slice for each group, one sparse update a cycle.
//! `settings.rs` makes the published strategies of them for a model of a given size; `formulas.rs` has what can
//! be said without playing, and tests hold the two against each other.
//!
//! What is counted are tokens that were processed, never what was learnt from them. Knows nothing of the role
//! machines, of the engine, or of how results are shown.

mod experts;
pub mod formulas;
mod network;
mod outcome;
mod pipeline;
mod rounds;
mod schedule;
mod settings;
mod timeline;

pub use experts::ExpertParallel;
pub use network::{NetworkError, NetworkModel};
pub use outcome::Outcome;
pub use pipeline::{Pipeline, StageMerge};
pub use rounds::{DataParallel, Exchange};
pub use settings::{Batch, Kind, Memory, ModelSize, Plan, SliceSize, plan};

use network::Cluster;

/// Rounds after which a rate is worth telling.
const ENOUGH_ROUNDS: u64 = 10;

/// Hours after which a slow strategy is not waited for any longer; the round that it is in is still finished.
const PATIENCE_HOURS: f64 = 720.0;

/// One way of dividing the work, with all its numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    /// Every worker holds the whole model.
    DataParallel(DataParallel),
    /// Every worker holds some layers.
    Pipeline(Pipeline),
    /// Every worker holds a frozen backbone and one group's experts.
    ExpertParallel(ExpertParallel),
}

/// Under which circumstances a strategy is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Share of the workers that are down at any time, from 0 to below 1.
    pub failing: f64,
    /// Hours to play at least; whole rounds are played, and at least ten unless they take a month.
    pub hours: f64,
    /// Seed of rates and outages.
    pub seed: u64,
}

/// Plays a strategy on a network.
///
/// # Errors
/// A network or conditions that mean nothing, such as no bandwidth; names the quantity.
pub fn play(
    strategy: &Strategy,
    network: &NetworkModel,
    conditions: Conditions,
) -> Result<Outcome, NetworkError> {
    network.check(conditions)?;
    let mut cluster = Cluster::new(network, conditions);
    let length = Length::new(conditions.hours);
    Ok(match strategy {
        Strategy::DataParallel(strategy) => strategy.play(&mut cluster, length),
        Strategy::Pipeline(strategy) => strategy.play(&mut cluster, length),
        Strategy::ExpertParallel(strategy) => strategy.play(&mut cluster, length),
    }
    .outcome())
}

/// How long to play.
#[derive(Debug, Clone, Copy)]
struct Length {
    least_seconds: f64,
    most_seconds: f64,
}

impl Length {
    fn new(hours: f64) -> Self {
        Self {
            least_seconds: hours * 3600.0,
            most_seconds: hours.max(PATIENCE_HOURS) * 3600.0,
        }
    }

    /// Whether what was played suffices.
    fn suffices(self, rounds: u64, seconds: f64) -> bool {
        seconds >= self.least_seconds && (rounds >= ENOUGH_ROUNDS || seconds >= self.most_seconds)
    }
}

#[cfg(test)]
mod tests;
