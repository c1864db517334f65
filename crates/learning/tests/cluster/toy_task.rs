//! The task of the cluster tests: two groups of two toy experts in two layers, all zero, and two
//! domains whose pools share no document.

use connito_engine::data::documents::TokenDocuments;
use connito_learning::backend::{Backend, FixedParts};
use connito_learning::shard::Shard;
use connito_learning::store::{BlobStore, MemoryStore};
use connito_learning::toy::{ToyBackend, expert_names};
use connito_learning::wire;
use connito_protocol::assignment::EVEN_TICKETS;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Netuid, StateId};
use connito_protocol::manifest::{
    Document, Domain, GroupState, ModelParts, StateManifest, TaskManifest,
};
use connito_protocol::partition::{
    Division, ExpertMapping, Inventory, ParameterKeys, Partition, Sizes, Strategy, Uneven,
};
use connito_protocol::rules::{Codec, Rules};

/// Longest sequence of the toy's text, in tokens.
const SEQUENCE_LENGTH: usize = 16;

/// Tickets of the two groups.
pub(crate) const TICKETS: [u16; 2] = [EVEN_TICKETS; 2];

/// Documents in each pool.
const POOL: u32 = 40;

/// Writes the task's blobs and gives its name; cycle 0 begins at block `starts`.
pub(crate) fn publish(store: &MemoryStore, starts: u64, mut rules: Rules) -> BlobId {
    let groups = groups_of(&[2, 2]);
    let first_state = first_state(store, &groups, Cycle(0));
    rules.scoring.sequence_length = SEQUENCE_LENGTH as u32;
    // One number in sixteen is sent, not one in 64: nothing to make up for.
    rules.inner.sparse_gain = 1.0;
    let manifest = TaskManifest {
        format: TaskManifest::FORMAT,
        name: "toy".to_owned(),
        netuid: Netuid(1),
        follows: None,
        starts: Block(starts),
        first_cycle: Cycle(0),
        rules,
        model: ModelParts {
            config: store.write(b"toy").unwrap(),
            tokenizer: store.write(b"none").unwrap(),
            backbone: store.write(b"empty").unwrap(),
        },
        domains: vec![domain(store, "first", 0, 0), domain(store, "second", 1, 1)],
        groups,
        tickets: TICKETS.to_vec(),
        first_state: Some(first_state),
    };
    store.write(&manifest.to_bytes()).unwrap()
}

/// Four experts of each of two layers in groups of these sizes.
pub(crate) fn groups_of(sizes: &[usize]) -> Vec<ExpertMapping> {
    let experts = |layer| (0..4).map(move |expert| (expert, expert_names(layer, expert)));
    let layers = [0, 1].map(|layer| {
        let experts = experts(layer).map(|(expert, names)| (expert, names.into_iter().collect()));
        (layer, experts.collect())
    });
    let inventory = Inventory::new(ParameterKeys::from(layers)).unwrap();
    let division = Division {
        strategy: Strategy::Contiguous,
        sizes: Sizes::Given(sizes.to_vec()),
        uneven: Uneven::Allowed,
    };
    let partition = Partition::divide(&inventory, &division).unwrap();
    partition.into_groups()
}

/// A state of zeros that `cycle` builds on first.
pub(crate) fn first_state(store: &MemoryStore, groups: &[ExpertMapping], cycle: Cycle) -> StateId {
    let mut backend = ToyBackend::default();
    let parts = FixedParts {
        config: &[],
        backbone: &[],
        sequence_length: SEQUENCE_LENGTH,
    };
    backend.open(&parts).unwrap();
    let state = |mapping: &ExpertMapping| {
        let zeros = Shard::zeros(&backend.layout(mapping).unwrap());
        let zeros = wire::encode(&zeros, Codec::F32);
        GroupState {
            group: mapping.group_id,
            shard: store.write(&zeros).unwrap(),
            bytes: zeros.len() as u64,
            momentum: None,
            reference_norm: None,
        }
    };
    let manifest = StateManifest {
        format: StateManifest::FORMAT,
        cycle,
        parent: None,
        archive: None,
        groups: groups.iter().map(state).collect(),
        merged: Vec::new(),
        excluded: std::collections::BTreeMap::new(),
    };
    StateId(store.write(&manifest.to_bytes()).unwrap().0)
}

/// A domain of documents of eight equal tokens; every series and pool has tokens of its own.
pub(crate) fn domain(store: &MemoryStore, name: &str, group: u16, series: u32) -> Domain {
    let pool = |number: u32| {
        let from = (series * 3 + number) * POOL;
        let sequences = (from..from + POOL).map(|id| vec![id; 8]);
        let documents = TokenDocuments::from_sequences(sequences).unwrap();
        store.write(&documents.to_bytes()).unwrap()
    };
    Domain {
        name: name.to_owned(),
        group: GroupId(group),
        training: pool(0),
        scoring: pool(1),
        gate: pool(2),
    }
}
