//! The sizes of the models that are compared, from their configurations.
//!
//! A dense model of 70 billion parameters has no configuration here: it is the usual example, with the width of
//! the models of that size. For a Mixture-of-Experts model the slice is a miner's of the first group; how many of
//! its experts are trained decides what is uploaded. Parameters and memory are the engine's own account, that of
//! `connito plan`.

use std::collections::BTreeMap;

use anyhow::anyhow;
use connito_engine::memory::{MemoryAccount, StepSize};
use connito_engine::routing::ExpertMap;
use connito_engine::{Holding, ModelConfig, Residency, TrainableSet};
use connito_sim::comparison::{ModelSize, SliceSize};

use crate::args::compare::CompareArguments;
use crate::exit::Failure;
use crate::{built_in, plan};

/// The usual example of a dense model.
const DENSE: &str = "dense-70b";

/// Its parameters.
const DENSE_PARAMETERS: u64 = 70_000_000_000;

/// Its width, that of the published models of its size.
const DENSE_HIDDEN: u64 = 8192;

/// Models that a page has room for.
const MOST_MODELS: usize = 6;

/// Tokens of the step whose memory is predicted, as `plan` takes them.
const PLANNED_TOKENS: usize = 1024;

/// A model that is compared.
#[derive(Debug)]
pub(super) struct Model {
    /// As it was typed.
    pub(super) name: String,
    pub(super) size: ModelSize,
    pub(super) slice: Option<Slice>,
}

/// What a miner of a Mixture-of-Experts model holds and trains.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) groups: usize,
    /// Experts of a layer in a group.
    pub(super) group_experts: usize,
    /// Of these, trained.
    pub(super) trained_experts: usize,
    /// Bytes at the peak of a training step with the settings that `plan` takes by itself.
    pub(super) planned_bytes: u64,
    pub(super) size: SliceSize,
}

/// Reads every model that was named.
pub(super) fn read(arguments: &CompareArguments) -> Result<Vec<Model>, Failure> {
    let names = &arguments.models;
    if names.len() > MOST_MODELS {
        return Err(refused(format!(
            "--models names {} models, at most {MOST_MODELS} are compared",
            names.len()
        )));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(refused("--models names a model without a name".to_owned()));
        }
        if names[..index].contains(name) {
            return Err(refused(format!("--models names \"{name}\" twice")));
        }
    }
    names.iter().map(|name| model(name, arguments)).collect()
}

fn model(name: &str, arguments: &CompareArguments) -> Result<Model, Failure> {
    if name == DENSE {
        return Ok(Model {
            name: name.to_owned(),
            size: ModelSize {
                parameters: DENSE_PARAMETERS,
                active: DENSE_PARAMETERS,
                hidden: DENSE_HIDDEN,
                slice: None,
            },
            slice: None,
        });
    }
    let config = built_in::named(name)?;
    let slice = match config.moe_layers().next() {
        Some(_) => Some(slice(name, &config, arguments)?),
        None => None,
    };
    Ok(Model {
        name: name.to_owned(),
        size: ModelSize {
            parameters: config.parameters().total,
            active: multiplied(&config, config.mixture.per_token),
            hidden: config.hidden_size as u64,
            slice: slice.as_ref().map(|slice| slice.size),
        },
        slice,
    })
}

fn slice(name: &str, config: &ModelConfig, arguments: &CompareArguments) -> Result<Slice, Failure> {
    let (experts, groups) = (config.mixture.experts, arguments.groups as usize);
    if !experts.is_multiple_of(groups) {
        return Err(refused(format!(
            "--groups {groups}: a layer of {name} has {experts} experts, which cannot be divided so evenly"
        )));
    }
    let group_experts = experts / groups;
    let trained_experts = group_experts.min(arguments.experts as usize);
    let account = config.parameters();
    let of_all_layers = |experts: usize| {
        let experts = experts as u64 * config.moe_layers().count() as u64;
        account.per_expert.saturating_mul(experts)
    };
    // A token visits trained experts alone: routing is masked.
    let visited = config.mixture.per_token.min(trained_experts);
    let shard = of_all_layers(group_experts);
    Ok(Slice {
        groups,
        group_experts,
        trained_experts,
        planned_bytes: planned_bytes(config, group_experts, trained_experts),
        size: SliceSize {
            groups,
            held: account.backbone + account.shared + shard,
            shard,
            trained: of_all_layers(trained_experts),
            active: multiplied(config, visited),
            active_trained: of_all_layers(visited),
        },
    })
}

/// Parameters that a token is multiplied with if it visits so many routed experts of a layer. An embedding is a
/// table, unless it is the head as well.
fn multiplied(config: &ModelConfig, visited: usize) -> u64 {
    let account = config.parameters();
    let table = if account.head == 0 {
        0
    } else {
        account.embedding
    };
    let experts = visited as u64 * config.moe_layers().count() as u64;
    account.backbone + account.shared - table + account.per_expert.saturating_mul(experts)
}

/// The engine's prediction. Which experts it is makes no difference, only how many.
fn planned_bytes(config: &ModelConfig, held: usize, trained: usize) -> u64 {
    let first = |count: usize| -> ExpertMap {
        let listed = |layer| (layer, (0..count).collect());
        config.moe_layers().map(listed).collect::<BTreeMap<_, _>>()
    };
    let holding = Holding {
        residency: Residency::Slice(first(held)),
        trainable: TrainableSet::experts(first(trained)),
        plan: plan::usual_memory_plan(),
    };
    let step = StepSize {
        tokens: PLANNED_TOKENS.min(config.max_position_embeddings),
        threads: 1,
    };
    MemoryAccount::of_training(config, &holding, step).total()
}

fn refused(why: String) -> Failure {
    Failure::Input(anyhow!("{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::built_in::{DEEPSEEK_V2_LITE, QWEN3_30B_A3B, parse};

    /// Published: 2.66 and 3.35 billion with the input embedding.
    #[test]
    fn a_token_is_multiplied_with_the_active_parameters_but_the_table() {
        let lite = parse(DEEPSEEK_V2_LITE).unwrap();
        assert_eq!(multiplied(&lite, 6), 2_661_150_208 - 209_715_200);
        let qwen = parse(QWEN3_30B_A3B).unwrap();
        assert_eq!(multiplied(&qwen, 8), 3_353_032_704 - 151_936 * 2048);
    }
}
