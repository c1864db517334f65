//! What is asked for, held against the model: which experts can be trained and which are in memory.
//!
//! A miner of a group holds the group's experts and trains K of them. Without groups it holds those that
//! it trains. Kept experts come on top, and classic routing holds everything. Groups of different sizes
//! are planned for by their largest.

use std::collections::BTreeMap;

use anyhow::anyhow;
use connito_engine::memory::{MemoryFormulas, StepSize};
use connito_engine::routing::ExpertMap;
use connito_engine::{Holding, ModelConfig, Residency, TrainableSet};

use super::proposal::Choice;
use crate::args::inspect::RoutingMode;
use crate::args::plan::{ExpertArguments, PlanArguments, StepArguments};
use crate::exit::Failure;

/// Trained experts where nothing is said, as in the published setups.
const DEFAULT_EXPERTS: usize = 8;

/// Tokens of a sequence where nothing is said and the model reads as many.
const DEFAULT_SEQUENCE_LENGTH: usize = 1024;

/// A model and a request that fits it.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) routing: RoutingMode,
    /// Frozen experts of a layer beside the group's or the trained ones.
    pub(super) kept: usize,
    pub(super) groups: Option<Groups>,
    /// Tokens of a sequence.
    pub(super) sequence_length: usize,
    pub(super) step: StepArguments,
}

/// How a layer's experts are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) count: usize,
    /// Experts of the largest group.
    pub(super) largest: usize,
    /// Experts of the smallest group.
    pub(super) smallest: usize,
}

impl<'a> Setup<'a> {
    /// Refuses what does not fit the model, naming the option.
    pub(super) fn new(config: &'a ModelConfig, arguments: &PlanArguments) -> Result<Self, Failure> {
        let asked = &arguments.experts;
        let setup = Self {
            config,
            routing: asked.routing.unwrap_or(match asked.kept {
                0 => RoutingMode::Masked,
                _ => RoutingMode::FrozenKept,
            }),
            sequence_length: sequence_length(config, arguments.step.seq)?,
            kept: asked.kept as usize,
            groups: groups(config.mixture.experts, asked)?,
            step: arguments.step,
        };
        setup.check_kept()?;
        setup.check_experts(asked.experts)?;
        Ok(setup)
    }

    fn check_kept(&self) -> Result<(), Failure> {
        let (mode, kept) = (self.routing.name(), self.kept);
        let keeps = matches!(
            self.routing,
            RoutingMode::FrozenKept | RoutingMode::Fallback
        );
        // Of a group, what is not trained stays in memory anyway.
        if keeps && kept == 0 && self.groups.is_none() {
            return Err(refused(&format!(
                "--routing {mode} needs --kept N, at least 1"
            )));
        }
        if !keeps && kept > 0 {
            return Err(refused(&format!(
                "--kept {kept}: --routing {mode} keeps no experts"
            )));
        }
        let experts = self.config.mixture.experts;
        // A trained expert at least, or the whole group, is in memory besides.
        let others = self.groups.map_or(1, |groups| groups.largest);
        if kept > 0 && kept.saturating_add(others) > experts {
            let beside = match self.groups {
                None => "a trained one".to_owned(),
                Some(groups) => format!("a group of {}", groups.largest),
            };
            return Err(refused(&format!(
                "--kept {kept}: a layer has {experts} experts, which leaves too few beside {beside}"
            )));
        }
        Ok(())
    }

    fn check_experts(&self, asked: Option<u32>) -> Result<(), Failure> {
        let Some(asked) = asked else {
            return Ok(());
        };
        let experts = self.config.mixture.experts;
        let has = match self.groups {
            Some(groups) => format!("a group has {} experts in a layer", groups.largest),
            None if self.kept > 0 => {
                format!(
                    "a layer has {experts} experts, of which {} are kept",
                    self.kept
                )
            }
            None => format!("a layer has {experts} experts"),
        };
        if asked as usize > self.most_experts() {
            return Err(refused(&format!("--experts {asked}: {has}")));
        }
        Ok(())
    }

    /// Experts of a layer that can be trained at most.
    pub(super) fn most_experts(&self) -> usize {
        let others = self.config.mixture.experts.saturating_sub(self.kept);
        self.groups.map_or(others, |groups| groups.largest)
    }

    /// Experts of a layer that are trained where nothing is said.
    pub(super) fn default_experts(&self) -> usize {
        DEFAULT_EXPERTS.min(self.most_experts())
    }

    /// Experts of a layer that are in memory.
    pub(super) fn resident(&self, trained: usize) -> usize {
        match self.routing {
            RoutingMode::Classic => self.config.mixture.experts,
            RoutingMode::Masked | RoutingMode::FrozenKept | RoutingMode::Fallback => {
                self.share(trained) + self.kept
            }
        }
    }

    /// Experts of a layer that are a miner's own: its group's, or those that it trains.
    pub(super) fn share(&self, trained: usize) -> usize {
        self.groups.map_or(trained, |groups| groups.largest)
    }

    /// What the engine predicts of a choice. Which experts it is makes no difference, only how many.
    pub(super) fn memory(&self, choice: Choice) -> MemoryFormulas {
        let first = |count: usize| -> ExpertMap {
            let listed = |layer| (layer, (0..count).collect());
            self.config
                .moe_layers()
                .map(listed)
                .collect::<BTreeMap<_, _>>()
        };
        let holding = Holding {
            residency: match self.routing {
                RoutingMode::Classic => Residency::Whole,
                RoutingMode::Masked | RoutingMode::FrozenKept | RoutingMode::Fallback => {
                    Residency::Slice(first(self.resident(choice.experts)))
                }
            },
            trainable: TrainableSet::experts(first(choice.experts)),
            plan: choice.settings.memory_plan(),
        };
        let step = StepSize {
            tokens: self
                .sequence_length
                .saturating_mul(self.step.batch as usize),
            threads: self.step.threads.into(),
        };
        MemoryFormulas::of_training(self.config, &holding, step)
    }
}

fn sequence_length(config: &ModelConfig, asked: Option<u32>) -> Result<usize, Failure> {
    let positions = config.max_position_embeddings;
    match asked {
        None => Ok(DEFAULT_SEQUENCE_LENGTH.min(positions)),
        Some(length) if length as usize > positions => {
            let why = format!("--seq {length}: the model reads at most {positions} tokens");
            Err(refused(&why))
        }
        Some(length) => Ok(length as usize),
    }
}

fn groups(experts: usize, asked: &ExpertArguments) -> Result<Option<Groups>, Failure> {
    let Some(count) = asked.groups.map(|count| count as usize) else {
        return Ok(None);
    };
    if count > experts {
        let why = format!("--groups {count}: a layer has {experts} experts");
        return Err(refused(&why));
    }
    let groups = Groups {
        count,
        largest: experts.div_ceil(count),
        smallest: experts / count,
    };
    if groups.largest != groups.smallest && !asked.allow_uneven {
        return Err(refused(&format!(
            "--groups {count} does not divide {experts} experts evenly; --allow-uneven makes groups of {} \
             and {}",
            groups.smallest, groups.largest
        )));
    }
    Ok(Some(groups))
}

fn refused(why: &str) -> Failure {
    Failure::Input(anyhow!("{why}"))
}
