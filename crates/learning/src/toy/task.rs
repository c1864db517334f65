//! A whole task for the toy model: groups of toy experts that are all zero, and a domain for each group
//! whose pools share no document (P-3, P-4).
//!
//! Inputs are a store and a few sizes. What is published is what an owner publishes, document by
//! document, so that a network of the real role machines finds everything where it expects it.

use std::collections::BTreeMap;

use connito_engine::data::documents::TokenDocuments;
use connito_protocol::assignment::EVEN_TICKETS;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Netuid, StateId};
use connito_protocol::manifest::{
    Document, Domain, GroupState, ModelParts, StateManifest, TaskManifest,
};
use connito_protocol::partition::{
    Division, ExpertMapping, Inventory, ParameterKeys, Partition, Sizes, Strategy, Uneven,
};
use connito_protocol::rules::{Codec, Rules};

use super::{ToyBackend, expert_names};
use crate::backend::{Backend, FixedParts};
use crate::shard::Shard;
use crate::store::BlobStore;
use crate::wire;

/// Longest sequence of the toy's text, in tokens.
const SEQUENCE_LENGTH: u32 = 16;

/// Equal tokens in a toy document.
const DOCUMENT_TOKENS: usize = 8;

/// Layers of the toy model.
const LAYERS: usize = 2;

/// Experts that a group has in each layer.
const EXPERTS_A_GROUP: usize = 2;

/// What a toy task is made of.
#[derive(Debug, Clone)]
pub struct ToyTask {
    /// The first block of cycle 0.
    pub starts: Block,
    /// Groups, each with a domain of its own.
    pub groups: u16,
    /// Documents in each pool of each domain.
    pub documents: u32,
    /// The rules, but for the sequence length, which is the toy's.
    pub rules: Rules,
}

/// Why a toy task could not be published.
#[derive(Debug, thiserror::Error)]
#[error("the toy task cannot be published: {0}")]
pub struct ToyTaskError(String);

impl ToyTask {
    /// Writes the task's blobs and gives its name.
    ///
    /// # Errors
    /// There are no groups or documents, more documents than the toy has tokens for, or the store
    /// cannot be written.
    pub fn publish(&self, store: &impl BlobStore) -> Result<BlobId, ToyTaskError> {
        let groups = self.partition()?;
        let first_state = first_state(store, &groups)?;
        let mut rules = self.rules.clone();
        rules.scoring.sequence_length = SEQUENCE_LENGTH;
        let write = |bytes: &[u8]| store.write(bytes).map_err(told);
        let domains = (0..self.groups).map(|group| self.domain(store, group));
        let manifest = TaskManifest {
            format: TaskManifest::FORMAT,
            name: "toy".to_owned(),
            netuid: Netuid(1),
            follows: None,
            starts: self.starts,
            first_cycle: Cycle(0),
            rules,
            model: ModelParts {
                config: write(b"toy")?,
                tokenizer: write(b"none")?,
                backbone: write(b"empty")?,
            },
            domains: domains.collect::<Result<_, _>>()?,
            tickets: vec![EVEN_TICKETS; groups.len()],
            groups,
            first_state: Some(first_state),
        };
        write(&manifest.to_bytes())
    }

    fn partition(&self) -> Result<Vec<ExpertMapping>, ToyTaskError> {
        let experts = usize::from(self.groups) * EXPERTS_A_GROUP;
        let layers = (0..LAYERS).map(|layer| {
            let named = |expert| expert_names(layer, expert).into_iter().collect();
            (
                layer,
                (0..experts).map(|expert| (expert, named(expert))).collect(),
            )
        });
        let inventory = Inventory::new(layers.collect::<ParameterKeys>()).map_err(told)?;
        let division = Division {
            strategy: Strategy::Contiguous,
            sizes: Sizes::Groups(self.groups),
            uneven: Uneven::Refused,
        };
        let partition = Partition::divide(&inventory, &division).map_err(told)?;
        Ok(partition.into_groups())
    }

    /// Every domain and pool has tokens of its own.
    fn domain(&self, store: &impl BlobStore, group: u16) -> Result<Domain, ToyTaskError> {
        let pool = |number: u32| {
            let from = (u32::from(group) * 3 + number) * self.documents;
            let tokens = from..from + self.documents;
            let sequences = tokens.map(|token| vec![token; DOCUMENT_TOKENS]);
            let documents = TokenDocuments::from_sequences(sequences).map_err(told)?;
            store.write(&documents.to_bytes()).map_err(told)
        };
        Ok(Domain {
            name: format!("domain-{group}"),
            group: GroupId(group),
            training: pool(0)?,
            scoring: pool(1)?,
            gate: pool(2)?,
        })
    }
}

fn first_state(store: &impl BlobStore, groups: &[ExpertMapping]) -> Result<StateId, ToyTaskError> {
    let mut backend = ToyBackend::default();
    let parts = FixedParts {
        config: &[],
        backbone: &[],
        sequence_length: SEQUENCE_LENGTH as usize,
    };
    backend.open(&parts).map_err(told)?;
    let state = |mapping: &ExpertMapping| {
        let zeros = Shard::zeros(&backend.layout(mapping).map_err(told)?);
        let shard = wire::encode(&zeros, Codec::F32);
        Ok(GroupState {
            group: mapping.group_id,
            shard: store.write(&shard).map_err(told)?,
            bytes: shard.len() as u64,
            momentum: None,
            reference_norm: None,
        })
    };
    let manifest = StateManifest {
        format: StateManifest::FORMAT,
        cycle: Cycle(0),
        parent: None,
        archive: None,
        groups: groups.iter().map(state).collect::<Result<_, _>>()?,
        merged: Vec::new(),
        excluded: BTreeMap::new(),
    };
    let id = store.write(&manifest.to_bytes()).map_err(told)?;
    Ok(StateId(id.0))
}

fn told(error: impl std::fmt::Display) -> ToyTaskError {
    ToyTaskError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn what_is_published_is_a_task_that_a_role_works_on() {
        let store = MemoryStore::default();
        let task = ToyTask {
            starts: Block(5),
            groups: 3,
            documents: 20,
            rules: Rules::default(),
        };
        let id = task.publish(&store).unwrap();
        let manifest = TaskManifest::from_bytes(&store.read(id).unwrap()).unwrap();
        manifest.check().unwrap();
        assert_eq!((manifest.groups.len(), manifest.domains.len()), (3, 3));
        let first = manifest.first_state.unwrap().manifest_blob();
        let first = StateManifest::from_bytes(&store.read(first).unwrap()).unwrap();
        assert!(manifest.begins_with(&first));
    }
}
