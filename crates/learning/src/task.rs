//! Taking a model apart into a task's blobs, and putting a state's blobs together into a model.
//!
//! An owner does the first once; anyone can do the second at any time. Joining after splitting gives
//! the same model, bit for bit. Knows no network.

use std::collections::BTreeMap;

use connito_engine::data::documents::TokenDocuments;
use connito_engine::routing::ExpertMap;
use connito_engine::{Model, ModelConfig, Tensor, parse_expert_name};
use connito_protocol::assignment::EVEN_TICKETS;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Netuid, StateId};
use connito_protocol::manifest::{
    Document, Domain, GroupState, ModelParts, StateManifest, TaskManifest,
};
use connito_protocol::partition::{
    Division, ExpertMapping, PartitionError, Sizes, Strategy, Uneven,
};
use connito_protocol::rules::{Codec, Rules};

use crate::engine_backend::backbone_layout;
use crate::expert_manager::ExpertManager;
use crate::shard::{Layout, Shard};
use crate::store::{BlobStore, StoreError};
use crate::wire;

/// Everything that an owner decides.
#[derive(Debug)]
pub struct TaskPlan<'a> {
    /// A name for people.
    pub name: String,
    /// The subnet.
    pub netuid: Netuid,
    /// First block of cycle 0.
    pub starts: Block,
    /// The rules.
    pub rules: Rules,
    /// The model to start from.
    pub model: &'a Model,
    /// Its `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// How many groups to divide the experts into.
    pub groups: u16,
    /// Tickets of each group (P-6); none for even shares.
    pub tickets: Option<Vec<u16>>,
    /// The text of each domain, already in pools.
    pub domains: Vec<DomainText>,
}

/// Where a task stands among those of its network (P-39). The default is the first one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beginning {
    /// The task whose place it takes.
    pub follows: Option<BlobId>,
    /// The number of its first cycle.
    pub first_cycle: Cycle,
}

/// A domain's token documents in three pools that share no document.
#[derive(Debug, Clone)]
pub struct DomainText {
    /// The domain's name.
    pub name: String,
    /// The group that trains on it.
    pub group: GroupId,
    /// What miners train on.
    pub training: TokenDocuments,
    /// What updates are scored on.
    pub scoring: TokenDocuments,
    /// What the gate is measured on.
    pub gate: TokenDocuments,
}

/// Why a task could not be made, or a model not be put together.
#[derive(Debug, thiserror::Error)]
pub enum TaskBlobsError {
    /// The experts cannot be divided like that.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The blob store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is not what the manifest says.
    #[error("{what} {id} cannot be used: {detail}")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// Its name.
        id: BlobId,
        /// What is wrong with it.
        detail: String,
    },
    /// The task breaks a rule.
    #[error("the task cannot be worked on: {0}")]
    Refused(String),
    /// The parts do not make a model.
    #[error("the parts do not make a model")]
    Model(#[source] connito_engine::EngineError),
}

/// Divides a model's experts into groups of consecutive experts; where their number does not divide, the
/// first groups hold one more.
///
/// # Errors
/// No experts, no groups, or more groups than experts.
pub fn partition(config: &ModelConfig, groups: u16) -> Result<Vec<ExpertMapping>, PartitionError> {
    let division = Division {
        strategy: Strategy::Contiguous,
        sizes: Sizes::Groups(groups),
        uneven: Uneven::Allowed,
    };
    let partition = ExpertManager::from_config(config)?.divide(&division)?;
    Ok(partition.into_groups())
}

/// The experts of a group, layer by layer, as its parameter keys name them.
#[must_use]
pub fn experts_of(mapping: &ExpertMapping) -> ExpertMap {
    let mut experts = ExpertMap::new();
    for (layer, expert) in mapping
        .param_keys
        .iter()
        .filter_map(|key| parse_expert_name(key))
    {
        let listed = experts.entry(layer).or_default();
        if !listed.contains(&expert) {
            listed.push(expert);
        }
    }
    experts
        .values_mut()
        .for_each(|listed| listed.sort_unstable());
    experts
}

/// The tensors of a group.
#[must_use]
pub fn split(model: &Model, mapping: &ExpertMapping) -> Shard {
    let of_group = |key: &String| Some((key.clone(), model.tensor(key)?));
    Shard(mapping.param_keys.iter().filter_map(of_group).collect())
}

/// Writes the blobs of a network's first task and gives the name of its manifest.
///
/// # Errors
/// The experts cannot be divided, the rules do not hold, or a blob cannot be written.
pub fn publish(plan: &TaskPlan<'_>, store: &dyn BlobStore) -> Result<BlobId, TaskBlobsError> {
    publish_following(plan, Beginning::default(), store)
}

/// The same for a task that begins later, with the plan's model as its first state.
///
/// # Errors
/// As for [`publish`].
pub fn publish_following(
    plan: &TaskPlan<'_>,
    beginning: Beginning,
    store: &dyn BlobStore,
) -> Result<BlobId, TaskBlobsError> {
    let config = plan.model.config();
    let groups = partition(config, plan.groups)?;
    let even = || vec![EVEN_TICKETS; groups.len()];
    let tickets = plan.tickets.clone().unwrap_or_else(even);
    let shards = groups.iter().map(|mapping| {
        let shard = wire::encode(&split(plan.model, mapping), Codec::F32);
        Ok(GroupState {
            group: mapping.group_id,
            shard: store.write(&shard)?,
            bytes: shard.len() as u64,
            momentum: None,
            reference_norm: None,
        })
    });
    let first_state = StateManifest {
        format: StateManifest::FORMAT,
        cycle: beginning.first_cycle,
        parent: None,
        archive: None,
        groups: shards.collect::<Result<_, StoreError>>()?,
        merged: Vec::new(),
        excluded: BTreeMap::new(),
    };
    let backbone = Shard(
        plan.model
            .names()
            .filter(|name| parse_expert_name(name).is_none())
            .filter_map(|name| Some((name.to_owned(), plan.model.tensor(name)?)))
            .collect(),
    );
    let manifest = TaskManifest {
        format: TaskManifest::FORMAT,
        name: plan.name.clone(),
        netuid: plan.netuid,
        follows: beginning.follows,
        starts: plan.starts,
        first_cycle: beginning.first_cycle,
        rules: plan.rules.clone(),
        model: ModelParts {
            config: store.write(config.to_json().as_bytes())?,
            tokenizer: store.write(plan.tokenizer)?,
            backbone: store.write(&wire::encode(&backbone, Codec::F32))?,
        },
        domains: publish_domains(&plan.domains, store)?,
        groups,
        tickets,
        first_state: Some(StateId(store.write(&first_state.to_bytes())?.0)),
    };
    manifest
        .check()
        .map_err(|error| TaskBlobsError::Refused(error.to_string()))?;
    Ok(store.write(&manifest.to_bytes())?)
}

/// Writes the pools of domains.
///
/// # Errors
/// A blob cannot be written.
pub fn publish_domains(
    texts: &[DomainText],
    store: &dyn BlobStore,
) -> Result<Vec<Domain>, StoreError> {
    let domains = texts.iter().map(|domain| {
        Ok(Domain {
            name: domain.name.clone(),
            group: domain.group,
            training: store.write(&domain.training.to_bytes())?,
            scoring: store.write(&domain.scoring.to_bytes())?,
            gate: store.write(&domain.gate.to_bytes())?,
        })
    });
    domains.collect()
}

/// Reads a task's manifest.
///
/// # Errors
/// It is not in the store or not a task.
pub fn read_task(task: BlobId, store: &dyn BlobStore) -> Result<TaskManifest, TaskBlobsError> {
    TaskManifest::from_bytes(&store.read(task)?)
        .map_err(|error| unusable("task manifest", task, &error))
}

/// Reads a state's manifest.
///
/// # Errors
/// It is not in the store or not a state.
pub fn read_state(state: StateId, store: &dyn BlobStore) -> Result<StateManifest, TaskBlobsError> {
    let id = state.manifest_blob();
    StateManifest::from_bytes(&store.read(id)?)
        .map_err(|error| unusable("state manifest", id, &error))
}

/// Puts a state's shards and the backbone together.
///
/// # Errors
/// A part is missing, or the parts do not make the model that the configuration describes.
pub fn join(
    task: &TaskManifest,
    state: &StateManifest,
    store: &dyn BlobStore,
) -> Result<Model, TaskBlobsError> {
    let config = read_config(task, store)?;
    let backbone = backbone_layout(&config);
    let mut tensors: BTreeMap<String, Tensor> =
        read_tensors(store, ("backbone", task.model.backbone), &backbone)?.0;
    let expected = Model::expected_tensors(&config);
    for (mapping, group) in task.groups.iter().zip(&state.groups) {
        let layout = layout(mapping, &expected);
        tensors.extend(read_tensors(store, ("shard", group.shard), &layout)?.0);
    }
    Model::from_tensors(&config, &tensors).map_err(TaskBlobsError::Model)
}

/// Names and shapes of every group's tensors, from the model's configuration alone.
///
/// # Errors
/// The configuration is not in the store or not one of a model.
pub fn layouts(
    task: &TaskManifest,
    store: &dyn BlobStore,
) -> Result<BTreeMap<GroupId, Layout>, TaskBlobsError> {
    let expected = Model::expected_tensors(&read_config(task, store)?);
    let groups = task.groups.iter();
    let layouts = groups.map(|mapping| (mapping.group_id, layout(mapping, &expected)));
    Ok(layouts.collect())
}

fn layout(mapping: &ExpertMapping, expected: &Layout) -> Layout {
    let shape = |key: &String| Some((key.clone(), expected.get(key)?.clone()));
    mapping.param_keys.iter().filter_map(shape).collect()
}

fn read_config(task: &TaskManifest, store: &dyn BlobStore) -> Result<ModelConfig, TaskBlobsError> {
    let id = task.model.config;
    let json = store.read(id)?;
    let text = std::str::from_utf8(&json).map_err(|error| unusable("config.json", id, &error))?;
    ModelConfig::from_json(text).map_err(|error| unusable("config.json", id, &error))
}

fn read_tensors(
    store: &dyn BlobStore,
    (what, id): (&'static str, BlobId),
    layout: &Layout,
) -> Result<Shard, TaskBlobsError> {
    let bytes = store.read(id)?;
    wire::decode_shard(&bytes, layout).map_err(|error| unusable(what, id, &error))
}

fn unusable(what: &'static str, id: BlobId, error: &dyn std::error::Error) -> TaskBlobsError {
    TaskBlobsError::Unusable {
        what,
        id,
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use connito_protocol::partition::ExpertAssignment;

    use super::*;

    /// What should not happen: that a group is given, in one layer, an expert that it has in another.
    #[test]
    fn a_group_that_varies_from_layer_to_layer_holds_what_its_parameters_say() {
        let config = ModelConfig {
            num_hidden_layers: 3,
            ..ModelConfig::tiny(40)
        };
        let halves = [
            r#"{"1": [[0,0],[1,1],[2,2],[3,3]], "2": [[0,4],[1,5],[2,6],[3,7]]}"#,
            r#"{"1": [[0,4],[1,5],[2,6],[3,7]], "2": [[0,0],[1,1],[2,2],[3,3]]}"#,
        ];
        let lists = halves.map(|text| ExpertAssignment::from_json(text).unwrap());
        let division = Division {
            strategy: Strategy::Explicit(&lists),
            sizes: Sizes::Groups(2),
            uneven: Uneven::Refused,
        };
        let manager = ExpertManager::from_config(&config).unwrap();
        let groups = manager.divide(&division).unwrap().into_groups();
        assert_eq!(groups[0].expert_indices, (0..8).collect::<Vec<_>>());
        let expected = ExpertMap::from([(1, vec![0, 1, 2, 3]), (2, vec![4, 5, 6, 7])]);
        assert_eq!(experts_of(&groups[0]), expected);
    }
}
