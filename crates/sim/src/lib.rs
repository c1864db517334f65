//! A network of the real role machines in simulated time: thousands of them, on one thread.
//!
//! ```text
//! scenario, seed ──▶ queue of happenings ──▶ machines ──▶ effects ──▶ chain, links, learner ──▶ queue
//!                          ▲                     └─▶ invariants, after every step
//!                    faults, adversaries
//! ```
//!
//! Owner, validators and miners are those of `connito-protocol`, journals included; learning is that
//! of `connito-learning` over the toy model. Simulated are the chain, the links, time, disks and the
//! moments in which processes die. A run is a function of its [`Scenario`] and a seed. `docs/SIMULATOR.md`
//! says what is modelled, what is not, and how a failing seed is read.
//!
//! [`comparison`] is a network of another kind: whole strategies of training, without machines or chain.
#![forbid(unsafe_code)]

pub mod comparison;

mod adversary;
mod carry;
mod cast;
mod chain;
mod curve;
mod faults;
mod liveness;
mod monitor;
mod names;
mod network;
mod node;
mod queue;
mod random;
mod report;
mod rest;
mod run;
mod scenario;
mod shrink;
mod summary;
mod trace;
mod transfer;
mod workshop;

pub use adversary::{HostileMiner, HostileValidator};
pub use monitor::Violation;
pub use report::{CycleReport, KindReport, RunReport, Traffic};
pub use scenario::{
    ChainModel, Churn, FaultModel, Fork, Interruption, LearnerKind, LinkModel, Miners, Scenario,
    ScenarioError, Stall, Validators, WorkModel,
};
pub use shrink::{Shrunk, first_steps, shrink, traced_steps};
pub use summary::{CycleCounts, Failure, Summary};
pub use trace::{Trace, TraceHeader, TraceLine};

use run::{Simulation, Watch};

/// Runs a scenario with a seed.
///
/// # Errors
/// The scenario cannot be run.
pub fn run(scenario: &Scenario, seed: u64) -> Result<RunReport, ScenarioError> {
    Ok(Simulation::new(scenario, seed, Watch::default())?.run().0)
}
